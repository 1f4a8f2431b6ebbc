package haproxy_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
)

// Each test is one row of what an operator, an accident or a worker can do. What a client sees must
// not depend on how its affinity is kept, so most rows hold for both configurations.

func TestUnreadyWorkerKeepsItsClientsAndGetsNoNewOnes(t *testing.T) {
	both(t, func(t *testing.T, config string) {
		c := start(t, config, nil, "i1-w1", "i1-w2", "i2-w1")
		v := c.visitor(0)
		first := v.open(t)
		c.workers[first.worker].readyz.Store(http.StatusNotFound)
		c.await(t, "NOLB", first.worker)

		if !first.echoes() {
			t.Error("its open socket was cut")
		}
		v.comesBackTo(t, first.worker)
		for worker, n := range c.loadFrom(t, 1, 10) {
			if worker == first.worker {
				t.Errorf("%d new clients were sent to it", n)
			}
		}
	})
}

func TestDrainingWorkerMovesItsClientWithinTheRequest(t *testing.T) {
	both(t, func(t *testing.T, config string) {
		c := start(t, config, nil, "i1-w1", "i1-w2", "i2-w1")
		v := c.visitor(0)
		first := v.open(t)
		drained := c.workers[first.worker]
		drained.draining.Store(true)

		// Before the health check knows of the drain, and after.
		moved := v.open(t)
		if moved.worker == first.worker {
			t.Fatalf("a socket was opened on %s, which drains", first.worker)
		}
		if n := len(drained.requests()); n != 2 {
			t.Errorf("the draining worker was asked %d times, want 2: for the first socket, and for the one it refused", n)
		}
		if config == cookieConfig && cookieWorker(v.cookie) != moved.worker {
			t.Errorf("the cookie is %q after the move to %s", v.cookie, moved.worker)
		}
		drained.readyz.Store(http.StatusNotFound)
		c.await(t, "NOLB", first.worker)
		v.comesBackTo(t, moved.worker)
		if !first.echoes() {
			t.Error("the socket that was open before the drain was cut")
		}
	})
}

func TestUnreadyEverywhereKeepsOpenSockets(t *testing.T) {
	both(t, func(t *testing.T, config string) {
		c := start(t, config, nil, "i1-w1", "i2-w1")
		sockets := []*answer{c.visitor(0).open(t), c.visitor(1).open(t), c.visitor(2).open(t)}
		for _, w := range c.workers {
			w.readyz.Store(http.StatusNotFound)
		}
		c.await(t, "NOLB", "i1-w1", "i2-w1")
		for _, s := range sockets {
			if !s.echoes() {
				t.Errorf("a socket of %s was cut", s.worker)
			}
		}
	})
}

func TestUnhealthyWorkerIsCut(t *testing.T) {
	for name, ail := range map[string]func(*worker){
		"readyz 503": func(w *worker) { w.readyz.Store(http.StatusServiceUnavailable) },
		"hung":       func(w *worker) { w.hung.Store(true) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := start(t, cookieConfig, nil, "i1-w1", "i2-w1")
			v := c.visitor(0)
			first := v.open(t)
			ail(c.workers[first.worker])
			if !first.ended() {
				t.Error("its socket was left open")
			}
			c.await(t, "DOWN", first.worker)
			if next := v.open(t); next.worker == first.worker || cookieWorker(v.cookie) != next.worker {
				t.Errorf("came to %s with cookie %q, want another worker than %s and its cookie", next.worker, v.cookie, first.worker)
			}
		})
	}
}

func TestKilledWorkerIsLeftOnTheFirstRetry(t *testing.T) {
	both(t, func(t *testing.T, config string) {
		c := start(t, config, nil, "i1-w1", "i1-w2", "i2-w1")
		v := c.visitor(0)
		first := v.open(t)
		c.workers[first.worker].kill()
		if !first.ended() {
			t.Error("a killed worker's socket stayed open")
		}
		next := v.open(t)
		if next.worker == first.worker {
			t.Fatalf("came to %s, which is dead", next.worker)
		}
		v.comesBackTo(t, next.worker)
		// "+1": sent to another server on retry 1. HAProxy's default is "+3", after two seconds at the dead one.
		c.awaitLog(t, "the redispatch", func(line logLine) bool { return line.Retries == "+1" })
	})
}

