package taskrunner

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wscluster/wscluster/pkg/broker"
	"github.com/wscluster/wscluster/pkg/broker/memory"
	"github.com/wscluster/wscluster/pkg/wire"
)

// shelf keeps lines in memory, up to a limit in bytes, and no page.
type shelf struct {
	lines         []string
	limit         int
	size, dropped int64
}

func (s *shelf) step(_, _ uint32)                           {}
func (s *shelf) end(wire.RunStatus, *wire.Error, time.Time) {}

func (s *shelf) append(lines []string, must bool) bool {
	n := int64(0)
	for _, l := range lines {
		n += int64(len(l)) + 1
	}
	if s.limit > 0 && s.size+n > int64(s.limit) && !must {
		s.dropped += n
		return false
	}
	s.size += n
	s.lines = append(s.lines, lines...)
	return true
}

func (s *shelf) numbers() (size, lines, dropped int64) {
	return s.size, int64(len(s.lines)), s.dropped
}

func TestLinesThatAreKeptAreToldAsCopiesThatMayBeLost(t *testing.T) {
	s, kept := newStory(), &shelf{}
	s.kept = kept
	must(t, s.begin("build", epoch))
	_, err := s.write([]byte("one\ntwo\n"), epoch)
	must(t, err)
	must(t, s.end("done", nil, epoch))
	wantStory(t, s, "step 1/1 build running", "log 1 one|two", "step 1/1 build succeeded", `result "done"`)
	for _, e := range s.out.head.events {
		if e.Durable == (e.Type == wire.EventLog) {
			t.Errorf("%s is durable: %v", e.Type, e.Durable)
		}
	}
	last := s.out.head.events[3]
	if body[wire.Result](last).LastLine != 2 || last.Prev != 3 || !slices.Equal(kept.lines, []string{"one", "two"}) {
		t.Errorf("the end is %s behind %d; kept %q", last.Body, last.Prev, kept.lines)
	}
}

func TestCopiesAreToldAtARateAndEveryLineIsKept(t *testing.T) {
	s, kept := newStory(), &shelf{}
	s.kept = kept
	chunk := []byte(strings.Repeat(strings.Repeat("x", 99)+"\n", 160))
	now, want := epoch, 0
	for range 15 { // 16 MB/s for 15 s
		for range 1000 {
			for p := chunk; len(p) > 0; {
				n, err := s.write(p, now)
				must(t, err)
				p = p[n:]
			}
			want += 160
			now = now.Add(time.Millisecond)
		}
	}
	must(t, s.end(nil, nil, now))
	told := 0
	for _, e := range s.out.head.events {
		told += len(e.Body)
	}
	if most := liveBurst + 15*liveRate; told > most+most/10 || told < most/2 {
		t.Errorf("%d bytes were told in 15 s, want about %d", told, most)
	}
	if len(kept.lines) != want {
		t.Errorf("%d lines were kept, want %d", len(kept.lines), want)
	}
}

func TestALogThatLacksSomethingSaysSoInItsLastLineAndInTheEnd(t *testing.T) {
	s, kept := newStory(), &shelf{limit: 20}
	s.kept = kept
	for i := range 4 {
		_, err := fmt.Fprintf(writerFunc(func(p []byte) (int, error) { return s.write(p, epoch) }), "line %03d\n", i)
		must(t, err)
		must(t, s.tellLines(false, epoch))
	}
	must(t, s.end(nil, refusal(wire.CodeFailed, "no"), epoch))
	end := body[wire.Failure](s.out.head.events[len(s.out.head.events)-1])
	if end.LogDropped != 18 || end.LastLine != 3 || len(kept.lines) != 3 || !strings.Contains(kept.lines[2], "18 bytes") {
		t.Errorf("the end is %+v, kept %q", end, kept.lines)
	}
}

type writerFunc func(p []byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

func TestABuildWritesOnWhileTheBrokerTakesNothingAndItsLogIsWhole(t *testing.T) {
	inWorld(t, func(w *world) {
		var open atomic.Bool
		w.OnPublish(func(p memory.Publish) memory.Verdict {
			if !open.Load() && p.To.Exchange == broker.ExchangeUtils {
				return memory.Verdict{Fate: memory.Refuse}
			}
			return memory.Verdict{}
		})
		dir, ended := w.TempDir(), make(chan struct{})
		defer w.run(&Runner{SpoolDir: dir, SpoolBytes: -1, LogBytes: 1 << 30, BufferBytes: minBuffer, Kinds: map[string]Kind{"k": {Handler: HandlerFunc(func(_ context.Context, task *Task) (any, error) {
			defer close(ended)
			_, err := io.WriteString(task.Log(), strings.Repeat("a line\n", 200_000))
			return nil, err
		})}}})()
		w.submit("t1", "k", nil)
		synctest.Wait()
		select {
		case <-ended:
		default:
			t.Fatal("the build waits for the broker")
		}
		open.Store(true)
		pass(time.Minute)
		got := w.seen("t1")
		if got[len(got)-1] != "result null" {
			t.Errorf("last event %q", got[len(got)-1])
		}
		book := newBook(t, dir+"/runs", roomy)
		if runs := book.findRuns(&wire.FindRuns{Client: w.client, Limit: 1}).Runs; len(runs) != 1 || runs[0].LastLine != 200_000 || runs[0].Status != wire.RunSucceeded {
			t.Errorf("on disk: %+v", runs)
		}
	})
}
