package wire

import (
	"encoding/json"
	"errors"
	"fmt"
	"unicode/utf8"
)

// Channel names a channel: 1 to MaxChannel bytes of [A-Za-z0-9_.-], the first a letter or a digit. It is the
// routing key of its messages.
type Channel string

// The channels that the cluster itself publishes to.
const (
	ChannelWorkflows Channel = "workflows" // Workflow: the updates of all
	ChannelEngine    Channel = "engine"    // Engine: how workers, runners and queues stand

	prefixWorkflow = "workflow." // Workflow: the updates of one
)

// WorkflowChannel is the channel of one workflow's updates.
func WorkflowChannel(t TaskID) Channel { return Channel(prefixWorkflow + string(t)) }

// ParseChannel checks s and wraps ErrID if it is not the name of a channel.
func ParseChannel(s string) (Channel, error) {
	if s == "" || len(s) > MaxChannel || s[0] == '_' || s[0] == '.' || s[0] == '-' {
		return "", fmt.Errorf("%w: channel %.80q must have 1 to %d bytes of [A-Za-z0-9_.-] and start with a letter or a digit", ErrID, s, MaxChannel)
	}
	for i := range len(s) {
		switch c := s[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '_', c == '.', c == '-':
		default:
			return "", fmt.Errorf("%w: channel %.80q holds a byte outside [A-Za-z0-9_.-]", ErrID, s)
		}
	}
	return Channel(s), nil
}

// Post is one message of a channel. Channels are at-most-once: a subscriber that does not keep up, or is
// away, misses some and is told so.
//
// (Publisher, Stream) is one counter of one publisher for this channel: Seq rises by one from 1, so that a hole
// in it is a loss. A publisher that starts again, or forgets its counter, begins a new Stream. A post
// of a publisher that does not count has none of the three.
type Post struct {
	Channel   Channel         `json:"channel"`
	Name      string          `json:"name,omitempty"`      // what Body is, at most MaxID bytes of [A-Za-z0-9_.-]
	Publisher string          `json:"publisher,omitempty"` // at most MaxID bytes of the same: a server ID, a runner's name, or what it calls itself
	Stream    RunID           `json:"stream,omitempty"`
	Seq       int64           `json:"seq,omitempty"`
	Key       string          `json:"key,omitempty"` // at most MaxChannel bytes: of the posts with one key only the latest is kept for a snapshot; "" keeps all
	Time      Time            `json:"time"`
	Body      json.RawMessage `json:"body"` // any JSON value, at most MaxPost bytes
}

// Check reports what is wrong with p.
func (p *Post) Check() error {
	if _, err := ParseChannel(string(p.Channel)); err != nil {
		return err
	}
	counted := p.Publisher != "" || p.Stream != "" || p.Seq != 0
	switch {
	case len(p.Name) > MaxID || !isPlain(p.Name):
		return fmt.Errorf("name %.80q must have at most %d bytes of [A-Za-z0-9_.-]", p.Name, MaxID)
	case len(p.Key) > MaxChannel || !utf8.ValidString(p.Key):
		return fmt.Errorf("key %.80q must have at most %d bytes of UTF-8", p.Key, MaxChannel)
	case len(p.Publisher) > MaxID || !isPlain(p.Publisher):
		return fmt.Errorf("publisher %.80q must have at most %d bytes of [A-Za-z0-9_.-]", p.Publisher, MaxID)
	case counted && (p.Publisher == "" || p.Seq < 1 || p.Seq > MaxNumber):
		return errors.New("publisher, stream and seq come together, and seq counts from 1")
	case len(p.Body) > MaxPost:
		return fmt.Errorf("body: %w: it has %d bytes and may have %d", ErrTooLarge, len(p.Body), MaxPost)
	case !utf8.Valid(p.Body) || !json.Valid(p.Body):
		return errors.New("body is not JSON")
	}
	if counted {
		if _, err := ParseRunID(string(p.Stream)); err != nil {
			return fmt.Errorf("stream: %w", err)
		}
	}
	return nil
}

// isPlain reports whether s has no byte outside [A-Za-z0-9_.-]. It may be empty.
func isPlain(s string) bool {
	for i := range len(s) {
		switch c := s[i]; {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '_', c == '.', c == '-':
		default:
			return false
		}
	}
	return true
}

// Workflow is the body of the posts on workflow.<id> and workflows: how a task stands. Its key is the
// task's ID.
type Workflow struct {
	WorkflowID  TaskID         `json:"workflow_id"`
	Kind        string         `json:"kind"`
	Status      WorkflowStatus `json:"status"`
	CurrentStep uint32         `json:"current_step"`
	TotalSteps  uint32         `json:"total_steps"` // 0 if not known
	Message     string         `json:"message"`     // for people: what the status means
	Timestamp   Time           `json:"timestamp"`
}

// WorkflowStatus is how a workflow stands.
type WorkflowStatus string

// The statuses of a workflow. The last three are final.
const (
	WorkflowQueued    WorkflowStatus = "queued"    // accepted; it waits for a task runner
	WorkflowRunning   WorkflowStatus = "running"   // a task runner works on it
	WorkflowSucceeded WorkflowStatus = "succeeded" // it ended with a result
	WorkflowFailed    WorkflowStatus = "failed"    // it ended with an error
	WorkflowCanceled  WorkflowStatus = "canceled"  // it ended because its client asked for it
)

// Engine is the body of the posts on the channel engine: the cluster as one worker sees it.
type Engine struct {
	Server    string         `json:"server_id"` // who says so
	Broker    EngineBroker   `json:"broker"`
	Workers   []EngineWorker `json:"workers"`
	Runners   []EngineRunner `json:"runners"`
	Queues    []EngineQueue  `json:"queues"`
	Timestamp Time           `json:"timestamp"`
}

// EngineBroker is the link of the worker that says so.
type EngineBroker struct {
	Connected bool `json:"connected"`
	Blocked   bool `json:"blocked"` // it takes no publishes: an alarm
}

// EngineWorker is one worker of Engine.
type EngineWorker struct {
	Server      string `json:"server_id"`
	Ready       bool   `json:"ready"`
	Connections int    `json:"connections"`
	Sessions    int    `json:"sessions"`
	Channels    int    `json:"channels"` // with a subscriber there
	Started     Time   `json:"started_at"`
	Seen        Time   `json:"seen_at"`
}

// EngineRunner is one task runner of Engine.
type EngineRunner struct {
	Runner  string   `json:"runner"`
	Slots   int      `json:"slots"`
	Running int      `json:"running"`
	Kinds   []string `json:"kinds"`
	Seen    Time     `json:"seen_at"`
}

// EngineQueue is how many tasks of a kind wait.
type EngineQueue struct {
	Kind    string `json:"kind"`
	Waiting int    `json:"waiting"`
}
