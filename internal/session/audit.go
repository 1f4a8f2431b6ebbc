package session

import (
	"fmt"
	"slices"

	"github.com/wscluster/wscluster/pkg/socketmeta"
	"github.com/wscluster/wscluster/pkg/wire"
)

// Audit is what all sessions say that they have.
type Audit struct {
	Held   map[uint64]int              // deliveries in queues, by life
	Flying map[socketmeta.ClientID]int // deliveries in jobs that have not ended
}

// Audit counts, one by one, what sessions have. The error names a session whose own counters say
// something else or whose queues are out of order, which is a fault in this package. It is for
// simulators: it takes a time in proportion to all that is held.
func (r *Registry) Audit() (Audit, error) {
	a := Audit{Held: make(map[uint64]int), Flying: make(map[socketmeta.ClientID]int)}
	for _, s := range r.all() {
		s.mu.Lock()
		err := s.core.audit(&a)
		s.mu.Unlock()
		if err != nil {
			return a, fmt.Errorf("session of %s: %w", s.Client(), err)
		}
	}
	return a, nil
}

func (c *core) audit(a *Audit) error {
	if c.work == nil {
		return nil
	}
	var held, heldBytes, sent, sentBytes, open, waiting int
	for _, t := range c.order {
		if t.state != stateFinished {
			open++
		}
		if c.tasks[t.id] != t || t.sent > len(t.queue) {
			return fmt.Errorf("task %s: %d of %d events are sent, and it may not be the one of that name", t.id, t.sent, len(t.queue))
		}
		if !slices.IsSortedFunc(t.queue, func(a, b entry) int { return compare(&a.event, &b.event) }) {
			return fmt.Errorf("task %s: its queue is out of order", t.id)
		}
		for i := range t.queue {
			e := &t.queue[i]
			a.Held[e.ref.Life]++
			held++
			heldBytes += e.size()
			switch {
			case i < t.sent:
				sent++
				sentBytes += e.size()
			case e.event.Type != wire.EventGap:
				waiting++
			}
		}
	}
	if c.flying != 0 {
		a.Flying[c.client] = c.flying
	}
	for life, n := range c.overflow {
		if n < 1 {
			return fmt.Errorf("%d of its events are in the overflow of life %d", n, life)
		}
	}
	switch {
	case len(c.tasks) != len(c.order) || open != c.open:
		return fmt.Errorf("%d tasks in order of %d, %d open of %d", len(c.order), len(c.tasks), open, c.open)
	case held != c.held || heldBytes != c.heldBytes || sent != c.sent || sentBytes != c.sentBytes:
		return fmt.Errorf("it counts %d held (%d bytes), %d sent (%d bytes), and has %d (%d), %d (%d)",
			c.held, c.heldBytes, c.sent, c.sentBytes, held, heldBytes, sent, sentBytes)
	case sent > c.o.MaxSent:
		return fmt.Errorf("%d events are sent beyond a window of %d", sent, c.o.MaxSent)
	case waiting > c.o.MaxWaiting && c.fullAt == 0 && !c.expired():
		return fmt.Errorf("%d events wait beyond a cap of %d", waiting, c.o.MaxWaiting)
	case c.conn == 0 && sent > 0:
		return fmt.Errorf("%d events are sent to nobody", sent)
	}
	return nil
}
