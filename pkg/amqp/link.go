package amqp

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"

	amqp091 "github.com/rabbitmq/amqp091-go"
	"go.uber.org/zap"

	"github.com/wscluster/wscluster/pkg/broker"
)

// link is one life of the two connections. supervise notices the first fault, ends everything and
// waits for it.
type link struct {
	id         broker.Identity
	generation uint64
	url        string // of the node that it is joined to
	o          *Options
	log        *zap.Logger
	publishing *conn
	consuming  *conn
	publisher  *publisher
	inbox      chan broker.Message
	refusals   *refusals

	done    chan struct{} // closed when the link has ended
	over    chan struct{} // closed when nothing of it runs any more
	running sync.WaitGroup

	mu        sync.Mutex
	closing   bool                   // guarded by mu, like what follows: Close was called
	ended     bool                   // nothing starts any more
	err       error                  // why it ended
	consumers map[*consumer]struct{} // those that are open
	locks     map[string]bool        // the queues of those we hold: an exclusive queue does not lock out its own connection
}

var _ broker.Link = (*link)(nil)

// join makes a link by one URL.
func (b *Broker) join(ctx context.Context, id broker.Identity, u string) (_ *link, err error) {
	l := &link{
		id: id, url: u, o: &b.o, log: b.o.Log.With(zap.Stringer("identity", id)),
		inbox:     make(chan broker.Message, inboxSize),
		refusals:  &b.refusals,
		done:      make(chan struct{}),
		over:      make(chan struct{}),
		consumers: make(map[*consumer]struct{}),
		locks:     make(map[string]bool),
	}
	if l.consuming, err = dial(ctx, u, id.String()+" consuming", l.o, l.end); err != nil {
		return nil, err
	}
	if l.publishing, err = dial(ctx, u, id.String()+" publishing", l.o, l.end); err != nil {
		l.consuming.cut()
		return nil, err
	}
	joined := context.AfterFunc(ctx, func() { l.end(context.Cause(ctx)) })
	for _, step := range []func() error{l.lock, l.declareTopology, l.open} {
		if err := step(); err != nil {
			joined()
			l.end(err)
			return nil, l.Err() // the first fault: ours or what cut us off
		}
	}
	if !joined() {
		<-l.over
		return nil, l.Err()
	}
	l.generation = b.links.Add(1)
	return l, nil
}

// open opens the channels that every link has, and starts what serves them; nothing on an error.
func (l *link) open() error {
	var closes [4]chan *amqp091.Error // of the connections, then of the channels
	for i := range closes {
		closes[i] = make(chan *amqp091.Error, 1)
	}
	l.publishing.NotifyClose(closes[0])
	l.consuming.NotifyClose(closes[1])
	err := l.publishing.watched(func() error {
		ch, err := l.publishing.Channel()
		if err != nil {
			return err
		}
		ch.NotifyClose(closes[2])
		l.publisher, err = newPublisher(l, ch, l.o.Window, l.o.ConfirmTimeout, l.refusals)
		return err
	})
	if err != nil {
		return fmt.Errorf("open the publishing channel: %w", err)
	}
	var control *amqp091.Channel
	var messages <-chan amqp091.Delivery
	err = l.consuming.watched(func() (err error) {
		if control, err = l.consuming.Channel(); err != nil {
			return err
		}
		control.NotifyClose(closes[3])
		messages, err = l.consumeControl(control)
		return err
	})
	if err != nil {
		return fmt.Errorf("open the control queue: %w", err)
	}

	l.running.Go(l.publisher.settle)
	l.running.Go(func() { l.receiveControl(control, messages) })
	blocked := l.publishing.NotifyBlocked(make(chan amqp091.Blocking, 8))
	l.running.Go(func() { l.publisher.alarm.follow(blocked, l.log) })
	go l.supervise(closes) // whoever waits for over waits for it
	return nil
}

// supervise ends the link at the first fault, and waits until nothing of it runs.
func (l *link) supervise(closes [4]chan *amqp091.Error) {
	defer close(l.over)
	var what string
	var err *amqp091.Error
	select {
	case err = <-closes[0]:
		what = "publishing connection"
	case err = <-closes[1]:
		what = "consuming connection"
	case err = <-closes[2]:
		what = "publishing channel"
	case err = <-closes[3]:
		what = "control channel"
	case <-l.done:
	}
	switch {
	case err != nil:
		l.end(fmt.Errorf("%s: %w", what, err))
	case l.isClosing(): // it is closed in our name: let Close finish
		<-l.done
	default:
		l.end(fmt.Errorf("%s: closed without a word", what))
	}
	l.running.Wait()
}

// end ends the link, once: nothing starts on it any more, and everything on it gets an error.
func (l *link) end(cause error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended {
		return
	}
	l.ended, l.err = true, cause
	close(l.done)
	l.consuming.cut()
	l.publishing.cut()
}

func (l *link) isClosing() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.closing
}

// register counts c among the open consumers and runs it; false if the link has ended or is closing.
func (l *link) register(c *consumer, run func()) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended || l.closing {
		return false
	}
	l.consumers[c] = struct{}{}
	l.running.Go(run)
	return true
}

func (l *link) unregister(c *consumer) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.consumers, c)
}

// failed is what becomes of the error of a call to the broker: ErrLinkGone if the link has ended
// or is about to.
func (l *link) failed(err error) error {
	if errors.Is(err, broker.ErrLinkGone) {
		return err
	}
	select {
	case <-l.done: // which comes before its connections are known to be closed
		return l.gone(err)
	default:
	}
	if l.consuming.IsClosed() {
		return l.gone(err)
	}
	return err
}

// gone is what a method of an ended link returns; cause may be nil.
func (l *link) gone(cause error) error {
	err := l.Err()
	if err == nil {
		err = cause
	}
	if err == nil {
		return fmt.Errorf("%s: %w", l.id, broker.ErrLinkGone)
	}
	return fmt.Errorf("%s: %w: %w", l.id, broker.ErrLinkGone, err)
}

func (l *link) Generation() uint64           { return l.generation }
func (l *link) Inbox() <-chan broker.Message { return l.inbox }
func (l *link) Blocked() bool                { return l.publisher.alarm.over() != nil }
func (l *link) Done() <-chan struct{}        { return l.done }

func (l *link) Err() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.err
}

func (l *link) Publish(ctx context.Context, to broker.Address, m broker.Message) (broker.Receipt, error) {
	return l.publisher.publish(ctx, to, m)
}

// Close is bounded by ctx, and the goodbye to the broker by the call timeout too.
func (l *link) Close(ctx context.Context) error {
	l.mu.Lock()
	first := !l.closing && !l.ended
	l.closing = true
	consumers := slices.Collect(maps.Keys(l.consumers))
	l.mu.Unlock()
	if !first {
		select {
		case <-l.over:
		case <-ctx.Done():
		}
		return nil
	}

	var errs []error
	for _, c := range consumers {
		errs = append(errs, c.Close(ctx))
	}
	errs = append(errs, l.publisher.drain(ctx))
	goodbye, cancel := context.WithTimeout(ctx, l.o.CallTimeout)
	defer cancel()
	_ = l.publishing.close(goodbye) // an error means that it was cut, which frees everything as well
	_ = l.consuming.close(goodbye)
	l.end(nil)
	<-l.over
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("close the link of %s: %w", l.id, err)
	}
	return nil
}
