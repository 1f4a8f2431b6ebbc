package amqp

import (
	"context"
	"fmt"

	amqp091 "github.com/rabbitmq/amqp091-go"

	"github.com/wscluster/wscluster/pkg/broker"
)

// OpenDeadTasks looks at ctx before it begins. Each of its steps is bounded by the call timeout. The first
// dead task is fetched here: what is refused to this user then ends no link.
func (l *link) OpenDeadTasks(ctx context.Context, prefetch int) (_ broker.Consumer, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("open the dead tasks: %w", l.failed(err))
		}
	}()
	if prefetch < 1 || prefetch > maxPrefetch {
		return nil, fmt.Errorf("prefetch %d: must be 1 to %d", prefetch, maxPrefetch)
	}
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	for _, queue := range []string{broker.QueueDeadTasks, broker.QueueKeptTasks} {
		err := l.consuming.try(func(ch *amqp091.Channel) error {
			_, err := ch.QueueDeclarePassive(queue, true, false, false, false, nil)
			return err
		})
		if err != nil {
			return nil, fmt.Errorf("look for queue %s: %w", queue, err)
		}
	}
	t := newTaker(prefetch)
	t.turns = []turn{{queues: []string{broker.QueueDeadTasks}}}
	if err := t.open(l, "dead tasks"); err != nil {
		return nil, err
	}
	if _, err := t.fetch(); err != nil {
		t.closeChannel()
		return nil, err
	}
	if err := t.start(t.run, func() {}); err != nil {
		return nil, err
	}
	return t, nil
}
