package worker_test

import (
	"fmt"
	"net/http"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/wscluster/wscluster/pkg/taskrunner"
	"github.com/wscluster/wscluster/pkg/wire"
	"github.com/wscluster/wscluster/pkg/wsclient"
)

func TestAResumedSessionThatIsNotConfirmedIsClosedAndNothingWasClaimedOrSent(t *testing.T) {
	inBubble(t, func(b *bubble) {
		w1, w2 := b.worker("i1-w1"), b.worker("i1-w2")
		first := b.bare(w1, "")
		first.say(&wire.Hello{})
		held := first.meta()
		b.publish(held.Client, "i1-w1", 1, 3)
		first.all()
		said := b.overhear()
		for _, w := range []*lodger{w1, w2} {
			s := b.bare(w, "")
			s.say(&wire.Hello{Token: held.Token})
			if m := s.meta(); !m.Resumed {
				t.Errorf("%s: not resumed", w.id)
			}
			b.pass(5*time.Second - time.Millisecond)
			if ms, code := s.all(); len(ms) != 0 || code != 0 {
				t.Errorf("%s: before the confirm it was sent %v and closed with %d", w.id, ms, code)
			}
			b.pass(time.Second)
			ms, code := s.all()
			if bye, ok := ms[len(ms)-1].(*wire.Bye); !ok || bye.Code != wire.CloseUnconfirmed || len(ms) != 1 || code != wire.CloseUnconfirmed {
				t.Errorf("%s: after 5 s it was sent %v and closed with %d, want 4101", w.id, ms, code)
			}
		}
		if ms, code := first.all(); len(ms) != 0 || code != 0 || said()["moved"] != 0 {
			t.Errorf("the socket that has the session got %v and was closed with %d; the workers said %v", ms, code, said())
		}
		b.publish(held.Client, "i1-w1", 4, 4)
		if ms, _ := first.all(); len(ms) != 1 {
			t.Errorf("the socket that has the session was sent %v, want the next event", ms)
		}
	})
}

func TestBeforeTheConfirmOnlyPingIsExpected(t *testing.T) {
	inBubble(t, func(b *bubble) {
		w := b.worker("i1-w1")
		s := b.bare(w, "")
		s.say(&wire.Hello{})
		token := s.meta().Token
		s.say(&wire.Confirm{Epoch: 1})
		if code := s.refused(); code != wire.CodeUnexpected {
			t.Errorf("the confirm of a new session: %q, want unexpected", code)
		}

		s = b.bare(w, "")
		s.say(&wire.Confirm{Epoch: 1})
		if code := s.refused(); code != wire.CodeUnexpected {
			t.Errorf("a confirm before the hello: %q, want unexpected", code)
		}
		s.say(&wire.Hello{Token: token})
		m := s.meta()
		for name, early := range map[string]wire.ClientMessage{
			"submit": &wire.Submit{ID: "q", Task: "t", Kind: "k"}, "ack": &wire.Ack{Tasks: []wire.Position{{Task: "t"}}}, "a second hello": &wire.Hello{},
		} {
			s.say(early)
			if code := s.refused(); code != wire.CodeUnexpected {
				t.Errorf("%s before the confirm: %q, want unexpected", name, code)
			}
		}
		s.say(&wire.Ping{ID: "1"})
		if ms, _ := s.all(); len(ms) != 1 {
			t.Errorf("a ping before the confirm: %v, want a pong", ms)
		}
		s.say(&wire.Confirm{Epoch: m.Epoch}, &wire.Ack{Tasks: []wire.Position{{Task: "t"}}})
		if code := s.refused(); code != "" {
			t.Errorf("the confirm and an ack: %q", code)
		}
		s.say(&wire.Confirm{Epoch: m.Epoch})
		if code := s.refused(); code != wire.CodeUnexpected {
			t.Errorf("a second confirm: %q, want unexpected", code)
		}
	})
}

