package amqp

import (
	"context"
	"fmt"
	"strconv"
	"sync"

	amqp091 "github.com/rabbitmq/amqp091-go"

	"github.com/wscluster/wscluster/pkg/broker"
	"github.com/wscluster/wscluster/pkg/socketmeta"
)

const maxPrefetch = 65535 // 16 bits in basic.qos

// mailbox is the ownership of one mailbox queue. It rests on an exclusive queue as a lock, which
// outlasts a pause and which quorum queues need, and on classic queues also on an exclusive
// consumer, against foreign programs.
//
// On a classic queue the prefetch counts for the whole channel. On a quorum queue it counts for
// each consumer, and Resume makes another: there may then be twice as many unsettled deliveries.
type mailbox struct {
	*consumer
	queue     string
	exclusive bool

	calls  sync.Mutex // one call to the broker at a time; guards what follows
	paused bool
	count  int             // of AMQP consumers so far; the last one is the consumer's tag
	given  <-chan struct{} // closed when the deliveries of the last one have been given out
	giving sync.WaitGroup
}

var _ broker.Mailbox = (*mailbox)(nil)

// OpenMailbox looks at ctx before it begins. Each of its steps is bounded by the call timeout.
func (l *link) OpenMailbox(ctx context.Context, s socketmeta.ServerID, prefetch int) (_ broker.Mailbox, err error) {
	m := &mailbox{queue: broker.MailboxQueue(s), count: 1}
	if prefetch < 1 || prefetch > maxPrefetch {
		return nil, fmt.Errorf("open %s: prefetch %d: must be 1 to %d", m.queue, prefetch, maxPrefetch)
	}
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if err := l.acquire(s); err != nil {
		return nil, fmt.Errorf("open %s: %w", m.queue, err)
	}
	defer func() {
		if err != nil {
			l.release(s)
			err = fmt.Errorf("open %s: %w", m.queue, l.failed(err))
		}
	}()
	exchange, key := broker.ExchangeUtils, string(s)
	if s == broker.ParkedServer {
		exchange, key = broker.ExchangeUnrouted, ""
	}
	asDeclared, err := l.ensureQueue(m.queue, new(bool), l.mailboxArgs(), exchange, key)
	if err != nil {
		return nil, err
	}
	// A quorum queue kills the connection that has a prefetch for the whole channel.
	m.exclusive = asDeclared && l.o.MailboxType == Classic
	var first <-chan amqp091.Delivery
	m.consumer, err = l.openConsumer(m.queue, min(prefetch, 256), func(ch *amqp091.Channel) (err error) {
		if err = ch.Qos(prefetch, 0, m.exclusive); err != nil {
			return err
		}
		first, err = ch.Consume(m.queue, strconv.Itoa(m.count), false, m.exclusive, false, false, nil)
		return err
	})
	if isCode(err, amqp091.AccessRefused) {
		return nil, fmt.Errorf("%w (%w)", broker.ErrRefused, err)
	} else if err != nil {
		return nil, err
	}
	m.calls.Lock()
	defer m.calls.Unlock()
	if err := m.start(m.run, func() { l.release(s) }); err != nil {
		return nil, err
	}
	m.give(first)
	return m, nil
}

// acquire takes the lock of a mailbox: ErrRefused if anybody has it, be it this very link.
func (l *link) acquire(s socketmeta.ServerID) error {
	l.mu.Lock()
	owned := l.mailboxes[s]
	l.mailboxes[s] = true
	l.mu.Unlock()
	if owned {
		return fmt.Errorf("%w: this very link does", broker.ErrRefused)
	}
	err := l.consuming.try(func(ch *amqp091.Channel) error {
		_, err := ch.QueueDeclare(broker.LockQueue(s), false, true, true, false, nil)
		return err
	})
	if err == nil {
		return nil
	}
	l.disown(s)
	if isCode(err, amqp091.ResourceLocked) {
		return broker.ErrRefused
	}
	return l.failed(fmt.Errorf("declare queue %s: %w", broker.LockQueue(s), err))
}

// release gives the lock of a mailbox back, unless it has gone with the link.
func (l *link) release(s socketmeta.ServerID) {
	_ = l.consuming.try(func(ch *amqp091.Channel) error {
		_, err := ch.QueueDelete(broker.LockQueue(s), false, false, false)
		return err
	})
	l.disown(s)
}

func (l *link) disown(s socketmeta.ServerID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.mailboxes, s)
}

// run waits for the end of the mailbox and of those who give out its deliveries.
func (m *mailbox) run() {
	<-m.stop
	m.calls.Lock() // once it is free, nobody starts to give any more
	defer m.calls.Unlock()
	m.giving.Wait()
}

// give gives out the deliveries of one AMQP consumer, after those of the one before. Called with
// calls held.
func (m *mailbox) give(in <-chan amqp091.Delivery) {
	before, given := m.given, make(chan struct{})
	m.given = given
	m.giving.Go(func() {
		defer close(given)
		if before != nil {
			<-before
		}
		for {
			select {
			case d, ok := <-in:
				if !ok {
					return
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

func (m *mailbox) Ack(tag uint64) error {
	return m.settle(func() error { return m.ch.Ack(tag, false) })
}

func (m *mailbox) Requeue(uint64) error {
	return fmt.Errorf("%s: a mailbox would lose its order: deliveries cannot be requeued", m.queue)
}

// Pause cancels the AMQP consumer and keeps the channel, so that what is unsettled stays ours. It
// is bounded by the call timeout; ctx is looked at before it begins.
func (m *mailbox) Pause(ctx context.Context) error {
	return m.call(ctx, true, func() error { return m.ch.Cancel(strconv.Itoa(m.count), false) })
}

// Resume is bounded as Pause is.
func (m *mailbox) Resume(ctx context.Context) error {
	return m.call(ctx, false, func() error {
		m.count++ // a quorum queue would take the old tag for the old consumer, with its credit used up
		in, err := m.ch.Consume(m.queue, strconv.Itoa(m.count), false, m.exclusive, false, false, nil)
		if err == nil {
			m.give(in)
		}
		return err
	})
}

// call makes a call that changes whether the mailbox is paused, if it is not so already.
func (m *mailbox) call(ctx context.Context, paused bool, f func() error) error {
	m.calls.Lock()
	defer m.calls.Unlock()
	select {
	case <-m.stop:
		return m.gone()
	case <-ctx.Done():
		return context.Cause(ctx)
	default:
	}
	if m.paused == paused {
		return nil
	}
	if err := m.link.consuming.watched(f); err != nil {
		return fmt.Errorf("%s: %w", m.queue, m.link.failed(err))
	}
	m.paused = paused
	return nil
}
