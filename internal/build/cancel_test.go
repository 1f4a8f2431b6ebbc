package build

import (
	"slices"
	"testing"
	"time"

	"github.com/wscluster/wscluster/pkg/wire"
)

// TestACancelEndsAProgramThatIgnoresItWithItsDaemon: SIGTERM, the grace and SIGKILL, one end, nothing left, and the
// place is free. What is canceled twice, in its grace and after its end, has been canceled once.
func TestACancelEndsAProgramThatIgnoresItWithItsDaemon(t *testing.T) {
	const grace = time.Second
	dir := t.TempDir()
	s, stop := newShop(t, kindsOf(t, Options{WorkDir: dir}, one("timeout: 1m\ngrace: 1s", "deaf"),
		"kind: next\nsteps: [{name: s, argv: ['%s', exit, '0']}]\n"))
	defer stop()
	s.submit("t1", "one", nil)
	s.submit("t2", "next", nil)
	var all []int
	var log, ends []string // of t1; and of which tasks
	var asked, ended time.Time
	for e := range s.events() {
		switch {
		case e.Task == "t1" && e.Type == wire.EventLog:
			log = append(log, decode[wire.Log](t, e.Body).Lines...)
			if all == nil && len(log) > 1 { // it listens
				all = pids(t, log[1])
				asked = time.Now()
				s.cancel("t1", "one")
			}
			if slices.Contains(log, "terminated") {
				s.cancel("t1", "one")
			}
		case e.Task == "t1" && final(e):
			ended = time.Now()
			if code := decode[wire.Failure](t, e.Body).Code; code != wire.CodeCanceled || ended.Sub(asked) < grace {
				t.Errorf("it ended with %q after %v, want %q after its grace", code, ended.Sub(asked), wire.CodeCanceled)
			}
			wantGone(t, all...)
			wantEmpty(t, dir)
			s.cancel("t1", "one")
		case e.Task == "t2" && e.Type == wire.EventStarted:
			if wait := time.Since(ended); ended.IsZero() || wait > 5*time.Second {
				t.Errorf("the next one began %v after the end", wait)
			}
		case e.Task == "t2" && final(e):
			s.submit("t3", CountdownKind, map[string]int{"lines": 4, "interval_ms": 500}) // runners look for canceled tasks once a second
		}
		if final(e) {
			ends = append(ends, string(e.Task))
		}
		if e.Task == "t3" && final(e) {
			break
		}
	}
	if want := []string{"t1", "t2", "t3"}; !slices.Equal(ends, want) {
		t.Errorf("%q ended, want %q", ends, want)
	}
	if terms := len(slices.DeleteFunc(log, func(l string) bool { return l != "terminated" })); terms != 1 {
		t.Errorf("%d times SIGTERM came, want once", terms)
	}
}
