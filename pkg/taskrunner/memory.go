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

// memorySize bounds the tasks that a runner remembers after their end, for deliveries whose
// acknowledgement was lost with a link.
const memorySize = 1024

// memory is the tasks that ended last, with the attempt of their last delivery. When it is full
// the oldest is forgotten: should that one come again, it runs again.
type memory struct {
	byTask map[wire.TaskID]int
	order  []wire.TaskID // oldest first
}

func (m *memory) add(t wire.TaskID, tries int) {
	if m.byTask == nil {
		m.byTask = map[wire.TaskID]int{}
	}
	if _, ok := m.byTask[t]; !ok {
		m.order = append(m.order, t)
	}
	m.byTask[t] = tries
	if len(m.order) > memorySize {
		delete(m.byTask, m.order[0])
		m.order = m.order[1:]
	}
}

func (m *memory) tries(t wire.TaskID) (int, bool) {
	tries, ok := m.byTask[t]
	return tries, ok
}
