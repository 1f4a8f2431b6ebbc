package broker

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"
	"go.uber.org/zap"
)

const (
	lockedPause  = 500 * time.Millisecond // between tries while another process holds the identity
	lockedTries  = 3                      // ErrLocked in a row before Locked is reported
	longLife     = 5 * time.Second        // a link that lived this long starts the backoff anew
	closeTimeout = 5 * time.Second        // for the receipts in flight once serve has returned
)

// Phase is how a process stands with its broker.
type Phase uint8

// The phases. Only in Up is there a link.
const (
	Down   Phase = iota // no link yet, or lost; it is being joined again
	Locked              // another process with this identity is alive, or not yet seen dead
	Up                  // joined
)

func (p Phase) String() string { return [...]string{"down", "locked", "up"}[p] }

// State says since when a process has been in a phase, and why it is not Up.
type State struct {
	Phase Phase
	Err   error     // the last reason for Down or Locked; nil before the first try, after a Close, and in Up
	Since time.Time // when Phase began; a further error within it does not move it
}

// KeepOptions tunes Keep. The zero value is silent.
type KeepOptions struct {
	Log *zap.Logger // nil logs nothing

	// OnState hears of every change, first of Down with no error. The calls are serial and come
	// from goroutines of Keep; it must not block.
	OnState func(State)
}

// Keep holds id's place at the broker until ctx ends: it joins, calls serve with the link, and
// when the link or serve has ended joins again, with a link of a higher generation.
//
// serve's context ends with the link (its cause is then the link's error) or with ctx; serve must
// then return soon, and everything it has started on the link must be gone when it does. Keep
// closes the link after it, waiting at most 5 s for receipts in flight. A serve that returns
// before its context has ended gives up the link, whatever it returns.
//
// Between two links Keep waits 0.2 to 5 s, growing and with jitter, from the start again after a
// link that lived 5 s; 0.5 s while another process holds id. It never gives up: it returns only
// after ctx has ended, with nil, or with what serve (other than ctx's own error, or the end of its
// link) or the closing of the last link then failed with.
func Keep(ctx context.Context, b Broker, id Identity, o KeepOptions, serve func(ctx context.Context, l Link) error) error {
	k := keeper{onState: o.OnState, log: cmp.Or(o.Log, zap.NewNop()).With(zap.Stringer("identity", id))}
	k.enter(Down, nil)
	// Factor and bounds are chosen so that every wait, jitter included, lies within 0.2 to 5 s.
	retry := backoff.ExponentialBackOff{
		InitialInterval:     300 * time.Millisecond,
		RandomizationFactor: 1. / 3,
		Multiplier:          2,
		MaxInterval:         3750 * time.Millisecond,
	}
	locked := 0
	for {
		link, err := b.Join(ctx, id)
		if err == nil {
			locked = 0
			began := time.Now()
			err = k.serve(ctx, link, serve)
			if ctx.Err() != nil {
				k.enter(Down, nil)
				return err
			}
			if time.Since(began) >= longLife {
				retry.Reset()
			}
		} else if ctx.Err() != nil {
			return nil
		}

		phase, pause := Down, lockedPause
		if errors.Is(err, ErrLocked) {
			if locked++; locked >= lockedTries {
				phase = Locked
				err = fmt.Errorf("another process with this ID is alive, or died less than three heartbeats ago: stop it, or give this one its own ID: %w", err)
			}
		} else {
			locked = 0
			pause = retry.NextBackOff()
		}
		k.enter(phase, err)
		if !sleep(ctx, pause) {
			return nil
		}
	}
}

// keeper is the state that one call of Keep reports. Its calls are serial.
type keeper struct {
	onState func(State)
	log     *zap.Logger
	last    State
}

// serve runs one link's life and returns why it is over; once ctx has ended only what went wrong.
func (k *keeper) serve(ctx context.Context, l Link, serve func(context.Context, Link) error) error {
	k.enter(Up, nil)
	k.log.Info("joined the broker", zap.Uint64("generation", l.Generation()))
	serving, cancel := context.WithCancelCause(ctx)
	var watch sync.WaitGroup
	watch.Go(func() {
		select {
		case <-l.Done(): // told at once: serve may need a while to return
			k.enter(Down, l.Err())
			cancel(l.Err())
		case <-serving.Done():
		}
	})
	served := serve(serving, l)
	cancel(nil)
	watch.Wait()

	broken := l.Err()
	closing, stop := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
	defer stop()
	closed := l.Close(closing)

	switch {
	case ctx.Err() != nil:
		if errors.Is(served, context.Cause(ctx)) || errors.Is(served, ctx.Err()) || broken != nil && errors.Is(served, ErrLinkGone) {
			served = nil // the last link broke while we were leaving: that loses nothing that an end does not
		}
		return errors.Join(served, closed)
	case broken != nil:
		return broken
	case served != nil:
		return served
	default:
		return cmp.Or(closed, errors.New("the link was given up"))
	}
}

// enter reports a phase and its reason if either is new. An error is known by its text: the same
// failed dial, twenty times, is one line in the log.
func (k *keeper) enter(p Phase, err error) {
	s := State{p, err, k.last.Since}
	if p != k.last.Phase || s.Since.IsZero() {
		s.Since = time.Now()
	} else if text(err) == text(k.last.Err) {
		return
	}
	k.last = s
	if err != nil {
		k.log.Warn("no link to the broker, joining again", zap.Stringer("phase", p), zap.Error(err))
	}
	if k.onState != nil {
		k.onState(s)
	}
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// sleep waits for d and reports false if ctx ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
