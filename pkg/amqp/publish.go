package amqp

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	amqp091 "github.com/rabbitmq/amqp091-go"

	"github.com/wscluster/wscluster/pkg/broker"
)

// publisher hands messages to the broker and judges its answers. At most window publishes are
// unanswered at a time.
//
// Every publish is mandatory, in confirm mode, and numbered in a header, so that a Return names
// the one that it is about. RabbitMQ sends a Return before the confirm of the same publish, and
// the library's reader passes both on in that order: so whoever judges a confirm drains the
// Returns first, under the same lock, and a Return is never late. The channel of Returns is as
// large as the window, and a place in the window becomes free only after the drain: so a Return
// is never dropped either.
type publisher struct {
	ch      *amqp091.Channel
	link    *link
	alarm   alarm
	timeout time.Duration // without an answer to the oldest publish

	refusals *refusals // of all links of the process

	closing chan struct{} // closed when no more publishes may start
	window  chan struct{} // a token for each unanswered publish
	turn    chan struct{} // cap 1: a lock that a context can leave; holds what follows
	next    uint64        // guarded by turn: the number of the next publish
	pending chan *receipt // in order of publishing; has room for the window

	mu      sync.Mutex
	returns <-chan amqp091.Return // guarded by mu
	recent  []*receipt            // guarded by mu: the publish numbered n at n modulo the window
}

// newPublisher makes ch the channel of l for publishing.
func newPublisher(l *link, ch *amqp091.Channel, window int, timeout time.Duration, refusals *refusals) (*publisher, error) {
	if err := ch.Confirm(false); err != nil {
		return nil, err
	}
	refusals.joined()
	return &publisher{
		ch: ch, link: l, timeout: timeout, refusals: refusals,
		closing: make(chan struct{}),
		window:  make(chan struct{}, window),
		turn:    make(chan struct{}, 1),
		pending: make(chan *receipt, window),
		returns: ch.NotifyReturn(make(chan amqp091.Return, window)),
		recent:  make([]*receipt, window),
	}, nil
}

// publish returns once m is in the socket's buffer. A write that the broker does not take ends
// the link after the write timeout, whatever ctx says.
func (p *publisher) publish(ctx context.Context, to broker.Address, m broker.Message) (broker.Receipt, error) {
	msg, err := encode(m)
	if err != nil {
		return nil, err
	}
	if len(to.Exchange) > maxShortString || len(to.Key) > maxShortString {
		return nil, fmt.Errorf("%w: address %.40q %.40q: at most %d bytes each", broker.ErrTooLarge, to.Exchange, to.Key, maxShortString)
	}
	if err := p.enter(ctx, p.window); err != nil {
		return nil, err
	}
	for {
		if err = p.awaitCalm(ctx); err != nil {
			break
		}
		if err = p.enter(ctx, p.turn); err != nil {
			break
		}
		if p.alarm.over() == nil {
			r, err := p.send(to, msg)
			<-p.turn
			if err == nil {
				return r, nil
			}
			<-p.window
			return nil, p.link.gone(err)
		}
		<-p.turn // the alarm was raised while we waited for our turn
	}
	<-p.window
	return nil, err
}

// enter waits for a place in a channel of tokens.
func (p *publisher) enter(ctx context.Context, tokens chan<- struct{}) error {
	select { // select chooses at random: what forbids it comes first
	case <-p.closing:
		return p.link.gone(nil)
	case <-ctx.Done():
		return context.Cause(ctx)
	default:
	}
	select {
	case tokens <- struct{}{}:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-p.closing:
	case <-p.link.done:
	}
	return p.link.gone(nil)
}

// awaitCalm waits until the broker takes publishes.
func (p *publisher) awaitCalm(ctx context.Context) error {
	over := p.alarm.over()
	if over == nil {
		return nil
	}
	select {
	case <-over:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-p.closing:
	case <-p.link.done:
	}
	return p.link.gone(nil)
}

