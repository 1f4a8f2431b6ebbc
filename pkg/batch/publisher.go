// Package batch brings events to the mailboxes of workers, several in one message of the broker where that delays
// none of them: while the broker has answered for all that came before, each goes alone and at once.
//
// Which events share a message is decided in core, which is pure. Publisher is what a process has of it on one link.
package batch

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/wscluster/wscluster/pkg/broker"
	"github.com/wscluster/wscluster/pkg/socketmeta"
	"github.com/wscluster/wscluster/pkg/wire"
)

// Options of a publisher.
type Options struct {
	App    string // the process that publishes, for people
	Single bool   // each event is a message of its own
}

// maxWaiting bounds the events that are taken and not handed to the link yet. Beyond it Publish blocks.
const maxWaiting = 4096

// Publisher publishes events over one link, while Run runs. It may be used by many goroutines.
type Publisher struct {
	link broker.Link
	o    Options
	room chan struct{} // a token for each event that is not handed to the link
	wake chan struct{} // cap 1: core.ready has something, or something waits
	over chan struct{} // closed when nothing more is taken

	answers sync.WaitGroup // those who wait for the broker's answers

	mu    sync.Mutex
	core  core // guarded by mu
	ended bool // guarded by mu; over is closed
}

// New returns a publisher over link.
func New(link broker.Link, o Options) *Publisher {
	return &Publisher{
		link: link, o: o,
		room: make(chan struct{}, maxWaiting), wake: make(chan struct{}, 1), over: make(chan struct{}),
	}
}

// flight is a message that the link has taken.
type flight struct {
	*message
	receipt broker.Receipt
}

// Publish hands e, which must not change any more, to be brought to the mailbox of to; trace is its W3C Trace Context,
// or "". It is broker.Link.Publish else: it returns before the broker's answer; events published by one goroutine to one
// mailbox are stored in that order; it blocks while 4,096 events wait for the link, at most until ctx, Run or the
// link ends; and an error means that e is not sent. The receipt is that of the message with which e goes: Stored, Returned
// and Refused are true of every event in it. It is Unknown soon after Run has ended.
func (p *Publisher) Publish(ctx context.Context, to socketmeta.ServerID, e *wire.Event, trace string) (broker.Receipt, error) {
	if p.o.Single {
		return p.link.Publish(ctx, broker.ToMailbox(to), traced(Message(e, p.o.App, time.Now()), trace))
	}
	select {
	case p.room <- struct{}{}:
	default:
		select {
		case p.room <- struct{}{}:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-p.over:
			return nil, p.gone()
		}
	}
	p.mu.Lock()
	if p.ended {
		p.mu.Unlock()
		<-p.room
		return nil, p.gone()
	}
	m := p.core.offer(to, e, trace, time.Now())
	p.mu.Unlock()
	p.poke()
	return m, nil
}

func (p *Publisher) gone() error { return fmt.Errorf("publish an event: %w", broker.ErrLinkGone) }

func (p *Publisher) poke() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// lastAnswers is how long the answers to what is under way are awaited once Run is to end.
const lastAnswers = time.Second

// Run sends what is published until ctx ends, or the link does: then it returns an error that wraps
// broker.ErrLinkGone. It returns within a second, with all receipts known. It is to be called once.
func (p *Publisher) Run(ctx context.Context) error {
	patient, giveUp := context.WithCancel(context.WithoutCancel(ctx))
	defer giveUp()
	err := p.send(ctx, patient)
	p.mu.Lock()
	p.ended = true
	close(p.over)
	for _, l := range p.core.lines { // what was not sent
		if l.open != nil {
			p.core.close(l.open)
		}
	}
	for _, m := range p.core.ready {
		m.resolve(broker.Unknown)
		p.release(m)
	}
	p.core.ready = nil
	p.mu.Unlock()
	defer time.AfterFunc(lastAnswers, giveUp).Stop()
	p.answers.Wait()
	return err
}

