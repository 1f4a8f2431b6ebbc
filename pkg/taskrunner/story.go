package taskrunner

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/wscluster/wscluster/pkg/wire"
)

const (
	logDelay      = 100 * time.Millisecond // a line waits no longer for others before it is an event
	progressEvery = 100 * time.Millisecond // between two progress events
	maxText       = 4 << 10                // bytes of a step's name, a progress message or an error's text
)

// keeper keeps a run where it can be read again: the lines of its log, and how it stands. The story calls it before
// the event that tells the same is in the outbox, so who has the event reads nothing older.
type keeper interface {
	append(lines []string, must bool) bool // reports whether they are kept; with must that is so beyond its limit
	numbers() (size, lines, dropped int64) // the bytes and lines that are kept, and the bytes that are not
	step(current, total uint32)
	end(status wire.RunStatus, fault *wire.Error, now time.Time)
}

// A run tells at most liveBurst bytes of kept lines at once, and liveRate a second. What is beyond that is
// read by who looks at it.
const (
	liveRate  = 4 << 20
	liveBurst = 1 << 20
)

// budget is bytes that may be told, which come back at liveRate up to liveBurst.
type budget struct {
	spent float64
	at    time.Time
}

// take reports whether n bytes may be told now.
func (b *budget) take(n int, now time.Time) bool {
	b.spent = max(0, b.spent-now.Sub(b.at).Seconds()*liveRate)
	b.at = now
	if b.spent+float64(n) > liveBurst {
		return false
	}
	b.spent += float64(n)
	return true
}

// story is what one run tells: it turns what a handler says into numbered events in an outbox.
// It is pure, down to the clock, which every call is given.
type story struct {
	task    *wire.Task
	attempt int
	run     wire.RunID
	runner  string

	out       outbox
	seq, prev int64

	step, steps uint32 // steps is never lower than step
	stepName    string

	lines    lines
	lastLine int64
	logDue   time.Time // when the whole lines must become an event; zero if there are none
	kept     keeper    // nil if nobody keeps the run: then log events are durable
	live     budget    // of the log events of kept lines

	progress    *wire.Update // the latest, not yet told
	progressDue time.Time    // when the next may be told

	watch func(*wire.Workflow) // is told how the task stands; must not block; nil for nobody

	over  bool        // the final event is in the outbox
	fault *wire.Error // and it is this error
}

func (s *story) started(steps uint32, now time.Time) error {
	s.steps = steps
	s.keepStep()
	s.tellRunning("", now)
	return s.tell(wire.EventStarted, wire.Started{Kind: s.task.Kind, Runner: s.runner, TotalSteps: steps, Timestamp: wire.Time{Time: now}})
}

// begin ends the step of now as succeeded and begins the next.
func (s *story) begin(name string, now time.Time) error {
	if err := s.endStep(wire.StatusSucceeded, now); err != nil {
		return err
	}
	s.step++
	s.steps = max(s.steps, s.step)
	s.stepName = clip(name)
	s.keepStep()
	s.tellRunning("", now)
	return s.tellStep(wire.StatusRunning, now)
}

func (s *story) keepStep() {
	if s.kept != nil {
		s.kept.step(s.step, s.steps)
	}
}

func (s *story) endStep(status wire.UpdateStatus, now time.Time) error {
	if err := errors.Join(s.tellLines(false, now), s.tellProgress(now)); err != nil || s.step == 0 {
		return err
	}
	return s.tellStep(status, now)
}

func (s *story) tellStep(status wire.UpdateStatus, now time.Time) error {
	return s.tell(wire.EventStep, s.update(status, s.step, s.steps, s.stepName, now))
}

func (s *story) update(status wire.UpdateStatus, current, total uint32, message string, now time.Time) *wire.Update {
	return &wire.Update{WorkflowID: s.task.Task, Status: status, CurrentStep: current, TotalSteps: total, Message: clip(message), Timestamp: wire.Time{Time: now}}
}

// write takes output and returns how much of p it took: less than all means that it filled a
// batch, which is an event now.
func (s *story) write(p []byte, now time.Time) (int, error) {
	n := s.lines.write(p)
	if s.lines.full() {
		return n, s.tellLines(false, now)
	}
	if len(s.lines.whole) > 0 && s.logDue.IsZero() {
		s.logDue = now.Add(logDelay)
	}
	return n, nil
}

// tellLines keeps the whole lines, and tells them to who looks now. Lines that are not kept have no number.
func (s *story) tellLines(last bool, now time.Time) error {
	s.logDue = time.Time{}
	size := s.lines.size
	taken := s.lines.take(last)
	if len(taken) == 0 || s.kept != nil && !s.kept.append(taken, false) {
		return nil
	}
	return s.tellLog(taken, s.kept == nil || s.live.take(size, now))
}

func (s *story) tellLog(lines []string, aloud bool) error {
	first := s.lastLine + 1
	s.lastLine += int64(len(lines))
	if !aloud {
		return nil
	}
	return s.tell(wire.EventLog, wire.Log{FirstLine: first, Lines: lines})
}

