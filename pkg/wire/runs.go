package wire

import (
	"cmp"
	"errors"
	"fmt"

	"github.com/wscluster/wscluster/pkg/socketmeta"
)

// RunInfo is what a runner has of one run of a task. Of the runs of a task the one with the highest
// (Attempt, Run) says how the task stands.
type RunInfo struct {
	Task        TaskID    `json:"task_id"`
	Kind        string    `json:"kind"`
	Status      RunStatus `json:"status"`
	Attempt     int       `json:"attempt"`
	Run         RunID     `json:"run_id"`
	Runner      string    `json:"runner"` // who has the run, its log too: by its name of now, if it was renamed
	Submitted   Time      `json:"submitted_at"`
	Started     Time      `json:"started_at"`
	Ended       *Time     `json:"ended_at,omitempty"` // of a run that has ended
	CurrentStep uint32    `json:"current_step"`
	TotalSteps  uint32    `json:"total_steps"` // 0 if not known
	LastLine    int64     `json:"last_line"`   // of its log
	LogBytes    int64     `json:"log_bytes"`   // of it on the runner's disk, a line's end being one byte
	LogDropped  int64     `json:"log_dropped_bytes,omitempty"`
	Error       *Error    `json:"error,omitempty"` // of one that failed
}

// RunStatus is how a run stands.
type RunStatus string

// The statuses of a run.
const (
	RunRunning   RunStatus = "running"
	RunSucceeded RunStatus = "succeeded"
	RunFailed    RunStatus = "failed"
	RunGivenUp   RunStatus = "given_up" // it did not come to an end: another attempt follows, or has
)

// Compare orders runs of one task: the later one is higher.
func (r *RunInfo) Compare(o *RunInfo) int {
	return cmp.Or(cmp.Compare(r.Attempt, o.Attempt), cmp.Compare(r.Run, o.Run))
}

// MinLogChunk is the least that a ReadLog may ask for, in bytes: any line fits.
const MinLogChunk = 32 << 10

// FindRuns asks runners what they have of a client's tasks. Each one answers with RunsFound.
type FindRuns struct {
	From   socketmeta.ServerID `json:"from"` // the worker that asks
	Ask    RunID               `json:"ask"`  // names the question
	Client socketmeta.ClientID `json:"client_id"`
	Task   TaskID              `json:"task_id,omitempty"` // of this task only, all its runs; else the latest run of each
	Before Time                `json:"before"`            // of those submitted before; zero for no bound
	Limit  int                 `json:"limit"`             // 1 to MaxRuns: the latest submitted
}

// RunsFound answers FindRuns: the latest submitted first.
type RunsFound struct {
	Ask    RunID     `json:"ask"`
	Runner string    `json:"runner"`
	Runs   []RunInfo `json:"runs"`
	More   bool      `json:"more"` // there are others, submitted earlier
}

// ReadLog asks a runner for a piece of a run's log. It answers with LogChunk.
type ReadLog struct {
	From   socketmeta.ServerID `json:"from"`
	Ask    RunID               `json:"ask"`
	Client socketmeta.ClientID `json:"client_id"` // whose task it must be
	Task   TaskID              `json:"task_id"`
	Run    RunID               `json:"run_id,omitempty"` // the latest of the runner's if left out
	Line   int64               `json:"line"`             // from this line on, counted from 1; 0: by Offset
	Offset int64               `json:"offset"`           // from this byte on
	Max    int64               `json:"max_bytes"`        // MinLogChunk to MaxLogChunk
}

// LogChunk answers ReadLog. Where a Line was asked for, Data is whole lines, each with its end (\n); there
// are none if the log has not come that far.
type LogChunk struct {
	Ask     RunID  `json:"ask"`
	Runner  string `json:"runner"`
	Missing bool   `json:"missing,omitempty"` // the runner has no such log: all that follows is zero
	Attempt int    `json:"attempt"`
	Run     RunID  `json:"run_id"`
	Line    int64  `json:"line"` // of the first byte, as it was asked for
	Offset  int64  `json:"offset"`
	Data    []byte `json:"data"`
	Lines   int64  `json:"lines"` // that the log has
	Size    int64  `json:"size_bytes"`
	Ended   bool   `json:"ended"` // nothing will be added
}

