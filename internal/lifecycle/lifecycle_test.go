package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// diary notes what happened, in order.
type diary struct {
	mu    sync.Mutex
	lines []string
}

func (d *diary) note(format string, a ...any) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.lines = append(d.lines, fmt.Sprintf(format, a...))
}

func (d *diary) want(t *testing.T, want ...string) {
	t.Helper()
	d.mu.Lock()
	defer d.mu.Unlock()
	if !slices.Equal(d.lines, want) {
		t.Errorf("it went\n%q, want\n%q", d.lines, want)
	}
}

// part runs until it is told, takes a while to stop, and notes both.
func (d *diary) part(name string, takes time.Duration) Part {
	return Part{Name: name, Run: func(ctx context.Context) error {
		d.note("%s up", name)
		<-ctx.Done()
		time.Sleep(takes)
		d.note("%s down", name)
		return ctx.Err()
	}}
}

// ready makes p ready after a while.
func ready(p Part, after time.Duration) Part {
	ch, run := make(chan struct{}), p.Run
	p.Ready = ch
	p.Run = func(ctx context.Context) error {
		time.AfterFunc(after, func() { close(ch) })
		return run(ctx)
	}
	return p
}

func TestStartsBottomUpAndStopsTopDown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var d diary
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Minute, cancel)
		err := Run(ctx,
			ready(d.part("broker", time.Second), time.Second),
			ready(d.part("mailbox", time.Second), time.Second),
			d.part("listener", time.Second))
		if err != nil {
			t.Errorf("Run = %v, want nil after ctx ended", err)
		}
		d.want(t, "broker up", "mailbox up", "listener up", "listener down", "mailbox down", "broker down")
	})
}

func TestPartIsNotStartedBeforeTheOneBelowIsReady(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var d diary
		ctx, cancel := context.WithCancel(t.Context())
		go func() {
			synctest.Wait()
			d.want(t, "broker up")
			cancel()
		}()
		never := ready(d.part("broker", 0), time.Hour)
		if err := Run(ctx, never, d.part("listener", 0)); err != nil {
			t.Errorf("Run = %v, want nil", err)
		}
		d.want(t, "broker up", "broker down")
	})
}

func TestFailureStopsTheOthersAndNamesThePart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var d diary
		lost := errors.New("disk full")
		err := Run(t.Context(),
			ready(d.part("broker", 0), 0),
			Part{Name: "mailbox", Run: func(context.Context) error {
				time.Sleep(time.Second)
				return lost
			}},
			d.part("listener", time.Second))
		if !errors.Is(err, lost) || err.Error() != "mailbox: disk full" {
			t.Errorf("Run = %v, want the mailbox's error and nothing else", err)
		}
		d.want(t, "broker up", "listener up", "listener down", "broker down")
	})
}

func TestFailureWhileStartingStartsNothingAbove(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var d diary
		err := Run(t.Context(),
			Part{Name: "broker", Ready: make(chan struct{}), Run: func(context.Context) error { return errors.New("refused") }},
			d.part("listener", 0))
		if err == nil || err.Error() != "broker: refused" {
			t.Errorf("Run = %v, want broker: refused", err)
		}
		d.want(t)
	})
}

func TestPartThatReturnsNilUntoldIsNamed(t *testing.T) {
	err := Run(t.Context(), Part{Name: "listener", Run: func(context.Context) error { return nil }})
	if !errors.Is(err, ErrEnded) || !strings.HasPrefix(err.Error(), "listener: ") {
		t.Errorf("Run = %v, want ErrEnded with the part's name", err)
	}
}

func TestStuckPartIsNamedAndLeftBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var d diary
		release := make(chan struct{})
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		start := time.Now()
		err := Run(ctx,
			ready(d.part("broker", 0), 0),
			Part{Name: "mailbox", StopWithin: 3 * time.Second, Run: func(context.Context) error { <-release; return nil }},
			ready(d.part("listener", 0), 0))
		if !errors.Is(err, ErrStuck) || err.Error() != "mailbox: did not stop in time (3s)" {
			t.Errorf("Run = %v, want the mailbox named as stuck", err)
		}
		if took := time.Since(start); took != 4*time.Second {
			t.Errorf("Run took %v, want 1s of life and 3s of patience", took)
		}
		d.want(t, "broker up", "listener up", "listener down", "broker down")
		close(release)
	})
}

func TestPatienceHasADefault(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		start := time.Now()
		err := Run(ctx, Part{Name: "a", Run: func(context.Context) error { <-release; return nil }})
		if err != nil {
			t.Errorf("Run = %v, want nil: nothing is started when ctx has ended", err)
		}
		ctx, cancel = context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		err = Run(ctx, Part{Name: "a", Run: func(context.Context) error { <-release; return nil }})
		if !errors.Is(err, ErrStuck) || time.Since(start) != time.Second+DefaultStopWithin {
			t.Errorf("Run = %v after %v, want ErrStuck after 1s and the default", err, time.Since(start))
		}
		close(release)
	})
}

func TestPanicBecomesAnErrorThatNamesThePart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var d diary
		err := Run(t.Context(),
			ready(d.part("broker", 0), 0),
			Part{Name: "mailbox", Run: func(context.Context) error { time.Sleep(time.Second); panic("no such slot") }})
		if err == nil || !strings.HasPrefix(err.Error(), "mailbox: panic: no such slot\n") || !strings.Contains(err.Error(), "lifecycle_test.go") {
			t.Errorf("Run = %v, want the panic, its part and its stack", err)
		}
		d.want(t, "broker up", "broker down")
	})
}

func TestGoexitIsNotSilence(t *testing.T) {
	err := Run(t.Context(), Part{Name: "mailbox", Run: func(context.Context) error { runtime.Goexit(); return nil }})
	if err == nil || err.Error() != "mailbox: its goroutine exited" {
		t.Errorf("Run = %v, want it to say that the goroutine exited", err)
	}
}

func TestErrorsWhileStoppingAreJoined(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		bad := func(name string) Part {
			return Part{Name: name, Run: func(ctx context.Context) error { <-ctx.Done(); return errors.New("flush failed") }}
		}
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		err := Run(ctx, bad("broker"), bad("mailbox"))
		if err == nil || err.Error() != "mailbox: flush failed\nbroker: flush failed" {
			t.Errorf("Run = %v, want one line for each part, top first", err)
		}
	})
}

func TestPartsKeepTheValuesAndTheCauseOfTheContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		type key struct{}
		why := errors.New("SIGTERM")
		ctx, cancel := context.WithCancelCause(context.WithValue(t.Context(), key{}, "v"))
		time.AfterFunc(time.Second, func() { cancel(why) })
		var value any
		var cause error
		err := Run(ctx, Part{Name: "a", Run: func(ctx context.Context) error {
			value = ctx.Value(key{})
			<-ctx.Done()
			cause = context.Cause(ctx)
			return ctx.Err()
		}})
		if err != nil || value != "v" || cause != why {
			t.Errorf("Run = %v, value %v, cause %v; want nil, v, SIGTERM", err, value, cause)
		}
	})
}
