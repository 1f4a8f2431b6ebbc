package haproxy_test

import (
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/wscluster/wscluster/pkg/socketmeta"
)

// cookieWorker returns the server ID in a cookie's value, which HAProxy follows with the cookie's dates.
func cookieWorker(cookie string) string {
	id, _, _ := strings.Cut(cookie, "|")
	return id
}

func TestCookieOnThe101NamesInstanceAndWorker(t *testing.T) {
	t.Parallel()
	c := start(t, cookieConfig, nil, "i1-w1", "i1-w2", "i2-w1", "i2-w2")
	for i := range 4 {
		a := open(t, request{addr: c.Addr, from: address(i)})
		set := a.cookie()
		if set == nil {
			t.Fatal("the 101 sets no cookie")
		}
		id, err := socketmeta.ParseServerID(cookieWorker(set.Value))
		if err != nil || string(id) != a.worker {
			t.Errorf("the cookie is %q (%v) on a socket of %s", set.Value, err, a.worker)
		}
		if !set.HttpOnly || set.SameSite != http.SameSiteLaxMode || set.Path != "/" || set.Secure {
			t.Errorf("cookie %q: want Path=/; HttpOnly; SameSite=Lax, and no Secure on plain http", set.Raw)
		}
	}
}

func TestCookieBringsBackToTheSameInstanceAndWorker(t *testing.T) {
	t.Parallel()
	c := start(t, cookieConfig, nil, "i1-w1", "i1-w2", "i2-w1", "i2-w2")
	for i := range 4 {
		v := c.visitor(i)
		home := v.open(t).worker
		v.from = address(100 + i) // the address has no part in it
		v.comesBackTo(t, home)
	}
}

func TestUnknownCookieIsReplaced(t *testing.T) {
	t.Parallel()
	c := start(t, cookieConfig, nil, "i1-w1", "i2-w1")
	for _, cookie := range []string{"i9-w9", "i1-w1x", "x", "i1-w1,i2-w1", strings.Repeat("a", 2000)} {
		a := open(t, request{addr: c.Addr, cookie: cookie})
		if set := a.cookie(); set == nil || cookieWorker(set.Value) != a.worker {
			t.Errorf("cookie %.20q: came to %s, which sets %v", cookie, a.worker, set)
		}
	}
}

// A cookie's dates have a grain of four seconds, and so have its limits.
const cookieGrain = 4 * time.Second

func TestCookieEndsAfterItsIdleTime(t *testing.T) {
	t.Parallel()
	const idle = 2 * cookieGrain
	c := start(t, cookieConfig, map[string]string{"COOKIE_MAXIDLE": "8s", "COOKIE_MAXLIFE": "1h"}, "i1-w1", "i2-w1")
	idler, active := c.visitor(0), c.visitor(1)
	idler.stay(t, 4) // the busiest worker: nothing but the cookie leads there
	active.stay(t, 1)
	stale := idler.cookie
	lived := c.whileAtHome(t, idler, func() {
		idler.cookie = stale // as if it had not been seen since
		a := ask(t, request{addr: c.Addr, cookie: active.cookie})
		if set := a.cookie(); set != nil {
			active.cookie = set.Value
		}
		if a.worker != active.home {
			t.Errorf("a client that comes all the time was sent from %s to %s", active.home, a.worker)
		}
	})
	if lived < idle-cookieGrain {
		t.Errorf("an idle client was balanced anew after %v, want its worker for %v", lived, idle)
	}
	active.comesBackTo(t, active.home)
}

func TestCookieEndsAfterItsLife(t *testing.T) {
	t.Parallel()
	const life = 2 * cookieGrain
	c := start(t, cookieConfig, map[string]string{"COOKIE_MAXIDLE": "1h", "COOKIE_MAXLIFE": "8s"}, "i1-w1", "i2-w1")
	v := c.visitor(0)
	v.stay(t, 2)
	lived := c.whileAtHome(t, v, func() {})
	if lived < life-cookieGrain {
		t.Errorf("a client was balanced anew after %v, want its worker for %v", lived, life)
	}
	if home := v.home; cookieWorker(v.cookie) == home {
		t.Errorf("the cookie is still %q", v.cookie)
	}
}

