package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"testing"
	"time"

	"github.com/wscluster/wscluster/internal/rig"
	"github.com/wscluster/wscluster/pkg/wire"
	"github.com/wscluster/wscluster/pkg/wsclient"
)

// lineReader checks that the lines of a countdown come once, in order, and all before the end.
type lineReader struct {
	t      *testing.T
	total  int
	next   int
	copies int // events that were live copies
}

// take returns false after the end.
func (r *lineReader) take(e wsclient.Event) bool {
	r.t.Helper()
	if e.Reset {
		r.next = 1
	}
	switch {
	case e.Type == wire.EventLog:
		var body wire.Log
		if err := json.Unmarshal(e.Body, &body); err != nil {
			r.t.Fatal(err)
		}
		if body.FirstLine != int64(r.next) || body.Missing > 0 {
			r.t.Fatalf("lines from %d, %d missing; want %d", body.FirstLine, body.Missing, r.next)
		}
		for _, line := range body.Lines {
			if line != fmt.Sprint(r.total-r.next+1) {
				r.t.Fatalf("line %d is %q", r.next, line)
			}
			r.next++
		}
		if e.Seq > 0 {
			r.copies++
		}
	case e.Last:
		if e.Type != wire.EventResult || r.next != r.total+1 {
			r.t.Fatalf("the end is %s %s behind line %d of %d", e.Type, e.Body, r.next-1, r.total)
		}
		return false
	}
	return true
}

// download reads the log of a task from the worker at addr, by a range if there is one.
func download(t *testing.T, addr, token string, id wire.TaskID, ranges string) (status int, body []byte) {
	t.Helper()
	return ask(t, fmt.Sprintf("http://%s/v1/tasks/%s/log", addr, id), token, ranges)
}

// ask is one request for what the client with the token has.
func ask(t *testing.T, url, token, ranges string) (status int, body []byte) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("X-Socket-Meta", token)
	if ranges != "" {
		r.Header.Set("Range", ranges)
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	if body, err = io.ReadAll(answer.Body); err != nil {
		t.Fatal(err)
	}
	return answer.StatusCode, body
}

// TestALogIsWholeWhateverItsReaderMissed reads a log over a restart of its worker and a second worker, while it
// is written and after its runner has come back.
func TestALogIsWholeWhateverItsReaderMissed(t *testing.T) {
	t.Parallel()
	const total = 600
	c := start(t, withLogs(rig.ClusterOptions{}), "i1-w1", "i1-w2")
	withLines := func(o *wsclient.Options) { o.Logs = true }
	before, leave := client(t, c.Workers[0].Addr, withLines)
	task := submit(t, before, "countdown", map[string]any{"lines": total, "interval_ms": 10})
	reader := &lineReader{t: t, total: total, next: 1}
	for e := range task.Events(t.Context()) {
		reader.take(e)
		if reader.next > 50 {
			break
		}
	}
	leave()
	c.Worker("i1-w1").Kill()
	// Another worker has the log, and the next client reads it from the first line on.
	await(t, 20*time.Second, func() error {
		status, part := download(t, c.Workers[1].Addr, before.State().Token, task.ID(), "bytes=0-3")
		if status != http.StatusPartialContent || string(part) != fmt.Sprintf("%d\n", total)[:4] {
			return fmt.Errorf("%d %q", status, part)
		}
		return nil
	})
	state := before.State()
	after, _ := client(t, c.Workers[1].Addr, withLines, func(o *wsclient.Options) { o.State = state })
	reader = &lineReader{t: t, total: total, next: 1}
	for e := range after.Tasks()[0].Events(t.Context()) {
		if !reader.take(e) {
			break
		}
	}
	if reader.copies == 0 {
		t.Error("no line came as a live copy")
	}
	r1 := c.Runners[0]
	r1.Kill()
	if status, body := download(t, c.Workers[1].Addr, after.State().Token, task.ID(), ""); status != http.StatusNotFound || !bytes.Contains(body, []byte(wire.CodeLogUnavailable)) {
		t.Errorf("without the runner: %d %s", status, body)
	}
	if err := r1.Start(); err != nil {
		t.Fatal(err)
	}
	await(t, 20*time.Second, func() error {
		status, body := download(t, c.Workers[1].Addr, after.State().Token, task.ID(), "")
		if status != http.StatusOK || bytes.Count(body, []byte("\n")) != total {
			return fmt.Errorf("%d with %d lines", status, bytes.Count(body, []byte("\n")))
		}
		return nil
	})
}