// tellDropped ends a log that lacks something with a line that says so, and returns how many bytes it lacks.
func (s *story) tellDropped() (dropped int64, err error) {
	if s.kept == nil {
		return 0, nil
	}
	if _, _, dropped = s.kept.numbers(); dropped == 0 {
		return 0, nil
	}
	notice := []string{fmt.Sprintf("[%d bytes of output are not in this log: it has reached its limit, or the runner's disk took no more]", dropped)}
	if s.kept.append(notice, true) {
		err = s.tellLog(notice, true)
	}
	return dropped, err
}

func (s *story) tellProgress(now time.Time) error {
	p := s.progress
	if p == nil {
		return nil
	}
	s.progress, s.progressDue = nil, now.Add(progressEvery)
	s.tellRunning(howFar(p), now)
	return s.tell(wire.EventProgress, p)
}

// tick tells what is due at now, and returns when it must be called again; zero if nothing waits
// for time alone.
func (s *story) tick(now time.Time) (due time.Time, err error) {
	if !s.logDue.IsZero() && !now.Before(s.logDue) {
		err = s.tellLines(false, now)
	}
	if s.progress != nil && !s.out.unsent() && !now.Before(s.progressDue) {
		err = errors.Join(err, s.tellProgress(now))
	}
	due = s.logDue
	if s.progress != nil && now.Before(s.progressDue) && (due.IsZero() || s.progressDue.Before(due)) {
		due = s.progressDue
	}
	return due, err
}

// end tells what is left and the final event: the result if fault is nil. A result that cannot be
// an event ends the task as failed instead.
func (s *story) end(result any, fault *wire.Error, now time.Time) error {
	err := s.tellLines(true, now)
	dropped, droppedErr := s.tellDropped()
	err = errors.Join(err, droppedErr)
	value, marshalErr := json.Marshal(result)
	if fault == nil && marshalErr != nil {
		fault = refusal(wire.CodeInternal, "the task's result cannot be written as JSON")
		err = errors.Join(err, fmt.Errorf("result: %w", marshalErr))
	}
	// The final event must fit before the step may end as succeeded.
	if fault == nil && len(value) > wire.MaxEvent-eventOverhead {
		fault = refusal(wire.CodeOutputLimit, fmt.Sprintf("the task's result has %d bytes; at most %d fit", len(value), wire.MaxEvent-eventOverhead))
	}
	status := wire.StatusSucceeded
	if fault != nil {
		status = wire.StatusFailed
	}
	err = errors.Join(err, s.endStep(status, now))
	if fault != nil {
		clipped := *fault
		clipped.Message = clip(clipped.Message)
		s.fault = &clipped
	}
	s.keepEnd(now)
	s.tellEnd(now)
	if s.fault == nil {
		err = errors.Join(err, s.tell(wire.EventResult, wire.Result{Value: value, LastLine: s.lastLine, LogDropped: dropped, Timestamp: wire.Time{Time: now}}))
	} else {
		err = errors.Join(err, s.tell(wire.EventError, wire.Failure{Error: *s.fault, LastLine: s.lastLine, LogDropped: dropped, Timestamp: wire.Time{Time: now}}))
	}
	s.over = true
	return err
}

func (s *story) keepEnd(now time.Time) {
	switch {
	case s.kept == nil:
	case s.fault == nil:
		s.kept.end(wire.RunSucceeded, nil, now)
	default:
		s.kept.end(wire.RunFailed, s.fault, now)
	}
}

// tell numbers an event and puts it into the outbox. An error means that the event is too large,
// or no object: nothing was told.
func (s *story) tell(typ wire.EventType, body any) error {
	encoded, err := wire.Body(s.task.Client, body)
	if err != nil {
		return fmt.Errorf("%s event: %w", typ, err)
	}
	s.seq++
	e := &wire.Event{Seq: s.seq, Prev: s.prev, Type: typ, Body: encoded}
	s.sign(e)
	if e.Durable {
		s.prev = s.seq
	}
	s.out.add(e)
	return nil
}

// sign sets what all events of the run have, and what follows from e's type.
func (s *story) sign(e *wire.Event) {
	e.Client, e.Task, e.Epoch, e.Home = s.task.Client, s.task.Task, s.task.Epoch, s.task.Server
	e.Attempt, e.Run = s.attempt, s.run
	e.Durable = e.Type != wire.EventProgress && (e.Type != wire.EventLog || s.kept == nil)
	e.Last = e.Type == wire.EventResult || e.Type == wire.EventError
}

// refusal is an error of the closed list.
func refusal(code wire.Code, message string) *wire.Error {
	return &wire.Error{Code: code, Message: message, Retryable: code.Retryable()}
}

// clip makes text valid UTF-8 of at most maxText bytes.
func clip(text string) string { return clipTo(text, maxText) }

// clipTo makes text valid UTF-8 of at most limit bytes.
func clipTo(text string, limit int) string {
	if len(text) > limit {
		text = text[:limit]
	}
	return strings.ToValidUTF8(text, "")
}
