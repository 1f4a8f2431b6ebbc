package amqp

import (
	"context"
	"fmt"
	"strings"

	amqp091 "github.com/rabbitmq/amqp091-go"

	"github.com/wscluster/wscluster/pkg/broker"
	"github.com/wscluster/wscluster/pkg/socketmeta"
)

// OpenMailbox looks at ctx before it begins. Each of its steps is bounded by the call timeout.
func (l *link) OpenMailbox(ctx context.Context, s socketmeta.ServerID, prefetch int) (broker.Mailbox, error) {
	return l.ownMailbox(ctx, "open", s, prefetch, (*mailbox).create)
}

// AdoptMailbox is bounded as OpenMailbox is. A mailbox whose node is down is there, and gives an
// error that passes when the node is back: never ErrNoMailbox.
func (l *link) AdoptMailbox(ctx context.Context, s socketmeta.ServerID, prefetch int) (broker.Mailbox, error) {
	return l.ownMailbox(ctx, "adopt", s, prefetch, (*mailbox).adopt)
}

// ownMailbox takes the lock of the mailbox of s, makes its queues ready by prepare, and starts its
// deliveries.
func (l *link) ownMailbox(ctx context.Context, what string, s socketmeta.ServerID, prefetch int, prepare func(*mailbox) error) (_ broker.Mailbox, err error) {
	m := &mailbox{link: l, server: s, queue: broker.MailboxQueue(s), prefetch: prefetch, came: make(chan struct{}, 1)}
	defer func() {
		if err != nil {
			err = fmt.Errorf("%s %s: %w", what, m.queue, l.failed(err))
		}
	}()
	if prefetch < 1 || prefetch > maxPrefetch {
		return nil, fmt.Errorf("prefetch %d: must be 1 to %d", prefetch, maxPrefetch)
	}
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if err := l.acquire(broker.LockQueue(s), nil, broker.ErrRefused); err != nil {
		return nil, err
	}
	if err := m.open(prefetch, prepare); err != nil {
		m.release()
		return nil, err
	}
	return m, nil
}

// open does under the lock what may fail.
func (m *mailbox) open(prefetch int, prepare func(*mailbox) error) (err error) {
	if err := prepare(m); err != nil {
		return err
	}
	var first <-chan amqp091.Delivery
	m.consumer, err = m.link.openConsumer(m.queue, min(prefetch, 256), func(ch *amqp091.Channel) (err error) {
		// A quorum queue kills the connection that has a prefetch for the whole channel.
		if err = ch.Qos(prefetch, 0, m.exclusive); err != nil {
			return err
		}
		m.tag = m.nextTag()
		first, err = ch.Consume(m.queue, m.tag, false, m.exclusive, false, false, nil)
		return err
	})
	if isCode(err, amqp091.AccessRefused) && strings.Contains(err.Error(), "exclusive") {
		return fmt.Errorf("%w (%w)", broker.ErrRefused, err)
	} else if err != nil {
		return err
	}
	m.calls.Lock()
	defer m.calls.Unlock()
	if err := m.start(m.run, m.release); err != nil {
		return err
	}
	m.lane = &lane{ch: m.ch, limit: prefetch}
	m.give(first)
	m.giving.Go(m.look)
	return nil
}

// create makes sure that the queues of the mailbox exist and are bound.
func (m *mailbox) create() error {
	exchange, key := broker.ExchangeUtils, string(m.server)
	if m.server == broker.ParkedServer {
		exchange, key = broker.ExchangeUnrouted, ""
	}
	asDeclared, err := m.link.ensureQueue(m.queue, new(bool), m.link.mailboxArgs(), exchange, key)
	if err != nil {
		return err
	}
	m.exclusive = asDeclared && m.link.o.MailboxType == Classic
	return m.createHold()
}

// adopt makes sure that there is a mailbox, binds nothing to its queue, and has control messages
// for its own worker sent to us too.
func (m *mailbox) adopt() error {
	l := m.link
	err := l.consuming.try(func(ch *amqp091.Channel) error {
		_, err := ch.QueueDeclarePassive(m.queue, true, false, false, false, nil)
		return err
	})
	if isNoQueue(err) {
		return broker.ErrNoMailbox
	} else if err != nil {
		return fmt.Errorf("look for queue %s: %w", m.queue, err)
	}
	// It exists, and under our lock nobody of ours deletes it: so this only tells its type.
	asDeclared, err := l.declareQueue(m.queue, new(bool), l.mailboxArgs())
	if err != nil {
		return err
	}
	m.exclusive = asDeclared && l.o.MailboxType == Classic
	if err := m.createHold(); err != nil {
		return err
	}
	if broker.Worker(m.server) == l.id {
		return nil // our control queue is bound so already, for as long as the link lives
	}
	m.standsIn = true
	return l.bind(l.id.ControlQueue(), broker.ExchangeControl, string(m.server))
}

// createHold makes sure that the overflow exists and is bound.
func (m *mailbox) createHold() error {
	to := broker.ToHold(m.server)
	_, err := m.link.ensureQueue(broker.HoldQueue(m.server), new(bool), m.link.mailboxArgs(), to.Exchange, to.Key)
	return err
}

// release gives up what goes with the ownership, in this order, unless it has gone with the link:
// whoever owns the mailbox next finds nothing left of us.
func (m *mailbox) release() {
	l := m.link
	if m.standsIn {
		_ = l.unbind(l.id.ControlQueue(), broker.ExchangeControl, string(m.server))
	}
	if m.retiring {
		l.deleteQueue(broker.Worker(m.server).ControlQueue())
	}
	l.release(broker.LockQueue(m.server))
}

// isNoQueue reports whether the broker said that there is no such queue. It gives the same code
// for a classic queue whose node is down, which is not gone.
func isNoQueue(err error) bool {
	return isCode(err, amqp091.NotFound) && strings.Contains(err.Error(), "no queue")
}
