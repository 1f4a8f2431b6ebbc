package wsclient

import (
	"fmt"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wscluster/wscluster/pkg/wire"
)

func TestAResumedSessionIsConfirmedOnceItsTokenIsKept(t *testing.T) {
	bubble(t, func(t *testing.T, s *server) {
		var kept string
		var c started
		c = s.start(Options{OnMeta: func(m wire.SocketMeta) {
			time.Sleep(time.Second) // a slow disk
			kept = c.State().Token
		}})
		p := s.next()
		p.welcome("one")
		task := p.submit(c) // no confirm came before it: the session is new
		p.events(step(1, 0), step(2, 1))
		numbers(t, task, 1)
		p.acked(2)
		numbers(t, task, 1) // to be acknowledged in 50 ms
		go func() { _, _ = c.SubmitAs(t.Context(), "u", "count", nil) }()
		receive[*wire.Submit](p)
		c.Cut()
		p = s.next()
		receive[*wire.Hello](p)
		m := meta("two")
		m.Resumed, m.Epoch = true, 7
		p.send(m)
		p.silent()
		time.Sleep(time.Second - 1)
		p.silent()
		if got := receive[*wire.Confirm](p); got.Epoch != 7 || kept != "two" {
			t.Errorf("confirmed epoch %d with token %q kept, want 7 with the token of that epoch", got.Epoch, kept)
		}
		receive[*wire.Submit](p)
		p.send(&wire.Accepted{ID: "2", Task: "u"})
		receive[*wire.Ack](p)

		renewed := meta("three")
		renewed.Epoch = 7
		p.send(renewed)
		time.Sleep(2 * time.Second)
		p.silent() // a renewal is not confirmed
	})
}

// TestAClientThatLeavesAtOnceConfirmsFirst leaves between the welcome and the turn that confirms it.
func TestAClientThatLeavesAtOnceConfirmsFirst(t *testing.T) {
	bubble(t, func(t *testing.T, _ *server) {
		c, err := New(Options{URL: "ws://example.test/"})
		if err != nil {
			t.Fatal(err)
		}
		here, there := net.Pipe()
		p := &peer{t: t, conn: there, in: make(chan wire.ClientMessage, 8)}
		go p.read()
		s := newSocket(here, nil)
		s.opened, s.confirm = s.began, 7
		c.in.owe(wire.Position{Task: "t", Next: 2})
		c.leave(s, nil)
		if got := receive[*wire.Confirm](p); got.Epoch != 7 {
			t.Errorf("confirmed epoch %d, want 7", got.Epoch)
		}
		receive[*wire.Ack](p)
		here.Close()
	})
}

func TestAWorkerThatKnowsNoConfirmIsServedAllTheSame(t *testing.T) {
	for _, code := range []wire.Code{wire.CodeUnexpected, wire.CodeUnknownType} {
		bubble(t, func(t *testing.T, s *server) {
			c, p := s.open(Options{})
			task := p.submit(c)
			c.Cut()
			p = s.next()
			p.welcome("two")
			p.send(&wire.Refused{Error: *wire.Errorf(code, "confirm?")})
			p.events(step(1, 0), result(2, 1, "1"))
			if _, err := task.Wait(t.Context()); err != nil {
				t.Errorf("%s: Wait = %v", code, err)
			}
			if n := c.Stats().Sockets; n != 2 {
				t.Errorf("%s: %d sockets, want 2", code, n)
			}
		})
	}
}

func TestALostConfirmCostsOneMoreSocket(t *testing.T) {
	bubble(t, func(t *testing.T, s *server) {
		lose := true
		c, _ := s.open(Options{Faults: Faults{Send: func(m wire.ClientMessage) Fate {
			if _, ok := m.(*wire.Confirm); ok && lose {
				lose = false
				return Lose
			}
			return Pass
		}}})
		synctest.Wait()
		c.Cut()
		p := s.next()
		p.greet("two")
		p.silent()
		p.bye(wire.CloseUnconfirmed, 0)
		if h := s.next().welcome("three"); h.Token != "two" {
			t.Errorf("hello with token %q, want that of the welcome which was not confirmed", h.Token)
		}
	})
}

func TestAMovedClientResumesAtOnce(t *testing.T) {
	bubble(t, func(t *testing.T, s *server) {
		c, p := s.open(Options{BaseDelay: time.Hour, MaxDelay: time.Hour})
		task := p.submit(c)
		p.events(step(1, 0))
		if got := numbers(t, task, 1); got != "1" {
			t.Fatalf("the application got %s", got)
		}
		start := time.Now()
		p.bye(wire.CloseMoved, 0)
		p = s.next()
		h := p.welcome("two")
		if took := time.Since(start); took != 0 || fmt.Sprint(h.Tasks[0].Next) != "2" {
			t.Errorf("resumed after %v with %+v, want at once", took, h)
		}
	})
}
