package amqp

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	amqp091 "github.com/rabbitmq/amqp091-go"

	"github.com/wscluster/wscluster/pkg/broker"
	"github.com/wscluster/wscluster/pkg/socketmeta"
	"github.com/wscluster/wscluster/pkg/wire"
)

const (
	postsAhead   = 256         // posts that the broker sends before the first of them is acknowledged
	postsBatch   = 64          // posts that are acknowledged at once
	postsAckedIn = time.Second // or those that were given out this long ago
	bindBatch    = 500         // bindings for which the broker's answer is awaited once
)

// channelsArgs bound what waits for a worker.
func channelsArgs() amqp091.Table {
	return amqp091.Table{
		"x-queue-type":       Classic,
		"x-max-length":       int64(broker.MaxWaitingPosts),
		"x-max-length-bytes": int64(broker.MaxWaitingPostBytes),
		"x-overflow":         amqp091.QueueOverflowDropHead,
	}
}

// channels is the queue of one worker's posts, which is exclusive to our connection. Its deliveries
// have a channel of their own, with a prefetch: without one the library would keep what is not read without
// a bound. They are acknowledged many at once, when they were given out.
//
// Bindings are made on another channel, so that an exception ends that one alone: a worker that lacks
// a right gets an error, and keeps its mailbox.
type channels struct {
	c      *consumer // of which Deliveries is not used
	queue  string
	in     <-chan amqp091.Delivery
	out    chan broker.Post
	calls  sync.Mutex       // one call to the broker at a time
	binder *amqp091.Channel // guarded by calls; nil before the first, and it may be closed
}

var _ broker.Channels = (*channels)(nil)

// OpenChannels looks at ctx before it begins. Each of its steps is bounded by the call timeout.
func (l *link) OpenChannels(ctx context.Context, s socketmeta.ServerID) (_ broker.Channels, err error) {
	defer func() {
		if err != nil {
			err = fmt.Errorf("open the channels of %s: %w", s, l.failed(err))
		}
	}()
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	c := &channels{queue: broker.ChannelsQueue(s), out: make(chan broker.Post)}
	if err := l.acquire(c.queue, channelsArgs(), broker.ErrLocked); err != nil {
		return nil, err
	}
	c.c, err = l.openConsumer(c.queue, 0, func(ch *amqp091.Channel) (err error) {
		if err = ch.Qos(postsAhead, 0, false); err == nil {
			c.in, err = ch.Consume(c.queue, "", false, true, false, false, nil)
		}
		return err
	})
	if err == nil {
		err = c.c.start(c.run, c.release)
	}
	if err != nil {
		l.release(c.queue)
		return nil, err
	}
	return c, nil
}

// run gives out posts until the end.
func (c *channels) run() {
	defer close(c.out)
	given := 0      // and not acknowledged
	var last uint64 // the tag of the last one
	late := time.NewTimer(postsAckedIn)
	defer late.Stop()
	acknowledge := func() {
		if given > 0 {
			given = 0
			_ = c.c.settle(func() error { return c.c.ch.Ack(last, true) }) // fails only with the link
		}
	}
	for {
		select {
		case d, ok := <-c.in:
			if !ok {
				<-c.c.stop
				return
			}
			select {
			case c.out <- broker.Post{Message: decode(d).Message, Channel: d.RoutingKey}:
			case <-c.c.stop:
				return
			}
			if given++; given == 1 {
				late.Reset(postsAckedIn)
			}
			if last = d.DeliveryTag; given >= postsBatch {
				acknowledge()
			}
		case <-late.C:
			acknowledge()
		case <-c.c.stop:
			return
		}
	}
}

// release is called when the channel of the deliveries is closed: the queue has gone with its only consumer.
func (c *channels) release() {
	c.calls.Lock()
	defer c.calls.Unlock()
	if c.binder != nil {
		_ = c.c.link.consuming.watched(c.binder.Close) // fails only with the connection, or if it is closed
	}
	c.c.link.disown(c.queue)
}

func (c *channels) Posts() <-chan broker.Post { return c.out }

func (c *channels) Bind(ctx context.Context, names ...wire.Channel) error {
	return c.bind(ctx, broker.ExchangeNamed, names...)
}

func (c *channels) Unbind(ctx context.Context, names ...wire.Channel) error {
	return c.unbind(ctx, broker.ExchangeNamed, names...)
}

func (c *channels) BindAll(ctx context.Context) error {
	return c.bind(ctx, broker.ExchangeChannels, "#")
}

func (c *channels) UnbindAll(ctx context.Context) error {
	return c.unbind(ctx, broker.ExchangeChannels, "#")
}

// bind awaits only the last answer of a batch, which is that to all: an exception closes the channel.
func (c *channels) bind(ctx context.Context, exchange string, keys ...wire.Channel) error {
	for batch := range slices.Chunk(keys, bindBatch) {
		err := c.call(ctx, func(ch *amqp091.Channel) error {
			for i, key := range batch {
				if err := ch.QueueBind(c.queue, string(key), exchange, i < len(batch)-1, nil); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return fmt.Errorf("bind queue %s to exchange %s: %w", c.queue, exchange, err)
		}
	}
	return nil
}

// unbind makes a call for each key: AMQP has no way to unbind without an answer.
func (c *channels) unbind(ctx context.Context, exchange string, keys ...wire.Channel) error {
	for _, key := range keys {
		err := c.call(ctx, func(ch *amqp091.Channel) error { return ch.QueueUnbind(c.queue, string(key), exchange, nil) })
		if err != nil {
			return fmt.Errorf("unbind queue %s from exchange %s: %w", c.queue, exchange, err)
		}
	}
	return nil
}

// call makes a call on the channel for bindings. It looks at ctx before it begins, and is bounded by the call timeout.
func (c *channels) call(ctx context.Context, f func(*amqp091.Channel) error) error {
	c.calls.Lock()
	defer c.calls.Unlock()
	select {
	case <-c.c.stop:
		return c.c.gone()
	case <-ctx.Done():
		return context.Cause(ctx)
	default:
	}
	l := c.c.link
	err := l.consuming.watched(func() (err error) {
		if c.binder == nil || c.binder.IsClosed() {
			if c.binder, err = l.consuming.Channel(); err != nil {
				return err
			}
		}
		return f(c.binder)
	})
	if err != nil {
		return l.failed(err)
	}
	return nil
}
