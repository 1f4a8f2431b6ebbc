package haproxy_test

import (
	"net/http"
	"testing"
)

// What the edge keeps from the workers: their own paths, forged addresses, too much of one client.

func TestInternalPathsAreRefusedInEverySpelling(t *testing.T) {
	both(t, func(t *testing.T, config string) {
		c := start(t, config, nil, "i1-w1")
		for path, want := range map[string]int{
			"/livez":                        http.StatusForbidden,
			"/readyz":                       http.StatusForbidden,
			"/readyz?x=/v1/ws":              http.StatusForbidden,
			"/readyz/":                      http.StatusForbidden,
			"/metrics":                      http.StatusForbidden,
			"/admin":                        http.StatusForbidden,
			"/admin/drain":                  http.StatusForbidden,
			"/debug/pprof/":                 http.StatusForbidden,
			"/%72eadyz":                     http.StatusForbidden,
			"/%6detrics":                    http.StatusForbidden,
			"http://site.example/readyz":    http.StatusForbidden,
			"http://site.example/%6detrics": http.StatusForbidden,
			"//readyz":                      http.StatusBadRequest,
			"/./readyz":                     http.StatusBadRequest,
			"/v1/../readyz":                 http.StatusBadRequest,
			"/v1/%2e%2e/readyz":             http.StatusBadRequest,
			"/v1%2f..%2freadyz":             http.StatusBadRequest,
			"/":                             http.StatusOK,
			"/v1/tasks":                     http.StatusOK,
			"/.well-known/x":                http.StatusOK,
			"/readyzx":                      http.StatusOK,
		} {
			if got := ask(t, request{addr: c.Addr, path: path}).status; got != want {
				t.Errorf("%s: got status %d, want %d", path, got, want)
			}
		}
		if n := len(c.workers["i1-w1"].requests()); n != 4 {
			t.Errorf("%d requests reached the worker, want the 4 allowed ones", n)
		}
	})
}

func TestWorkerHearsTheRealAddressOnly(t *testing.T) {
	both(t, func(t *testing.T, config string) {
		c := start(t, config, nil, "i1-w1")
		from := address(0)
		ask(t, request{addr: c.Addr, from: from, path: "/v1/tasks", header: []string{
			"X-Forwarded-For: 10.1.2.3", "x-forwarded-for: 10.1.2.4", "Forwarded: for=10.1.2.5", "X-Forwarded-Proto: https",
		}})
		h := c.workers["i1-w1"].requests()[0].Header
		if got := h.Values("X-Forwarded-For"); len(got) != 1 || got[0] != from {
			t.Errorf("X-Forwarded-For: got %q, want only %q", got, from)
		}
		if got := h.Values("X-Forwarded-Proto"); len(got) != 1 || got[0] != "http" {
			t.Errorf("X-Forwarded-Proto: got %q, want only http", got)
		}
		if got := h.Values("Forwarded"); len(got) != 0 {
			t.Errorf("Forwarded: got %q, want none", got)
		}
	})
}

func TestOneAddressHasSoManySockets(t *testing.T) {
	both(t, func(t *testing.T, config string) {
		c := start(t, config, map[string]string{"WS_PER_IP": "3"}, "i1-w1")
		mine := request{addr: c.Addr, from: address(0)}
		var last *answer
		for range 3 {
			last = open(t, mine)
		}
		if a := ask(t, mine); a.status != http.StatusTooManyRequests || a.header.Get("Retry-After") == "" {
			t.Errorf("the fourth socket: got status %d, Retry-After %q, want 429 with one", a.status, a.header.Get("Retry-After"))
		}
		open(t, request{addr: c.Addr, from: address(1)}) // another address is not concerned
		page := mine
		page.path = "/"
		if a := ask(t, page); a.status != http.StatusOK {
			t.Errorf("a page: got status %d, want 200", a.status)
		}
		_ = last.conn.Close()
		c.eventually(t, "a socket after one was closed", func() bool { return ask(t, mine).status == http.StatusSwitchingProtocols })
	})
}

func TestOneAddressOpensSocketsOnlySoOften(t *testing.T) {
	both(t, func(t *testing.T, config string) {
		c := start(t, config, map[string]string{"WS_RATE_PER_IP": "5"}, "i1-w1")
		mine := request{addr: c.Addr, from: address(0)}
		for range 5 {
			if a := ask(t, mine); a.status != http.StatusSwitchingProtocols {
				t.Fatalf("got status %d, want 101", a.status)
			}
		}
		if a := ask(t, mine); a.status != http.StatusTooManyRequests {
			t.Errorf("the sixth in ten seconds: got status %d, want 429", a.status)
		}
	})
}

func TestOneAddressHasSoManyConnections(t *testing.T) {
	both(t, func(t *testing.T, config string) {
		c := start(t, config, map[string]string{"CONN_PER_IP": "3"}, "i1-w1")
		for range 3 {
			open(t, request{addr: c.Addr, from: address(0)})
		}
		if a, err := (request{addr: c.Addr, from: address(0), path: "/"}).do(); err == nil {
			_ = a.conn.Close()
			t.Errorf("the fourth connection was answered with %d, want it closed", a.status)
		}
		open(t, request{addr: c.Addr, from: address(1)})
	})
}

func TestAboveTheSoftCapClientsAreToldAtOnce(t *testing.T) {
	both(t, func(t *testing.T, config string) {
		c := start(t, config, map[string]string{"SOFT_CAP": "4"}, "i1-w1")
		for i := range 4 {
			open(t, request{addr: c.Addr, from: address(i)})
		}
		if a := ask(t, request{addr: c.Addr, from: address(9)}); a.status != http.StatusServiceUnavailable || a.header.Get("Retry-After") == "" {
			t.Errorf("got status %d, Retry-After %q, want 503 with one", a.status, a.header.Get("Retry-After"))
		}
	})
}