func (*FindRuns) ControlType() string  { return "runs_find" }
func (*RunsFound) ControlType() string { return "runs_found" }
func (*ReadLog) ControlType() string   { return "log_read" }
func (*LogChunk) ControlType() string  { return "log_chunk" }

func (m *FindRuns) check() error {
	if err := checkAsk(m.From, m.Ask, m.Client); err != nil {
		return err
	}
	if m.Task != "" {
		if err := checkTaskID(m.Task); err != nil {
			return err
		}
	}
	if m.Limit < 1 || m.Limit > MaxRuns {
		return fmt.Errorf("limit %d must be 1 to %d", m.Limit, MaxRuns)
	}
	return nil
}

func (m *RunsFound) check() error {
	if len(m.Runs) > MaxRuns {
		return fmt.Errorf("it has %d runs and may have %d", len(m.Runs), MaxRuns)
	}
	for i, r := range m.Runs {
		if err := checkRun(r.Task, r.Run); err != nil {
			return fmt.Errorf("runs[%d].%w", i, err)
		}
	}
	return checkAnswer(m.Ask, m.Runner)
}

func (m *ReadLog) check() error {
	if err := checkAsk(m.From, m.Ask, m.Client); err != nil {
		return err
	}
	if err := checkTaskID(m.Task); err != nil {
		return err
	}
	if _, err := ParseRunID(string(m.Run)); m.Run != "" && err != nil {
		return fmt.Errorf("run_id: %w", err)
	}
	switch {
	case m.Line < 0 || m.Line > MaxNumber || m.Offset < 0 || m.Offset > MaxNumber:
		return errors.New("line or offset is out of range")
	case m.Max < MinLogChunk || m.Max > MaxLogChunk:
		return fmt.Errorf("max_bytes %d must be %d to %d", m.Max, MinLogChunk, MaxLogChunk)
	}
	return nil
}

func (m *LogChunk) check() error {
	if len(m.Data) > MaxLogChunk {
		return fmt.Errorf("data: %w: it has %d bytes and may have %d", ErrTooLarge, len(m.Data), MaxLogChunk)
	}
	if m.Line < 0 || m.Offset < 0 || m.Lines < 0 || m.Size < 0 {
		return errors.New("a number is negative")
	}
	return checkAnswer(m.Ask, m.Runner)
}

func checkRun(t TaskID, r RunID) error {
	if err := checkTaskID(t); err != nil {
		return err
	}
	if _, err := ParseRunID(string(r)); err != nil {
		return fmt.Errorf("run_id: %w", err)
	}
	return nil
}

func checkAsk(from socketmeta.ServerID, ask RunID, client socketmeta.ClientID) error {
	if err := checkFrom(from, 1); err != nil {
		return err
	}
	if _, err := ParseRunID(string(ask)); err != nil {
		return fmt.Errorf("ask: %w", err)
	}
	if client.IsZero() {
		return fmt.Errorf("client_id: %w: there is none", socketmeta.ErrClientID)
	}
	return nil
}

func checkAnswer(ask RunID, runner string) error {
	if _, err := ParseRunID(string(ask)); err != nil {
		return fmt.Errorf("ask: %w", err)
	}
	return CheckRunner(runner)
}

// CheckRunner wraps ErrID unless name can be a runner's.
func CheckRunner(name string) error {
	if CheckKind(name) != nil { // a runner's name has the letters of a kind
		return fmt.Errorf("%w: runner %.80q must have 1 to %d bytes of [a-z0-9-]", ErrID, name, MaxID)
	}
	return nil
}
