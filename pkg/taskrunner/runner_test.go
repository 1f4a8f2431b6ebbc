package taskrunner

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/wscluster/wscluster/pkg/broker"
	"github.com/wscluster/wscluster/pkg/broker/memory"
	"github.com/wscluster/wscluster/pkg/wire"
)

var (
	none = map[string][2]int{}
	busy = map[string][2]int{"tasks.k": {0, 1}}
)

func TestARunTellsItsStepsItsLogAndItsResult(t *testing.T) {
	inWorld(t, func(w *world) {
		stop := w.handle(func(ctx context.Context, task *Task) (any, error) {
			var p struct{ Name string }
			if err := task.Params(&p); err != nil {
				return nil, err
			}
			task.Steps(2)
			task.Step("first")
			fmt.Fprintf(task.Log(), "hello %s\n", p.Name)
			task.Progress(1, 3, "one")
			time.Sleep(time.Second)
			task.Progress(2, 3, "two")
			task.Step("second")
			if err := task.Artifact(wire.Artifact{Name: "a.out"}); err != nil {
				return nil, err
			}
			return map[string]int{"answer": 42}, nil
		})
		defer stop()
		w.submit("t1", "k", map[string]string{"name": "you"})
		pass(500 * time.Millisecond)
		w.want("t1", "started", "step 1/2 first running", "progress 1/3 one running", "log 1 hello you")
		w.wantQueues(busy)
		pass(time.Second)
		w.want("t1", "started", "step 1/2 first running", "progress 1/3 one running", "log 1 hello you", "progress 2/3 two running",
			"step 1/2 first succeeded", "step 2/2 second running", "artifact", "step 2/2 second succeeded", `result {"answer":42}`)
		w.wantQueues(none)
	})
}

func TestEveryFailureHasItsCode(t *testing.T) {
	inWorld(t, func(w *world) {
		kinds := map[string]Kind{}
		for name, h := range map[string]HandlerFunc{
			"failed": func(context.Context, *Task) (any, error) { return nil, errors.New("exit code 1") },
			"own-code": func(context.Context, *Task) (any, error) {
				return nil, fmt.Errorf("x: %w", refusal(wire.CodeOutputLimit, "too much"))
			},
			"no-code": func(context.Context, *Task) (any, error) { return nil, &wire.Error{Code: "mine", Message: "m"} },
			"panic":   func(context.Context, *Task) (any, error) { panic("secret") },
			"goexit":  func(context.Context, *Task) (any, error) { runtime.Goexit(); return nil, nil },
			"timeout": func(ctx context.Context, _ *Task) (any, error) { <-ctx.Done(); return nil, ctx.Err() },
			"unknown-field": func(_ context.Context, task *Task) (any, error) {
				var p struct{ Name string }
				return nil, task.Params(&p)
			},
			"wrong-type": func(_ context.Context, task *Task) (any, error) {
				var p struct {
					X string `json:"x"`
				}
				return nil, task.Params(&p)
			},
		} {
			kinds[name] = Kind{Handler: h, Timeout: time.Minute}
		}
		defer w.run(&Runner{Kinds: kinds})()
		for name := range kinds {
			w.submit(wire.TaskID(name), name, map[string]int{"x": 1})
		}
		pass(2 * time.Minute)
		const noResult = "error internal the task's handler ended without a result; the runner's log has the rest"
		for name, want := range map[wire.TaskID]string{
			"failed": "error failed exit code 1", "own-code": "error output_limit too much", "no-code": "error failed mine: m",
			"panic": noResult, "goexit": noResult,
			"timeout":       "error timeout the task ran longer than 1m0s, the limit of its kind",
			"unknown-field": `error bad_params unknown field "x"`,
			"wrong-type":    `error bad_params x cannot be number`,
		} {
			w.want(name, "started", want)
		}
	})
}

