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

func TestSubmitIsSentAgainUntilItIsAnswered(t *testing.T) {
	bubble(t, func(t *testing.T, s *server) {
		c := s.start(Options{})
		submitted := make(chan error, 1)
		go func() {
			_, err := c.SubmitAs(t.Context(), "t", "count", nil)
			submitted <- err
		}()
		p := s.next()
		p.welcome("one")
		first := receive[*wire.Submit](p)
		p.conn.Close()
		p = s.next()
		if h := p.welcome("two"); h.Tasks != nil {
			t.Errorf("hello speaks of %+v, which the server may not have", h.Tasks)
		}
		if again := p.accept(); again.ID != first.ID || again.Task != "t" {
			t.Errorf("submitted %+v, then %+v", first, again)
		}
		if err := <-submitted; err != nil {
			t.Errorf("Submit = %v", err)
		}
		p.conn.Close()
		p = s.next()
		if h := p.welcome("three"); len(h.Tasks) != 1 || h.Tasks[0] != (wire.Position{Task: "t"}) {
			t.Errorf("hello speaks of %+v, want the task, of which nothing has come", h.Tasks)
		}
		p.silent()
	})
}

func TestAnEventStandsForALostAnswer(t *testing.T) {
	bubble(t, func(t *testing.T, s *server) {
		c, p := s.open(Options{})
		go func() {
			receive[*wire.Submit](p)
			p.events(step(1, 0))
		}()
		if _, err := c.SubmitAs(t.Context(), "t", "count", nil); err != nil {
			t.Errorf("Submit = %v", err)
		}
	})
}

func TestRefusedSubmitIsAnErrorAndForgotten(t *testing.T) {
	bubble(t, func(t *testing.T, s *server) {
		c, p := s.open(Options{})
		go func() {
			m := receive[*wire.Submit](p)
			p.send(&wire.Refused{ID: m.ID, Task: m.Task, Error: *wire.Errorf(wire.CodeUnknownKind, "no such kind")})
			p.accept()
		}()
		_, err := c.SubmitAs(t.Context(), "t", "count", nil)
		if codeOf(err) != wire.CodeUnknownKind {
			t.Errorf("Submit = %v, want unknown_kind", err)
		}
		if len(c.Tasks()) != 0 {
			t.Error("a refused task is open")
		}
		if _, err := c.SubmitAs(t.Context(), "t", "count", nil); err != nil {
			t.Errorf("Submit under the same ID = %v", err)
		}
	})
}

func TestATaskWhoseEventsWereAcknowledgedUnseenIsOver(t *testing.T) {
	bubble(t, func(t *testing.T, s *server) {
		c, p := s.open(Options{})
		ctx, giveUp := context.WithTimeout(t.Context(), time.Second)
		defer giveUp()
		if _, err := c.SubmitAs(ctx, "t", "count", nil); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("Submit = %v, want the deadline", err)
		}
		receive[*wire.Submit](p)
		p.events(step(1, 0)) // it runs all the same
		if a := receive[*wire.Ack](p); a.Tasks[0].Next != 2 {
			t.Fatalf("acknowledged %+v, want the event by name", a.Tasks)
		}
		ctx, giveUp = context.WithTimeout(t.Context(), time.Second)
		defer giveUp()
		_, err := c.SubmitAs(ctx, "t", "count", nil)
		if !errors.Is(err, ErrTaskOver) || !strings.Contains(err.Error(), "new ID") {
			t.Errorf("Submit = %v, want ErrTaskOver, and what to do: event 1 will not come again", err)
		}
		p.silent()
		stranger := progress(2, 1)
		stranger.Task = "u"
		p.events(stranger)
		synctest.Wait() // it was nobody's; else it would stand for the answer to the submit
		go p.accept()
		if _, err := c.SubmitAs(t.Context(), "u", "count", nil); err != nil {
			t.Errorf("Submit of a task of which nothing was acknowledged = %v", err)
		}
	})
}

