package taskrunner

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/wscluster/wscluster/pkg/socketmeta"
	"github.com/wscluster/wscluster/pkg/wire"
	"pgregory.net/rapid"
)

var (
	testTask = &wire.Task{
		Meta: socketmeta.Meta{Client: socketmeta.NewClientID(), Server: "i1-w1", Epoch: 7},
		Task: "t1", Kind: "k",
	}
	epoch = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
)

func newStory() *story {
	return &story{task: testTask, attempt: 1, run: wire.NewRunID(), runner: "r1", out: outbox{limit: 1 << 30}}
}

// shown is an event in one line.
func shown(e *wire.Event) string {
	switch e.Type {
	case wire.EventStep, wire.EventProgress:
		u := body[wire.Update](e)
		return fmt.Sprintf("%s %d/%d %s %s", e.Type, u.CurrentStep, u.TotalSteps, u.Message, u.Status)
	case wire.EventLog:
		l := body[wire.Log](e)
		return fmt.Sprintf("log %d %s", l.FirstLine, strings.Join(l.Lines, "|"))
	case wire.EventResult:
		return fmt.Sprintf("result %s", body[wire.Result](e).Value)
	case wire.EventError:
		f := body[wire.Failure](e)
		return fmt.Sprintf("error %s %s", f.Code, f.Message)
	}
	return string(e.Type)
}

func body[T any](e *wire.Event) (b T) {
	if err := json.Unmarshal(e.Body, &b); err != nil {
		panic(err)
	}
	return b
}