// send numbers and writes one message. Called by the holder of the turn.
func (p *publisher) send(to broker.Address, msg amqp091.Publishing) (*receipt, error) {
	r := &receipt{publisher: p, number: p.next, to: to}
	msg.Headers[headerPublish] = int64(r.number)
	p.mu.Lock()
	p.recent[r.number%uint64(len(p.recent))] = r // the Return may come before the write returns
	p.mu.Unlock()
	confirmation, err := p.ch.PublishWithDeferredConfirm(to.Exchange, to.Key, true, false, msg)
	if err != nil {
		return nil, err
	}
	r.confirmation = confirmation
	p.next++ // only now: the numbers of unanswered publishes never span more than the window
	p.pending <- r
	return r, nil
}

// settle frees the places in the window, in order, as answers come, and ends the link when the
// oldest publish goes without one for too long. It returns when the link ends.
func (p *publisher) settle() {
	timer := time.NewTimer(p.timeout)
	defer timer.Stop()
	for {
		select {
		case r := <-p.pending:
			if !p.answered(r, timer) {
				return
			}
			p.judge(r)
			<-p.window
		case <-p.link.done:
			return
		}
	}
}

// answered waits for the answer to the oldest publish. Time under an alarm does not count: the
// broker does not read then. False if the link has ended.
func (p *publisher) answered(r *receipt, timer *time.Timer) bool {
	select {
	case <-r.Done():
		return true
	default:
	}
	for wait := p.timeout; ; {
		timer.Reset(wait)
		select {
		case <-r.Done():
			return true
		case <-p.link.done:
			return false
		case <-timer.C:
		}
		if wait = p.timeout - p.alarm.calm(); wait <= 0 {
			p.link.end(fmt.Errorf("no answer to a publish within %v", p.timeout))
			return false
		}
	}
}

// judge decides what became of an answered publish, once.
func (p *publisher) judge(r *receipt) broker.Outcome {
	p.mu.Lock()
	defer p.mu.Unlock()
	if r.outcome != broker.Pending {
		return r.outcome
	}
	p.drainReturns()
	switch {
	case !r.confirmation.Acked() && p.ch.IsClosed():
		r.outcome = broker.Unknown // the library gives every open confirmation a "no" when it closes
	case !r.confirmation.Acked():
		r.outcome = broker.Refused
	case r.returned:
		r.outcome = broker.Returned
	default:
		r.outcome = broker.Stored
	}
	if p.refusals.judged(r.to, r.outcome, time.Now()) {
		p.link.end(fmt.Errorf("exchange %s, key %s: everything was refused for %v; a new channel may know better", r.to.Exchange, r.to.Key, stuckAfter))
	}
	return r.outcome
}

// drainReturns marks the publishes that came back. Called with mu held.
func (p *publisher) drainReturns() {
	for {
		select {
		case ret, ok := <-p.returns:
			if !ok {
				p.returns = nil // the channel is closed; a nil one never receives
				return
			}
			n, _ := ret.Headers[headerPublish].(int64)
			if r := p.recent[uint64(n)%uint64(len(p.recent))]; r != nil && r.number == uint64(n) {
				r.returned = true
			}
		default:
			return
		}
	}
}

// drain lets no more publishes start and waits until all are answered.
func (p *publisher) drain(ctx context.Context) error {
	close(p.closing)
	for range cap(p.window) {
		select {
		case p.window <- struct{}{}:
		case <-p.link.done:
			return errors.New("the link ended before all publishes were answered")
		case <-ctx.Done():
			return fmt.Errorf("publishes are still unanswered: %w", context.Cause(ctx))
		}
	}
	return nil
}

// receipt is one publish.
type receipt struct {
	publisher    *publisher
	number       uint64
	to           broker.Address
	confirmation *amqp091.DeferredConfirmation

	returned bool           // guarded by publisher.mu
	outcome  broker.Outcome // guarded by publisher.mu
}

func (r *receipt) Done() <-chan struct{} { return r.confirmation.Done() }

func (r *receipt) Outcome() broker.Outcome {
	select {
	case <-r.Done():
		return r.publisher.judge(r)
	default:
		return broker.Pending
	}
}
