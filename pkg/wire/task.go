package wire

import (
	"encoding/json"
	"errors"
	"fmt"
	"unicode/utf8"

	"github.com/wscluster/wscluster/pkg/socketmeta"
)

// Task is the body of a task in the broker. The worker sets the meta from the connection.
type Task struct {
	socketmeta.Meta
	Task      TaskID          `json:"task_id"`
	Kind      string          `json:"kind"`
	Params    json.RawMessage `json:"params,omitempty"`
	Priority  Priority        `json:"priority,omitempty"`
	Subject   string          `json:"subject,omitempty"`
	Submitted Time            `json:"submitted_at"`
	Trace     string          `json:"traceparent,omitempty"` // W3C Trace Context
}

// Priority says which tasks of a kind runners take first. What is not High is Normal: "" too.
type Priority string

// The priorities.
const (
	Normal Priority = "normal"
	High   Priority = "high"
)

// CheckPriority refuses what is no priority.
func CheckPriority(p Priority) error {
	switch p {
	case "", Normal, High:
		return nil
	}
	return fmt.Errorf("priority %.20q must be normal or high", string(p))
}

// EncodeTask returns t as it crosses the broker, or an error for a t that DecodeTask would refuse.
func EncodeTask(t *Task) ([]byte, error) {
	if err := t.check(); err != nil {
		return nil, fmt.Errorf("task: %w", err)
	}
	p, err := marshal(t)
	if err != nil {
		return nil, fmt.Errorf("task: %w", err)
	}
	if err := checkObject(p, MaxTask); err != nil {
		return nil, fmt.Errorf("task: %w", err)
	}
	return p, nil
}

// DecodeTask reads a task that a worker published. It keeps nothing of p. After an error the
// message belongs in the dead queue, with reason bad_body.
func DecodeTask(p []byte) (*Task, error) {
	if err := checkObject(p, MaxTask); err != nil {
		return nil, fmt.Errorf("task: %w", err)
	}
	t := new(Task)
	if err := json.Unmarshal(p, t); err != nil {
		return nil, fmt.Errorf("task: %s", describe(err))
	}
	if err := t.check(); err != nil {
		return nil, fmt.Errorf("task: %w", err)
	}
	return t, nil
}

func (t *Task) check() error {
	if t.Client.IsZero() {
		return fmt.Errorf("client_id: %w: there is none", socketmeta.ErrClientID)
	}
	if _, err := socketmeta.ParseServerID(string(t.Server)); err != nil {
		return fmt.Errorf("server_id: %w", err)
	}
	if _, err := ParseTaskID(string(t.Task)); err != nil {
		return fmt.Errorf("task_id: %w", err)
	}
	if err := CheckKind(t.Kind); err != nil {
		return fmt.Errorf("kind: %w", err)
	}
	if err := CheckPriority(t.Priority); err != nil {
		return err
	}
	switch year := t.Submitted.UTC().Year(); {
	case year < 1 || year > 9999:
		return errors.New("submitted_at is outside the years 1 to 9999 of RFC 3339")
	case t.Epoch < 0 || t.Epoch > MaxNumber:
		return fmt.Errorf("epoch %d is out of range", t.Epoch)
	case t.Params != nil && !isObject(t.Params):
		return errors.New("params must be an object")
	case !utf8.ValidString(t.Subject) || !utf8.ValidString(t.Trace):
		return errors.New("subject and traceparent must be UTF-8")
	}
	return nil
}