func told(s *story) (all []string) {
	for _, e := range s.out.head.events {
		all = append(all, shown(e))
	}
	return all
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func wantStory(t *testing.T, s *story, want ...string) {
	t.Helper()
	if got := told(s); !slices.Equal(got, want) {
		t.Errorf("told\n\t%s\nwant\n\t%s", strings.Join(got, "\n\t"), strings.Join(want, "\n\t"))
	}
}

func TestAStepEndsWhenTheNextBegins(t *testing.T) {
	s := newStory()
	must(t, s.started(2, epoch))
	must(t, s.begin("clone", epoch))
	_, err := s.write([]byte("one\ntwo\nhalf"), epoch)
	must(t, err)
	must(t, s.begin("build", epoch))
	must(t, s.begin("test", epoch))
	must(t, s.end("done", nil, epoch))
	wantStory(t, s,
		"started",
		"step 1/2 clone running",
		"log 1 one|two",
		"step 1/2 clone succeeded",
		"step 2/2 build running",
		"step 2/2 build succeeded",
		"step 3/3 test running",
		"log 3 half",
		"step 3/3 test succeeded",
		`result "done"`)
}

func TestAFailedRunFailsItsStep(t *testing.T) {
	s := newStory()
	must(t, s.begin("build", epoch))
	must(t, s.end(nil, refusal(wire.CodeFailed, "exit code 1"), epoch))
	wantStory(t, s, "step 1/1 build running", "step 1/1 build failed", "error failed exit code 1")
}

func TestAResultThatIsTooLargeFailsTheRun(t *testing.T) {
	s := newStory()
	must(t, s.end(strings.Repeat("x", wire.MaxEvent), nil, epoch))
	wantStory(t, s, fmt.Sprintf("error output_limit the task's result has %d bytes; at most %d fit", wire.MaxEvent+2, wire.MaxEvent-eventOverhead))
}

func TestAResultThatIsNotJSONFailsTheRun(t *testing.T) {
	s := newStory()
	if err := s.end(func() {}, nil, epoch); err == nil {
		t.Error("want an error for the log")
	}
	wantStory(t, s, "error internal the task's result cannot be written as JSON")
}

func TestTheLargestResultFits(t *testing.T) {
	s := newStory()
	must(t, s.end(strings.Repeat("<", wire.MaxEvent/6-eventOverhead), nil, epoch))
	if e := s.out.head.events[0]; e.Type != wire.EventResult {
		t.Errorf("got %s", e.Type)
	}
}

func TestLogLinesWaitForOthersButNotLong(t *testing.T) {
	s := newStory()
	_, err := s.write([]byte("a\n"), epoch)
	must(t, err)
	_, err = s.write([]byte("b\n"), epoch.Add(60*time.Millisecond))
	must(t, err)
	due, err := s.tick(epoch.Add(99 * time.Millisecond))
	must(t, err)
	wantStory(t, s)
	if !due.Equal(epoch.Add(logDelay)) {
		t.Errorf("due %v after the first line, want %v", due.Sub(epoch), logDelay)
	}
	due, err = s.tick(epoch.Add(logDelay))
	must(t, err)
	wantStory(t, s, "log 1 a|b")
	if !due.IsZero() {
		t.Errorf("still due %v", due)
	}
}

func TestAFullBatchOfLinesDoesNotWait(t *testing.T) {
	s := newStory()
	p := []byte(strings.Repeat(strings.Repeat("x", 99)+"\n", 200))
	n, err := s.write(p, epoch)
	must(t, err)
	if len(s.out.head.events) != 1 || n >= len(p) || n < batchBytes-MaxLine {
		t.Errorf("%d events, %d bytes taken", len(s.out.head.events), n)
	}
}

func TestTheLatestProgressWinsTenTimesASecond(t *testing.T) {
	s := newStory()
	at := func(ms int, done uint32) {
		t.Helper()
		now := epoch.Add(time.Duration(ms) * time.Millisecond)
		s.progress = s.update(wire.StatusRunning, done, 9, "", now)
		_, err := s.tick(now)
		must(t, err)
		for s.out.next() != nil { // all sent
		}
	}
	at(0, 1)
	at(10, 2)
	at(50, 3)
	at(99, 4)
	at(100, 5)
	at(150, 6)
	due, err := s.tick(epoch.Add(160 * time.Millisecond))
	must(t, err)
	if want := epoch.Add(200 * time.Millisecond); !due.Equal(want) {
		t.Errorf("due %v, want %v", due, want)
	}
	must(t, s.begin("next", epoch.Add(170*time.Millisecond))) // the last one is told before the step
	wantStory(t, s, "progress 1/9  running", "progress 5/9  running", "progress 6/9  running", "step 1/1 next running")
}

func TestProgressWaitsBehindWhatIsNotSent(t *testing.T) {
	s := newStory()
	must(t, s.begin("a", epoch))
	s.progress = s.update(wire.StatusRunning, 1, 2, "", epoch)
	due, err := s.tick(epoch)
	must(t, err)
	wantStory(t, s, "step 1/1 a running")
	if !due.IsZero() {
		t.Errorf("due %v: the sender will look again by itself", due)
	}
}

// Whatever a handler does, seq counts from 1 without holes, prev names the durable event before,
// only the last event is last, and log lines are numbered without holes up to last_line.
func TestNumbers(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s, now := newStory(), epoch
		ok := func(err error) {
			if err != nil {
				t.Fatal(err)
			}
		}
		for range rapid.IntRange(0, 30).Draw(t, "calls") {
			switch rapid.IntRange(0, 4).Draw(t, "call") {
			case 0:
				ok(s.begin("step", now))
			case 1:
				p := []byte(strings.Repeat(rapid.StringMatching(`[a-z\n]{0,9}`).Draw(t, "line"), rapid.IntRange(0, 3000).Draw(t, "times")))
				for len(p) > 0 {
					n, err := s.write(p, now)
					ok(err)
					p = p[n:]
				}
			case 2:
				s.progress = s.update(wire.StatusRunning, 1, 2, "", now)
			case 3:
				_, err := s.tick(now)
				ok(err)
			case 4:
				for s.out.next() != nil {
				}
			}
			now = now.Add(time.Duration(rapid.IntRange(0, 150).Draw(t, "ms")) * time.Millisecond)
		}
		ok(s.end(nil, nil, now))

		var prev, line int64
		for i, e := range s.out.head.events {
			if e.Seq != int64(i+1) || e.Prev != prev || e.Last != (i == len(s.out.head.events)-1) || e.Durable != (e.Type != wire.EventProgress) {
				t.Fatalf("event %d: seq %d prev %d (want %d) last %t durable %t", i, e.Seq, e.Prev, prev, e.Last, e.Durable)
			}
			if e.Durable {
				prev = e.Seq
			}
			if _, err := wire.DecodeEvent(string(e.Type), string(e.Task), e.Headers(), e.Body); err != nil {
				t.Fatal(err)
			}
			if e.Type == wire.EventLog {
				log := body[wire.Log](e)
				if log.FirstLine != line+1 {
					t.Fatalf("line %d follows %d", log.FirstLine, line)
				}
				line += int64(len(log.Lines))
			}
		}
		if last := body[wire.Result](s.out.head.events[len(s.out.head.events)-1]).LastLine; last != line {
			t.Fatalf("last_line %d, %d lines told", last, line)
		}
	})
}
