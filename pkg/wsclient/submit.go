package wsclient

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strconv"

	"github.com/wscluster/wscluster/pkg/wire"
)

// ErrTaskOver is what SubmitAs returns for a task of which nothing more would come: this client saw
// it end, or gave up its submit (ctx ended, or the refusal was one in doubt) and has acknowledged
// events of it since, unseen. A client remembers 200 such tasks.
var ErrTaskOver = errors.New("the task is over for this client: it ended, or its events came while nobody waited for them; submit under a new ID")

// ask is a submit that waits for its answer. It is sent on each new socket until it has one.
type ask struct {
	msg  *wire.Submit
	task *Task
	done chan struct{} // closed when the answer is here; err may be read then
	err  error

	sent *socket // guarded by Client.mu: where it was sent last
}

// Submit asks for a task under a fresh ID and waits until the cluster has stored it. params is
// marshalled to a JSON object; nil is none.
//
// A refusal is a *wire.Error. It waits through any number of lost sockets; if ctx ends or Run
// returns first, the task may or may not run.
func (c *Client) Submit(ctx context.Context, kind string, params any) (*Task, error) {
	return c.SubmitAs(ctx, wire.NewTaskID(), kind, params)
}

// SubmitAs is Submit under an ID of the caller's: submitted twice with the same contents, it runs
// once. If the task is open at this client, its handle is returned once the cluster has answered.
func (c *Client) SubmitAs(ctx context.Context, id wire.TaskID, kind string, params any) (*Task, error) {
	a, err := c.propose(id, kind, params)
	if err != nil {
		return nil, fmt.Errorf("submit %s: %w", kind, err)
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
		return nil, fmt.Errorf("submit %s as %s: %w", kind, id, err)
	}
	return a.task, nil
}

// propose checks what the server would refuse anyway, and asks it.
func (c *Client) propose(id wire.TaskID, kind string, params any) (*ask, error) {
	if _, err := wire.ParseTaskID(string(id)); err != nil {
		return nil, err
	}
	if err := wire.CheckKind(kind); err != nil {
		return nil, err
	}
	var object json.RawMessage
	if params != nil {
		var err error
		if object, err = json.Marshal(params); err != nil {
			return nil, fmt.Errorf("params: %w", err)
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	t, ok := c.tasks[id]
	if !ok {
		if _, over := c.in.ended.position(id); over {
			return nil, ErrTaskOver
		}
		t = &Task{id: id, kind: kind, params: object}
	}
	a := c.newAsk(t, kind, object)
	if n := len(wire.EncodeClient(a.msg)); n > wire.MaxClientFrame {
		return nil, wire.Errorf(wire.CodeFrameTooLarge, "the submit has %d bytes and may have %d", n, wire.MaxClientFrame)
	}
	if !ok {
		a.task = c.begin(wire.Position{Task: id}, kind, object)
	}
	c.asks = append(c.asks, a)
	c.poke()
	return a, nil
}

// ask submits a task that is open but was not accepted in an earlier life. Guarded by c.mu.
func (c *Client) ask(t *Task) { c.asks = append(c.asks, c.newAsk(t, t.kind, t.params)) }

func (c *Client) newAsk(t *Task, kind string, params json.RawMessage) *ask {
	c.asked++
	return &ask{
		msg:  &wire.Submit{ID: strconv.FormatUint(c.asked, 10), Task: t.id, Kind: kind, Params: params},
		task: t, done: make(chan struct{}),
	}
}

// withdraw gives up waiting for a, because of err. If the answer was faster, that counts.
func (c *Client) withdraw(a *ask, err error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.answered(a, err) {
		return a.err
	}
	return err
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

// answered ends an ask, and forgets a task that was refused, so that its ID may be submitted
// again. It reports whether a still waited. Guarded by c.mu.
func (c *Client) answered(a *ask, err error) bool {
	i := slices.Index(c.asks, a)
	if i < 0 {
		return false
	}
	c.asks = slices.Delete(c.asks, i, i+1)
	a.err = err
	close(a.done)
	t := a.task
	asked := slices.ContainsFunc(c.asks, func(a *ask) bool { return a.task == t })
	if err != nil && !t.accepted && !asked && c.tasks[t.id] == t {
		t.err = err
		c.in.drop(t.id)
		delete(c.tasks, t.id)
		close(t.over)
	}
	return true
}