func TestTwoSubmitsOfOneIDAtOnce(t *testing.T) {
	bubble(t, func(t *testing.T, s *server) {
		c, p := s.open(Options{})
		errs := map[string]chan error{"count": make(chan error, 1), "other": make(chan error, 1)}
		for _, kind := range []string{"count", "other"} {
			go func() {
				_, err := c.SubmitAs(t.Context(), "t", kind, nil)
				errs[kind] <- err
			}()
			synctest.Wait()
		}
		for range errs {
			if m := receive[*wire.Submit](p); m.Kind == "other" {
				p.send(&wire.Refused{ID: m.ID, Task: m.Task, Error: *wire.Errorf(wire.CodeConflict, "other contents")})
			} else {
				defer p.send(&wire.Accepted{ID: m.ID, Task: m.Task})
			}
		}
		if err := <-errs["other"]; err == nil {
			t.Error("the refused one is not refused")
		}
		if n := len(c.Tasks()); n != 1 {
			t.Errorf("%d tasks are open, want the one that still waits", n)
		}
	})
}

func TestASecondSubmitOfOneIDHasItsOwnAnswer(t *testing.T) {
	bubble(t, func(t *testing.T, s *server) {
		c, p := s.open(Options{})
		task := p.submit(c)
		go func() {
			m := receive[*wire.Submit](p)
			p.events(step(1, 0)) // is no answer
			p.send(&wire.Refused{ID: m.ID, Task: m.Task, Error: *wire.Errorf(wire.CodeConflict, "other contents")})
			p.events(result(2, 1, "1"))
		}()
		_, err := c.SubmitAs(t.Context(), "t", "other", nil)
		if codeOf(err) != wire.CodeConflict {
			t.Errorf("Submit = %v, want conflict", err)
		}
		if _, err := task.Wait(t.Context()); err != nil {
			t.Errorf("Wait = %v: the open task has nothing to do with the refusal", err)
		}
		if _, err := c.SubmitAs(t.Context(), "t", "count", nil); !errors.Is(err, ErrTaskOver) {
			t.Errorf("Submit of a task that is over = %v", err)
		}
	})
}

func TestSubmitRefusesHereWhatTheServerWouldRefuse(t *testing.T) {
	c, err := New(Options{URL: "ws://example.test/"})
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		id, kind string
		params   any
		want     string
	}{
		{"-t", "count", nil, "task ID"},
		{"t", "Count", nil, "kind"},
		{"t", "count", make(chan int), "params"},
		{"t", "count", map[string]string{"p": strings.Repeat("x", wire.MaxClientFrame)}, "frame_too_large"},
	} {
		if _, err := c.SubmitAs(t.Context(), wire.TaskID(test.id), test.kind, test.params); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("SubmitAs(%s, %s) = %v, want it to speak of %s", test.id, test.kind, err, test.want)
		}
	}
	if _, err := c.SubmitRequest(t.Context(), Request{ID: "t", Kind: "count", Priority: "urgent"}); err == nil || !strings.Contains(err.Error(), "priority") {
		t.Errorf("a priority that is none: %v", err)
	}
	if len(c.Tasks()) != 0 {
		t.Error("a refused task is open")
	}
}

func TestSubmitEndsWithItsContextAndWithRun(t *testing.T) {
	bubble(t, func(t *testing.T, s *server) {
		c, p := s.open(Options{})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := c.Submit(ctx, "count", nil); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Submit = %v, want the deadline", err)
		}
		receive[*wire.Submit](p)
		if n := len(c.Tasks()); n != 0 {
			t.Errorf("%d tasks are open", n)
		}
		task := p.submit(c)
		errs := make(chan error, 2)
		go func() {
			_, err := c.Submit(t.Context(), "count", nil)
			errs <- err
		}()
		go func() {
			_, err := task.Wait(t.Context())
			errs <- err
		}()
		receive[*wire.Submit](p)
		_ = c.stop()
		for range 2 {
			if err := <-errs; !errors.Is(err, ErrStopped) {
				t.Errorf("after the end of Run: %v, want ErrStopped", err)
			}
		}
	})
}
