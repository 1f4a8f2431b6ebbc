package wire

import (
	"encoding/json"

	"github.com/wscluster/wscluster/pkg/socketmeta"
)

// EventType is one of the closed list below.
type EventType string

// The events of a task. All but progress and log are durable: the delivery guarantee holds for them. A log
// event is a live copy of lines that LogRead gets from the runner's disk; from a runner that has none it
// is durable. A plain event is durable whatever its type.
const (
	EventStarted  EventType = "started"  // Started: a runner took the task
	EventStep     EventType = "step"     // Update: a step began or ended
	EventProgress EventType = "progress" // Update: transient, the latest wins
	EventLog      EventType = "log"      // Log: numbered lines of output; transient where the runner keeps them
	EventArtifact EventType = "artifact" // Artifact: something the task made
	EventResult   EventType = "result"   // Result: the task succeeded; final
	EventError    EventType = "error"    // Failure: the task failed; final
	EventGap      EventType = "gap"      // Gap: events that will not come; final if the last of them was
)

// Known reports whether t is in the closed list.
func (t EventType) Known() bool {
	switch t {
	case EventStarted, EventStep, EventProgress, EventLog, EventArtifact, EventResult, EventError, EventGap:
		return true
	}
	return false
}

// Event is one event of a task on its way from a runner to a client. Its numbers travel beside
// its body (in AMQP headers, see Headers), so that a worker forwards the body as it is.
//
// (Attempt, Run) order the runs of a task: the higher one resets the client's view. Seq counts a
// run's events from 1; Prev is the Seq of the durable event before this one, 0 if there is none.
// An event is next in order when its Prev is lower than the client's Next.
//
// A plain event, from a publisher that is not ours, has no numbers (Seq 0) until a worker gives it
// some, in Attempt 0; it may have no Run even then.
type Event struct {
	Client  socketmeta.ClientID
	Task    TaskID
	Attempt int
	Run     RunID
	Seq     int64
	Prev    int64
	Type    EventType
	Durable bool
	Last    bool // the final event of the task
	Epoch   socketmeta.Epoch
	Home    socketmeta.ServerID // where the task was submitted
	Hops    int                 // how often a worker has passed it on to another
	Body    json.RawMessage     // one JSON object
}

// Position returns where a client stands that has this event and all before it.
func (e *Event) Position() Position {
	return Position{Task: e.Task, Attempt: e.Attempt, Run: e.Run, Next: e.Seq + 1}
}

// Started is the body of a started event.
type Started struct {
	Kind       string `json:"kind"`
	Runner     string `json:"runner"`
	TotalSteps uint32 `json:"total_steps"`
	Timestamp  Time   `json:"timestamp"`
}

// Update is the body of step and progress events. A workflow is what this project calls a task.
type Update struct {
	WorkflowID  TaskID       `json:"workflow_id"`
	Status      UpdateStatus `json:"status"`
	CurrentStep uint32       `json:"current_step"` // in a step event: which step, from 1; in progress: units done
	TotalSteps  uint32       `json:"total_steps"`  // 0 if not known
	Message     string       `json:"message"`
	Timestamp   Time         `json:"timestamp"`
}

// UpdateStatus is the status of an Update.
type UpdateStatus string

// The statuses of a step. Progress is always StatusRunning.
const (
	StatusRunning   UpdateStatus = "running"
	StatusSucceeded UpdateStatus = "succeeded"
	StatusFailed    UpdateStatus = "failed"
)

// Log is the body of a log event: consecutive lines of the task's output, without line ends.
// Lines are valid UTF-8 (other bytes are replaced by U+FFFD) and keep their terminal escapes.
type Log struct {
	FirstLine int64    `json:"first_line"` // from 1
	Lines     []string `json:"lines"`
	Missing   int64    `json:"missing_lines,omitempty"` // instead of Lines, from a client's own library: so many cannot be had any more
}

// Artifact is the body of an artifact event. It tells of a thing; it does not carry it.
type Artifact struct {
	Name        string `json:"name"`
	ContentType string `json:"content_type"`
	SizeBytes   int64  `json:"size_bytes"`
	SHA256      string `json:"sha256"` // lower-case hex
}

// Result is the body of a result event.
type Result struct {
	Value      json.RawMessage `json:"value"`                       // the handler's own
	LastLine   int64           `json:"last_line"`                   // of the log; 0 if it has none
	LogDropped int64           `json:"log_dropped_bytes,omitempty"` // of output that is not in the log
	Timestamp  Time            `json:"timestamp"`
}

// Failure is the body of an error event.
type Failure struct {
	Error
	LastLine   int64 `json:"last_line"`
	LogDropped int64 `json:"log_dropped_bytes,omitempty"`
	Timestamp  Time  `json:"timestamp"`
}

// Gap is the body of a gap event, which stands in for the durable events FromSeq to the gap's own
// Seq of its run. They lie in the dead queue, with the same reason.
type Gap struct {
	FromSeq   int64     `json:"from_seq"`
	Reason    GapReason `json:"reason"`
	Timestamp Time      `json:"timestamp"` // when they were given up
}

// GapReason says why events were given up.
type GapReason string

// The reasons of a gap.
const (
	GapExpired GapReason = "expired" // the client was away for longer than the resume window
	GapCaps    GapReason = "caps"    // more waited for the client than may be kept for one
)
