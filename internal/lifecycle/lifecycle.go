// Package lifecycle starts the parts of a process bottom-up and stops them top-down, and names the
// part that failed or that did not stop. It owns nothing else: no signals, no logs, no exit codes.
package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"time"
)

// DefaultStopWithin is how long a part may take to return when it does not say otherwise.
const DefaultStopWithin = 10 * time.Second

// Part is one layer of a process. Parts are given bottom first: a part may use those before it.
type Part struct {
	Name string // as an operator knows it: "mailbox", "listener"

	// Run blocks until ctx ends, then returns with everything that it started gone. It is told
	// to stop only after every part above has returned, so it can serve them to the end.
	Run func(ctx context.Context) error

	// Ready, if not nil, is closed by Run when the parts above may start.
	Ready <-chan struct{}

	// StopWithin bounds the time from the end of ctx to Run's return. 0 means DefaultStopWithin.
	StopWithin time.Duration
}

// Errors of Run. Each is wrapped with the name of its part.
var (
	ErrEnded = errors.New("ended without being told to")
	ErrStuck = errors.New("did not stop in time")
)

// Run starts parts in order and blocks until all of them have returned. They are stopped, the last
// one first and one at a time, when ctx ends or as soon as any of them returns.
//
// It returns nil if ctx ended and every part then returned nil or an error that wraps
// context.Canceled. Otherwise it joins, one line a part: the part's own error, ErrEnded for a part
// that returned nil untold, its panic, or ErrStuck for a part that was still running after its
// StopWithin. A stuck part is left behind, and the ones below it are stopped all the same.
func Run(ctx context.Context, parts ...Part) error {
	alive, over := context.WithCancel(ctx) // until ctx ends or the first part returns
	defer over()
	base := context.WithoutCancel(ctx)
	var up []*running
	for _, p := range parts {
		if alive.Err() != nil {
			break
		}
		up = append(up, start(base, p, over))
		if p.Ready != nil {
			select {
			case <-p.Ready:
			case <-alive.Done():
			}
		}
	}
	<-alive.Done()
	var errs []error
	for _, r := range slices.Backward(up) {
		if err := r.stop(context.Cause(ctx)); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", r.Name, err))
		}
	}
	return errors.Join(errs...)
}

// running is a part that was started.
type running struct {
	Part
	cancel context.CancelCauseFunc
	done   chan struct{} // closed when Run has returned; err may be read then
	err    error
}

// start runs p and calls over when it has returned.
func start(base context.Context, p Part, over func()) *running {
	ctx, cancel := context.WithCancelCause(base)
	r := &running{Part: p, cancel: cancel, done: make(chan struct{})}
	go func() {
		defer over()
		defer close(r.done)
		r.run(ctx)
	}()
	return r
}

// stop ends r and returns what is wrong with it, nil if nothing is.
func (r *running) stop(cause error) error {
	select {
	case <-r.done: // before it was told
		r.cancel(nil)
		if r.err == nil {
			return ErrEnded
		}
		return r.err
	default:
	}
	r.cancel(cause)
	within := r.StopWithin
	if within == 0 {
		within = DefaultStopWithin
	}
	late := time.NewTimer(within)
	defer late.Stop()
	select {
	case <-r.done:
	case <-late.C:
		return fmt.Errorf("%w (%v)", ErrStuck, within)
	}
	if errors.Is(r.err, context.Canceled) {
		return nil
	}
	return r.err
}

// run calls Run and turns a panic, or a runtime.Goexit, into an error.
func (r *running) run(ctx context.Context) {
	r.err = errors.New("its goroutine exited")
	defer func() {
		if v := recover(); v != nil {
			r.err = fmt.Errorf("panic: %v\n%s", v, debug.Stack())
		}
	}()
	r.err = r.Run(ctx)
}
