package channel

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/wscluster/wscluster/pkg/broker"
	"github.com/wscluster/wscluster/pkg/wire"
)

// Serve publishes what is queued over link, in order and at most Options.Window without an answer, until ctx or the
// link ends. After ctx it publishes what is left, for FlushWithin at most, and returns nil; at the link's end it returns an
// error with broker.ErrLinkGone in it. One Serve may run at a time; broker.Keep takes it as it is.
//
// Posts whose answer a link took with it stay in front of the queue and go out again over the next one, under
// the same numbers: a subscriber that had one already is not shown it twice, for its worker passes over numbers
// that do not rise. What a broker refuses is dropped and counted: its numbers are a hole, which subscribers are told.
func (p *Publisher) Serve(ctx context.Context, link broker.Link) error {
	work, stop := context.WithCancelCause(context.WithoutCancel(ctx))
	defer stop(nil)
	defer context.AfterFunc(ctx, func() {
		select {
		case <-time.After(p.o.FlushWithin):
			stop(context.DeadlineExceeded)
		case <-work.Done():
		}
	})()

	var flying []broker.Receipt // of the first posts in the queue
	defer func() { p.sentAgain(len(flying)) }()
	for {
		if len(flying) > 0 && flying[0].Outcome() != broker.Pending {
			if !p.settle(flying[0].Outcome()) {
				return fmt.Errorf("posts without an answer go out again: %w", errors.Join(link.Err(), broker.ErrLinkGone))
			}
			flying = flying[1:]
			continue
		}
		post := p.next(len(flying))
		if post == nil && len(flying) == 0 && ctx.Err() != nil {
			return nil
		}
		if post == nil || len(flying) == p.o.Window {
			if err := p.await(ctx, work, link, flying); err != nil {
				return p.ended(err, link)
			}
			continue
		}
		receipt, err := link.Publish(work, broker.ToChannel(post.Channel), message(post))
		if err != nil {
			return p.ended(err, link)
		}
		flying = append(flying, receipt)
	}
}

// ended says why a Serve is over: nil if it had to end and its link lives.
func (p *Publisher) ended(err error, link broker.Link) error {
	if errors.Is(err, context.DeadlineExceeded) && link.Err() == nil {
		return nil
	}
	return fmt.Errorf("publish to channels: %w", err)
}

// await blocks until there may be something to do. Its error is the end: work's, or the link's with nothing in flight.
func (p *Publisher) await(ctx, work context.Context, link broker.Link, flying []broker.Receipt) error {
	var oldest <-chan struct{}
	gone, asked := link.Done(), ctx.Done()
	if len(flying) > 0 {
		oldest, gone = flying[0].Done(), nil // the link's end is an outcome too
	}
	if ctx.Err() != nil {
		asked = nil // it was seen
	}
	select {
	case <-oldest:
	case <-p.wake:
	case <-asked:
	case <-gone:
		return errors.Join(link.Err(), broker.ErrLinkGone)
	case <-work.Done():
		return context.Cause(work)
	}
	return nil
}

// next returns the post behind the n in flight, nil if there is none.
func (p *Publisher) next(n int) *wire.Post {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.queue.at(n)
}

// settle takes the outcome of the oldest post; false if it must go out again.
func (p *Publisher) settle(o broker.Outcome) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch o {
	case broker.Stored:
		p.stats.Stored++
	case broker.Returned:
		p.stats.Returned++
	case broker.Refused:
		p.stats.Refused++
	default:
		return false
	}
	p.queue.drop()
	return true
}

func (p *Publisher) sentAgain(n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.stats.Again += int64(n)
}

// message is a post as it is published.
func message(p *wire.Post) broker.Message {
	return broker.Message{
		ID: fmt.Sprintf("%s.%d", p.Stream, p.Seq), Type: p.Name, App: p.Publisher, Time: p.Time.Time,
		Headers: p.Headers(), Body: p.Body, Transient: true,
	}
}
