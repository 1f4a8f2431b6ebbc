package amqp

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"

	amqp091 "github.com/rabbitmq/amqp091-go"

	"github.com/wscluster/wscluster/pkg/broker"
	"github.com/wscluster/wscluster/pkg/socketmeta"
)

const maxPrefetch = 65535 // 16 bits in basic.qos

// mailbox is the ownership of one mailbox queue. It rests on an exclusive queue as a lock, which
// outlasts a pause and which quorum queues need, and on classic queues also on an exclusive
// consumer, against foreign programs.
//
// On a classic queue the prefetch counts for a whole channel, of which there may be several (lane), and together they have no more,
// but for a moment when one is changed. On a
// quorum queue it counts for each consumer, and Resume makes another: there may then be twice as many unsettled deliveries.
type mailbox struct {
	*consumer       // nil until it is open
	link      *link // the consumer's, also before it is open
	server    socketmeta.ServerID
	queue     string
	prefetch  int
	exclusive bool // the queue is classic
	standsIn  bool // control messages for server are sent to us too

	unsettled atomic.Int64          // deliveries received and not settled, of both queues
	came      chan struct{}         // cap 1: a delivery or a fence was received
	fence     atomic.Pointer[fence] // the one that we wait for

	acks  sync.Mutex // guards what follows, and is held while the broker is told: a run must not overtake what is told alone before it
	lanes []*lane    // in the order of their deliveries; not the overflow's channel
	last  uint64     // the mailbox's tag of the last delivery

	calls    sync.Mutex // one call to the broker at a time; guards what follows
	paused   bool
	lane     *lane            // by which deliveries come, once those of the one before have been given out
	count    int              // of AMQP consumers so far
	tag      string           // of the mailbox's last one
	given    <-chan struct{}  // closed when that one's deliveries have been given out
	giving   sync.WaitGroup   // whatever else runs until the mailbox ends
	held     *amqp091.Channel // for the overflow; nil before the first TakeHeld
	beside   []*amqp091.Channel
	retiring bool // we hold the identity of server
	unbound  bool

	heldSettled bool // what a dead owner held of the overflow is back
}

var _ broker.Mailbox = (*mailbox)(nil)

// nextTag names the next AMQP consumer: a quorum queue would take an old tag for the old consumer,
// with its credit used up. It gives back what several held in the order of their tags as text.
func (m *mailbox) nextTag() string {
	m.count++
	return fmt.Sprintf("%010d", m.count)
}

// run waits for the end of the mailbox and of those who give out its deliveries.
func (m *mailbox) run() {
	<-m.stop
	m.calls.Lock() // once it is free, nobody starts to give any more
	defer m.calls.Unlock()
	m.giving.Wait()
	for _, ch := range m.beside {
		_ = m.link.consuming.watched(ch.Close) // fails only with the connection, as in closeChannel
	}
}

// give gives out the deliveries of one AMQP consumer of the present lane, after those of the one before. Called with
// calls held.
func (m *mailbox) give(in <-chan amqp091.Delivery) {
	before, given, lane := m.given, make(chan struct{}), m.lane
	m.given = given
	m.giving.Go(func() {
		defer close(given)
		if before != nil {
			<-before
		}
		m.useLane(lane)
		for {
			select {
			case d, ok := <-in:
				if !ok {
					return
				}
				m.arrive(lane, &d)
				if m.note(d) {
					_ = m.settle(func() error { return m.acknowledge([]uint64{d.DeliveryTag}) }) // fails only with the link
					continue
				}
				select {
				case m.out <- decode(d):
				case <-m.stop:
					return
				}
			case <-m.stop:
				return
			}
		}
	})
}

// note counts a delivery. A fence does not count, and nobody gets it: it is to be acknowledged.
func (m *mailbox) note(d amqp091.Delivery) (fence bool) {
	if _, fence = d.Headers[headerFence]; !fence {
		m.unsettled.Add(1)
	} else if f := m.fence.Load(); f != nil && f.id == d.MessageId && m.fence.CompareAndSwap(f, nil) {
		close(f.came)
	} // else its publisher died behind it
	select {
	case m.came <- struct{}{}:
	default:
	}
	return fence
}

// Ack tells the broker at once what is a run from the first delivery of a lane on, and the rest by look.
func (m *mailbox) Ack(tags ...uint64) error {
	err := m.settle(func() error { return m.acknowledge(tags) })
	if err == nil {
		m.unsettled.Add(-int64(len(tags)))
	}
	return err
}

func (m *mailbox) Requeue(uint64) error {
	return fmt.Errorf("%s: a mailbox would lose its order: deliveries cannot be requeued", m.queue)
}

// Pause cancels the AMQP consumer and keeps the channel, so that what is unsettled stays ours. It
// is bounded by the call timeout; ctx is looked at before it begins.
func (m *mailbox) Pause(ctx context.Context) error { return m.call(ctx, m.pause) }

// Resume is bounded as Pause is.
func (m *mailbox) Resume(ctx context.Context) error { return m.call(ctx, m.resume) }

func (m *mailbox) call(ctx context.Context, f func() error) error {
	m.calls.Lock()
	defer m.calls.Unlock()
	if err := m.callable(ctx); err != nil {
		return err
	}
	if err := f(); err != nil {
		return fmt.Errorf("%s: %w", m.queue, m.link.failed(err))
	}
	return nil
}

// callable is an error if the mailbox or ctx has ended.
func (m *mailbox) callable(ctx context.Context) error {
	select {
	case <-m.stop:
		return m.gone()
	case <-ctx.Done():
		return context.Cause(ctx)
	default:
		return nil
	}
}

// pause is called with calls held, as resume is.
func (m *mailbox) pause() error {
	if m.paused {
		return nil
	}
	err := m.link.consuming.watched(func() error { return m.lane.ch.Cancel(m.tag, false) })
	m.paused = err == nil
	return err
}

func (m *mailbox) resume() error {
	if !m.paused {
		return nil
	}
	return m.link.consuming.watched(func() error {
		if err := m.allow(); err != nil {
			return err
		}
		m.tag = m.nextTag()
		in, err := m.lane.ch.Consume(m.queue, m.tag, false, m.exclusive, false, false, nil)
		if err == nil {
			m.paused = false
			m.give(in)
		}
		return err
	})
}
