package memory

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/wscluster/wscluster/pkg/broker"
	"github.com/wscluster/wscluster/pkg/socketmeta"
	"github.com/wscluster/wscluster/pkg/wire"
)

// maxPrefetch is AMQP's: basic.qos carries 16 bits.
const maxPrefetch = 1<<16 - 1

// link is one life of a connection to a Broker.
type link struct {
	b          *Broker
	id         broker.Identity
	generation uint64
	in         *Inbox
	window     chan struct{} // one element for each unanswered publish
	stop       chan struct{} // closed when no publish is taken any more
	done       chan struct{}
	answering  sync.WaitGroup // those who answer and give out posts, while there is something to

	// Guarded by b.mu.
	err       error
	control   chan broker.Message
	consumers []*consumer
	channels  []*channels
	stopped   bool // stop is closed
	ended     bool // done is closed
	answers   answers
}

func newLink(b *Broker, id broker.Identity) *link {
	return &link{
		b:       b,
		id:      id,
		window:  make(chan struct{}, b.window),
		stop:    make(chan struct{}),
		done:    make(chan struct{}),
		control: make(chan broker.Message, b.inbox),
	}
}

// post puts a control message into the inbox, or drops it. b.mu is held.
func (l *link) post(m broker.Message) {
	select {
	case l.control <- m:
	default:
		l.b.dropped++
	}
}

func (l *link) Generation() uint64           { return l.generation }
func (l *link) Inbox() <-chan broker.Message { return l.control }
func (l *link) Done() <-chan struct{}        { return l.done }

func (l *link) Err() error {
	l.b.mu.Lock()
	defer l.b.mu.Unlock()
	return l.err
}

func (l *link) Blocked() bool {
	l.b.mu.Lock()
	defer l.b.mu.Unlock()
	return l.b.unblocked != nil && !l.ended
}

// Publish stores m, or does what Broker.OnPublish says, and answers from another goroutine.
func (l *link) Publish(ctx context.Context, to broker.Address, m broker.Message) (broker.Receipt, error) {
	r, err := l.publish(ctx, to, m)
	if err != nil {
		return nil, fmt.Errorf("publish to %s %q: %w", to.Exchange, to.Key, err)
	}
	return r, nil
}

