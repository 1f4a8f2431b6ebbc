package wsclient

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"time"

	"github.com/wscluster/wscluster/pkg/wire"
)

// ErrTaskOver is what SubmitAs returns for a task of which nothing more would come: this client saw
// it end, gave up its submit while the cluster may have had it (Submit's ctx ended), or has
// acknowledged events of it unseen. A client remembers 200 such tasks.
var ErrTaskOver = errors.New("the task is over for this client: it ended, or its submit was given up, or its events came while nobody waited for them; submit under a new ID")

// ask is a submit that waits for its answer. It is sent on each new socket until it has one, and
// again some time after a refusal in doubt.
type ask struct {
	msg  *wire.Submit
	task *Task
	done chan struct{} // closed when the answer is here; err may be read then
	err  error

	// The rest is guarded by Client.mu.
	sent    *socket   // where it was sent last; nil if it is to be sent again at again
	again   time.Time // not sent before
	refused int       // refusals in doubt
}

// Request is what SubmitRequest asks for.
type Request struct {
	ID       wire.TaskID   // required; wire.NewTaskID makes a fresh one
	Kind     string        // required
	Params   any           // marshalled to a JSON object; nil is none
	Priority wire.Priority // "" means wire.Normal; wire.High is taken before normal tasks of all kinds
}

// Submit is SubmitRequest of a kind with its params, under a fresh ID.
func (c *Client) Submit(ctx context.Context, kind string, params any) (*Task, error) {
	return c.SubmitAs(ctx, wire.NewTaskID(), kind, params)
}

// SubmitAs is Submit under an ID of the caller's.
func (c *Client) SubmitAs(ctx context.Context, id wire.TaskID, kind string, params any) (*Task, error) {
	return c.SubmitRequest(ctx, Request{ID: id, Kind: kind, Params: params})
}

// SubmitRequest asks for a task and waits until the cluster has stored it. Submitted twice under one ID
// with the same contents, it runs once. If the task is open at this client, its handle is returned once
// the cluster has answered.
//
// It waits through any number of lost sockets, and through refusals that leave in doubt whether the
// broker has stored the task (unavailable, overloaded, internal): it then asks again under the same
// ID, after the time that the server names, or with the same jittered backoff as for sockets if that is
// longer. An event of the task that comes meanwhile is as good as the answer. Any other refusal is a
// *wire.Error, and the ID may be submitted again.
//
// If ctx ends or Run returns first, the error wraps ctx's cause or ErrStopped. A task that was never
// sent will not run, and its ID may be submitted again. One that was sent may run all the same: the
// error says so, its events are acknowledged and dropped, and SubmitAs under its ID is ErrTaskOver.
func (c *Client) SubmitRequest(ctx context.Context, r Request) (*Task, error) {
	a, err := c.propose(&r)
	if err != nil {
		return nil, fmt.Errorf("submit %s: %w", r.Kind, err)
	}
	select {
	case <-a.done:
		err = a.err
	case <-ctx.Done():
		err = c.withdraw(a, context.Cause(ctx))
	case <-c.done:
		err = c.withdraw(a, c.err)
	}
	if err != nil {
		return nil, fmt.Errorf("submit %s as %s: %w", r.Kind, r.ID, err)
	}
	return a.task, nil
}

