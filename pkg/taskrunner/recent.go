package taskrunner

import (
	"maps"

	"github.com/wscluster/wscluster/pkg/broker"
	"github.com/wscluster/wscluster/pkg/wire"
)

// copies is what was delivered of the task of one run. A task may be stored as several messages: a
// worker that did not hear the broker's answer publishes it again, and so does a client that did not
// hear the worker's.
type copies struct {
	attempt int            // of the run
	tries   map[string]int // by message ID: the attempt of the copy's last delivery
}

// continues reports whether d is one more delivery for the run: a copy that nobody else has had, or
// the same one again with nobody in between. Whoever else may have had it ran a lower attempt, or one
// that may be as high as ours: then the client may follow that run, which is dead, and would drop what
// ours tells.
func (c copies) continues(d broker.Delivery) bool {
	switch tries, seen := c.tries[d.ID]; {
	case d.Attempt == 0: // the broker does not count
		return !d.Redelivered
	case d.Attempt <= c.attempt:
		return true
	default:
		return seen && d.Attempt <= tries+1
	}
}

func (c *copies) note(d broker.Delivery) {
	if c.tries == nil {
		c.tries = map[string]int{}
	}
	c.tries[d.ID] = max(c.tries[d.ID], d.Attempt)
}

// recentSize bounds the tasks that a runner remembers after their end, for deliveries whose
// acknowledgement was lost with a link.
const recentSize = 1024

// recent is the tasks that ended last, with what was delivered of them. When it is full the oldest is
// forgotten: should that one come again, it runs again.
type recent struct {
	byTask map[wire.TaskID]copies
	order  []wire.TaskID // oldest first
}

func (r *recent) add(t wire.TaskID, had copies) {
	if r.byTask == nil {
		r.byTask = map[wire.TaskID]copies{}
	}
	if _, ok := r.byTask[t]; !ok {
		r.order = append(r.order, t)
	}
	had.tries = maps.Clone(had.tries)
	r.byTask[t] = had
	if len(r.order) > recentSize {
		delete(r.byTask, r.order[0])
		r.order = r.order[1:]
	}
}