func (l *link) publish(ctx context.Context, to broker.Address, m broker.Message) (*receipt, error) {
	if err := m.Check(); err != nil {
		return nil, err
	}
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	m.Body, m.Headers = slices.Clone(m.Body), maps.Clone(m.Headers)
	m.Time = m.Time.Truncate(time.Second)
	v := l.b.judge(Publish{l.id, to, m})

	select {
	case l.window <- struct{}{}: // a place among the unanswered: whoever resolves the receipt frees it
	case <-l.stop:
		return nil, broker.ErrLinkGone
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	l.b.mu.Lock()
	defer l.b.mu.Unlock()
	err := l.untilUnblocked(ctx)
	if err == nil && l.stopped {
		err = l.gone()
	}
	if err != nil {
		<-l.window
		return nil, err
	}
	a := v.answer(l.b.store, to, m)
	if to.Exchange == broker.ExchangeLedger {
		l.b.noteRecord()
	}
	return l.await(a), nil
}

// untilUnblocked waits for the end of an alarm, or of the link. b.mu is held, but not while it waits.
func (l *link) untilUnblocked(ctx context.Context) error {
	for l.b.unblocked != nil && !l.stopped {
		unblocked := l.b.unblocked
		l.b.mu.Unlock()
		select {
		case <-unblocked:
		case <-l.stop:
		case <-ctx.Done():
		}
		l.b.mu.Lock()
		if ctx.Err() != nil {
			return fmt.Errorf("the broker is blocked: %w", context.Cause(ctx))
		}
	}
	return nil
}

func (l *link) OpenTasks(ctx context.Context, kinds []string, slots int) (broker.Consumer, error) {
	c, err := l.newConsumer(ctx, slots)
	if err != nil {
		return nil, fmt.Errorf("open tasks of %q: %w", kinds, err)
	}
	if len(kinds) == 0 {
		return nil, errors.New("open tasks: name at least one kind")
	}
	kinds = slices.Compact(slices.Sorted(slices.Values(kinds)))
	l.b.mu.Lock()
	defer l.b.mu.Unlock()
	if l.stopped {
		return nil, fmt.Errorf("open tasks of %q: %w", kinds, l.gone())
	}
	c.taker = l.b.store.Share(l.in, kinds, slots, c.give)
	l.consumers = append(l.consumers, c)
	return c, nil
}

func (l *link) OpenDeadTasks(ctx context.Context, prefetch int) (broker.Consumer, error) {
	c, err := l.newConsumer(ctx, prefetch)
	if err == nil {
		err = l.call(ctx, func() error {
			c.taker = l.b.store.ShareDead(l.in, prefetch, c.give)
			l.consumers = append(l.consumers, c)
			return nil
		})
	}
	if err != nil {
		return nil, fmt.Errorf("open the dead tasks: %w", err)
	}
	return c, nil
}

func (l *link) Lock(ctx context.Context, name string) (release func(), err error) {
	if err := l.call(ctx, func() error { return l.in.Lock(name) }); err != nil {
		return nil, fmt.Errorf("lock %s: %w", name, err)
	}
	var once sync.Once // a lock of that name that is taken later is another
	return func() {
		once.Do(func() {
			l.b.mu.Lock()
			defer l.b.mu.Unlock()
			l.in.Unlock(name)
		})
	}, nil
}

func (l *link) Register(ctx context.Context, s socketmeta.ServerID) error {
	return l.call(ctx, func() error {
		l.b.store.Register(s)
		return nil
	})
}

func (l *link) Waiting(ctx context.Context, kind string, p wire.Priority) (n int, err error) {
	err = l.call(ctx, func() error {
		high := broker.TasksQueue(kind, wire.High)
		if l.b.store.queues[high] == nil {
			return fmt.Errorf("there is no queue %s", high)
		}
		n, _ = l.b.store.Depth(high)
		if p != wire.High {
			normal, _ := l.b.store.Depth(broker.TasksQueue(kind, wire.Normal))
			n += normal
		}
		return nil
	})
	return n, err
}

func (l *link) Servers(ctx context.Context) (list []socketmeta.ServerID, err error) {
	err = l.call(ctx, func() error {
		list = l.b.store.Servers()
		return nil
	})
	return list, err
}

// call makes f one step of the broker's, unless ctx or the link has ended.
func (l *link) call(ctx context.Context, f func() error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	l.b.mu.Lock()
	defer l.b.mu.Unlock()
	if l.stopped {
		return l.gone()
	}
	return f()
}

// Close waits for the receipts in flight; if ctx ends first they are Unknown, and it says so.
func (l *link) Close(ctx context.Context) error {
	l.b.mu.Lock()
	if !l.stopped {
		l.halt()
	}
	closeAll(l.in.takers)
	l.closeConsumers(nil)
	answered := l.answers.drained()
	l.b.mu.Unlock()

	var err error
	select {
	case <-answered:
	case <-l.done:
	case <-ctx.Done():
		err = fmt.Errorf("close the link of %v with receipts in flight: %w", l.id, context.Cause(ctx))
	}

	l.b.mu.Lock()
	if !l.ended {
		l.b.end(nil, l)
	}
	l.b.mu.Unlock()
	l.answering.Wait()
	return err
}

// halt refuses publishes from now on. b.mu is held.
func (l *link) halt() {
	l.stopped = true
	close(l.stop)
	for _, c := range l.channels {
		c.closed()
	}
}

// end closes everything that was opened on the link. b.mu is held, and the store has let go of it.
func (l *link) end(reason error) {
	if !l.stopped {
		l.halt()
	}
	l.err = reason
	l.closeConsumers(reason)
	close(l.control)
	l.answers.abandon(l.window)
	l.ended = true
	close(l.done)
}

func (l *link) closeConsumers(reason error) {
	for _, c := range l.consumers {
		c.closed(reason)
	}
	l.consumers = nil
}

// gone is why a link that has stopped does nothing. b.mu is held.
func (l *link) gone() error {
	if l.err != nil {
		return l.err
	}
	return fmt.Errorf("%w: it was closed", broker.ErrLinkGone)
}
