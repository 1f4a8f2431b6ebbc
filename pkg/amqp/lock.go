package amqp

import (
	"context"
	"fmt"
	"sync"

	amqp091 "github.com/rabbitmq/amqp091-go"

	"github.com/wscluster/wscluster/pkg/broker"
)

// Lock looks at ctx before it begins, and is bounded by the call timeout.
func (l *link) Lock(ctx context.Context, name string) (release func(), err error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	queue := "lock." + name
	if err := l.acquire(queue, nil, broker.ErrLocked); err != nil {
		return nil, fmt.Errorf("lock %s: %w", name, err)
	}
	return sync.OnceFunc(func() { l.release(queue) }), nil
}

// acquire takes a lock: a queue that is exclusive to our connection and dies with it. taken is the
// error if anybody has it, be it this very link.
func (l *link) acquire(queue string, args amqp091.Table, taken error) error {
	l.mu.Lock()
	ours := l.locks[queue]
	l.locks[queue] = true
	l.mu.Unlock()
	if ours {
		return fmt.Errorf("%w: this very link does", taken)
	}
	err := l.declareExclusive(queue, args)
	if err == nil {
		return nil
	}
	l.disown(queue)
	if isCode(err, amqp091.ResourceLocked) {
		return taken
	}
	return l.failed(fmt.Errorf("declare queue %s: %w", queue, err))
}

// release gives a lock back, unless it has gone with the link.
func (l *link) release(queue string) {
	l.deleteQueue(queue)
	l.disown(queue)
}

func (l *link) disown(queue string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.locks, queue)
}

// declareExclusive makes a queue that lives as long as our connection. Doing it again changes
// nothing.
func (l *link) declareExclusive(queue string, args amqp091.Table) error {
	return l.consuming.try(func(ch *amqp091.Channel) error {
		_, err := ch.QueueDeclare(queue, false, true, true, false, args)
		return err
	})
}

// deleteQueue deletes an exclusive queue of ours. An error means that it has gone with the link.
func (l *link) deleteQueue(queue string) {
	_ = l.consuming.try(func(ch *amqp091.Channel) error {
		_, err := ch.QueueDelete(queue, false, false, false)
		return err
	})
}
