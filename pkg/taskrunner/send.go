package taskrunner

import (
	"context"
	"fmt"
	"time"

	"github.com/cenkalti/backoff/v5"
	"github.com/wscluster/wscluster/pkg/broker"
	"github.com/wscluster/wscluster/pkg/wire"
	"go.uber.org/zap"
)

// window bounds the events of one run that are in flight to the broker.
const window = 64

// send publishes what the run tells, over whatever link there is, until the final event is
// stored (true) or ctx ends (false).
func (u *run) send(ctx context.Context, links *links) bool {
	for {
		link, changed := links.now()
		if link != nil {
			if u.sendOver(ctx, link) {
				return true
			}
			u.rewind()
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return false
		}
	}
}

// sendOver publishes over one link until the final event is stored (true), or the link or ctx
// has ended (false).
func (u *run) sendOver(ctx context.Context, link broker.Link) bool {
	to := broker.ToMailbox(u.task.Server)
	pause := backoff.ExponentialBackOff{InitialInterval: 100 * time.Millisecond, RandomizationFactor: 0.5, Multiplier: 2, MaxInterval: 5 * time.Second}
	var flying []broker.Receipt // oldest first: those of the outbox's events in flight
	again := func(reason zap.Field) bool {
		flying = nil
		wait := pause.NextBackOff()
		u.log.Warn("event not stored, publishing it again", reason, zap.String("mailbox", to.Key), zap.Duration("wait", wait))
		return rest(ctx, link, wait)
	}
	for {
		if len(flying) > 0 && flying[0].Outcome() != broker.Pending {
			outcome := flying[0].Outcome()
			if u.settle(outcome) {
				flying = flying[1:]
				if outcome == broker.Stored {
					pause.Reset()
				}
			} else if !again(zap.Stringer("outcome", outcome)) {
				return false
			}
			continue
		}
		event, due, over := u.nextEvent(len(flying) < window)
		switch {
		case over:
			return true
		case event == nil:
			if !u.await(ctx, link, flying, due) {
				return false
			}
			continue
		}
		receipt, err := link.Publish(ctx, to, u.message(event))
		if err == nil {
			flying = append(flying, receipt)
			continue
		}
		u.rewind()
		if !again(zap.Error(err)) {
			return false
		}
	}
}

// rewind makes all events that are not stored go out again.
func (u *run) rewind() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.story.out.rewind()
	u.room.Broadcast()
}

// settle takes the outcome of the oldest event in flight; false if it must go out again.
func (u *run) settle(outcome broker.Outcome) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	done := u.story.out.settle(outcome)
	u.room.Broadcast()
	return done
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

// await blocks until there may be something to do; false if link or ctx has ended.
func (u *run) await(ctx context.Context, link broker.Link, flying []broker.Receipt, due time.Time) bool {
	var oldest <-chan struct{}
	if len(flying) > 0 {
		oldest = flying[0].Done()
	}
	var timer <-chan time.Time
	if !due.IsZero() {
		timer = time.After(time.Until(due))
	}
	select {
	case <-oldest:
	case <-timer:
	case <-u.wake:
	case <-link.Done():
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

func (u *run) message(e *wire.Event) broker.Message {
	m := broker.Message{
		ID:          fmt.Sprintf("%s.%d", e.Run, e.Seq),
		Type:        string(e.Type),
		Correlation: string(e.Task),
		App:         "taskrunner " + u.story.runner,
		Time:        u.now(),
		Headers:     e.Headers(),
		Body:        e.Body,
		Transient:   !e.Durable,
	}
	if u.task.Trace != "" {
		m.Headers["traceparent"] = u.task.Trace
	}
	return m
}