func TestATaskWithoutParametersHasNone(t *testing.T) {
	inWorld(t, func(w *world) {
		defer w.handle(func(_ context.Context, task *Task) (any, error) {
			p := struct{ Name string }{"default"}
			return p.Name, task.Params(&p)
		})()
		w.submit("t1", "k", nil)
		w.want("t1", "started", `result "default"`)
	})
}

func TestATaskThatCannotBeReadGoesToTheDeadOnesAndIsKept(t *testing.T) {
	inWorld(t, func(w *world) {
		defer w.handle(returnNil)()
		refused := 3
		w.OnPublish(func(p memory.Publish) memory.Verdict {
			if p.To == broker.ToDeadTasks() && refused > 0 {
				refused--
				return memory.Verdict{Fate: memory.Refuse}
			}
			return memory.Verdict{}
		})
		w.publish("k", []byte(`{"task_id": "../x"}`))
		pass(time.Second)
		w.wantQueues(busy)
		pass(3 * time.Second)
		w.wantQueues(map[string][2]int{broker.QueueKeptTasks: {1, 0}})
		if m := w.Messages(broker.QueueKeptTasks)[0]; m.Headers["reason"] != "bad_body" || string(m.Body) != `{"task_id": "../x"}` {
			t.Errorf("got %v %s", m.Headers, m.Body)
		}
	})
}

func returnNil(context.Context, *Task) (any, error) { return nil, nil }

func TestAKindThatTheRunnerDoesNotHaveIsRefused(t *testing.T) {
	inWorld(t, func(w *world) {
		defer w.handle(returnNil)()
		body, err := wire.EncodeTask(&wire.Task{Meta: testTask.Meta, Task: "t1", Kind: "other"})
		must(t, err)
		w.publish("k", body)
		w.want("t1", `error unknown_kind this runner has no kind "other"`)
	})
}

func TestTheTaskIsAcknowledgedAfterItsFinalEventIsStored(t *testing.T) {
	inWorld(t, func(w *world) {
		defer w.handle(returnNil)()
		refuse := atomic.Bool{}
		refuse.Store(true)
		w.OnPublish(func(p memory.Publish) memory.Verdict {
			if refuse.Load() && w.has(p, wire.EventResult) {
				return memory.Verdict{Fate: memory.Refuse}
			}
			return memory.Verdict{}
		})
		w.submit("t1", "k", nil)
		pass(settleAfter - time.Second)
		w.want("t1", "started")
		w.wantQueues(busy)
		refuse.Store(false)
		pass(10 * time.Second)
		w.want("t1", "started", "result null")
		w.wantQueues(none)
	})
}

// Every way for a publish to go wrong, at random, with the link cut now and then: the client has

// everything, in order, once.

// Another runner had the task in between, so that its higher attempt counts for the client: what

// was run here is worth nothing any more.

// The final event still goes out; the task itself comes to somebody again, and the client takes

// the first final event.

func TestARunnerThatCannotRunSaysWhatIsWrong(t *testing.T) {
	err := (&Runner{Name: "R 1", Kinds: map[string]Kind{"Go": {}}, Slots: -1, MaxAttempts: -1, BufferBytes: 1}).Run(t.Context())
	for _, want := range []string{"Name", "Broker", `"Go"`, "Handler", "Slots", "MaxAttempts", "BufferBytes"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("no word of %s in: %v", want, err)
		}
	}
}

func TestEventsCarryTheTrace(t *testing.T) {
	inWorld(t, func(w *world) {
		defer w.handle(returnNil)()
		var traces []any
		w.OnPublish(func(p memory.Publish) memory.Verdict {
			if p.To.Exchange == broker.ExchangeUtils {
				traces = append(traces, p.Message.Headers["traceparent"])
			}
			return memory.Verdict{}
		})
		w.submit("t1", "k", nil)
		pass(time.Second)
		if want := "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"; len(traces) != 2 || traces[0] != want {
			t.Errorf("got %v", traces)
		}
	})
}
