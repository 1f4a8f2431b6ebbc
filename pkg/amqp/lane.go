package amqp

import (
	"context"
	"fmt"
	"slices"
	"time"

	amqp091 "github.com/rabbitmq/amqp091-go"
)

// lane is one of the channels that a mailbox has its deliveries by. A delivery that is kept for long makes the settling of all
// that come after it in its channel dearer (openTags): 1,000 that are kept cost the broker three times as much for each
// of the others, and 10,000 forty times. So where many are kept a mailbox goes on in another lane (ADR 28).
type lane struct {
	ch      *amqp091.Channel
	unacked openTags // with the channel's own tags
	from    uint64   // the mailbox's tag of the first since the lane is in use, or that it would have
	shift   uint64   // a delivery's tag in the mailbox, less that in the channel; wraps around
	limit   int      // its prefetch, on a classic queue
}

const (
	lookEvery = 200 * time.Millisecond // how long what is settled out of its order waits for its run, at least; at most twice that
	keptMost  = 256                    // deliveries
	keptFor   = 5                      // looks in a row with so many of them: then the lane is left
	maxLanes  = 64                     // with that many the last one is kept, whatever it costs
)

// useLane has the deliveries that come next come by l.
func (m *mailbox) useLane(l *lane) {
	m.acks.Lock()
	defer m.acks.Unlock()
	l.shift, l.from = m.last-l.unacked.last, m.last+1
	m.lanes = append(slices.DeleteFunc(m.lanes, func(o *lane) bool { return o == l }), l)
}

// laneOf is the lane that a delivery came by. acks is held.
func (m *mailbox) laneOf(tag uint64) *lane {
	for i := len(m.lanes) - 1; i > 0; i-- {
		if m.lanes[i].from <= tag {
			return m.lanes[i]
		}
	}
	return m.lanes[0]
}

// arrive notes a delivery of l and gives it the mailbox's tag.
func (m *mailbox) arrive(l *lane, d *amqp091.Delivery) {
	m.acks.Lock()
	defer m.acks.Unlock()
	l.unacked.came(d.DeliveryTag)
	d.DeliveryTag += l.shift
	m.last = d.DeliveryTag
}

// acknowledge settles deliveries.
func (m *mailbox) acknowledge(tags []uint64) error {
	m.acks.Lock()
	defer m.acks.Unlock()
	for _, tag := range tags {
		var err error
		if tag&heldTag != 0 {
			err = m.held.Ack(tag&^heldTag, false)
		} else if l := m.laneOf(tag); !l.unacked.settle(tag - l.shift) {
			err = l.ch.Ack(tag-l.shift, false) // the broker knows none such either, and ends the link
		}
		if err != nil {
			return err
		}
	}
	for _, l := range m.lanes {
		if upTo := l.unacked.run(); upTo != 0 {
			if err := l.ch.Ack(upTo, true); err != nil {
				return err
			}
		}
	}
	return nil
}

// look tells what has waited for its run for long enough, and changes lanes where much is kept.
func (m *mailbox) look() {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for many := 0; ; {
		select {
		case <-tick.C:
		case <-m.stop:
			return
		}
		if many++; m.tell() < keptMost {
			many = 0
		}
		err := m.adjust()
		if err == nil && many >= keptFor {
			many = 0
			err = m.changeLanes()
		}
		if err != nil {
			m.link.end(fmt.Errorf("%s: %w", m.queue, err))
			return
		}
	}
}

// tell tells the broker what is settled and was so at the last look. kept is how many deliveries by the last lane are
// unsettled, and were then.
func (m *mailbox) tell() (kept int) {
	m.acks.Lock()
	defer m.acks.Unlock()
	var alone []uint64
	for _, l := range m.lanes {
		alone, kept = l.unacked.look(nil)
		for _, tag := range alone {
			_ = l.ch.Ack(tag, false) // fails only with the link
		}
	}
	return kept
}

// Close tells the broker of all that is settled, lest it comes again.
func (m *mailbox) Close(ctx context.Context) error {
	m.tell()
	m.tell()
	return m.consumer.Close(ctx)
}

// changeLanes goes on in a lane where nothing is kept, unless the mailbox is paused, or called, or has too many lanes.
func (m *mailbox) changeLanes() error {
	if !m.exclusive || !m.calls.TryLock() { // run waits for look with calls held
		return nil
	}
	defer m.calls.Unlock()
	if m.paused || m.callable(context.Background()) != nil {
		return nil
	}
	next, err := m.nextLane()
	if err != nil || next == nil {
		return err
	}
	if err := m.pause(); err != nil {
		return err
	}
	m.lane = next
	return m.resume()
}

// nextLane is a lane that holds nothing, or a new one. It is nil if there are too many, if the prefetch leaves little for it, or if the present one is not
// in use yet. Called with calls held.
func (m *mailbox) nextLane() (*lane, error) {
	m.acks.Lock()
	n, room := len(m.lanes), m.prefetch
	inUse := m.lanes[n-1] == m.lane
	var free *lane
	for _, l := range m.lanes {
		room -= len(l.unacked.all)
		if l != m.lane && len(l.unacked.all) == 0 {
			free = l
		}
	}
	m.acks.Unlock()
	switch {
	case !inUse || room < keptMost:
		return nil, nil
	case free != nil:
		return free, nil
	case n == maxLanes:
		return nil, nil
	}
	ch, err := m.openBeside()
	if err != nil {
		return nil, err
	}
	cancels := ch.NotifyCancel(make(chan string, 1))
	m.giving.Go(func() {
		select {
		case _, told := <-cancels:
			if told {
				m.end(errTakenAway)
			}
		case <-m.stop:
		}
	})
	return &lane{ch: ch}, nil
}

// allow gives the present lane what the others leave of the prefetch. What is on its way by those does not count until it has come: so the
// prefetch may be exceeded by that until the next look. Called with calls held.
func (m *mailbox) allow() error {
	left := m.left()
	if !m.exclusive || m.lane.limit == left {
		return nil
	}
	m.lane.limit = left
	return m.lane.ch.Qos(left, 0, true)
}

func (m *mailbox) left() int {
	m.acks.Lock()
	defer m.acks.Unlock()
	n := m.prefetch
	for _, l := range m.lanes {
		if l != m.lane {
			n -= len(l.unacked.all)
		}
	}
	return max(1, n)
}

// adjust gives the present lane what others do not need any more, and takes back what has come by them since it began.
func (m *mailbox) adjust() error {
	if !m.exclusive || !m.calls.TryLock() {
		return nil
	}
	defer m.calls.Unlock()
	left := m.left()
	if more := left - m.lane.limit; m.callable(context.Background()) != nil || more >= 0 && more < keptMost && left < m.prefetch {
		return nil
	}
	return m.link.consuming.watched(m.allow)
}
