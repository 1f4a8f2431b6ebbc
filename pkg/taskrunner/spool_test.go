package taskrunner

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
	"pgregory.net/rapid"

	"github.com/wscluster/wscluster/pkg/broker"
	"github.com/wscluster/wscluster/pkg/broker/memory"
	"github.com/wscluster/wscluster/pkg/wire"
)

// numbers is a handler that logs so many numbered lines of 100 bytes at once.
func numbers(lines int, written *atomic.Int64) HandlerFunc {
	return func(_ context.Context, task *Task) (any, error) {
		time.Sleep(time.Second)
		for i := range lines {
			if _, err := fmt.Fprintf(task.Log(), "%099d\n", i); err != nil {
				return nil, err
			}
			written.Add(1)
		}
		return lines, nil
	}
}

// wantNumbers checks that a client has all lines of numbers, in order, and the result behind them.
func (w *world) wantNumbers(id wire.TaskID, lines int) {
	w.Helper()
	got, next := w.seen(id), 0
	for _, e := range got {
		rest, ok := strings.CutPrefix(e, "log ")
		if !ok {
			continue
		}
		_, text, _ := strings.Cut(rest, " ")
		for line := range strings.SplitSeq(text, "|") {
			if line != fmt.Sprintf("%099d", next) {
				w.Fatalf("line %d is %q", next, line)
			}
			next++
		}
	}
	if next != lines || got[len(got)-1] != fmt.Sprint("result ", lines) {
		w.Errorf("%d lines of %d, last event %q", next, lines, got[len(got)-1])
	}
}

func (w *world) wantSpilled(m *Metrics, some bool) {
	w.Helper()
	synctest.Wait()
	if n := m.shift.Load().spool.bytes(); n > 0 != some {
		w.Errorf("%d bytes on disk", n)
	}
}

func TestABuildGoesOnWhileTheBrokerTakesNothing(t *testing.T) {
	for name, outage := range map[string]func(w *world, on bool){
		"alarm": func(w *world, on bool) { w.Block(on) },
		"away":  func(w *world, on bool) { w.Down(on) },
		"full mailbox": func(w *world, on bool) {
			w.OnPublish(func(p memory.Publish) memory.Verdict {
				if on && p.To.Exchange == broker.ExchangeUtils {
					return memory.Verdict{Fate: memory.Refuse}
				}
				return memory.Verdict{}
			})
		},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				const lines = 20_000 // 2 MB, of which 64 KiB may be in memory
				var written atomic.Int64
				m := NewMetrics(nil)
				r := &Runner{BufferBytes: minBuffer, Metrics: m, SpoolDir: t.TempDir(), Kinds: map[string]Kind{"k": {Handler: HandlerFunc(
					func(ctx context.Context, task *Task) (any, error) {
						time.Sleep(time.Second) // the outage comes first
						return numbers(lines, &written)(ctx, task)
					})}}}
				defer w.run(r)()
				w.submit("t1", "k", nil)
				pass(500 * time.Millisecond)
				outage(w, true)
				pass(30 * time.Second)
				if n := written.Load(); n != lines {
					t.Errorf("%d of %d lines were written while the broker took nothing", n, lines)
				}
				w.wantSpilled(m, true)
				outage(w, false)
				pass(30 * time.Second)
				w.wantNumbers("t1", lines)
				w.wantQueues(none)
				w.wantSpilled(m, false)
				if left, err := os.ReadDir(r.SpoolDir); err != nil || len(left) > 1 { // the lock
					t.Errorf("left on disk: %v, %v", left, err)
				}
			})
		})
	}
}

func TestAFullSpoolStopsTheBuildAndLosesNothing(t *testing.T) {
	inWorld(t, func(w *world) {
		const lines, limit = 20_000, 256 << 10
		var first, second atomic.Int64
		logs, seen := observer.New(zap.WarnLevel)
		m := NewMetrics(nil)
		defer w.run(&Runner{Slots: 2, BufferBytes: minBuffer, SpoolBytes: limit, Metrics: m, Log: zap.New(logs), Kinds: map[string]Kind{
			"k":    {Handler: numbers(lines, &first)},
			"soon": {Handler: numbers(lines, &second), Timeout: time.Minute},
		}})()
		w.submit("t1", "k", nil)
		w.submit("t2", "soon", nil)
		synctest.Wait()
		w.Block(true)
		pass(30 * time.Second)
		if n := 100 * (first.Load() + second.Load()); n < limit/2 || n > limit+2*(minBuffer+2*batchBytes) {
			t.Errorf("%d bytes were written; %d fit on disk and %d in memory", n, limit, 2*minBuffer)
		}
		if n := m.shift.Load().spool.bytes(); n > limit {
			t.Errorf("%d bytes on disk, the bound is %d", n, limit)
		}
		if n := seen.FilterMessageSnippet("do not fit on disk").Len(); n == 0 || n > 2 {
			t.Errorf("%d lines in the log, want one for each task", n)
		}
		before := first.Load()
		pass(40 * time.Second) // the second one's time is over: its space is free, once it is stored
		w.Block(false)
		pass(10 * time.Second)
		if first.Load() == before {
			t.Error("the first build still stands")
		}
		pass(time.Minute)
		w.wantNumbers("t1", lines)
		got := w.seen("t2")
		if last := got[len(got)-1]; !strings.HasPrefix(last, "error timeout") {
			t.Errorf("last event %q", last)
		}
		w.wantSpilled(m, false)
		w.wantQueues(none)
	})
}

