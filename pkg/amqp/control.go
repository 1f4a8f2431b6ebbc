package amqp

import (
	"errors"
	"fmt"

	amqp091 "github.com/rabbitmq/amqp091-go"
	"go.uber.org/zap"

	"github.com/wscluster/wscluster/pkg/broker"
)

// inboxSize is how many control messages wait to be read; further ones are dropped.
const inboxSize = 1024

// lock takes the identity: its control queue is exclusive to our connection, and dies with it.
func (l *link) lock() error {
	err := l.declareExclusive(l.id.ControlQueue(), nil)
	if isCode(err, amqp091.ResourceLocked) {
		return fmt.Errorf("queue %s: %w", l.id.ControlQueue(), broker.ErrLocked)
	}
	if err != nil {
		return fmt.Errorf("declare queue %s: %w", l.id.ControlQueue(), err)
	}
	return nil
}

// consumeControl binds the control queue and starts its deliveries, which need no acknowledgement.
func (l *link) consumeControl(ch *amqp091.Channel) (<-chan amqp091.Delivery, error) {
	queue := l.id.ControlQueue()
	if err := ch.QueueBind(queue, l.id.Key(), broker.ExchangeControl, false, nil); err != nil {
		return nil, err
	}
	if err := ch.QueueBind(queue, "", broker.ExchangeAnnounce, false, nil); err != nil {
		return nil, err
	}
	return ch.Consume(queue, "", true, true, false, false, nil)
}

// receiveControl moves control messages into the inbox until the link ends. It always reads: the
// library would keep what is not read without a bound.
func (l *link) receiveControl(ch *amqp091.Channel, messages <-chan amqp091.Delivery) {
	defer close(l.inbox)
	dropped := 0
	for d := range messages {
		select {
		case l.inbox <- decode(d).Message:
		default:
			if dropped++; dropped == 1 {
				l.log.Warn("nobody reads the control messages: dropping the newest", zap.Int("waiting", inboxSize))
			}
		}
	}
	if dropped > 0 {
		l.log.Warn("control messages were dropped", zap.Int("dropped", dropped))
	}
	if !ch.IsClosed() { // the broker cancelled us
		l.end(errors.New("the control queue was taken away"))
	}
}
