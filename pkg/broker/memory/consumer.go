package memory

import (
	"context"
	"fmt"
	"slices"

	"github.com/wscluster/wscluster/pkg/broker"
)

// consumer is a taker within a link.
type consumer struct {
	l   *link
	out chan broker.Delivery // holds the whole prefetch, so that giving never blocks

	// Guarded by l.b.mu.
	taker *Taker
	over  bool
	err   error
}

func (l *link) newConsumer(ctx context.Context, prefetch int) (*consumer, error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if prefetch < 1 || prefetch > maxPrefetch {
		return nil, fmt.Errorf("%d unsettled deliveries at most is not between 1 and %d", prefetch, maxPrefetch)
	}
	return &consumer{l: l, out: make(chan broker.Delivery, prefetch)}, nil
}

func (c *consumer) give(d broker.Delivery) { c.out <- d }

func (c *consumer) Deliveries() <-chan broker.Delivery { return c.out }
func (c *consumer) Requeue(tag uint64) error           { return c.settle(tag, true) }

func (c *consumer) Ack(tags ...uint64) error {
	for _, tag := range tags {
		if err := c.settle(tag, false); err != nil {
			return err
		}
	}
	return nil
}

// settle ends the link, as RabbitMQ would, if the tag is not one to be settled: whoever settles
// twice has lost count of its deliveries.
func (c *consumer) settle(tag uint64, again bool) error {
	b := c.l.b
	b.mu.Lock()
	defer b.mu.Unlock()
	if c.over {
		return fmt.Errorf("settle tag %d: %w", tag, broker.ErrLinkGone)
	}
	if again && c.taker.overflow != nil {
		return fmt.Errorf("requeue tag %d: a mailbox would lose its order: close the consumer instead", tag)
	}
	if !c.taker.Settle(tag, again) {
		err := fmt.Errorf("%w: tag %d was settled before, or never delivered", broker.ErrLinkGone, tag)
		b.end(err, c.l)
		return err
	}
	return nil
}

func (c *consumer) Pause(context.Context) error  { return c.pause(true) }
func (c *consumer) Resume(context.Context) error { return c.pause(false) }

func (c *consumer) pause(on bool) error {
	c.l.b.mu.Lock()
	defer c.l.b.mu.Unlock()
	if c.over {
		return broker.ErrLinkGone
	}
	c.taker.Pause(on)
	return nil
}

func (c *consumer) Err() error {
	c.l.b.mu.Lock()
	defer c.l.b.mu.Unlock()
	return c.err
}

func (c *consumer) Close(context.Context) error {
	c.l.b.mu.Lock()
	defer c.l.b.mu.Unlock()
	if !c.over {
		c.taker.Close()
		c.left()
	}
	return nil
}

// left is closed by itself, not with its link. b.mu is held, and the store has let go of the taker.
func (c *consumer) left() {
	c.l.consumers = slices.DeleteFunc(c.l.consumers, func(other *consumer) bool { return other == c })
	c.closed(nil)
}

// closed marks the end; the store has let go of the taker. What is already in the channel may still be read; settling it does nothing.
func (c *consumer) closed(reason error) {
	c.over = true
	c.err = reason
	close(c.out)
}