func TestReturnedWorkerGetsClientsSlowly(t *testing.T) {
	t.Parallel()
	c := start(t, cookieConfig, map[string]string{"SLOWSTART": "60s"}, "i1-w1", "i1-w2", "i2-w1", "i2-w2")
	v := c.visitor(0)
	back := c.workers[v.open(t).worker]
	back.kill()
	home := v.open(t).worker
	c.await(t, "DOWN", back.id)
	back.start(t)
	c.await(t, "UP", back.id)

	// It has no socket, so leastconn alone would give it the next clients one after the other.
	share := c.loadFrom(t, 1, 60)
	if share[back.id] > 60/4/2 {
		t.Errorf("the returned worker got %d of the next 60 clients, want at most half of a quarter: %v", share[back.id], share)
	}
	v.comesBackTo(t, home)
}

func TestReloadCutsNobody(t *testing.T) {
	both(t, func(t *testing.T, config string) {
		c := start(t, config, nil, "i1-w1", "i1-w2", "i2-w1")
		visitors := make([]*visitor, 6)
		sockets := make([]*answer, len(visitors))
		for i := range visitors {
			visitors[i] = c.visitor(i)
			sockets[i] = visitors[i].open(t)
		}

		// Clients come without a pause while one process hands over to the next.
		reloaded, served := make(chan struct{}), make(chan error, 1)
		go func() {
			for n := 0; ; n++ {
				select {
				case <-reloaded:
					t.Logf("%d clients came during the reload", n)
					served <- nil
					return
				default:
				}
				a, err := request{addr: c.Addr, from: address(100 + n%50)}.do()
				if err == nil {
					_ = a.conn.Close()
				}
				if err != nil || a.status != http.StatusSwitchingProtocols {
					served <- fmt.Errorf("client %d during the reload: %v, %v", n, a, err)
					return
				}
			}
		}()
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		err := c.Reload(ctx)
		close(reloaded)
		if err := errors.Join(err, <-served); err != nil {
			t.Fatal(err)
		}
		for i, s := range sockets {
			if !s.echoes() {
				t.Errorf("socket %d was cut", i)
			}
			if config == cookieConfig {
				visitors[i].comesBackTo(t, s.worker)
			}
		}
	})
}

func TestReloadRemembersWhatTheOperatorSet(t *testing.T) {
	t.Parallel()
	c := start(t, cookieConfig, nil, "i1-w1", "i2-w1")
	if answer, err := c.Admin("set server workers/i1-w1 state drain"); err != nil || answer != "" {
		t.Fatalf("drain: %q, %v", answer, err)
	}
	c.await(t, "DRAIN", "i1-w1")
	c.reload(t)
	if states, err := c.ServerStates(); err != nil || !strings.HasPrefix(states["i1-w1"], "DRAIN") {
		t.Errorf("after the reload i1-w1 is %q (%v), want DRAIN", states["i1-w1"], err)
	}
}

func TestOnlyRepeatableRequestsAreRepeated(t *testing.T) {
	both(t, func(t *testing.T, config string) {
		c := start(t, config, nil, "i1-w1", "i2-w1")
		v := c.visitor(0)
		first := v.open(t)
		c.workers[first.worker].draining.Store(true)
		post := request{addr: c.Addr, from: v.from, cookie: v.cookie, method: "POST", path: "/v1/tasks"}
		if a := ask(t, post); a.status != http.StatusServiceUnavailable || a.worker != first.worker {
			t.Errorf("a bare POST: got %d of %q, want the draining worker's own 503", a.status, a.worker)
		}
		post.header = []string{"Idempotency-Key: 1"}
		if a := ask(t, post); a.status != http.StatusOK || a.worker == first.worker {
			t.Errorf("a POST with Idempotency-Key: got %d of %q, want 200 of another worker than %s", a.status, a.worker, first.worker)
		}
		post.header, post.path = nil, "/v1/events"
		if a := ask(t, post); a.status != http.StatusOK || a.worker == first.worker {
			t.Errorf("a POST for an event stream: got %d of %q, want 200 of another worker than %s", a.status, a.worker, first.worker)
		}
	})
}
