package wsclient

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wscluster/wscluster/pkg/wire"
)

// refuse takes a submit and refuses it.
func (p *peer) refuse(code wire.Code, retryAfter time.Duration) *wire.Submit {
	p.t.Helper()
	m := receive[*wire.Submit](p)
	e := wire.Errorf(code, "so")
	e.RetryAfterMS = retryAfter.Milliseconds()
	p.send(&wire.Refused{ID: m.ID, Task: m.Task, Error: *e})
	return m
}

// tried is what came of a submit.
type tried struct {
	task *Task
	err  error
}

// trySubmit has c submit a task "t" until ctx ends, an hour from now at the latest.
func trySubmit(ctx context.Context, c started) <-chan tried {
	done := make(chan tried, 1)
	go func() {
		ctx, cancel := context.WithTimeout(ctx, time.Hour)
		defer cancel()
		task, err := c.SubmitAs(ctx, "t", "count", nil)
		done <- tried{task, err}
	}()
	return done
}

// accepted returns the task of a submit that was accepted.
func (p *peer) accepted(done <-chan tried) *Task {
	p.t.Helper()
	o := <-done
	if o.err != nil {
		p.t.Fatalf("submit: %v", o.err)
	}
	return o.task
}

func TestASubmitInDoubtIsSentAgainUntilItIsAccepted(t *testing.T) {
	bubble(t, func(t *testing.T, s *server) {
		c, p := s.open(Options{})
		submitted := trySubmit(t.Context(), c)
		first := p.refuse(wire.CodeUnavailable, 0)
		refusals := []wire.Code{wire.CodeOverloaded, wire.CodeInternal, wire.CodeTooManyTasks}
		for i := range 20 {
			start := time.Now()
			again := p.refuse(refusals[i%len(refusals)], 0)
			if wait, most := time.Since(start), min(10*time.Second, 200*time.Millisecond<<i); wait > most {
				t.Errorf("refusal %d: sent again after %v, want at most %v", i+1, wait, most)
			}
			if again.ID != first.ID || again.Task != "t" {
				t.Errorf("submitted %+v, then %+v", first, again)
			}
		}
		p.accept()
		p.accepted(submitted)
		p.silent()
	})
}

func TestASubmitInDoubtWaitsAsLongAsTheServerAsks(t *testing.T) {
	bubble(t, func(t *testing.T, s *server) {
		c, p := s.open(Options{})
		submitted := trySubmit(t.Context(), c)
		start := time.Now()
		p.refuse(wire.CodeOverloaded, 20*time.Second)
		synctest.Wait()
		c.Cut() // another socket does not make it sooner
		p = s.next()
		p.welcome("two")
		p.accept()
		p.accepted(submitted)
		if wait := time.Since(start); wait != 20*time.Second {
			t.Errorf("sent again after %v, want what the server asks", wait)
		}
	})
}

func TestEventsOfASubmitInDoubtAreDeliveredInOrder(t *testing.T) {
	bubble(t, func(t *testing.T, s *server) {
		c, p := s.open(Options{})
		submitted := trySubmit(t.Context(), c)
		p.refuse(wire.CodeUnavailable, 20*time.Second)
		p.events(step(2, 1), step(1, 0), result(3, 2, "7")) // the broker has it after all
		task := p.accepted(submitted)
		p.silent() // nothing is acknowledged that the application has not
		if got := numbers(t, task, 9); got != "1 2 3" {
			t.Errorf("the application got %q, want all of it", got)
		}
		p.acked(4)
		time.Sleep(25 * time.Second)
		p.silent() // the submit has its answer
	})
}

func TestACertainRefusalEndsASubmitInDoubt(t *testing.T) {
	for _, code := range []wire.Code{wire.CodeUnknownKind, wire.CodeTooManyTasks} {
		bubble(t, func(t *testing.T, s *server) {
			c, p := s.open(Options{})
			failed := trySubmit(t.Context(), c)
			if code == wire.CodeUnknownKind {
				p.refuse(wire.CodeUnavailable, 0)
			}
			p.refuse(code, 0)
			o := <-failed
			if codeOf(o.err) != code {
				t.Errorf("Submit = %v, want %s", o.err, code)
			}
			submitted := trySubmit(t.Context(), c)
			p.accept()
			p.accepted(submitted) // nothing is left of the refused one
		})
	}
}

func TestASubmitGivenUpInDoubtIsOver(t *testing.T) {
	for _, doubt := range []bool{false, true} {
		bubble(t, func(t *testing.T, s *server) {
			c, p := s.open(Options{})
			ctx, giveUp := context.WithTimeout(t.Context(), time.Second)
			defer giveUp()
			failed := trySubmit(ctx, c)
			if doubt {
				p.refuse(wire.CodeUnavailable, time.Minute)
			}
			if err := (<-failed).err; !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "may run") {
				t.Errorf("Submit = %v, want the deadline, and that the task may run", err)
			}
			if err := (<-trySubmit(t.Context(), c)).err; !errors.Is(err, ErrTaskOver) {
				t.Errorf("Submit under the ID = %v, want ErrTaskOver", err)
			}
			if n := len(c.Tasks()); n != 0 {
				t.Errorf("%d tasks are open", n)
			}
		})
	}
}

func TestASubmitThatWasNeverSentLeavesItsIDFree(t *testing.T) {
	bubble(t, func(t *testing.T, s *server) {
		c := s.start(Options{})
		p := s.next() // which does not welcome
		ctx, giveUp := context.WithTimeout(t.Context(), time.Second)
		defer giveUp()
		failed := trySubmit(ctx, c)
		if err := (<-failed).err; !errors.Is(err, context.DeadlineExceeded) || strings.Contains(err.Error(), "may run") {
			t.Errorf("Submit = %v, want the deadline and no doubt", err)
		}
		p.welcome("one")
		submitted := trySubmit(t.Context(), c)
		p.accept()
		p.accepted(submitted)
	})
}