// Upgrades are refused, with a status that HAProxy turns into a try at another worker; open sockets
// are told in waves, and the session goes on elsewhere.
func TestAWorkerThatDrainsRefusesNewSocketsAndSpreadsTheOthers(t *testing.T) {
	const clients, window = 40, 8 * time.Second
	inBubble(t, func(b *bubble) {
		w := b.worker("i1-w1", drainOver(window))
		b.worker("i1-w2")
		var socks []*bareSocket
		for range clients {
			s := b.bare(w, "")
			s.say(&wire.Hello{})
			s.meta()
			socks = append(socks, s)
		}
		began, done := time.Now(), make(chan struct{})
		go func() { w.stop(); close(done) }()
		b.pass(10 * time.Millisecond)
		if s := b.bare(w, ""); s.status != http.StatusServiceUnavailable {
			t.Errorf("an upgrade while it drains: %d, want 503", s.status)
		}
		told := map[int]int{} // by the second
		for open := clients; open > 0; b.pass(100 * time.Millisecond) {
			for i, s := range socks {
				if s == nil {
					continue
				}
				ms, _ := s.all()
				if len(ms) == 0 {
					continue
				}
				bye, ok := ms[0].(*wire.Bye)
				if !ok || bye.Code != wire.CloseServiceRestart || bye.RetryAfterMS > 1000 {
					t.Errorf("told %+v, want a bye 1012 that lets it come back soon", ms[0])
				}
				told[int(time.Since(began)/time.Second)]++
				socks[i] = nil
				s.conn.Close()
				open--
			}
			if time.Since(began) > 2*window {
				t.Fatalf("after %v %d sockets have not been told: %v", time.Since(began), open, told)
			}
		}
		for second, n := range told {
			if n > 3*clients/int(window/time.Second) {
				t.Errorf("%d of %d clients were told in second %d: %v; want no second with more than three times the mean", n, clients, second, told)
			}
		}
		<-done
		delete(b.workers, "i1-w1")
		if took := time.Since(began); took > window+time.Second {
			t.Errorf("the drain took %v, want some %v", took, window)
		}
		t.Logf("told by the second: %v", told)
	})
}

// A second SIGTERM, or an impatient supervisor, ends a worker in the middle of its drain.
func TestAWorkerThatIsKilledWhileItDrainsLosesNothing(t *testing.T) {
	for _, after := range []time.Duration{0, time.Second, 3 * time.Second, 5 * time.Second} {
		inBubble(t, func(b *bubble) {
			w1, w2 := b.worker("i1-w1", drainOver(4*time.Second)), b.worker("i1-w2")
			for range 4 {
				b.runner(fmt.Sprint("r", len(b.ends)), map[string]taskrunner.Kind{"k": {Handler: counting(100, new(atomic.Int64))}})
			}
			at := func() *lodger {
				if w1.Ready() == nil && w1.alive.Load() {
					return w1
				}
				return w2
			}
			apps := make([]told, 4)
			var tasks []*wsclient.Task
			for i := range apps {
				c, _ := b.client(at, func(o *wsclient.Options) { o.OnEvent = apps[i].hear })
				task, err := c.Submit(b.Context(), "k", nil)
				if err != nil {
					t.Fatal(err)
				}
				tasks = append(tasks, task)
			}
			b.pass(2 * time.Second)
			go w1.stop()
			b.pass(after)
			b.kill(w1)
			for i, task := range tasks {
				if value, err := b.wait(task); err != nil || string(value) != "100" {
					t.Errorf("killed %v into its drain: client %d has the result %s, %v", after, i, value, err)
				}
			}
			b.pass(10 * time.Second)
			for i := range apps {
				if seqs := apps[i].seqs; !slices.IsSorted(seqs) || len(slices.Compact(slices.Clone(seqs))) != len(seqs) || apps[i].finals != 1 || apps[i].gaps != 0 {
					t.Errorf("killed %v into its drain: client %d was told %v, %d ends", after, i, seqs, apps[i].finals)
				}
			}
			if n := b.left("i1-w1", "i1-w2"); n != 0 {
				t.Errorf("killed %v into its drain: %d messages are left", after, n)
			}
		})
	}
}
