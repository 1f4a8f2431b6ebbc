package wsclient

import (
	"context"
	"encoding/json"
	"fmt"
	"iter"

	"github.com/wscluster/wscluster/pkg/wire"
)

// Task is one submitted task. Its methods are safe for concurrent use.
type Task struct {
	c      *Client
	id     wire.TaskID
	submit wire.Submit // what it is asked for with

	wake  chan struct{} // cap 1: there is an event to take
	taker chan struct{} // cap 1: holds a token while somebody takes the events
	over  chan struct{} // closed when the task is over; value and err may be read then
	value json.RawMessage
	err   error

	sent     bool // guarded by c.mu: the cluster may have it
	accepted bool // guarded by c.mu
	position *int // guarded by c.mu

	cancel *cancel // guarded by c.mu: the application wants it to end, and the cluster does not know yet
}

// begin opens a task at p. Guarded by c.mu.
func (c *Client) begin(p wire.Position, submit wire.Submit) *Task {
	t := &Task{
		c: c, id: p.Task, submit: submit,
		wake: make(chan struct{}, 1), taker: make(chan struct{}, 1), over: make(chan struct{}),
	}
	if c.o.OnEvent != nil {
		t.taker <- struct{}{} // the reader takes them all
	}
	c.in.begin(p)
	c.tasks[p.Task] = t
	return t
}

// ID returns the task's ID.
func (t *Task) ID() wire.TaskID { return t.id }

// Kind returns the task's kind.
func (t *Task) Kind() string { return t.submit.Kind }

// QueuePosition returns how many tasks were ahead when this one was accepted, roughly; false if
// the server did not say.
func (t *Task) QueuePosition() (int, bool) {
	t.c.mu.Lock()
	defer t.c.mu.Unlock()
	if t.position == nil {
		return 0, false
	}
	return *t.position, true
}

// Done is closed when the task is over: the application had its final event, or nothing more of
// it will come.
func (t *Task) Done() <-chan struct{} { return t.over }

// Events yields the task's events from where the application stands, each one once. The
// application is done with an event when it asks for the next one or leaves the loop; an event
// whose loop body panics is yielded again to the next loop. It ends after the final event, when
// ctx ends, or when Run has returned and nothing is left: Wait tells which.
//
// One loop takes the events at a time; a second one waits until the first ends. With
// Options.OnEvent there is nothing to yield: it waits for the end of the task.
func (t *Task) Events(ctx context.Context) iter.Seq[Event] {
	return func(yield func(Event) bool) {
		select {
		case t.taker <- struct{}{}:
			defer func() { <-t.taker }()
		case <-t.over:
			return
		case <-t.c.done:
			return
		case <-ctx.Done():
			return
		}
		for {
			e, ok := t.c.take(t)
			if ok {
				more := yield(e)
				t.c.took(t, &e)
				if !more || e.Last {
					return
				}
				continue
			}
			select {
			case <-t.wake:
			case <-t.over:
				return
			case <-t.c.done:
				return
			case <-ctx.Done():
				return
			}
		}
	}
}

// Wait blocks until the task is over and returns the value of its result. Events that nobody has
// taken, it takes and drops. A task that failed gives a *wire.Error with its code; one whose end
// was given up in a gap, ErrEndMissed. Other errors say that nothing more is known: ctx's,
// ErrStopped or what Run returned.
//
// To see the events in one goroutine while another one waits, start the loop over Events first,
// or use Options.OnEvent.
func (t *Task) Wait(ctx context.Context) (json.RawMessage, error) {
	for range t.Events(ctx) {
	}
	select {
	case <-t.over:
		return t.value, t.err
	default:
	}
	if ctx.Err() != nil {
		return nil, fmt.Errorf("wait for task %s: %w", t.id, context.Cause(ctx))
	}
	return nil, fmt.Errorf("wait for task %s: %w", t.id, t.c.err)
}

// take gives the application the next event of t.
func (c *Client) take(t *Task) (Event, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.in.take(t.id)
}

// took says that the application is done with e, which take gave it.
func (c *Client) took(t *Task, e *Event) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.tasks[t.id] != t {
		return // it was ended meanwhile
	}
	idle := len(c.in.owed) == 0
	last := c.in.took(t.id)
	if e.Type == wire.EventGap {
		c.stats.Gaps++
	} else {
		c.stats.Events++
	}
	if e.Reset {
		c.stats.Resets++
	}
	if last {
		t.value, t.err = outcome(&e.Event)
		c.end(t)
	}
	if idle && len(c.in.owed) > 0 || c.in.count >= c.o.AckEvery || c.in.starved() || c.o.Logs {
		c.poke()
	}
}

// end closes a task whose value and err are set. Guarded by c.mu.
func (c *Client) end(t *Task) {
	c.in.end(t.id)
	delete(c.tasks, t.id)
	close(t.over)
}

// outcome reads a final event.
func outcome(e *wire.Event) (json.RawMessage, error) {
	switch e.Type {
	case wire.EventResult:
		var r wire.Result
		if err := json.Unmarshal(e.Body, &r); err != nil {
			return nil, fmt.Errorf("the result of task %s cannot be read: %w", e.Task, err)
		}
		return r.Value, nil
	case wire.EventGap:
		var g wire.Gap
		if err := json.Unmarshal(e.Body, &g); err != nil {
			return nil, fmt.Errorf("the last gap of task %s cannot be read: %w", e.Task, err)
		}
		return nil, fmt.Errorf("task %s: %w (%s)", e.Task, ErrEndMissed, g.Reason)
	}
	var f wire.Failure
	if err := json.Unmarshal(e.Body, &f); err != nil {
		return nil, fmt.Errorf("the error of task %s cannot be read: %w", e.Task, err)
	}
	return nil, &f.Error
}
