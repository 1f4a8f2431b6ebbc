package session

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"

	"github.com/wscluster/wscluster/pkg/wire"
)

// digest stands for what a submit asks for, to tell a repeated submit from a conflicting one.
type digest [16]byte

func digestOf(m *wire.Submit) digest {
	h := sha256.New()
	h.Write([]byte(m.Kind))
	h.Write([]byte{0})
	if m.Priority == wire.High {
		h.Write([]byte{1})
	}
	var compact bytes.Buffer
	if json.Compact(&compact, m.Params) != nil {
		compact.Write(m.Params)
	}
	h.Write(compact.Bytes())
	return digest(h.Sum(nil)[:16])
}

// claim is the first word on a submit.
type claim uint8

const (
	claimNew      claim = iota // publish it, then call accepted or refused
	claimPending               // it is on its way: the answer will be sent when it is there
	claimAccepted              // it was accepted before: say so again
	claimConflict              // the task ID stands for something else
	claimTooMany               // wire.MaxOpenTasks are open
)

// submit notes that the client asks for a task, by its socket or otherwise. Only a task that this session saw accepted is
// known to be stored: anything else is published, at worst once more. So other contents are a conflict only for what was
// submitted here: of a task that is known by its events or by the client's positions nobody here knows the contents, and
// runners drop what has an ID that they know (docs/adr/0002).
func (c *core) submit(m *wire.Submit, bySocket bool) claim {
	d := digestOf(m)
	c.begin()
	t := c.tasks[m.Task]
	switch {
	case t == nil && c.open >= wire.MaxOpenTasks:
		return claimTooMany
	case t == nil:
		t = c.record(m.Task)
	case t.digest != digest{} && t.digest != d:
		return claimConflict
	case t.state == stateSubmitting:
		if bySocket {
			t.asked, t.reply = true, m.ID
		}
		return claimPending
	case t.digest == d:
		return claimAccepted
	case t.state == stateFinished:
		return claimAccepted // heard of by its events alone, and ended
	}
	t.state, t.digest, t.asked, t.reply = stateSubmitting, d, bySocket, m.ID
	return claimNew
}

// submitted notes the answer of the broker to a submit and returns whether the socket waits for it, and
// the request ID to echo. A task that was not stored is forgotten, unless events of it have come all
// the same.
func (c *core) submitted(id wire.TaskID, stored bool) (asked bool, reply string) {
	t := c.task(id)
	if t == nil {
		return true, "" // forgotten since
	}
	asked, reply = t.asked, t.reply
	t.asked, t.reply = false, ""
	if t.state != stateSubmitting {
		return asked, reply
	}
	t.state = stateOpen
	if !stored {
		t.digest = digest{}
		if len(t.queue) == 0 && t.position.Run == "" {
			c.remove(t)
		}
	}
	return asked, reply
}
