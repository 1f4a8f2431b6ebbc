package worker_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/wscluster/wscluster/pkg/taskrunner"
	"github.com/wscluster/wscluster/pkg/wire"
	"github.com/wscluster/wscluster/pkg/wsclient"
)

// lines returns a handler that writes n numbered lines as fast as it can, the first half before the gate.
func lines(n int, gate <-chan struct{}) taskrunner.HandlerFunc {
	return func(ctx context.Context, t *taskrunner.Task) (any, error) {
		out := bufio.NewWriterSize(t.Log(), 8<<10)
		for i := range n {
			if i == n/2 && gate != nil {
				if err := out.Flush(); err != nil {
					return nil, err
				}
				select {
				case <-gate:
				case <-ctx.Done():
					return nil, context.Cause(ctx)
				}
			}
			fmt.Fprintln(out, lineText(i+1))
		}
		return "done", out.Flush()
	}
}

func lineText(n int) string {
	return fmt.Sprintf("line %d of \x1b[1ma log\x1b[0m with \"quotes\" and ümlauts", n)
}

func logText(from, to int) string {
	var b strings.Builder
	for i := from; i <= to; i++ {
		b.WriteString(lineText(i) + "\n")
	}
	return b.String()
}

func withLogs(o *wsclient.Options) { o.Logs = true }

// readLines goes through a task's events and checks that all of n lines come once, in order, and before the end.
func readLines(t *testing.T, task *wsclient.Task, n int) (copies int) {
	t.Helper()
	next := 1
	for e := range task.Events(t.Context()) {
		switch {
		case e.Type == wire.EventLog:
			var body wire.Log
			if err := json.Unmarshal(e.Body, &body); err != nil {
				t.Fatal(err)
			}
			if body.FirstLine != int64(next) || body.Missing != 0 {
				t.Fatalf("lines from %d on, %d missing; want %d", body.FirstLine, body.Missing, next)
			}
			for _, line := range body.Lines {
				if line != lineText(next) {
					t.Fatalf("line %d is %q", next, line)
				}
				next++
			}
			if e.Seq > 0 {
				copies++
			}
		case e.Last && next != n+1:
			t.Fatalf("the end came behind line %d of %d", next-1, n)
		}
	}
	if _, err := task.Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	return copies
}

