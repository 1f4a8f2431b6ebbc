package haproxy_test

import (
	"net/http"
	"testing"
	"time"

	"github.com/wscluster/wscluster/internal/rig"
)

// listen opens an event stream and reads its first comment.
func listen(t *testing.T, r request) *answer {
	t.Helper()
	if r.path == "" {
		r.path = "/v1/events"
	}
	a, err := r.do()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = a.conn.Close() })
	if a.status != http.StatusOK {
		t.Fatalf("an event stream: got status %d, want 200", a.status)
	}
	a.comment(t)
	return a
}

// comment reads until the next line that is a comment, and fails the test if none comes.
func (a *answer) comment(t *testing.T) {
	t.Helper()
	for {
		line, err := a.read.ReadString('\n')
		if err != nil {
			t.Fatalf("no comment came: %v", err)
		}
		if line == ":\n" {
			return
		}
	}
}

func TestStreamsCountAsSockets(t *testing.T) {
	both(t, func(t *testing.T, config string) {
		c := start(t, config, map[string]string{"WS_PER_IP": "3"}, "i1-w1")
		mine := request{addr: c.Addr, from: address(0)}
		open(t, mine)
		listen(t, mine)
		last := listen(t, mine)
		mine.path = "/v1/events"
		if a := ask(t, mine); a.status != http.StatusTooManyRequests || a.header.Get("Retry-After") == "" {
			t.Errorf("the fourth: got status %d, Retry-After %q, want 429 with one", a.status, a.header.Get("Retry-After"))
		}
		mine.path, mine.method = "/v1/messages", "POST"
		if a := ask(t, mine); a.status != http.StatusOK {
			t.Errorf("a POST beside its streams: got status %d, want 200", a.status)
		}
		_ = last.conn.Close()
		mine.path, mine.method = "/v1/events", ""
		c.eventually(t, "a stream after one was closed", func() bool { return ask(t, mine).status == http.StatusOK })
	})
}

// The client is not written to when it goes: nothing but its going says so.
func TestAStreamWhoseClientLeavesIsEndedAtOnce(t *testing.T) {
	both(t, func(t *testing.T, config string) {
		c := start(t, config, nil, "i1-w1")
		a := listen(t, request{addr: c.Addr})
		_ = a.conn.Close()
		c.eventually(t, "the end of the stream at the worker", func() bool { return c.workers["i1-w1"].left.Load() == 1 })
	})
}

// The worker cannot see that a client's host is gone: HAProxy acknowledges what it is sent.
func TestAStreamWhoseClientVanishedIsEnded(t *testing.T) {
	both(t, func(t *testing.T, config string) {
		c := start(t, config, map[string]string{"PEER_GONE": "1s"}, "i1-w1")
		listen(t, request{addr: c.Addr, path: "/v1/events?comments=10"})
		gone := listen(t, request{addr: c.Addr, path: "/v1/events?comments=10"})
		if err := rig.Vanish(gone.conn); err != nil {
			t.Fatal(err)
		}
		c.eventually(t, "the end of the stream at the worker", func() bool { return c.workers["i1-w1"].left.Load() == 1 })
		time.Sleep(2 * time.Second) // PEER_GONE is over for whoever acknowledges, too
		if n := c.workers["i1-w1"].left.Load(); n != 1 {
			t.Errorf("%d streams were ended, want the one whose client is gone", n)
		}
	})
}