// whileAtHome lets v ask for its socket now and then, with between before each time, until it is sent
// to another worker, and returns how long that was after it began.
func (c *cluster) whileAtHome(t *testing.T, v *visitor, between func()) time.Duration {
	t.Helper()
	began := time.Now()
	tick := time.NewTicker(500 * time.Millisecond)
	defer tick.Stop()
	for range tick.C {
		between()
		asked := time.Since(began)
		a := ask(t, request{addr: c.Addr, from: v.from, cookie: v.cookie})
		if set := a.cookie(); set != nil {
			v.cookie = set.Value
		}
		if a.worker != v.home {
			return asked
		}
		if asked > 2*patience {
			t.Fatalf("still on %s after %v", v.home, asked)
		}
	}
	panic("a ticker does not end")
}

func TestOnlyRealtimePathsGiveTheCookie(t *testing.T) {
	t.Parallel()
	c := start(t, cookieConfig, nil, "i1-w1", "i2-w1")
	for path, want := range map[string]bool{
		"/v1/ws": true, "/v1/ws?x=1": true, "/v1/events": true, "/v1/events?x=1": true, "/api/workflows/t/updates": true,
		"/": false, "/app.js": false, "/v1/tasks": false, "/v1/ws/x": false, "/v1/eventsx": false, "/api/workflows/t": false, "/api/workflows/t/x/updates": false,
	} {
		if got := ask(t, request{addr: c.Addr, path: path}).cookie() != nil; got != want {
			t.Errorf("%s sets a cookie: %v, want %v", path, got, want)
		}
	}
}

func TestAPIFollowsTheCookieAndPagesDoNot(t *testing.T) {
	t.Parallel()
	c := start(t, cookieConfig, nil, "i1-w1", "i2-w1")
	v := c.visitor(0)
	v.stay(t, 6)
	for range 4 {
		for _, path := range []string{"/v1/tasks", "/api/workflows/t"} {
			if a := ask(t, request{addr: c.Addr, path: path, cookie: v.cookie}); a.worker != v.home {
				t.Errorf("%s came to %s, want %s", path, a.worker, v.home)
			}
		}
		if a := ask(t, request{addr: c.Addr, path: "/app.js", cookie: v.cookie}); a.worker == v.home || a.cookie() != nil {
			t.Errorf("/app.js came to %s, the busiest, with Set-Cookie %v", a.worker, a.cookie())
		}
	}
}

// A browser's first visit fetches the page's parts side by side while the script opens its socket.
// Were each of them to set the cookie, the last one would win over the socket's.
func TestFirstVisitsCookieIsTheSockets(t *testing.T) {
	t.Parallel()
	c := start(t, cookieConfig, nil, "i1-w1", "i1-w2", "i2-w1", "i2-w2")
	for i := range 20 {
		jar := make(chan string, 5)
		var socket string
		var visit sync.WaitGroup
		for _, path := range []string{"/", "/app.js", "/app.css", "/favicon.ico", "/v1/ws"} {
			visit.Go(func() {
				a, err := request{addr: c.Addr, from: address(i), path: path}.do()
				if err != nil {
					t.Error(err)
					return
				}
				_ = a.conn.Close()
				if path == "/v1/ws" {
					socket = a.worker
				}
				if set := a.cookie(); set != nil {
					jar <- cookieWorker(set.Value)
				}
			})
		}
		visit.Wait()
		close(jar)
		var last string
		for cookie := range jar {
			last = cookie
		}
		if last != socket {
			t.Errorf("visit %d: the socket is on %s and the cookie names %q", i, socket, last)
		}
	}
}
