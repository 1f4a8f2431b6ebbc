package amqp

import (
	"context"
	"errors"
	"fmt"
	"time"

	amqp091 "github.com/rabbitmq/amqp091-go"

	"github.com/wscluster/wscluster/pkg/broker"
)

// heldTag marks the tags of the overflow's channel, which counts its deliveries from 1 as the
// mailbox's own does.
const heldTag = 1 << 63

// heldSettles is some times what a quorum queue was seen to take: 2 ms, seldom more than 100.
const heldSettles = 500 * time.Millisecond

// TakeHeld asks how many messages wait, and consumes so many. Taking them one by one (basic.get)
// would lose their order on a quorum queue, which gives back what belongs to one consumer in order,
// and counts every get as a consumer of its own: 150 messages taken so came back shuffled. Several
// consumers give back theirs in the order of their tags, as long as at most 32 of them have
// something unsettled. What comes again on a quorum queue comes in order once: if its second owner
// takes only a part of it and dies, the rest is before that part.
//
// A quorum queue whose leader does not answer within 250 ms is told to hold nothing: then nothing
// is taken this time. One whose leader has just been elected, as after a restart of the broker, counts what waits for some
// time before it has back what a dead owner held: so the first count that is not 0 is taken again, heldSettles later.
//
// ctx is looked at before it begins. Each step, and the wait for each message, is bounded by the
// call timeout.
func (m *mailbox) TakeHeld(ctx context.Context, max int) (ds []broker.Delivery, left int, err error) {
	m.calls.Lock()
	defer m.calls.Unlock()
	if err := m.callable(ctx); err != nil {
		return nil, 0, err
	}
	if ds, err = m.takeHeld(max); err != nil || len(ds) < max {
		return ds, 0, err
	}
	if left, err = m.countHeld(); err != nil {
		m.link.end(err)
		return nil, 0, m.link.gone(err)
	}
	return ds, left, nil
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
	for len(ds) < max {
		n, err := m.countHeld()
		if n > 0 && err == nil && !m.heldSettled && m.link.o.MailboxType == Quorum {
			select {
			case <-time.After(heldSettles):
			case <-m.stop:
				return nil, m.gone()
			}
			m.heldSettled = true
			continue
		}
		if n = min(n, max-len(ds), maxPrefetch); err != nil || n == 0 {
			return ds, err
		}
		var in <-chan amqp091.Delivery
		tag := m.nextTag()
		err = m.link.consuming.watched(func() (err error) {
			if err = m.held.Qos(n, 0, false); err != nil {
				return err
			}
			in, err = m.held.Consume(broker.HoldQueue(m.server), tag, false, false, false, false, nil)
			return err
		})
		if err != nil {
			return nil, err
		}
		var fences []uint64 // acknowledged now, they would make room for more than was counted
		for range n {       // they wait, and nobody else takes them
			d, err := m.receiveHeld(in)
			if err != nil {
				return nil, err
			}
			if m.note(d) {
				fences = append(fences, d.DeliveryTag)
				continue
			}
			held := decode(d)
			held.Tag |= heldTag
			ds = append(ds, held)
		}
		err = m.link.consuming.watched(func() error { return m.held.Cancel(tag, false) })
		for _, tag := range fences {
			err = errors.Join(err, m.held.Ack(tag, false))
		}
		if err != nil || fences == nil {
			return ds, err
		}
	}
	return ds, nil
}

// countHeld asks how many messages wait in the overflow.
func (m *mailbox) countHeld() (messages int, err error) {
	err = m.link.consuming.watched(func() error {
		q, err := m.held.QueueDeclarePassive(broker.HoldQueue(m.server), true, false, false, false, nil)
		messages = q.Messages
		return err
	})
	return messages, err
}

func (m *mailbox) receiveHeld(in <-chan amqp091.Delivery) (d amqp091.Delivery, err error) {
	err = m.link.consuming.watched(func() error {
		var ok bool
		select {
		case d, ok = <-in:
			if !ok {
				return errTakenAway
			}
			return nil
		case <-m.stop:
			return m.gone()
		}
	})
	return d, err
}

// openHeld opens the channel for the overflow.
func (m *mailbox) openHeld() (err error) {
	m.held, err = m.openBeside()
	return err
}

// openBeside opens a channel that ends with the mailbox. Its exceptions end the link, as those of the
// mailbox's first channel do. Called with calls held.
func (m *mailbox) openBeside() (ch *amqp091.Channel, err error) {
	err = m.link.consuming.watched(func() (err error) {
		if ch, err = m.link.consuming.Channel(); err != nil {
			return err
		}
		m.beside = append(m.beside, ch)
		closes := ch.NotifyClose(make(chan *amqp091.Error, 1))
		m.giving.Go(func() {
			select {
			case err := <-closes:
				m.closed(err)
			case <-m.stop:
			}
		})
		return nil
	})
	return ch, err
}
