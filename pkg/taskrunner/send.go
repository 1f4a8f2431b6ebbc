package taskrunner

import (
	"context"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/wscluster/wscluster/pkg/broker"
	"github.com/wscluster/wscluster/pkg/wire"
	"go.uber.org/zap"
)

const (
	window         = 64              // events of one run that are in flight to the broker
	accountTimeout = 5 * time.Second // for the answers to what a run that is given up has in flight
)

// send publishes what the run tells, over whatever link there is, until the final event is
// stored (true) or ctx ends (false).
func (u *run) send(ctx context.Context, links *links) bool {
	for {
		way, changed := links.now()
		if way != nil && u.sendOver(ctx, way) {
			return true
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return false
		}
	}
}

// flight is a publish of the oldest events of the outbox: its receipt, or why it has none.
type flight struct {
	broker.Receipt
	durable bool
	err     error
}

func (f *flight) outcome() broker.Outcome {
	if f.err != nil {
		return broker.Unknown
	}
	return f.Outcome()
}

// sendOver publishes over one link until the final event is stored (true), or the link or ctx
// has ended (false).
func (u *run) sendOver(ctx context.Context, way *way) bool {
	to := broker.ToMailbox(u.task.Server)
	pause := backoff.ExponentialBackOff{InitialInterval: 100 * time.Millisecond, RandomizationFactor: 0.5, Multiplier: 2, MaxInterval: 5 * time.Second}
	var flying []flight // oldest first: those of the outbox's events in flight
	defer func() { u.account(ctx, flying) }()
	for {
		if len(flying) > 0 && flying[0].outcome() != broker.Pending {
			oldest, outcome := flying[0], flying[0].outcome()
			u.metrics.settled(outcome, oldest.durable)
			if u.settle(outcome) {
				flying = flying[1:]
				if outcome == broker.Stored {
					pause.Reset()
				}
				continue
			}
			flying = nil
			u.rewind()
			wait := pause.NextBackOff()
			u.notStored(outcome, oldest.err, to, wait)
			if !rest(ctx, way.link, wait) {
				return false
			}
			continue
		}
		if err := u.refill(); err != nil {
			u.log.Error("what waits on disk is lost, the task is given back", zap.Error(err))
			u.abandon(err)
			return false
		}
		more := len(flying) < window && (len(flying) == 0 || flying[len(flying)-1].err == nil)
		event, due, over := u.nextEvent(more)
		switch {
		case over:
			return true
		case event != nil:
			f := flight{durable: event.Durable}
			f.Receipt, f.err = way.events.Publish(ctx, u.task.Server, event, u.task.Trace)
			flying = append(flying, f)
		case !u.await(ctx, way.link, flying, due):
			return false
		}
	}
}

// account counts what turns out to be stored of a run that was given up; it waits for the answers
// no longer than accountTimeout.
func (u *run) account(ctx context.Context, flying []flight) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), accountTimeout)
	defer cancel()
	for _, f := range flying {
		if f.err != nil {
			continue
		}
		if outcome, _ := broker.Await(ctx, f.Receipt); outcome == broker.Stored {
			u.metrics.settled(outcome, f.durable)
		}
	}
}

// notStored says that an event goes out again after wait, and what an operator can do.
func (u *run) notStored(outcome broker.Outcome, err error, to broker.Address, wait time.Duration) {
	about := []zap.Field{zap.Stringer("outcome", outcome), zap.String("mailbox", to.Key), zap.Duration("wait", wait)}
	if err != nil {
		about = append(about, zap.Error(err))
	}
	if outcome == broker.Returned {
		u.log.Error("event kept and published again: neither its mailbox nor "+broker.QueueParked+" exists; starting any worker makes them", about...)
		return
	}
	u.log.Warn("event not stored, publishing it again", about...)
}

// rewind makes all events that are not stored go out again.
func (u *run) rewind() {
	u.mu.Lock()
	again := u.story.out.rewind()
	u.room.Broadcast()
	u.mu.Unlock()
	u.metrics.republished(again)
}

// settle takes the outcome of the oldest event in flight; false if it must go out again.
func (u *run) settle(outcome broker.Outcome) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	done := u.story.out.settle(outcome)
	u.room.Broadcast()
	return done
}

// refill reads from the run's file what there is room for in memory.
func (u *run) refill() error {
	u.mu.Lock()
	size := u.story.out.wanted()
	u.mu.Unlock()
	if size == 0 {
		return nil
	}
	events, err := u.file.take(size)
	if err != nil {
		return err
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, e := range events {
		u.story.sign(e)
	}
	u.story.out.loaded(events)
	u.room.Broadcast()
	return nil
}

// nextEvent returns what to publish now, nil if there is nothing; when there may be more because
// time has passed, zero if never; and whether all is told and stored.
func (u *run) nextEvent(window bool) (e *wire.Event, due time.Time, over bool) {
	u.mu.Lock()
	due, err := u.story.tick(u.now())
	if window {
		e = u.story.out.next()
	}
	over = u.story.over && u.story.out.empty()
	u.mu.Unlock()
	if err != nil {
		u.log.Error("event dropped", zap.Error(err))
	}
	return e, due, over
}

// await blocks until there may be something to do; false if ctx has ended, or the link with
// nothing in flight.
func (u *run) await(ctx context.Context, link broker.Link, flying []flight, due time.Time) bool {
	var oldest <-chan struct{}
	gone := link.Done()
	if len(flying) > 0 {
		oldest, gone = flying[0].Done(), nil // the link's end is an outcome too
	}
	var timer <-chan time.Time
	if !due.IsZero() {
		timer = time.After(time.Until(due))
	}
	select {
	case <-oldest:
	case <-timer:
	case <-u.wake:
	case <-gone:
		return false
	case <-ctx.Done():
		return false
	}
	return true
}

// rest waits for d; false if link or ctx ends first.
func rest(ctx context.Context, link broker.Link, d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-link.Done():
		return false
	case <-ctx.Done():
		return false
	}
}
