package wsclient

import (
	"math/rand/v2"
	"time"

	"github.com/wscluster/wscluster/pkg/wire"
)

// cancel is a request for the end of a task, which is sent on each new socket until it is answered.
type cancel struct {
	sent    *socket   // where it was sent last; nil if it is to be sent again at again
	again   time.Time // not sent before
	refused int
}

// cancelPrefix is before the task's ID in the request ID of a cancel.
const cancelPrefix = "cancel:"

// Cancel asks for the end of the task, whether it waits or runs, and does not wait for it: the final
// event tells how it ended, an error with code canceled or what came first. It is asked on every new
// socket until the cluster has stored it. For a task that is over it does nothing.
func (t *Task) Cancel() {
	t.c.mu.Lock()
	defer t.c.mu.Unlock()
	if t.c.tasks[t.id] == t && t.cancel == nil {
		t.cancel = &cancel{}
		t.c.poke()
	}
}

// cancelTasks sends the cancels that s has not been told and whose time has come, behind the submits.
// Guarded by c.mu.
func (c *Client) cancelTasks(s *socket, now time.Time, t *turn) {
	for id, task := range c.tasks {
		switch n := task.cancel; {
		case n == nil, n.sent == s, !task.sent && !task.accepted:
		case now.Before(n.again):
			t.wake(n.again)
		default:
			n.sent = s
			t.messages = append(t.messages, &wire.Cancel{ID: cancelPrefix + string(id), Task: id, Kind: task.submit.Kind})
		}
	}
}

// canceled is the answer to a cancel: nil if the cluster has it. Guarded by c.mu.
func (c *Client) canceled(id wire.TaskID, refusal *wire.Error) {
	t := c.tasks[id]
	if t == nil || t.cancel == nil {
		return
	}
	if refusal == nil || !refusal.Retryable {
		t.cancel = nil
		return
	}
	t.cancel.refused++
	t.cancel.sent, t.cancel.again = nil, time.Now().Add(delay(&c.o, refusal, t.cancel.refused, rand.Float64()))
	c.poke()
}
