package taskrunner

import (
	"bytes"
	"context"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/wscluster/wscluster/pkg/socketmeta"
	"github.com/wscluster/wscluster/pkg/wire"
	"go.uber.org/zap"
	"pgregory.net/rapid"
)

var roomy = logLimits{run: 1 << 30, bytes: 1 << 30, age: time.Hour, runs: 100}

func newBook(t testing.TB, dir string, limits logLimits) *logbook {
	t.Helper()
	b, err := openLogbook(dir, "r1", limits, zap.NewNop())
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func bookTask(id wire.TaskID) *wire.Task {
	return &wire.Task{Meta: socketmeta.Meta{Client: socketmeta.NewClientID(), Server: "i1-w1", Epoch: 1}, Task: id, Kind: "k", Submitted: wire.Time{Time: time.Now()}}
}

// beginRun begins the first run of a task.
func beginRun(t testing.TB, b *logbook, task *wire.Task) *openRun {
	t.Helper()
	f, err := b.begin(task, 1, wire.NewRunID(), time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func readFrom(b *logbook, task *wire.Task, line, offset int64) *wire.LogChunk {
	return b.readLog(&wire.ReadLog{Client: task.Client, Task: task.Task, Line: line, Offset: offset, Max: wire.MinLogChunk})
}

// readAll reads a log piece by piece, by lines or by bytes, and returns it as text.
func readAll(t testing.TB, b *logbook, task *wire.Task, byLine bool) string {
	t.Helper()
	var text bytes.Buffer
	line, offset := int64(1), int64(0)
	for {
		at := int64(0)
		if byLine {
			at = line
		}
		c := readFrom(b, task, at, offset)
		if c.Missing {
			t.Fatal("the log is missing")
		}
		if len(c.Data) == 0 {
			return text.String()
		}
		if c.Offset != int64(text.Len()) {
			t.Fatalf("a piece begins at %d, and %d bytes were read", c.Offset, text.Len())
		}
		text.Write(c.Data)
		line += int64(bytes.Count(c.Data, []byte("\n")))
		offset += int64(len(c.Data))
	}
}

func TestALogIsReadAsItWasWrittenByLineAndByByteWhileItGrowsAndAfterARestart(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		dir, err := os.MkdirTemp("", "logbook")
		if err != nil {
			t.Fatal(err)
		}
		defer os.RemoveAll(dir)
		b, err := openLogbook(dir, "r1", roomy, zap.NewNop())
		if err != nil {
			t.Fatal(err)
		}
		task := bookTask("t1")
		f, err := b.begin(task, 1, wire.NewRunID(), time.Now())
		if err != nil {
			t.Fatal(err)
		}
		var want strings.Builder
		var starts []int
		for range rapid.IntRange(0, 40).Draw(t, "batches") {
			var batch []string
			size := rapid.SampledFrom([]int{0, 1, 100, 8000}).Draw(t, "size")
			for range rapid.IntRange(1, 30).Draw(t, "lines") {
				line := strings.Repeat(fmt.Sprint(len(starts)%10), size)
				starts = append(starts, want.Len())
				want.WriteString(line + "\n")
				batch = append(batch, line)
			}
			if !f.append(batch, false) {
				t.Fatal("not kept")
			}
		}
		check := func() {
			for _, byLine := range []bool{true, false} {
				line, offset := int64(1), int64(0)
				var got strings.Builder
				for {
					q := &wire.ReadLog{Client: task.Client, Task: "t1", Offset: offset, Max: wire.MinLogChunk}
					if byLine {
						q.Line = line
					}
					c := b.readLog(q)
					if c.Missing || c.Lines != int64(len(starts)) || c.Size != int64(want.Len()) {
						t.Fatalf("missing %v, lines %d of %d, bytes %d of %d", c.Missing, c.Lines, len(starts), c.Size, want.Len())
					}
					if len(c.Data) == 0 {
						break
					}
					got.Write(c.Data)
					line += int64(bytes.Count(c.Data, []byte("\n")))
					offset += int64(len(c.Data))
				}
				if got.String() != want.String() {
					t.Fatalf("by line %v: read %d bytes, wrote %d", byLine, got.Len(), want.Len())
				}
			}
			if len(starts) > 0 {
				n := rapid.IntRange(0, len(starts)-1).Draw(t, "any line")
				c := b.readLog(&wire.ReadLog{Client: task.Client, Task: "t1", Line: int64(n) + 1, Max: wire.MinLogChunk})
				if c.Offset != int64(starts[n]) || !strings.HasPrefix(want.String()[starts[n]:], string(c.Data)) || len(c.Data) == 0 {
					t.Fatalf("line %d is at %d, not at %d", n+1, c.Offset, starts[n])
				}
			}
		}
		check()
		if rapid.Bool().Draw(t, "the run ends") {
			f.end(wire.RunSucceeded, nil, time.Now())
			check()
		} else if rapid.Bool().Draw(t, "in the middle of a line") && f.text != nil {
			if _, err := f.text.WriteAt([]byte("half a li"), f.size); err != nil {
				t.Fatal(err)
			}
		}
		if b, err = openLogbook(dir, "r1", roomy, zap.NewNop()); err != nil {
			t.Fatal(err)
		}
		check()
	})
}

func TestALogIsOfItsClientOnly(t *testing.T) {
	b := newBook(t, t.TempDir(), roomy)
	task := bookTask("t1")
	f := beginRun(t, b, task)
	f.append([]string{"secret"}, false)
	stranger := bookTask("t1")
	if c := readFrom(b, stranger, 1, 0); !c.Missing || len(c.Data) > 0 {
		t.Errorf("a stranger with the same task ID reads %q", c.Data)
	}
	if found := b.findRuns(&wire.FindRuns{Client: stranger.Client, Limit: 10}); len(found.Runs) != 0 {
		t.Errorf("a stranger finds %d runs", len(found.Runs))
	}
}

func TestOutputBeyondTheLimitIsCountedNotKept(t *testing.T) {
	limits := roomy
	limits.run = 100
	b := newBook(t, t.TempDir(), limits)
	task := bookTask("t1")
	f := beginRun(t, b, task)
	if !f.append([]string{strings.Repeat("a", 99)}, false) || f.append([]string{"b"}, false) || f.append([]string{"cc"}, false) {
		t.Fatal("100 bytes must be kept, and no more")
	}
	if !f.append([]string{"the notice"}, true) {
		t.Fatal("what must be kept was not")
	}
	f.end(wire.RunSucceeded, nil, time.Now())
	r := b.findRuns(&wire.FindRuns{Client: task.Client, Limit: 1}).Runs[0]
	if r.LogBytes != 111 || r.LogDropped != 5 || r.LastLine != 2 {
		t.Errorf("kept %d bytes and %d lines, dropped %d; want 111, 2 and 5", r.LogBytes, r.LastLine, r.LogDropped)
	}
}

func TestTheRunsThatEndedFirstAreRemovedByNumberSizeAndAge(t *testing.T) {
	for name, limits := range map[string]logLimits{
		"number": {run: 1 << 20, bytes: 1 << 20, age: time.Hour, runs: 3},
		"size":   {run: 1 << 20, bytes: 35, age: time.Hour, runs: 100},
		"age":    {run: 1 << 20, bytes: 1 << 20, age: 3*time.Second + 500*time.Millisecond, runs: 100},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			b := newBook(t, dir, limits)
			began := time.Now()
			running := bookTask("running")
			beginRun(t, b, running)
			var tasks []*wire.Task
			for i := range 8 {
				task := bookTask(wire.TaskID(fmt.Sprintf("t%d", i)))
				task.Client = running.Client
				f := beginRun(t, b, task)
				f.append([]string{"123456789"}, false)
				f.end(wire.RunSucceeded, nil, began.Add(time.Duration(i)*time.Second))
				tasks = append(tasks, task)
			}
			b.tidy(began.Add(8 * time.Second))
			for i, task := range append(tasks, running) {
				if gone := readFrom(b, task, 1, 0).Missing; gone != (i < 5) {
					t.Errorf("task %d: gone %v", i, gone)
				}
			}
			files, err := filepath.Glob(filepath.Join(dir, "*"))
			if err != nil || len(files) != 3*2+1 { // page and log of three, the page of one that has no line yet
				t.Errorf("%d files are left: %v %v", len(files), files, err)
			}
		})
	}
}

