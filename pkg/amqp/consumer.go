package amqp

import (
	"context"
	"errors"
	"fmt"
	"sync"

	amqp091 "github.com/rabbitmq/amqp091-go"

	"github.com/wscluster/wscluster/pkg/broker"
)

// errTakenAway is why a consumer ended whose queue was deleted, or whose node was lost.
var errTakenAway = errors.New("the queue was taken away")

// consumer is what a mailbox and a taker of tasks have in common: a channel of their own, and an
// end. Its channel dies with it, so that a tag of it can never settle anything else's delivery.
type consumer struct {
	what string // for errors
	link *link
	ch   *amqp091.Channel
	out  chan broker.Delivery
	stop chan struct{} // closed when it has ended
	over chan struct{} // closed when it has let go of everything

	mu    sync.Mutex
	ended bool  // guarded by mu
	err   error // guarded by mu: why it ended
}

// openConsumer opens a channel and prepares it. buffer is the room in Deliveries.
func (l *link) openConsumer(what string, buffer int, prepare func(*amqp091.Channel) error) (*consumer, error) {
	c := &consumer{
		what: what, link: l,
		out:  make(chan broker.Delivery, buffer),
		stop: make(chan struct{}),
		over: make(chan struct{}),
	}
	err := l.consuming.watched(func() (err error) {
		if c.ch, err = l.consuming.Channel(); err != nil {
			return err
		}
		if err = prepare(c.ch); err != nil {
			_ = c.ch.Close()
		}
		return err
	})
	return c, err
}

// start runs the consumer: run returns soon after stop is closed, and no delivery is given out
// after it has returned. Then the channel is closed, which gives back what is not settled, and
// then release is called. An error means that the link has ended or is closing, and the channel is
// closed.
func (c *consumer) start(run, release func()) error {
	closes := c.ch.NotifyClose(make(chan *amqp091.Error, 1))
	cancels := c.ch.NotifyCancel(make(chan string, 1))
	live := c.link.register(c, func() {
		var watching sync.WaitGroup
		watching.Go(func() { c.watch(closes, cancels) })
		run()
		c.closeChannel()
		watching.Wait()
		release()
		c.link.unregister(c)
		close(c.out)
		close(c.over)
	})
	if !live {
		c.closeChannel()
		return broker.ErrLinkGone
	}
	return nil
}

// closeChannel fails only with the connection, which has then given everything back as well.
func (c *consumer) closeChannel() { _ = c.link.consuming.watched(c.ch.Close) }

// watch ends the consumer when its queue, its channel or its link is gone. An exception on the
// channel is a fault, and ends the link.
func (c *consumer) watch(closes <-chan *amqp091.Error, cancels <-chan string) {
	select {
	case _, told := <-cancels:
		if told {
			c.end(errTakenAway)
			return
		}
		c.closed(<-closes)
	case err := <-closes:
		c.closed(err)
	case <-c.stop:
	case <-c.link.done:
		c.end(c.link.gone(nil))
	}
}

// closed ends the consumer whose channel was closed; err is nil if that was in our name.
func (c *consumer) closed(err *amqp091.Error) {
	switch {
	case err == nil:
	case c.link.consuming.IsClosed():
		<-c.link.done // supervise knows more
	default:
		c.link.end(fmt.Errorf("channel of %s: %w", c.what, err))
	}
	c.end(c.link.gone(nil))
}

// end ends the consumer, once.
func (c *consumer) end(cause error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended {
		return
	}
	c.ended, c.err = true, cause
	close(c.stop)
}

// gone is what a method of an ended consumer returns.
func (c *consumer) gone() error {
	if err := c.Err(); err != nil && !errors.Is(err, broker.ErrLinkGone) {
		return fmt.Errorf("%s: %w: %w", c.what, broker.ErrLinkGone, err)
	}
	return fmt.Errorf("%s has ended: %w", c.what, broker.ErrLinkGone)
}

func (c *consumer) Deliveries() <-chan broker.Delivery { return c.out }

func (c *consumer) Err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// settle answers a delivery. Nothing is written once the consumer has ended.
func (c *consumer) settle(answer func() error) error {
	select {
	case <-c.stop:
		return c.gone()
	default:
	}
	if err := answer(); err != nil {
		return fmt.Errorf("%s: %w: %w", c.what, broker.ErrLinkGone, err)
	}
	return nil
}

// Close returns when the queue is free for others, or ctx has ended: then it is free soon.
func (c *consumer) Close(ctx context.Context) error {
	c.end(nil)
	select {
	case <-c.over:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("close %s: %w", c.what, context.Cause(ctx))
	}
}
