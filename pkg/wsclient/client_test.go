package wsclient

import (
	"encoding/json"
	"errors"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/gobwas/ws"

	"github.com/wscluster/wscluster/pkg/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestABuildComesHome(t *testing.T) {
	bubble(t, func(t *testing.T, s *server) {
		c := s.start(Options{})
		p := s.next()
		if h := p.welcome("one"); h.Token != "" || h.Tasks != nil {
			t.Errorf("the first hello is %+v, want nothing in it", h)
		}
		task := p.submit(c)
		go p.events(step(1, 0), progress(2, 1), step(3, 1), result(4, 3, `{"ok":true}`))
		if got := numbers(t, task, 3); got != "1 2 3" && got != "1 3 4" {
			t.Errorf("the application got %s", got)
		}
		value, err := task.Wait(t.Context())
		if string(value) != `{"ok":true}` || err != nil {
			t.Errorf("Wait = %s, %v", value, err)
		}
		want := wire.Position{Task: "t", Attempt: 1, Run: runA, Next: 5}
		if got := p.acked(5); got != want {
			t.Errorf("acknowledged %+v, want %+v", got, want)
		}
		if m := c.Meta(); m.Client != testClient || m.Server != "i1-w1" {
			t.Errorf("Meta = %+v", m)
		}
		if len(c.Tasks()) != 0 {
			t.Errorf("%d tasks are open, want none", len(c.Tasks()))
		}
		if err := c.stop(); err != nil {
			t.Errorf("Run = %v, want nil after ctx ended", err)
		}
		for range p.in {
		}
		if p.code != ws.StatusGoingAway {
			t.Errorf("the client left with %d, want 1001", p.code)
		}
	})
}

func TestFailureIsAnErrorWithItsCode(t *testing.T) {
	bubble(t, func(t *testing.T, s *server) {
		c, p := s.open(Options{})
		task := p.submit(c)
		failed := event(1, runA, 1, 0, wire.EventError)
		failed.Body = json.RawMessage(`{"code":"failed","message":"step 2: exit status 1","retryable":true,"last_line":3,"timestamp":"2026-01-02T03:04:05.000Z"}`)
		p.events(failed)
		_, err := task.Wait(t.Context())
		if e, ok := errors.AsType[*wire.Error](err); !ok || e.Code != wire.CodeFailed || e.Message != "step 2: exit status 1" {
			t.Errorf("Wait = %v, want the failure", err)
		}
	})
}

func TestFaults(t *testing.T) {
	bubble(t, func(t *testing.T, s *server) {
		var mute, cut bool
		c, p := s.open(Options{Faults: Faults{
			Send: func(m wire.ClientMessage) Fate {
				if _, ok := m.(*wire.Ack); ok && mute {
					return Lose
				}
				return Pass
			},
			Receive: func(m wire.ServerMessage) Fate {
				if _, ok := m.(*wire.SocketMeta); ok && cut {
					cut = false
					return Cut
				}
				return Pass
			},
		}})
		task := p.submit(c)
		mute, cut = true, true
		p.events(step(1, 0))
		numbers(t, task, 1)
		time.Sleep(time.Second)
		p.silent()
		c.Cut()
		p = s.next()
		p.greet("lost")
		p = s.next()
		if h := p.welcome("three"); h.Token != "one" || h.Tasks[0].Next != 2 {
			t.Errorf("hello %+v, want the token before the lost welcome", h)
		}
	})
}
