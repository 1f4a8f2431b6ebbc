package taskrunner

import (
	"context"
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wscluster/wscluster/pkg/broker"
	"github.com/wscluster/wscluster/pkg/broker/memory"
	"github.com/wscluster/wscluster/pkg/wire"
)

// numbers is a handler that logs so many numbered lines of 100 bytes at once.
func numbers(lines int, written *atomic.Int64) HandlerFunc {
	return func(_ context.Context, task *Task) (any, error) {
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
				const lines = 50_000 // 5 MB, of which 64 KiB may be in memory
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
				if ready, unsettled := w.Depth("tasks.k"); ready+unsettled != 1 {
					t.Errorf("the task was acknowledged with its events on disk")
				}
				outage(w, false)
				pass(30 * time.Second)
				w.wantNumbers("t1", lines)
				w.wantQueues(none)
				w.wantSpilled(m, false)
				if left, err := os.ReadDir(r.SpoolDir); err != nil || len(left) > 0 {
					t.Errorf("left on disk: %v, %v", left, err)
				}
			})
		})
	}
}
