package amqp

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"

	amqp091 "github.com/rabbitmq/amqp091-go"
	"go.uber.org/zap"

	"github.com/wscluster/wscluster/pkg/broker"
)

// Unbind looks at ctx before it begins. Each of its steps is bounded by the call timeout.
func (m *mailbox) Unbind(ctx context.Context) error {
	m.calls.Lock()
	defer m.calls.Unlock()
	if err := m.callable(ctx); err != nil {
		return err
	}
	if err := m.unbind(); err != nil {
		return fmt.Errorf("unbind %s: %w", m.queue, m.link.failed(err))
	}
	return nil
}

func (m *mailbox) unbind() error {
	l, id := m.link, broker.Worker(m.server)
	switch {
	case m.server == broker.ParkedServer:
		return errors.New("what is unbound goes there: it is never retired")
	case id == l.id: // the broker would let us: an exclusive queue does not lock out its own connection
		return fmt.Errorf("%w: this very link does", broker.ErrLocked)
	}
	err := l.declareExclusive(id.ControlQueue())
	if isCode(err, amqp091.ResourceLocked) {
		return fmt.Errorf("queue %s: %w", id.ControlQueue(), broker.ErrLocked)
	} else if err != nil {
		return err
	}
	m.retiring = true
	to, hold := broker.ToMailbox(m.server), broker.ToHold(m.server)
	if err := l.unbind(m.queue, to.Exchange, to.Key); err != nil {
		return err
	}
	if err := l.unbind(broker.HoldQueue(m.server), hold.Exchange, hold.Key); err != nil {
		return err
	}
	m.unbound = true
	return nil
}

// Delete waits for what is on its way to us, and needs the mailbox not to be paused. What could
// still be lost is a publish that has been under way since before Unbind and comes in the very
// moment; on a classic queue not even that.
//
// Each step but the publishing of a fence is bounded by the call timeout, that by ctx.
func (m *mailbox) Delete(ctx context.Context) error {
	if err := m.delete(ctx); err != nil {
		return fmt.Errorf("delete %s: %w", m.queue, m.link.failed(err))
	}
	m.end(nil)
	select {
	case <-m.over:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("close the deleted %s: %w", m.queue, context.Cause(ctx))
	}
}

func (m *mailbox) delete(ctx context.Context) error {
	m.calls.Lock()
	defer m.calls.Unlock()
	if err := m.callable(ctx); err != nil {
		return err
	}
	switch {
	case !m.unbound:
		return errors.New("it is still bound: Unbind it first")
	case m.paused:
		return errors.New("it is paused: Resume it first")
	}
	if err := m.empty(ctx); err != nil {
		return err
	}
	// Without a consumer, what comes now stays in the queue, where if-empty sees it.
	if err := m.pause(); err != nil {
		return err
	}
	// The overflow goes first: a mailbox alone is found by the register, an overflow by nobody.
	if err := m.deleteQueue(broker.HoldQueue(m.server)); err != nil {
		return err
	}
	err := m.deleteQueue(m.queue)
	if errors.Is(err, broker.ErrNotEmpty) {
		_, again := m.link.declareQueue(broker.HoldQueue(m.server), new(bool), m.link.mailboxArgs())
		err = errors.Join(err, again, m.resume())
	}
	return err
}

// deleteQueue deletes one of our two queues, which are empty. A quorum queue knows no if-empty, and
// would kill the connection.
func (m *mailbox) deleteQueue(queue string) error {
	var n int
	err := m.link.consuming.try(func(ch *amqp091.Channel) (err error) {
		n, err = ch.QueueDelete(queue, false, m.exclusive, false)
		return err
	})
	switch {
	case isCode(err, amqp091.PreconditionFailed):
		return fmt.Errorf("%w: a message has just come into %s", broker.ErrNotEmpty, queue)
	case err != nil:
		return fmt.Errorf("delete queue %s: %w", queue, err)
	case n != 0:
		m.link.log.Error("messages came into a queue at the very moment of its deletion, and are gone", zap.String("queue", queue), zap.Int("messages", n))
	}
	return nil
}

// empty is ErrNotEmpty if we hold anything unsettled, or if anything is in either queue. It does
// not ask the queues: a quorum queue whose leader does not answer within 250 ms is told to hold
// nothing. It publishes a fence into each: whatever is in a queue comes before it.
func (m *mailbox) empty(ctx context.Context) error {
	if err := m.settled(); err != nil {
		return err
	}
	hold := broker.HoldQueue(m.server)
	if err := m.putFence(ctx, hold); err != nil {
		return err
	}
	for m.fence.Load() != nil {
		ds, err := m.takeHeld(1)
		if err != nil {
			return err
		}
		if len(ds) > 0 { // it goes back to where it was
			err := m.settle(func() error { return m.held.Nack(ds[0].Tag&^heldTag, false, true) })
			m.unsettled.Add(-1)
			return errors.Join(fmt.Errorf("%w: message %q waits in %s", broker.ErrNotEmpty, ds[0].ID, hold), err)
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
	if err := m.putFence(ctx, m.queue); err != nil {
		return err
	}
	for m.fence.Load() != nil {
		select {
		case <-m.came:
			if err := m.settled(); err != nil {
				return err
			}
		case <-m.stop:
			return m.gone()
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return m.settled()
}

func (m *mailbox) settled() error {
	if n := m.unsettled.Load(); n != 0 {
		return fmt.Errorf("%w: %d deliveries are unsettled", broker.ErrNotEmpty, n)
	}
	return nil
}

// putFence publishes a fence into a queue of ours that is unbound. The queue is bound for that, by
// its own name, which is no server's, to the exchange that only workers may write to.
func (m *mailbox) putFence(ctx context.Context, queue string) error {
	l, id := m.link, rand.Text()
	if err := l.bind(queue, broker.ExchangeHold, queue); err != nil {
		return err
	}
	m.fence.Store(&id)
	r, err := l.Publish(ctx, broker.Address{Exchange: broker.ExchangeHold, Key: queue}, broker.Message{
		ID: id, Type: "fence", App: l.id.String(), Transient: true,
		Headers: map[string]any{headerFence: true},
	})
	if err != nil {
		return err
	}
	o, err := broker.Await(ctx, r)
	switch {
	case err != nil:
		return err
	case o == broker.Refused:
		return fmt.Errorf("%w: %s is full", broker.ErrNotEmpty, queue)
	case o != broker.Stored:
		return fmt.Errorf("publish a fence into %s: %v", queue, o)
	}
	return l.unbind(queue, broker.ExchangeHold, queue)
}