// send hands messages to the link, in order, until it fails or ctx ends.
func (p *Publisher) send(ctx, patient context.Context) error {
	timer := time.NewTimer(maxWait)
	defer timer.Stop()
	for {
		p.mu.Lock()
		p.core.tick(time.Now())
		ready := p.core.ready
		p.core.ready = nil
		due, waits := p.core.due()
		p.mu.Unlock()
		for i, m := range ready {
			r, err := p.link.Publish(ctx, broker.ToMailbox(m.line.to), m.message(p.o.App, time.Now()))
			switch {
			case err == nil:
				p.release(m)
				p.await(patient, flight{m, r})
			case ctx.Err() != nil || errors.Is(err, broker.ErrLinkGone):
				p.mu.Lock()
				p.core.ready = slices.Concat(ready[i:], p.core.ready) // for Run
				p.mu.Unlock()
				if ctx.Err() != nil {
					return nil
				}
				return err
			default: // it was not sent, and nobody else has to suffer for it
				p.release(m)
				p.resolve(m, broker.Unknown)
			}
		}
		if len(ready) > 0 {
			continue // it took a while
		}
		var tick <-chan time.Time
		if waits {
			timer.Reset(time.Until(due))
			tick = timer.C
		}
		select {
		case <-p.wake:
		case <-tick:
		case <-ctx.Done():
			return nil
		case <-p.link.Done():
			return p.gone()
		}
	}
}

// release makes room for as many events as have left.
func (p *Publisher) release(m *message) {
	for range m.events {
		<-p.room
	}
}

// await sees to the answer of a message. Those of one mailbox are awaited one after the other, and hold up no other's.
func (p *Publisher) await(ctx context.Context, f flight) {
	p.mu.Lock()
	defer p.mu.Unlock()
	l := f.line
	l.flights = append(l.flights, f)
	if !l.answering {
		l.answering = true
		p.answers.Go(func() { p.answer(ctx, l) })
	}
}

// answer awaits the answers to one mailbox's messages, until none is under way.
func (p *Publisher) answer(ctx context.Context, l *line) {
	for {
		p.mu.Lock()
		if len(l.flights) == 0 {
			l.answering = false
			p.mu.Unlock()
			return
		}
		f := l.flights[0]
		l.flights = l.flights[1:]
		p.mu.Unlock()
		outcome, _ := broker.Await(ctx, f.receipt)
		p.resolve(f.message, outcome)
	}
}

// resolve tells what became of a message, and has sent what waited for that.
func (p *Publisher) resolve(m *message, o broker.Outcome) {
	m.resolve(o)
	p.mu.Lock()
	p.core.answered(m)
	more := len(p.core.ready) > 0
	p.mu.Unlock()
	if more {
		p.poke()
	}
}

func (m *message) resolve(o broker.Outcome) {
	m.outcome = o
	close(m.done)
}

func (m *message) Done() <-chan struct{} { return m.done }

func (m *message) Outcome() broker.Outcome {
	select {
	case <-m.done:
		return m.outcome
	default:
		return broker.Pending
	}
}

// message is m ready for the broker.
func (m *message) message(app string, now time.Time) broker.Message {
	first := m.events[0]
	if len(m.events) == 1 {
		return traced(Message(first, app, now), m.trace)
	}
	return broker.Message{
		ID:      fmt.Sprintf("%s+%d", id(first), len(m.events)-1),
		Type:    wire.BatchType,
		Content: wire.BatchContent,
		App:     app,
		Time:    now,
		Body:    wire.EncodeBatch(m.events),

		Transient: !slices.ContainsFunc(m.events, func(e *wire.Event) bool { return e.Durable }),
	}
}

// Message is an event that goes alone, ready for the broker.
func Message(e *wire.Event, app string, now time.Time) broker.Message {
	return broker.Message{
		ID:          id(e),
		Type:        string(e.Type),
		Correlation: string(e.Task),
		App:         app,
		Time:        now,
		Headers:     e.Headers(),
		Body:        e.Body,
		Transient:   !e.Durable,
	}
}

func id(e *wire.Event) string { return fmt.Sprintf("%s.%d", e.Run, e.Seq) }

func traced(m broker.Message, trace string) broker.Message {
	if trace != "" {
		m.Headers["traceparent"] = trace
	}
	return m
}