func TestAnOldLogGoesFromARunnerThatHasNothingToDo(t *testing.T) {
	inWorld(t, func(w *world) {
		dir := w.TempDir()
		left := func() int {
			files, err := filepath.Glob(filepath.Join(dir, "runs", "*"))
			must(t, err)
			return len(files)
		}
		defer w.run(&Runner{SpoolDir: dir, LogBytes: 1 << 20, LogAge: time.Hour, Kinds: map[string]Kind{"k": {Handler: HandlerFunc(
			func(_ context.Context, task *Task) (any, error) {
				_, err := fmt.Fprintln(task.Log(), "a line")
				return nil, err
			})}}})()
		pass(time.Minute)
		w.submit("t1", "k", nil)
		pass(time.Hour)
		if n := left(); n != 2 {
			t.Errorf("%d files are there for as long as LogAge says, want the page and the log", n)
		}
		pass(tidyEvery)
		if n := left(); n != 0 {
			t.Errorf("%d files are left %v after it", n, tidyEvery)
		}
	})
}

func TestRunsAreFoundTheLatestFirstAndPageByPage(t *testing.T) {
	b := newBook(t, t.TempDir(), roomy)
	client := socketmeta.NewClientID()
	began := time.Now()
	for i := range 5 {
		task := bookTask(wire.TaskID(fmt.Sprintf("t%d", i)))
		task.Client, task.Submitted = client, wire.Time{Time: began.Add(time.Duration(i) * time.Second)}
		for attempt := 1; attempt <= 2; attempt++ {
			f, err := b.begin(task, attempt, wire.NewRunID(), began)
			if err != nil {
				t.Fatal(err)
			}
			f.end(wire.RunFailed, refusal(wire.CodeFailed, "no"), began)
		}
	}
	var got []string
	q := &wire.FindRuns{Client: client, Limit: 2}
	for more := true; more; {
		found := b.findRuns(q)
		for _, r := range found.Runs {
			got = append(got, fmt.Sprintf("%s/%d", r.Task, r.Attempt))
			q.Before = r.Submitted
		}
		more = found.More
	}
	if want := "[t4/2 t3/2 t2/2 t1/2 t0/2]"; fmt.Sprint(got) != want {
		t.Errorf("found %v, want %s", got, want)
	}
	if runs := b.findRuns(&wire.FindRuns{Client: client, Task: "t3", Limit: 9}).Runs; len(runs) != 2 || runs[0].Attempt != 2 || runs[0].Error.Code != wire.CodeFailed {
		t.Errorf("the runs of one task: %+v", runs)
	}
}

