package amqp

import (
	"context"
	"fmt"

	amqp091 "github.com/rabbitmq/amqp091-go"

	"github.com/wscluster/wscluster/pkg/broker"
)

// heldTag marks the tags of the overflow's channel, which counts its deliveries from 1 as the
// mailbox's own does.
const heldTag = 1 << 63

// TakeHeld asks how many messages wait, and consumes so many. Taking them one by one (basic.get)
// would lose their order on a quorum queue, which gives back what belongs to one consumer in order,
// and counts every get as a consumer of its own: 150 messages taken so came back shuffled. Several
// consumers give back theirs in the order of their tags, as long as at most 32 of them have
// something unsettled.
//
// ctx is looked at before it begins. Each step, and the wait for each message, is bounded by the
// call timeout.
func (m *mailbox) TakeHeld(ctx context.Context, max int) ([]broker.Delivery, error) {
	m.calls.Lock()
	defer m.calls.Unlock()
	if err := m.callable(ctx); err != nil {
		return nil, err
	}
	return m.takeHeld(max)
}

// takeHeld ends the link when it fails: what it has taken must go back, as it does if the mailbox
// ends in between.
func (m *mailbox) takeHeld(max int) ([]broker.Delivery, error) {
	ds, err := m.consumeHeld(max)
	if err == nil {
		return ds, nil
	}
	select {
	case <-m.stop:
		return nil, m.gone()
	default:
	}
	err = fmt.Errorf("take from %s: %w", broker.HoldQueue(m.server), err)
	m.link.end(err)
	return nil, m.link.gone(err)
}

func (m *mailbox) consumeHeld(max int) (ds []broker.Delivery, err error) {
	if m.held == nil {
		if err := m.openHeld(); err != nil {
			return nil, err
		}
	}
	queue := broker.HoldQueue(m.server)
	var in <-chan amqp091.Delivery
	tag := m.nextTag()
	err = m.link.consuming.watched(func() error {
		q, err := m.held.QueueDeclarePassive(queue, true, false, false, false, nil)
		if max = min(max, q.Messages, maxPrefetch); err != nil || max <= 0 {
			return err
		}
		if err := m.held.Qos(max, 0, false); err != nil {
			return err
		}
		in, err = m.held.Consume(queue, tag, false, false, false, false, nil)
		return err
	})
	if in == nil {
		return nil, err
	}
	for range max { // they wait, and nobody else takes them
		err := m.link.consuming.watched(func() error {
			select {
			case d, ok := <-in:
				if !ok {
					return errTakenAway
				}
				if !m.note(m.held, d) {
					held := decode(d)
					held.Tag |= heldTag
					ds = append(ds, held)
				}
				return nil
			case <-m.stop:
				return m.gone()
			}
		})
		if err != nil {
			return nil, err
		}
	}
	return ds, m.link.consuming.watched(func() error { return m.held.Cancel(tag, false) })
}

// openHeld opens the channel for the overflow. Its exceptions end the link, as those of the
// mailbox's channel do.
func (m *mailbox) openHeld() error {
	return m.link.consuming.watched(func() (err error) {
		if m.held, err = m.link.consuming.Channel(); err != nil {
			return err
		}
		closes := m.held.NotifyClose(make(chan *amqp091.Error, 1))
		m.giving.Go(func() {
			select {
			case err := <-closes:
				m.closed(err)
			case <-m.stop:
			}
		})
		return nil
	})
}