// fetch asks a worker with a client's token.
func fetch(t *testing.T, w *running, c *wsclient.Client, path string, header ...string) (int, http.Header, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+w.addr+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	if c != nil {
		r.Header.Set("X-Socket-Meta", c.State().Token)
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	answer, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer.StatusCode, answer.Header, string(body)
}

func TestEveryLineOfALogComesOnceAndInOrderBeforeTheResult(t *testing.T) {
	const n = 50_000
	c := newCluster(t)
	w := c.worker("i1-w1")
	c.runner(kinds(lines(n, nil)))
	client, _ := c.client(w, withLogs)
	task := submit(t, client, nil)
	if copies := readLines(t, task, n); copies == 0 {
		t.Error("no line came as a live copy")
	}
}

// leaveInTheMiddle submits a task, has its client leave after the first lines, opens the gate, and waits for the task's end.
func leaveInTheMiddle(t *testing.T, w *running, client *wsclient.Client, leave func(), gate chan<- struct{}) {
	t.Helper()
	task := submit(t, client, nil)
	for e := range task.Events(t.Context()) {
		if e.Type == wire.EventLog {
			break
		}
	}
	leave()
	close(gate)
	await(t, func() error {
		if _, _, text := fetch(t, w, client, "/v1/tasks/"+string(task.ID())); !strings.Contains(text, `"status":"succeeded"`) {
			return fmt.Errorf("not over yet: %s", text)
		}
		return nil
	})
}

func TestALogIsCompleteForAClientThatWasAwayWhileItWasWritten(t *testing.T) {
	const n = 2000
	c := newCluster(t)
	w := c.worker("i1-w1")
	gate := make(chan struct{})
	c.runner(kinds(lines(n, gate)))
	before, leave := c.client(w, withLogs)
	leaveInTheMiddle(t, w, before, leave, gate)
	after, _ := c.client(c.worker("i1-w2"), withLogs, func(o *wsclient.Options) { o.State = before.State() })
	readLines(t, after.Tasks()[0], n) // from the first line on
}

func TestALogIsDownloadedFromAnyWorkerWholeByRangeAndByLineWhileItGrows(t *testing.T) {
	const n = 4000
	c := newCluster(t)
	w1, w2 := c.worker("i1-w1"), c.worker("i1-w2")
	gate := make(chan struct{})
	c.runner(kinds(lines(n, gate)))
	client, _ := c.client(w1)
	task := submit(t, client, nil)
	path := "/v1/tasks/" + string(task.ID()) + "/log"
	await(t, func() error {
		if _, _, text := fetch(t, w2, client, path); text != logText(1, n/2) {
			return fmt.Errorf("%d bytes of the half, want %d", len(text), len(logText(1, n/2)))
		}
		return nil
	})
	byLine := func(from, last int) { // there is no line behind last
		t.Helper()
		_, header, text := fetch(t, w2, client, fmt.Sprintf("%s?format=ndjson&from_line=%d", path, from))
		i := from
		for line := range strings.Lines(text) {
			var got struct {
				Line int
				Text string
			}
			if err := json.Unmarshal([]byte(line), &got); err != nil || got.Line != i || got.Text != lineText(i) {
				t.Fatalf("line %d: %q, %v", i, line, err)
			}
			i++
		}
		if i != last+1 || header.Get("Content-Type") != "application/x-ndjson" {
			t.Errorf("ndjson of lines %d to %d ended before line %d: %v", from, last, i, header)
		}
	}
	byLine(1, n/2)
	byLine(n/2+1, n/2)
	close(gate)
	if _, err := task.Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	whole := logText(1, n)
	status, header, text := fetch(t, w2, client, path)
	if status != 200 || text != whole || header.Get("Accept-Ranges") != "bytes" || header.Get("Content-Length") != fmt.Sprint(len(whole)) {
		t.Errorf("whole: %d, %d of %d bytes, %v", status, len(text), len(whole), header)
	}
	for _, r := range []struct {
		from, to int
		spec     string
	}{{0, 100, "bytes=0-99"}, {23456, 203456, "bytes=23456-203455"}, {len(whole) - 5, len(whole), "bytes=-5"}, {200001, len(whole), "bytes=200001-"}} {
		status, _, text := fetch(t, w2, client, path, "Range", r.spec)
		if status != http.StatusPartialContent || text != whole[r.from:r.to] {
			t.Errorf("%s: %d with %d bytes, want %d", r.spec, status, len(text), r.to-r.from)
		}
	}
	if status, _, text := fetch(t, w2, client, path, "Range", "bytes=0-99,23456-23555"); status != http.StatusPartialContent || !strings.Contains(text, whole[:100]) || !strings.Contains(text, whole[23456:23556]) {
		t.Errorf("two ranges at once: %d with %q", status, text)
	}
	if status, _, _ := fetch(t, w2, client, path, "Range", fmt.Sprintf("bytes=%d-", len(whole))); status != http.StatusRequestedRangeNotSatisfiable {
		t.Errorf("behind the end: %d", status)
	}
	byLine(3990, n)
}

func TestALogIsForItsClientOnly(t *testing.T) {
	c := newCluster(t)
	w := c.worker("i1-w1")
	c.runner(kinds(lines(10, nil)))
	client, _ := c.client(w)
	task := submit(t, client, nil)
	if _, err := task.Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	stranger, _ := c.client(w)
	for _, path := range []string{"", "/log"} {
		path := "/v1/tasks/" + string(task.ID()) + path
		if status, _, text := fetch(t, w, stranger, path); status != http.StatusNotFound {
			t.Errorf("%s: a stranger gets %d %s", path, status, text)
		}
		if status, header, text := fetch(t, w, nil, path); status != http.StatusUnauthorized || header.Get("Content-Type") != "application/problem+json" || !strings.Contains(text, "X-Socket-Meta") {
			t.Errorf("%s: nobody gets %d %s", path, status, text)
		}
		if status, _, text := fetch(t, w, client, path); status != http.StatusOK {
			t.Errorf("%s: its client gets %d %s", path, status, text)
		}
	}
	if _, _, text := fetch(t, w, stranger, "/v1/tasks"); !strings.Contains(text, `"tasks":[]`) {
		t.Errorf("a stranger's list is %s", text)
	}
	if _, _, text := fetch(t, w, client, "/v1/tasks"); !strings.Contains(text, string(task.ID())) {
		t.Errorf("its client's list is %s", text)
	}
}

// The runner writes down how a run stands before it tells it (requirement V13).
func TestWhoHasAnEventReadsNothingOlderOverHTTP(t *testing.T) {
	c := newCluster(t)
	w := c.worker("i1-w1")
	c.runner(kinds(taskrunner.HandlerFunc(func(_ context.Context, task *taskrunner.Task) (any, error) {
		for i := range 3 {
			task.Step(fmt.Sprint("step ", i+1))
		}
		return nil, nil
	})))
	client, _ := c.client(w)
	for range 20 {
		task := submit(t, client, nil)
		for e := range task.Events(t.Context()) {
			var body struct {
				CurrentStep int `json:"current_step"`
			}
			if err := json.Unmarshal(e.Body, &body); err != nil {
				t.Fatal(err)
			}
			var now struct {
				Status      wire.RunStatus
				CurrentStep int `json:"current_step"`
			}
			status, _, text := fetch(t, w, client, "/v1/tasks/"+string(task.ID()))
			if err := json.Unmarshal([]byte(text), &now); err != nil || status != http.StatusOK {
				t.Fatalf("after the %s event: %d %s %v", e.Type, status, text, err)
			}
			if now.CurrentStep < body.CurrentStep || e.Last && now.Status != wire.RunSucceeded {
				t.Errorf("after the %s event of step %d: %s", e.Type, body.CurrentStep, text)
			}
		}
	}
}

func TestWhatIsKnownOfTasksSurvivesARestartOfTheirRunner(t *testing.T) {
	c := newCluster(t)
	w := c.worker("i1-w1")
	dir := t.TempDir()
	stop := c.runnerIn("r1", dir, kinds(lines(10, nil)))
	client, _ := c.client(w)
	task := submit(t, client, nil)
	if _, err := task.Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	path := "/v1/tasks/" + string(task.ID())
	stop()
	if status, _, text := fetch(t, w, client, path+"/log"); status != http.StatusNotFound || !strings.Contains(text, string(wire.CodeLogUnavailable)) {
		t.Errorf("without its runner: %d %s", status, text)
	}
	c.runnerIn("r1", dir, kinds(lines(10, nil)))
	await(t, func() error {
		if status, _, text := fetch(t, w, client, path+"/log"); status != http.StatusOK || text != logText(1, 10) {
			return fmt.Errorf("after the restart: %d %s", status, text)
		}
		return nil
	})
}

// A runner that was renamed has what it had: its runs are found, and it is asked for their logs, under the name of now.
func TestARunnerOfAnotherNameServesWhatLiesInItsFolder(t *testing.T) {
	c := newCluster(t)
	w := c.worker("i1-w1")
	dir := t.TempDir()
	stop := c.runnerIn("r1", dir, kinds(lines(10, nil)))
	client, leave := c.client(w)
	task := submit(t, client, nil)
	if _, err := task.Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	leave()
	stop()
	c.runnerIn("r2", dir, kinds(lines(10, nil)))
	path := "/v1/tasks/" + string(task.ID())
	await(t, func() error {
		if status, _, text := fetch(t, w, client, path); status != http.StatusOK || object(t, []byte(text))["runner"] != "r2" {
			return fmt.Errorf("its status: %d %s", status, text)
		}
		return nil
	})
	if _, _, text := fetch(t, w, client, "/v1/tasks"); !strings.Contains(text, `"runner":"r2"`) || strings.Contains(text, `"runner":"r1"`) {
		t.Errorf("the list: %s", text)
	}
	if status, _, text := fetch(t, w, client, path+"/log"); status != http.StatusOK || text != logText(1, 10) {
		t.Errorf("its log: %d %q", status, text)
	}
	if status, _, text := fetch(t, w, client, path+"/log?format=ndjson&from_line=10"); status != http.StatusOK || object(t, []byte(text))["text"] != lineText(10) {
		t.Errorf("its last line: %d %q", status, text)
	}
	s := newSocket(t, w.addr)
	s.hello(client.State().Token)
	read := func(runner string) map[string]any {
		s.send(text, string(wire.EncodeClient(&wire.LogRead{Task: task.ID(), Runner: runner, From: 9})))
		for {
			_, p := s.read()
			if m := object(t, p); m["type"] != "event" { // of an acknowledgement that was late
				return m
			}
		}
	}
	for _, runner := range []string{"", "r2"} {
		if m := read(runner); m["runner"] != "r2" || m["first_line"] != 9. || fmt.Sprint(m["lines"]) != fmt.Sprint([]string{lineText(9), lineText(10)}) {
			t.Errorf("lines of the runner %q: %v", runner, m)
		}
	}
	if m := read("r1"); m["code"] != string(wire.CodeLogUnavailable) { // as the started event said: our clients ask without a name then
		t.Errorf("lines of the runner that was: %v", m)
	}
}

// It says 200 only when it has something to send.
func TestALogThatItsRunnerHasNoMoreIsNotFound(t *testing.T) {
	c := newCluster(t)
	w := c.worker("i1-w1")
	dir := t.TempDir()
	c.runnerIn("r1", dir, kinds(taskrunner.HandlerFunc(func(_ context.Context, task *taskrunner.Task) (any, error) {
		var p struct{ Lines int }
		err := task.Params(&p)
		for range p.Lines {
			fmt.Fprintln(task.Log(), "a line")
		}
		return nil, err
	})))
	client, _ := c.client(w)
	log := func(lines int) (path string) {
		task := submit(t, client, map[string]int{"lines": lines})
		if _, err := task.Wait(t.Context()); err != nil {
			t.Fatal(err)
		}
		return "/v1/tasks/" + string(task.ID()) + "/log"
	}
	some, none := log(3), log(0)
	files, err := filepath.Glob(filepath.Join(dir, "runs", "*.log"))
	if err != nil || len(files) != 1 {
		t.Fatalf("logs on disk: %q, %v", files, err)
	}
	if err := os.Remove(files[0]); err != nil {
		t.Fatal(err)
	}
	for _, ask := range []string{"", "?format=ndjson", "?format=ndjson&from_line=3"} {
		for _, part := range []string{"", "bytes=7-"} {
			status, header, text := fetch(t, w, client, some+ask, "Range", part)
			if status != http.StatusNotFound || header.Get("Content-Type") != "application/problem+json" || object(t, []byte(text))["code"] != string(wire.CodeLogUnavailable) {
				t.Errorf("%s %s: %d %v %q", ask, part, status, header, text)
			}
		}
	}
	for _, ask := range []string{"", "?format=ndjson"} {
		if status, _, text := fetch(t, w, client, none+ask); status != http.StatusOK || text != "" {
			t.Errorf("a log without a line%s: %d %q", ask, status, text)
		}
	}
}

func TestLinesThatNoRunnerHasAnyMoreAreMissingAndTheEndComesAllTheSame(t *testing.T) {
	const n = 100
	c := newCluster(t)
	w := c.worker("i1-w1")
	gate := make(chan struct{})
	// The end is on the page before it is told: a stop without grace in between would give the task back.
	stop := c.runnerIn("r1", t.TempDir(), kinds(lines(n, gate)), func(r *taskrunner.Runner) { r.Grace = 0 })
	before, leave := c.client(w)
	leaveInTheMiddle(t, w, before, leave, gate)
	stop()
	after, _ := c.client(w, withLogs, func(o *wsclient.Options) { o.State = before.State() })
	var missing int64
	ended := false
	for e := range after.Tasks()[0].Events(t.Context()) {
		if e.Type == wire.EventLog {
			var body wire.Log
			if err := json.Unmarshal(e.Body, &body); err != nil {
				t.Fatal(err)
			}
			missing += body.Missing
		}
		ended = e.Last
	}
	if !ended || missing != n {
		t.Errorf("the end came: %v, and %d of %d lines were said to be missing", ended, missing, n)
	}
}
