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
	err := l.declareExclusive(id.ControlQueue(), nil)
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

// Delete waits for what is on its way to us, and needs the mailbox not to be paused. A publish that
// the broker has routed before Unbind and not yet put into the queue when that is deleted would be
// lost, and confirmed: hence the wait between the two.
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
	return m.deleteQueues(ctx)
}

// deleteQueues deletes both queues, unless something has come since they were empty: then it
// deletes neither.
func (m *mailbox) deleteQueues(ctx context.Context) error {
	if err := m.pause(); err != nil {
		return err
	}
	err := m.settledUntil(ctx, m.given)
	if err == nil {
		// The overflow goes first: a mailbox alone is found by the register, an overflow by nobody.
		err = m.deleteQueue(broker.HoldQueue(m.server))
	}
	if err == nil {
		if err = m.deleteQueue(m.queue); err == nil {
			return nil
		}
		_, again := m.link.declareQueue(broker.HoldQueue(m.server), new(bool), m.link.mailboxArgs())
		err = errors.Join(err, again)
	}
	return errors.Join(err, m.resume())
}

// deleteQueue deletes one of our two queues, which were empty and have no consumer any more.
func (m *mailbox) deleteQueue(queue string) error {
	var ready, lost int
	err := m.link.consuming.try(func(ch *amqp091.Channel) error {
		q, err := ch.QueueDeclarePassive(queue, true, false, false, false, nil)
		if ready = q.Messages; err != nil || ready > 0 {
			return err
		}
		lost, err = ch.QueueDelete(queue, false, m.exclusive, false) // a quorum queue knows no if-empty, and would kill the connection
		return err
	})
	switch {
	case ready > 0 || isCode(err, amqp091.PreconditionFailed):
		return fmt.Errorf("%w: something has just come into %s", broker.ErrNotEmpty, queue)
	case err != nil:
		return fmt.Errorf("delete queue %s: %w", queue, err)
	case lost > 0:
		m.link.log.Error("messages came into a queue at the very moment of its deletion, and are gone", zap.String("queue", queue), zap.Int("messages", lost))
	}
	return nil
}

// empty is ErrNotEmpty if we hold anything unsettled, or if anything is in either queue. It does
// not ask the queues: a quorum queue whose leader does not answer within 250 ms is told to hold
// nothing. It publishes a fence into each: whatever is in a queue comes before it.
func (m *mailbox) empty(ctx context.Context) error {
	if err := m.holdEmpty(ctx); err != nil {
		return err
	}
	f, err := m.putFence(ctx, m.queue)
	if err != nil {
		return err
	}
	return m.settledUntil(ctx, f.came)
}

// settledUntil waits until something is closed. It is ErrNotEmpty as soon as we hold anything
// unsettled.
func (m *mailbox) settledUntil(ctx context.Context, closed <-chan struct{}) error {
	for over := false; ; {
		if n := m.unsettled.Load(); n != 0 {
			return fmt.Errorf("%w: %d deliveries are unsettled", broker.ErrNotEmpty, n)
		}
		if over {
			return nil
		}
		select {
		case <-closed:
			over = true
		case <-m.came:
		case <-m.stop:
			return m.gone()
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// holdEmpty takes nothing but a fence from the overflow: what is given back to a quorum queue is
// away for a moment. A fence that was left by a dead owner counts as a message until TakeHeld.
func (m *mailbox) holdEmpty(ctx context.Context) error {
	if m.held == nil {
		if err := m.openHeld(); err != nil {
			return err
		}
	}
	hold := broker.HoldQueue(m.server)
	if n, err := m.countHeld(); err != nil {
		return err
	} else if n > 0 {
		return fmt.Errorf("%w: %d messages wait in %s", broker.ErrNotEmpty, n, hold)
	}
	f, err := m.putFence(ctx, hold)
	if err != nil {
		return err
	}
	switch n, err := m.countHeld(); {
	case err != nil:
		return err
	case n != 1: // the fence is there: the count is no count
		return fmt.Errorf("%w, or does not tell: try again", broker.ErrNotEmpty)
	}
	if _, err := m.takeHeld(1); err != nil {
		return err
	}
	return m.settledUntil(ctx, f.came)
}

// fence is a message behind everything that a queue holds.
type fence struct {
	id   string
	came chan struct{} // closed when it was received
}

// putFence publishes a fence into a queue of ours that is unbound. The queue is bound for that, by
// its own name, which is no server's, to the exchange that only workers may write to.
func (m *mailbox) putFence(ctx context.Context, queue string) (*fence, error) {
	l, f := m.link, &fence{rand.Text(), make(chan struct{})}
	if err := l.bind(queue, broker.ExchangeHold, queue); err != nil {
		return nil, err
	}
	m.fence.Store(f)
	r, err := l.Publish(ctx, broker.Address{Exchange: broker.ExchangeHold, Key: queue}, broker.Message{
		ID: f.id, Type: "fence", App: l.id.String(), Transient: true,
		Headers: map[string]any{headerFence: true},
	})
	if err != nil {
		return nil, err
	}
	o, err := broker.Await(ctx, r)
	switch {
	case err != nil:
		return nil, err
	case o == broker.Refused:
		return nil, fmt.Errorf("%w: %s is full", broker.ErrNotEmpty, queue)
	case o != broker.Stored:
		return nil, fmt.Errorf("publish a fence into %s: %v", queue, o)
	}
	return f, l.unbind(queue, broker.ExchangeHold, queue)
}