// propose checks what the server would refuse anyway, and asks it.
func (c *Client) propose(r *Request) (*ask, error) {
	if _, err := wire.ParseTaskID(string(r.ID)); err != nil {
		return nil, err
	}
	if err := wire.CheckKind(r.Kind); err != nil {
		return nil, err
	}
	if err := wire.CheckPriority(r.Priority); err != nil {
		return nil, err
	}
	msg := wire.Submit{Task: r.ID, Kind: r.Kind, Priority: r.Priority}
	if r.Params != nil {
		var err error
		if msg.Params, err = json.Marshal(r.Params); err != nil {
			return nil, fmt.Errorf("params: %w", err)
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	t, ok := c.tasks[r.ID]
	if !ok {
		if _, over := c.in.ended.position(r.ID); over {
			return nil, ErrTaskOver
		}
	}
	a := c.newAsk(t, msg)
	if n := len(wire.EncodeClient(a.msg)); n > wire.MaxClientFrame {
		return nil, wire.Errorf(wire.CodeFrameTooLarge, "the submit has %d bytes and may have %d", n, wire.MaxClientFrame)
	}
	if !ok {
		a.task = c.begin(wire.Position{Task: r.ID}, msg)
	}
	c.asks = append(c.asks, a)
	c.poke()
	return a, nil
}

// ask submits a task that is open but was not accepted in an earlier life. Guarded by c.mu.
func (c *Client) ask(t *Task) { c.asks = append(c.asks, c.newAsk(t, t.submit)) }

func (c *Client) newAsk(t *Task, msg wire.Submit) *ask {
	c.asked++
	msg.ID = strconv.FormatUint(c.asked, 10)
	return &ask{msg: &msg, task: t, done: make(chan struct{})}
}

// withdraw gives up waiting for a, because of err. If the answer was faster, that counts. A task that
// the cluster may have is over then: what comes of it is nobody's.
func (c *Client) withdraw(a *ask, err error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	t := a.task
	switch {
	case !c.settle(a, err):
		return a.err
	case !c.unwanted(t):
	case t.sent:
		err = fmt.Errorf("gave up without a certain answer; the task may run all the same, and its ID is over for this client: %w", err)
		t.err = err
		c.end(t)
	default:
		c.forget(t, err)
	}
	return err
}

// postpone has a sent again later, if e leaves in doubt whether the task is stored, and reports
// whether it does. Too many open tasks are refused before the broker is asked, and are the caller's to
// bring to an end; only after a refusal in doubt they too say nothing. Guarded by c.mu.
func (c *Client) postpone(a *ask, e *wire.Error) (wait time.Duration, postponed bool) {
	if !e.Retryable || e.Code == wire.CodeTooManyTasks && a.refused == 0 {
		return 0, false
	}
	a.refused++
	wait = delay(&c.o, e, a.refused, rand.Float64())
	a.sent, a.again = nil, time.Now().Add(wait)
	c.poke()
	return wait, true
}

// began notes that an event of t came: the server has the task, even if its answer was lost.
// Guarded by c.mu.
func (c *Client) began(t *Task) {
	if t.accepted {
		return
	}
	t.accepted = true
	if i := slices.IndexFunc(c.asks, func(a *ask) bool { return a.task == t }); i >= 0 {
		c.answered(c.asks[i], nil)
	}
}

// answered ends an ask: with nil, or with the refusal of a task whose ID may be submitted again.
// Guarded by c.mu.
func (c *Client) answered(a *ask, err error) {
	if c.settle(a, err) && err != nil && c.unwanted(a.task) {
		c.forget(a.task, err)
	}
}

// settle ends the wait of a. It reports whether a still waited. Guarded by c.mu.
func (c *Client) settle(a *ask, err error) bool {
	i := slices.Index(c.asks, a)
	if i < 0 {
		return false
	}
	c.asks = slices.Delete(c.asks, i, i+1)
	a.err = err
	close(a.done)
	return true
}

// unwanted reports whether t is open, was not accepted, and no submit of it waits any more.
// Guarded by c.mu.
func (c *Client) unwanted(t *Task) bool {
	return c.tasks[t.id] == t && !t.accepted && !slices.ContainsFunc(c.asks, func(a *ask) bool { return a.task == t })
}

// forget closes a task as if it had never been open. Guarded by c.mu.
func (c *Client) forget(t *Task, err error) {
	t.err = err
	c.in.drop(t.id)
	delete(c.tasks, t.id)
	close(t.over)
}
