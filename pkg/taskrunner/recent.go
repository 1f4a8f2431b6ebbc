package taskrunner

import (
	"github.com/wscluster/wscluster/pkg/broker"
	"github.com/wscluster/wscluster/pkg/wire"
)

// continues reports whether d is one more delivery for a run whose last one had the attempt
// tries: a second copy, or the same message again with nobody else in between. If somebody else
// may have had it, that run's events carry a higher attempt, and the client would drop ours.
func continues(tries int, d broker.Delivery) bool {
	if d.Attempt == 0 { // the broker does not count
		return !d.Redelivered
	}
	return d.Attempt <= tries+1
}

// recentSize bounds the tasks that a runner remembers after their end, for deliveries whose
// acknowledgement was lost with a link.
const recentSize = 1024

// recent is the tasks that ended last, with the attempt of their last delivery. When it is full
// the oldest is forgotten: should that one come again, it runs again.
type recent struct {
	byTask map[wire.TaskID]int
	order  []wire.TaskID // oldest first
}

func (r *recent) add(t wire.TaskID, tries int) {
	if r.byTask == nil {
		r.byTask = map[wire.TaskID]int{}
	}
	if _, ok := r.byTask[t]; !ok {
		r.order = append(r.order, t)
	}
	r.byTask[t] = tries
	if len(r.order) > recentSize {
		delete(r.byTask, r.order[0])
		r.order = r.order[1:]
	}
}

func (r *recent) tries(t wire.TaskID) (int, bool) {
	tries, ok := r.byTask[t]
	return tries, ok
}
