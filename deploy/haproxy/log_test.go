package haproxy_test

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"
)

// logLine is what README.md explains of a line of the traffic log.
type logLine struct {
	IP, TLS, HTTP, Method, Path, Worker, Cookie, Ticket, Retries string
	Status                                                       int
	CookieState                                                  string `json:"cookie_state"`
}

// logged returns the lines of the traffic log so far; one that is not JSON ends the test.
func (c *cluster) logged(t *testing.T) (out []logLine) {
	t.Helper()
	for line := range strings.Lines(c.log.String()) {
		if !strings.HasPrefix(line, "{") || !strings.HasSuffix(line, "\n") {
			continue // a notice of HAProxy itself, or a line that is being written
		}
		var l logLine
		if err := json.Unmarshal([]byte(line), &l); err != nil {
			t.Fatalf("log line %q: %v", line, err)
		}
		out = append(out, l)
	}
	return out
}

// awaitLog waits for a line that is wanted and returns it.
func (c *cluster) awaitLog(t *testing.T, what string, wanted func(logLine) bool) (found logLine) {
	t.Helper()
	c.eventually(t, "the log line of "+what, func() bool {
		i := slices.IndexFunc(c.logged(t), wanted)
		if i >= 0 {
			found = c.logged(t)[i]
		}
		return i >= 0
	})
	return found
}

func TestLogTellsWhoWentWhereAndWhy(t *testing.T) {
	t.Parallel()
	c := start(t, cookieConfig, nil, "i1-w1", "i2-w1")
	v := c.visitor(0)
	home := v.open(t).worker
	v.open(t)
	l := c.awaitLog(t, "the second socket", func(l logLine) bool { return l.CookieState == "--VN" })
	if l.IP != v.from || l.Worker != home || l.Status != 101 || l.Path != "/v1/ws" || cookieWorker(strings.TrimPrefix(l.Cookie, "WSAFF=")) != home {
		t.Errorf("got %+v, want the second socket of %s on %s", l, v.from, home)
	}
}

func TestLogStaysJSONWhateverIsAsked(t *testing.T) {
	t.Parallel()
	c := start(t, cookieConfig, nil, "i1-w1")
	ask(t, request{addr: c.Addr, path: `/a"b\c`, cookie: `x"y\z`})
	c.awaitLog(t, "the odd path", func(l logLine) bool { return l.Path == `/a#22b\c` && l.Cookie == `WSAFF=x"y\z` })
}

func TestLogHoldsNoTicket(t *testing.T) {
	t.Parallel()
	c := start(t, cookieConfig, nil, "i1-w1")
	ask(t, request{addr: c.Addr, path: "/v1/ws?route=secret-ticket"})
	c.awaitLog(t, "the socket", func(l logLine) bool { return l.Path == "/v1/ws" })
	if strings.Contains(c.log.String(), "secret-ticket") {
		t.Error("the query string is in the log")
	}
}
