package wsclient

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/wscluster/wscluster/pkg/wire"
)

func TestACancelIsAskedOnEveryNewSocketUntilTheServerHasIt(t *testing.T) {
	bubble(t, func(t *testing.T, s *server) {
		c, p := s.open(Options{})
		task := p.submit(c)
		want := wire.Cancel{ID: "cancel:t", Task: "t", Kind: "count"}
		asked := func(p *peer) {
			t.Helper()
			if got := receive[*wire.Cancel](p); *got != want {
				t.Errorf("asked %+v, want %+v", got, want)
			}
		}
		task.Cancel()
		task.Cancel()
		asked(p)
		p.conn.Close()
		p = s.next()
		p.welcome("two")
		asked(p)
		p.send(&wire.Refused{ID: want.ID, Task: "t", Error: wire.Error{Code: wire.CodeUnavailable, Retryable: true, RetryAfterMS: 500}})
		asked(p)
		p.send(&wire.Canceling{ID: want.ID, Task: "t"})
		synctest.Wait()
		p.conn.Close()
		p = s.next()
		p.welcome("three")
		time.Sleep(time.Second)
		synctest.Wait()
		for len(p.in) > 0 {
			if m, again := (<-p.in).(*wire.Cancel); again {
				t.Errorf("asked again: %+v", m)
			}
		}
		end := result(1, 0, "")
		end.Type, end.Body = wire.EventError, []byte(`{"code":"canceled","message":"the task was canceled"}`)
		go p.events(end)
		_, err := task.Wait(t.Context())
		if codeOf(err) != wire.CodeCanceled {
			t.Errorf("Wait: %v, want canceled", err)
		}
		task.Cancel() // it is over
	})
}