func TestSpaceOnDiskGoesToWhoWaitsForIt(t *testing.T) {
	inWorld(t, func(w *world) {
		var hog, other atomic.Int64
		var taken atomic.Value // the only mailbox that takes something
		taken.Store("none")
		w.OnPublish(func(p memory.Publish) memory.Verdict {
			if p.To.Exchange == broker.ExchangeUtils && p.To.Key != taken.Load() {
				return memory.Verdict{Fate: memory.Refuse}
			}
			return memory.Verdict{}
		})
		m := NewMetrics(nil)
		stop := w.run(&Runner{Slots: 2, BufferBytes: minBuffer, SpoolBytes: 256 << 10, Metrics: m, Grace: -1, Kinds: map[string]Kind{
			"hog": {Handler: numbers(5000, &hog)}, "k": {Handler: numbers(5000, &other)},
		}})
		w.submit("t1", "hog", nil)
		pass(10 * time.Second)
		w.submitFrom("i1-w2", "t2", "k", nil)
		pass(10 * time.Second)
		stood := other.Load()
		if hog.Load() == 5000 || 100*stood > 2*minBuffer {
			t.Errorf("%d and %d lines were written: the disk is not full", hog.Load(), stood)
		}
		taken.Store(string(testServer))
		pass(10 * time.Second)
		w.wantNumbers("t1", 5000)
		if n := 100 * (other.Load() - stood); n < 128<<10 {
			t.Errorf("%d bytes more of the task that waited, when there was space again", n)
		}
		stop()
		w.wantSpilled(m, false) // a run that is given back leaves nothing either
	})
}

func TestSpoolFileGivesBackWhatItTook(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		dir, err := os.MkdirTemp("", "spool-")
		if err != nil {
			t.Fatal(err)
		}
		defer os.RemoveAll(dir)
		s, err := openSpool(filepath.Join(dir, "made", "here"), 20_000)
		if err != nil {
			t.Fatal(err)
		}
		f := s.file()
		var there []int64
		seq := int64(0)
		t.Repeat(map[string]func(*rapid.T){
			"append": func(t *rapid.T) {
				var events []*wire.Event
				for range rapid.IntRange(1, 5).Draw(t, "events") {
					size := rapid.IntRange(0, 5000).Draw(t, "bytes")
					events = append(events, &wire.Event{Seq: seq + 1 + int64(len(events)), Prev: seq, Type: wire.EventLog, Body: []byte(strings.Repeat(fmt.Sprint(seq%10), size))})
				}
				if f.append(events) == nil {
					for _, e := range events {
						there = append(there, e.Seq)
					}
					seq += int64(len(events))
				}
			},
			"take": func(t *rapid.T) {
				size := rapid.IntRange(1, 10_000).Draw(t, "size")
				if len(there) == 0 {
					return
				}
				events, err := f.take(size)
				if err != nil || len(events) == 0 {
					t.Fatalf("%d events, %v", len(events), err)
				}
				cost := 0
				for i, e := range events {
					want := fmt.Sprint(e.Prev % 10)
					if cost >= size || e.Seq != there[i] || e.Type != wire.EventLog || strings.Trim(string(e.Body), want) != "" {
						t.Fatalf("event %d of %d: seq %d type %q, want seq %d, for %d bytes", i, len(events), e.Seq, e.Type, there[i], size)
					}
					cost += len(e.Body) + eventOverhead
				}
				there = there[len(events):]
				if cost < size && len(there) > 0 {
					t.Fatalf("%d bytes taken of %d, and there are more", cost, size)
				}
			},
			"": func(t *rapid.T) {
				if n := s.bytes(); n > 20_000 || n > 0 != (len(there) > 0) || n != f.end {
					t.Fatalf("%d bytes in use, %d in the file, for %d events", n, f.end, len(there))
				}
			},
		})
		f.close()
		if left, err := os.ReadDir(s.dir); s.bytes() != 0 || len(left) > 0 || err != nil {
			t.Fatalf("%d bytes, %v, %v after the end", s.bytes(), left, err)
		}
	})
}

func TestATaskWhoseFileCannotBeReadBeginsAnew(t *testing.T) {
	inWorld(t, func(w *world) {
		const lines = 5000
		var written atomic.Int64
		m := NewMetrics(nil)
		defer w.run(&Runner{BufferBytes: minBuffer, Metrics: m, Kinds: map[string]Kind{"k": {Handler: numbers(lines, &written)}}})()
		w.submit("t1", "k", nil)
		synctest.Wait()
		w.Block(true)
		pass(10 * time.Second)
		w.wantSpilled(m, true)
		s := m.shift.Load()
		s.mu.Lock()
		for _, u := range s.running {
			if err := u.file.file.Close(); err != nil {
				t.Error(err)
			}
		}
		s.mu.Unlock()
		w.Block(false)
		pass(30 * time.Second)
		w.wantNumbers("t1", lines)
		if n := written.Load(); n != 2*lines {
			t.Errorf("%d lines written, want two runs of %d", n, lines)
		}
		w.wantQueues(none)
	})
}

func TestARunnerWithoutAPlaceOnDiskSaysSo(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "file")
	must(t, os.WriteFile(dir, nil, 0o600))
	r := Runner{Name: "r1", Broker: memory.New(memory.Options{}), Kinds: map[string]Kind{"k": {Handler: HandlerFunc(returnNil)}}, SpoolDir: dir}
	if err := r.Run(t.Context()); !errors.Is(err, ErrSpoolDir) || !strings.Contains(err.Error(), dir) {
		t.Errorf("got %v", err)
	}
}
