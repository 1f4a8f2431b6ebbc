package wire

import (
	"encoding/json"
	"errors"
	"fmt"
)

// final reports whether an event of type t ends its task.
func (t EventType) final() bool { return t == EventResult || t == EventError }

// checkName says what is wrong with an event's task or type.
func (e *Event) checkName() error {
	if _, err := ParseTaskID(string(e.Task)); err != nil {
		return fmt.Errorf("task_id: %w", err)
	}
	if !e.Type.Known() {
		return fmt.Errorf("type %.64q is not one of started, step, progress, log, artifact, result, error, gap", e.Type)
	}
	return nil
}

// check says what is wrong with a numbered event. Run is empty only in attempt 0: a plain event
// that a worker numbered.
func (e *Event) check() error {
	if err := e.checkName(); err != nil {
		return err
	}
	if e.Run != "" || e.Attempt != 0 {
		if _, err := ParseRunID(string(e.Run)); err != nil {
			return fmt.Errorf("run_id: %w", err)
		}
	}
	switch {
	case e.Attempt < 0 || e.Attempt > MaxNumber:
		return fmt.Errorf("attempt %d is out of range", e.Attempt)
	case e.Seq < 1 || e.Seq > MaxNumber:
		return fmt.Errorf("seq %d is out of range: the first event of a run is 1", e.Seq)
	case e.Prev < 0 || e.Prev >= e.Seq:
		return fmt.Errorf("prev %d must be 0 or an earlier seq than %d", e.Prev, e.Seq)
	case e.Last != e.Type.final() && e.Type != EventGap:
		return fmt.Errorf("last is %t in an event of type %s", e.Last, e.Type)
	case e.Last && !e.Durable:
		return errors.New("the last event must be durable")
	case e.Type == EventGap && !e.Durable:
		return errors.New("a gap must be durable")
	case !isObject(e.Body):
		return errors.New("body must be an object")
	case len(e.Body) > MaxEvent:
		return fmt.Errorf("body: %w: it has %d bytes and may have %d", ErrTooLarge, len(e.Body), MaxEvent)
	case e.Type == EventGap:
		return e.checkGap()
	}
	return nil
}

// checkGap says what is wrong with the body of a gap.
func (e *Event) checkGap() error {
	var g Gap
	if err := json.Unmarshal(e.Body, &g); err != nil {
		return fmt.Errorf("body of a gap: %s", describe(err))
	}
	if g.FromSeq <= e.Prev || g.FromSeq > e.Seq {
		return fmt.Errorf("body of a gap: from_seq %d must be over prev %d and at most seq %d", g.FromSeq, e.Prev, e.Seq)
	}
	return nil
}
