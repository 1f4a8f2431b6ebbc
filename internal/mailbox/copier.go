package mailbox

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/wscluster/wscluster/internal/session"
	"github.com/wscluster/wscluster/pkg/broker"
	"github.com/wscluster/wscluster/pkg/wire"
)

// copier publishes copies on one link, many at once, and tells what became of them. A mailbox
// that is full refuses at once, so it holds up nobody else's copies. What waits is bounded by what
// the owned mailboxes hold: every errand is about at least one unsettled delivery.
type copier struct {
	link broker.Link
	wake chan struct{} // cap 1: new has something

	mu   sync.Mutex
	new  []*errand // guarded by mu; the next step is to be published
	over bool      // guarded by mu; nothing more is taken

	sent chan *errand // the present step is published; publish waits for room
}

// errand is copies to be published in steps, each when the one before is stored.
type errand struct {
	steps    [][]outgoing
	receipts []broker.Receipt
	done     func(session.End) // called once; must not block
}

type outgoing struct {
	to broker.Address
	m  broker.Message
}

func newCopier(link broker.Link) copier {
	return copier{link: link, wake: make(chan struct{}, 1), sent: make(chan *errand, 1024)}
}

// add takes an errand; false after abandon.
func (c *copier) add(e *errand) bool {
	c.mu.Lock()
	if c.over {
		c.mu.Unlock()
		return false
	}
	c.new = append(c.new, e)
	c.mu.Unlock()
	select {
	case c.wake <- struct{}{}:
	default:
	}
	return true
}

// publish sends the steps of errands until ctx ends or the link does.
func (c *copier) publish(ctx context.Context) error {
	for {
		c.mu.Lock()
		batch := c.new
		c.new = nil
		c.mu.Unlock()
		for i, e := range batch {
			err := c.send(ctx, e)
			if err == nil {
				select {
				case c.sent <- e:
					continue
				case <-ctx.Done():
				}
			}
			c.mu.Lock()
			c.new = append(batch[i:], c.new...) // for abandon
			c.mu.Unlock()
			return err
		}
		select {
		case <-c.wake:
		case <-ctx.Done():
			return nil
		}
	}
}

func (c *copier) send(ctx context.Context, e *errand) error {
	e.receipts = e.receipts[:0]
	for _, out := range e.steps[0] {
		r, err := c.link.Publish(ctx, out.to, out.m)
		if err != nil {
			return fmt.Errorf("copy an event to %s %s: %w", out.to.Exchange, out.to.Key, err)
		}
		e.receipts = append(e.receipts, r)
	}
	return nil
}

// await judges the steps in the order in which they were sent.
func (c *copier) await(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case e := <-c.sent:
			switch end, more := e.judge(ctx); {
			case more && c.add(e):
			case more:
				e.done(session.Lost)
			default:
				e.done(end)
			}
		}
	}
}

// judge waits for the answers to the present step; more says that there is a next one.
func (e *errand) judge(ctx context.Context) (end session.End, more bool) {
	for _, r := range e.receipts {
		switch outcome, _ := broker.Await(ctx, r); outcome {
		case broker.Stored:
		case broker.Refused, broker.Returned:
			end = max(end, session.Refused)
		default:
			end = session.Lost
		}
	}
	e.steps = e.steps[1:]
	return end, end == session.Stored && len(e.steps) > 0
}

// abandon ends all errands that have not ended, once publish and await have returned.
func (c *copier) abandon() {
	c.mu.Lock()
	rest := c.new
	c.new, c.over = nil, true
	c.mu.Unlock()
	for {
		select {
		case e := <-c.sent:
			rest = append(rest, e)
			continue
		default:
		}
		break
	}
	for _, e := range rest {
		e.done(session.Lost)
	}
}

// run begins a job; false if there is nobody to do it.
func (s *service) run(j *session.Job) bool {
	l := s.life(j.Life())
	if l == nil {
		return false
	}
	steps := make([][]outgoing, len(j.Steps))
	for i, step := range j.Steps {
		for _, c := range step {
			steps[i] = append(steps[i], outgoing{c.To, s.message(&c.Event, c.To, j)})
		}
	}
	l.jobs.Add(1)
	if s.copier.add(&errand{steps: steps, done: func(end session.End) { l.ended(j, end) }}) {
		return true
	}
	l.jobs.Add(-1)
	return false
}

// message makes an event ready for the broker.
func (s *service) message(e *wire.Event, to broker.Address, j *session.Job) broker.Message {
	headers := e.Headers()
	if to == broker.ToDeadEvents() {
		headers["reason"] = string(j.Reason)
		headers["mailbox"] = string(j.Refs[0].Mailbox)
	}
	return broker.Message{
		Type: string(e.Type), Correlation: string(e.Task), App: string(s.o.Server), Time: time.Now(),
		Headers: headers, Body: e.Body, Transient: !e.Durable,
	}
}

// ended settles what a job has copied, and tells its session.
func (l *life) ended(j *session.Job, end session.End) {
	fx := l.o.Sessions.Done(j, end, time.Now())
	if end == session.Stored {
		l.o.Metrics.copied(j)
		l.settle(j.Refs)
	}
	l.apply(fx)
	l.jobs.Add(-1)
	l.poke()
}

// unreadable is a delivery that is no event.
type unreadable struct {
	broker.Delivery
	ref   session.Ref
	again time.Time // when it is tried again; the broker took no copy
}

// bury copies what cannot be read to the dead events, with the reason, and settles it then. Where
// the broker refuses, it is tried again after buryEvery: better one stuck than one lost.
func (l *life) bury(d unreadable) {
	m := d.Message
	m.Headers = map[string]any{"reason": "bad_body", "mailbox": string(l.server)}
	l.jobs.Add(1)
	errand := &errand{steps: [][]outgoing{{{broker.ToDeadEvents(), m}}}, done: func(end session.End) {
		switch end {
		case session.Stored:
			l.o.Metrics.Dead.WithLabelValues("bad_body").Inc()
			l.settle([]session.Ref{d.ref})
		case session.Refused:
			d.again = time.Now().Add(buryEvery)
			l.mu.Lock()
			l.unburied = append(l.unburied, d)
			l.mu.Unlock()
		}
		l.jobs.Add(-1)
		l.poke()
	}}
	if !l.copier.add(errand) {
		l.jobs.Add(-1)
	}
}

const buryEvery = 5 * time.Second

// buryAgain tries what was refused before.
func (l *life) buryAgain(now time.Time) {
	l.mu.Lock()
	n := slices.IndexFunc(l.unburied, func(d unreadable) bool { return d.again.After(now) })
	if n < 0 {
		n = len(l.unburied)
	}
	due := l.unburied[:n:n]
	l.unburied = l.unburied[n:]
	l.mu.Unlock()
	for _, d := range due {
		l.bury(d)
	}
}
