package taskrunner

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/wscluster/wscluster/pkg/broker"
	"github.com/wscluster/wscluster/pkg/broker/memory"
	"github.com/wscluster/wscluster/pkg/wire"
)

func TestAFailedRunIsTriedAgainBeforeItsErrorIsTold(t *testing.T) {
	inWorld(t, func(w *world) {
		var began []time.Time
		defer w.run(&Runner{Kinds: map[string]Kind{"k": {Retries: 3, Handler: HandlerFunc(func(_ context.Context, task *Task) (any, error) {
			began = append(began, time.Now())
			task.Step("build")
			return nil, fmt.Errorf("exit code %d", task.Attempt)
		})}}})()
		w.submit("t1", "k", nil)
		pass(time.Minute)
		w.want("t1", "started", "step 1/1 build running", "step 1/1 build failed", "error failed exit code 4")
		if got := w.attempts("t1"); !slices.Equal(got, []int{1, 2, 3, 4}) {
			t.Errorf("attempts %v, want 1 to 4", got)
		}
		var pauses []time.Duration
		for i := range began[1:] {
			pauses = append(pauses, began[i+1].Sub(began[i]).Round(time.Second))
		}
		if want := []time.Duration{0, 2 * time.Second, 4 * time.Second}; !slices.Equal(pauses, want) {
			t.Errorf("pauses %v, want %v", pauses, want)
		}
		w.wantQueues(none)
		w.mu.Lock()
		defer w.mu.Unlock()
		failed := 0
		for _, e := range w.events {
			if e.Attempt < 4 && (e.Last || e.Type == wire.EventError) {
				t.Errorf("attempt %d told its end: %s", e.Attempt, e.Body)
			}
			if shown(&e) == "step 1/1 build failed" {
				failed++
			}
		}
		if failed != 4 {
			t.Errorf("%d attempts told which step failed, want all 4", failed)
		}
	})
}

func TestARetryThatSucceedsIsTheResult(t *testing.T) {
	inWorld(t, func(w *world) {
		metrics := NewMetrics(nil)
		defer w.run(&Runner{Metrics: metrics, Kinds: map[string]Kind{"k": {Retries: 1, Timeout: time.Minute, Handler: HandlerFunc(func(ctx context.Context, task *Task) (any, error) {
			if task.Attempt == 1 {
				<-ctx.Done()
				return nil, ctx.Err() // timeout
			}
			return "done", nil
		})}}})()
		w.submit("t1", "k", nil)
		pass(59 * time.Second)
		w.want("t1", "started")
		pass(5 * time.Second)
		w.want("t1", "started", `result "done"`)
		if got := w.attempts("t1"); !slices.Equal(got, []int{1, 2}) {
			t.Errorf("attempts %v, want 1 and 2", got)
		}
		wantShown(t, metrics.Seconds, map[string]float64{"task_seconds k retried": 1, "task_seconds k succeeded": 1})
	})
}

// What would come again, or is not the task's failure, is told at once.
func TestOnlyFailuresAreTriedAgain(t *testing.T) {
	inWorld(t, func(w *world) {
		kinds := map[string]Kind{}
		var canceled atomic.Int32
		for name, h := range map[string]HandlerFunc{
			"params":   func(context.Context, *Task) (any, error) { return nil, refusal(wire.CodeBadParams, "no") },
			"output":   func(context.Context, *Task) (any, error) { return nil, refusal(wire.CodeOutputLimit, "much") },
			"internal": func(context.Context, *Task) (any, error) { return nil, refusal(wire.CodeInternal, "disk") },
			"panic":    func(context.Context, *Task) (any, error) { panic("a bug") },
			"canceled": func(ctx context.Context, _ *Task) (any, error) {
				canceled.Add(1)
				<-ctx.Done()
				return nil, refusal(wire.CodeFailed, "interrupted") // its own word for it
			},
		} {
			kinds[name] = Kind{Handler: h, Retries: 5}
		}
		defer w.run(&Runner{Slots: 9, Kinds: kinds})()
		for name := range kinds {
			w.submit(wire.TaskID(name), name, nil)
		}
		pass(time.Second)
		w.cancel(w.client, "canceled")
		pass(time.Minute)
		for name, want := range map[wire.TaskID]string{
			"params": "error bad_params", "output": "error output_limit", "internal": "error internal", "panic": "error internal", "canceled": "error failed interrupted",
		} {
			got := w.seen(name)
			if len(got) == 0 || !strings.HasPrefix(got[len(got)-1], want) || !slices.Equal(w.attempts(name), []int{1}) {
				t.Errorf("%s: %q in attempts %v, want %s in the first", name, got, w.attempts(name), want)
			}
		}
	})
}

func TestACancelEndsATaskThatWaitsForItsRetry(t *testing.T) {
	inWorld(t, func(w *world) {
		defer w.run(&Runner{Kinds: map[string]Kind{"k": {Retries: 9, Handler: HandlerFunc(func(context.Context, *Task) (any, error) {
			return nil, errors.New("no")
		})}}})()
		w.submit("t1", "k", nil)
		pass(10 * time.Second) // attempts at 0, 0, 2 and 6 s; the next at 14
		w.cancel(w.client, "t1")
		pass(time.Minute)
		w.want("t1", "error canceled the task was canceled")
		if got := w.attempts("t1"); len(got) != 4 {
			t.Errorf("attempts %v, want 4", got)
		}
	})
}

func TestRetriesAreFewerThanTheAttempts(t *testing.T) {
	h := HandlerFunc(func(context.Context, *Task) (any, error) { return nil, nil })
	for _, test := range []struct {
		retries, attempts int
		want              string
	}{{-1, 0, "between 0 and 9"}, {10, 0, "between 0 and 9"}, {3, 3, "between 0 and 2"}} {
		r := Runner{Name: "r1", Broker: memory.New(memory.Options{}), MaxAttempts: test.attempts, Kinds: map[string]Kind{"slow": {Handler: h, Retries: test.retries}}}
		ctx, cancel := context.WithCancel(t.Context())
		cancel() // should it begin
		if err := r.Run(ctx); err == nil || !strings.Contains(err.Error(), `"slow": Retries`) || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%d retries, %d attempts: got %v, want %q", test.retries, test.attempts, err, test.want)
		}
	}
}

func TestARetryDoesNotWaitForABrokerThatTakesNothing(t *testing.T) {
	inWorld(t, func(w *world) {
		defer w.run(&Runner{Kinds: map[string]Kind{"k": {Retries: 1, Handler: HandlerFunc(func(_ context.Context, task *Task) (any, error) {
			if task.Attempt == 1 {
				return nil, errors.New("no")
			}
			return 1, nil
		})}}})()
		w.OnPublish(func(p memory.Publish) memory.Verdict {
			if p.To == broker.ToMailbox(testServer) {
				return memory.Verdict{Fate: memory.Refuse}
			}
			return memory.Verdict{}
		})
		w.submit("t1", "k", nil)
		pass(retryTell + time.Second)
		w.OnPublish(nil)
		pass(10 * time.Second)
		w.want("t1", "started", "result 1")
		if got := w.attempts("t1"); !slices.Equal(got, []int{2}) {
			t.Errorf("attempts %v, want the second alone", got)
		}
	})
}
