package taskrunner

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wscluster/wscluster/pkg/broker"
	"github.com/wscluster/wscluster/pkg/broker/memory"
	"github.com/wscluster/wscluster/pkg/wire"
)

func TestNoMoreTasksRunThanThereAreSlots(t *testing.T) {
	inWorld(t, func(w *world) {
		var now, most atomic.Int64
		defer w.run(&Runner{Slots: 2, Kinds: map[string]Kind{"k": {Handler: HandlerFunc(func(context.Context, *Task) (any, error) {
			most.Store(max(most.Load(), now.Add(1)))
			time.Sleep(10 * time.Second)
			now.Add(-1)
			return nil, nil
		})}}})()
		for i := range 6 {
			w.submit(wire.TaskID(fmt.Sprint("t", i)), "k", nil)
		}
		// A run whose task another runner took keeps its place until it has ended.
		pass(5 * time.Second)
		other := mustJoin(w, broker.Runner("other"))
		_, err := other.OpenTasks(w.Context(), []string{"k"}, 2)
		must(t, err)
		w.Cut(broker.Runner("r1"))
		pass(time.Minute)
		if most.Load() != 2 {
			t.Errorf("%d at once, want 2", most.Load())
		}
		must(t, other.Close(w.Context()))
		pass(time.Minute)
		for i := range 6 {
			if got := w.seen(wire.TaskID(fmt.Sprint("t", i))); len(got) == 0 || got[len(got)-1] != "result null" {
				t.Errorf("task %d: %q", i, got)
			}
		}
		w.wantQueues(none)
	})
}

func TestTheBuildWaitsWhenTheMailboxIsFull(t *testing.T) {
	const limit = minBuffer
	inWorld(t, func(w *world) {
		full := atomic.Bool{}
		w.OnPublish(func(p memory.Publish) memory.Verdict {
			if full.Load() && p.To.Exchange == broker.ExchangeUtils {
				return memory.Verdict{Fate: memory.Refuse}
			}
			return memory.Verdict{}
		})
		var written atomic.Int64
		const whole = 40 * batchBytes
		defer w.run(&Runner{BufferBytes: limit, SpoolBytes: -1, Kinds: map[string]Kind{"k": {Handler: HandlerFunc(func(_ context.Context, task *Task) (any, error) {
			line := strings.Repeat("x", 63) + "\n"
			for range whole / len(line) {
				if _, err := io.WriteString(task.Log(), line); err != nil {
					return nil, err
				}
				written.Add(int64(len(line)))
				task.Progress(uint32(written.Load()), whole, "") // never waits
			}
			return nil, nil
		})}}})()
		full.Store(true)
		w.submit("t1", "k", nil)
		pass(time.Minute)
		if n := written.Load(); n < limit/2 || n > limit+2*batchBytes {
			t.Errorf("%d bytes were written against a full mailbox, the bound is %d", n, limit)
		}
		full.Store(false)
		pass(time.Minute)
		if n := written.Load(); n != whole {
			t.Errorf("%d of %d bytes were written", n, whole)
		}
		got := w.seen("t1")
		if got[len(got)-1] != "result null" {
			t.Errorf("last event %q", got[len(got)-1])
		}
	})
}

func TestATimeoutEndsTheWaitForRoom(t *testing.T) {
	inWorld(t, func(w *world) {
		w.OnPublish(func(p memory.Publish) memory.Verdict {
			if p.To.Exchange == broker.ExchangeUtils {
				return memory.Verdict{Fate: memory.Refuse}
			}
			return memory.Verdict{}
		})
		var failed error
		defer w.run(&Runner{BufferBytes: minBuffer, SpoolBytes: -1, Kinds: map[string]Kind{"k": {Timeout: time.Minute, Handler: HandlerFunc(func(_ context.Context, task *Task) (any, error) {
			_, failed = io.WriteString(task.Log(), strings.Repeat("x\n", 1<<20))
			return nil, failed
		})}}})()
		w.submit("t1", "k", nil)
		pass(2 * time.Minute)
		w.OnPublish(nil)
		pass(10 * time.Second)
		if e, ok := errors.AsType[*wire.Error](failed); !ok || e.Code != wire.CodeTimeout {
			t.Errorf("Write failed with %v", failed)
		}
		got := w.seen("t1")
		if last := got[len(got)-1]; !strings.HasPrefix(last, "error timeout") {
			t.Errorf("last event %q", last)
		}
	})
}

func TestWhatIsToldAfterTheEndIsDropped(t *testing.T) {
	inWorld(t, func(w *world) {
		var kept *Task
		defer w.handle(func(_ context.Context, task *Task) (any, error) { kept = task; return nil, nil })()
		w.submit("t1", "k", nil)
		synctest.Wait()
		kept.Step("late")
		kept.Progress(1, 1, "late")
		if _, err := io.WriteString(kept.Log(), "late\n"); err != errEnded {
			t.Errorf("got %v", err)
		}
		pass(time.Second)
		w.want("t1", "started", "result null")
	})
}