func TestAnAnswerOfManyRunsFitsIntoOneMessageHoweverTheyFailed(t *testing.T) {
	for name, char := range map[string]string{"plain": "a", "escaped": "\x01", "separators": "\u2028", "of several bytes": "\u00e9\u65e5", "no UTF-8": "\xff"} {
		t.Run(name, func(t *testing.T) {
			b, err := openLogbook(t.TempDir(), strings.Repeat("r", wire.MaxID), roomy, zap.NewNop())
			if err != nil {
				t.Fatal(err)
			}
			client := socketmeta.NewClientID()
			long := strings.Repeat(char, maxText)
			for i := range wire.MaxRuns {
				task := bookTask(wire.TaskID(fmt.Sprintf("%0*d", wire.MaxID, i)))
				task.Client, task.Kind = client, strings.Repeat("k", wire.MaxID)
				f, err := b.begin(task, wire.MaxNumber, wire.NewRunID(), time.Now())
				if err != nil {
					t.Fatal(err)
				}
				f.step(math.MaxUint32, math.MaxUint32)
				f.end(wire.RunFailed, &wire.Error{Code: wire.CodeLogUnavailable, Message: long, RetryAfterMS: wire.MaxNumber}, time.Now())
			}
			for _, runs := range b.runs {
				p := &runs[0].page
				p.LastLine, p.LogBytes, p.LogDropped = wire.MaxNumber, wire.MaxNumber, wire.MaxNumber
			}
			body := wire.EncodeControl(b.findRuns(&wire.FindRuns{Ask: wire.NewRunID(), Client: client, Limit: wire.MaxRuns}))
			m, err := wire.DecodeControl("runs_found", body)
			if err != nil {
				t.Fatal(err)
			}
			found := m.(*wire.RunsFound)
			if len(found.Runs) != wire.MaxRuns {
				t.Errorf("%d runs were found", len(found.Runs))
			}
			if got := found.Runs[0].Error.Message; !strings.HasPrefix(long, got) || char != "\xff" && len(got) < maxFound-3 {
				t.Errorf("the text is %q", got)
			}
			for _, runs := range b.runs {
				if kept := runs[0].page.Error.Message; kept != long {
					t.Fatalf("the page keeps %d bytes of %d", len(kept), len(long))
				}
			}
		})
	}
}

func TestARunThatDidNotEndIsGivenUpAfterARestart(t *testing.T) {
	dir := t.TempDir()
	task := bookTask("t1")
	f := beginRun(t, newBook(t, dir, roomy), task)
	f.append([]string{"one", "two"}, false)
	again := newBook(t, dir, roomy)
	runs := again.findRuns(&wire.FindRuns{Client: task.Client, Limit: 1}).Runs
	if len(runs) != 1 || runs[0].Status != wire.RunGivenUp || runs[0].LastLine != 2 || runs[0].Ended == nil {
		t.Fatalf("found %+v", runs)
	}
	if got := readAll(t, again, task, true); got != "one\ntwo\n" {
		t.Errorf("its log is %q", got)
	}
}

func TestAPageThatCannotBeReadCostsOnlyItsRun(t *testing.T) {
	dir := t.TempDir()
	task := bookTask("t1")
	f := beginRun(t, newBook(t, dir, roomy), task)
	f.append([]string{"kept"}, false)
	for _, name := range []string{string(wire.NewRunID()), "no-run"} {
		if err := os.WriteFile(filepath.Join(dir, name+pageSuffix), []byte(`{"half a pa`), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if got := readAll(t, newBook(t, dir, roomy), task, false); got != "kept\n" {
		t.Errorf("the other log is %q", got)
	}
}
