package taskrunner

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"runtime"
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

func TestATaskThatCannotBeReadGoesToTheDeadOnes(t *testing.T) {
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
		w.wantQueues(map[string][2]int{broker.QueueDeadTasks: {1, 0}})
		if m := w.Messages(broker.QueueDeadTasks)[0]; m.Headers["reason"] != "bad_body" || string(m.Body) != `{"task_id": "../x"}` {
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
			if refuse.Load() && p.Message.Type == string(wire.EventResult) {
				return memory.Verdict{Fate: memory.Refuse}
			}
			return memory.Verdict{}
		})
		w.submit("t1", "k", nil)
		pass(time.Minute)
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
func TestEventsComeInOrderThroughABadBroker(t *testing.T) {
	inWorld(t, func(w *world) {
		defer w.handle(func(_ context.Context, task *Task) (any, error) {
			for i := range 300 {
				fmt.Fprintf(task.Log(), "%d\n", i)
				time.Sleep(50 * time.Millisecond)
				if i%20 == 0 {
					task.Step("s")
				}
			}
			return nil, nil
		})()
		dice := rand.New(rand.NewPCG(1, 2)) // only one run publishes
		w.OnPublish(func(p memory.Publish) memory.Verdict {
			fate := memory.Deliver
			if p.To.Exchange == broker.ExchangeUtils && dice.IntN(5) == 0 {
				fate = []memory.Fate{memory.Refuse, memory.Mislead, memory.Lose}[dice.IntN(3)]
			}
			return memory.Verdict{Fate: fate, Delay: time.Duration(dice.IntN(200)) * time.Millisecond}
		})
		w.submit("t1", "k", nil)
		for range 3 {
			pass(4 * time.Second)
			w.Cut(broker.Runner("r1"))
		}
		pass(5 * time.Minute)
		got := w.seen("t1")
		if len(got) < 10 || got[len(got)-1] != "result null" {
			t.Fatalf("client has %q", got)
		}
		line := 0
		for _, e := range got {
			if rest, ok := strings.CutPrefix(e, "log "); ok {
				first, lines, _ := strings.Cut(rest, " ")
				for i, l := range strings.Split(lines, "|") {
					if fmt.Sprint(line) != l || i == 0 && first != fmt.Sprint(line+1) {
						t.Fatalf("line %d is %s (of an event that begins with %s)", line, l, first)
					}
					line++
				}
			}
		}
		if line != 300 {
			t.Errorf("%d lines, want 300", line)
		}
		if a := w.attempts("t1"); !slices.Equal(a, []int{1}) {
			t.Errorf("attempts %v: the run was started again", a)
		}
		w.wantQueues(none)
	})
}

func TestARunGoesOnWhileTheBrokerIsAway(t *testing.T) {
	inWorld(t, func(w *world) {
		var runs atomic.Int64
		defer w.handle(func(_ context.Context, task *Task) (any, error) {
			runs.Add(1)
			for i := range 60 {
				fmt.Fprintf(task.Log(), "%d\n", i)
				task.Progress(uint32(i), 60, "")
				time.Sleep(time.Second)
			}
			return nil, nil
		})()
		w.submit("t1", "k", nil)
		pass(10500 * time.Millisecond)
		before := len(w.seen("t1"))
		w.Down(true)
		pass(30 * time.Second)
		if n := len(w.seen("t1")); n != before {
			t.Errorf("%d events, %d before the broker went", n, before)
		}
		w.Down(false)
		pass(10 * time.Second)
		w.wantQueues(busy) // the task came again, and is held by the run that goes on
		pass(time.Minute)
		got := w.seen("t1")
		if last := got[len(got)-1]; last != "result null" || runs.Load() != 1 {
			t.Errorf("last event %q, %d runs", last, runs.Load())
		}
		w.wantQueues(none)
	})
}

func TestARunThatEndsWhileTheBrokerIsAwayIsNotStartedAgain(t *testing.T) {
	inWorld(t, func(w *world) {
		var runs atomic.Int64
		defer w.handle(func(context.Context, *Task) (any, error) {
			runs.Add(1)
			time.Sleep(10 * time.Second)
			return "done", nil
		})()
		w.submit("t1", "k", nil)
		pass(5 * time.Second)
		w.Down(true)
		pass(20 * time.Second)
		w.Down(false)
		pass(10 * time.Second)
		w.want("t1", "started", `result "done"`)
		w.wantQueues(none)
		if runs.Load() != 1 {
			t.Errorf("%d runs", runs.Load())
		}
	})
}

func TestALinkLostBeforeTheLastConfirmDoesNotStartTheTaskAgain(t *testing.T) {
	inWorld(t, func(w *world) {
		var runs atomic.Int64
		defer w.handle(func(context.Context, *Task) (any, error) { runs.Add(1); return nil, nil })()
		w.OnPublish(func(p memory.Publish) memory.Verdict {
			if p.Message.Type == string(wire.EventResult) {
				// Stored, but before the answer comes the link is gone.
				return memory.Verdict{Delay: time.Second}
			}
			return memory.Verdict{}
		})
		w.submit("t1", "k", nil)
		pass(500 * time.Millisecond)
		w.Cut(broker.Runner("r1"))
		pass(10 * time.Second)
		w.wantQueues(none)
		if runs.Load() != 1 {
			t.Errorf("%d runs", runs.Load())
		}
	})
}

func TestATaskThatEndedIsRememberedForItsNextDelivery(t *testing.T) {
	for _, tt := range []struct {
		tries int
		d     broker.Delivery
		want  bool
	}{
		{1, broker.Delivery{Attempt: 2, Redelivered: true}, true},  // given back by a lost link, straight to us
		{1, broker.Delivery{Attempt: 1}, true},                     // a second copy of the message
		{1, broker.Delivery{Attempt: 3, Redelivered: true}, false}, // somebody else had it in between
		{0, broker.Delivery{}, true},                               // nobody counts, a second copy
		{0, broker.Delivery{Redelivered: true}, false},             // nobody counts: it may have been anywhere
	} {
		if got := continues(tt.tries, tt.d); got != tt.want {
			t.Errorf("continues(%d, attempt %d redelivered %t) = %t, want %t", tt.tries, tt.d.Attempt, tt.d.Redelivered, got, tt.want)
		}
	}
}

func TestRecentForgetsTheOldest(t *testing.T) {
	var m recent
	for i := range recentSize + 1 {
		m.add(wire.TaskID(fmt.Sprint(i)), 1)
		m.add(wire.TaskID(fmt.Sprint(i)), 2) // the same task again takes no place
	}
	_, first := m.tries("0")
	second, ok := m.tries("1")
	if first || !ok || second != 2 || len(m.byTask) != recentSize || len(m.order) != recentSize {
		t.Errorf("first known: %t, second %d, %d tasks, %d in order", first, second, len(m.byTask), len(m.order))
	}
}

// Another runner had the task in between, so that its higher attempt counts for the client: what
// was run here is worth nothing any more.
func TestARunThatSomebodyElseHadInBetweenBeginsAnew(t *testing.T) {
	inWorld(t, func(w *world) {
		var ended []error
		var now atomic.Int64
		defer w.handle(func(ctx context.Context, task *Task) (any, error) {
			if now.Add(1) > 1 {
				t.Error("two runs of one task at once")
			}
			defer now.Add(-1)
			select {
			case <-ctx.Done():
				ended = append(ended, context.Cause(ctx))
				time.Sleep(10 * time.Second) // as processes do that are told to go
			case <-time.After(time.Hour / 2):
			}
			return task.Attempt, nil
		})()
		w.submit("t1", "k", nil)
		pass(time.Second)
		other := mustJoin(w, broker.Runner("other"))
		taken, err := other.OpenTasks(w.Context(), []string{"k"}, 1)
		must(t, err)
		w.Cut(broker.Runner("r1"))
		d := <-taken.Deliveries()
		if d.Attempt != 2 {
			t.Fatalf("the other runner has attempt %d", d.Attempt)
		}
		pass(10 * time.Second)
		must(t, other.Close(w.Context())) // attempt 3 comes to r1, whose run is attempt 1
		pass(time.Hour)
		w.want("t1", "started", "result 3")
		if len(ended) != 1 || ended[0] != errSuperseded {
			t.Errorf("runs ended by %v", ended)
		}
		w.wantQueues(none)
	})
}

func mustJoin(w *world, id broker.Identity) broker.Link {
	w.Helper()
	l, err := w.Join(w.Context(), id)
	if err != nil {
		w.Fatal(err)
	}
	return l
}

func TestATaskSubmittedTwiceRunsOnce(t *testing.T) {
	inWorld(t, func(w *world) {
		var runs atomic.Int64
		defer w.run(&Runner{Slots: 3, Kinds: map[string]Kind{"k": {Handler: HandlerFunc(func(context.Context, *Task) (any, error) {
			runs.Add(1)
			time.Sleep(time.Second)
			return nil, nil
		})}}})()
		w.submit("t1", "k", nil)
		w.submit("t1", "k", nil)
		pass(time.Minute)
		w.submit("t1", "k", nil)
		pass(time.Minute)
		w.want("t1", "started", "result null")
		w.wantQueues(none)
		if runs.Load() != 1 {
			t.Errorf("%d runs", runs.Load())
		}
	})
}

func TestATaskThatKillsItsRunnersEndsAtTheLimit(t *testing.T) {
	inWorld(t, func(w *world) {
		poison := mustJoin(w, broker.Runner("poison"))
		c, err := poison.OpenTasks(w.Context(), []string{"k"}, 1)
		must(t, err)
		w.submit("t1", "k", nil)
		for range 10 {
			must(t, c.Requeue((<-c.Deliveries()).Tag))
		}
		<-c.Deliveries()
		defer w.handle(func(context.Context, *Task) (any, error) { t.Error("it was started"); return nil, nil })()
		must(t, poison.Close(w.Context()))
		w.want("t1", "error attempts the task was started 11 times without an end")
		w.wantQueues(none)
	})
}

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

func TestATaskThatWaitsForAPlaceGoesWithItsLink(t *testing.T) {
	inWorld(t, func(w *world) {
		defer w.run(&Runner{Slots: 1, Kinds: map[string]Kind{"k": {Handler: HandlerFunc(func(_ context.Context, task *Task) (any, error) {
			if task.ID == "t2" {
				t.Error("a task was begun that another runner has")
			}
			time.Sleep(20 * time.Second)
			return nil, nil
		})}}})()
		w.submit("t1", "k", nil)
		synctest.Wait()
		other := mustJoin(w, broker.Runner("other"))
		take := func() {
			_, err := other.OpenTasks(w.Context(), []string{"k"}, 1)
			must(t, err)
			w.Cut(broker.Runner("r1"))
			pass(5 * time.Second)
		}
		take() // t1, which goes on here too
		w.submit("t2", "k", nil)
		w.wantQueues(map[string][2]int{"tasks.k": {0, 2}}) // t2 waits for its place
		take()                                             // t2
		pass(time.Minute)
		w.wantQueues(map[string][2]int{"tasks.k": {0, 2}})
		w.want("t1", "started", "result null")
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
		defer w.run(&Runner{BufferBytes: limit, Kinds: map[string]Kind{"k": {Handler: HandlerFunc(func(_ context.Context, task *Task) (any, error) {
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
		defer w.run(&Runner{BufferBytes: minBuffer, Kinds: map[string]Kind{"k": {Timeout: time.Minute, Handler: HandlerFunc(func(_ context.Context, task *Task) (any, error) {
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

func TestStopLetsARunningTaskEnd(t *testing.T) {
	inWorld(t, func(w *world) {
		stop := w.handle(func(context.Context, *Task) (any, error) { time.Sleep(20 * time.Second); return nil, nil })
		w.submit("t1", "k", nil)
		pass(time.Second)
		began := time.Now()
		stop()
		if d := time.Since(began); d != 19*time.Second {
			t.Errorf("stopped after %v, want 19s", d)
		}
		w.want("t1", "started", "result null")
		w.wantQueues(none)
	})
}

func TestStopTakesNothingNew(t *testing.T) {
	inWorld(t, func(w *world) {
		stop := w.run(&Runner{Slots: 2, Kinds: map[string]Kind{"k": {Handler: HandlerFunc(func(context.Context, *Task) (any, error) {
			time.Sleep(20 * time.Second)
			return nil, nil
		})}}})
		w.submit("t1", "k", nil)
		synctest.Wait()
		done := make(chan struct{})
		go func() { stop(); close(done) }()
		pass(time.Second)
		w.submit("t2", "k", nil)
		w.wantQueues(map[string][2]int{"tasks.k": {1, 1}}) // free for another runner at once
		<-done
		w.want("t1", "started", "result null")
		w.want("t2")
		w.wantQueues(map[string][2]int{"tasks.k": {1, 0}})
	})
}

// The final event still goes out; the task itself comes to somebody again, and the client takes
// the first final event.
func TestStopTakesNothingOverANewLinkEither(t *testing.T) {
	inWorld(t, func(w *world) {
		stop := w.handle(func(context.Context, *Task) (any, error) { time.Sleep(20 * time.Second); return nil, nil })
		w.submit("t1", "k", nil)
		synctest.Wait()
		done := make(chan struct{})
		go func() { stop(); close(done) }()
		pass(time.Second)
		w.Cut(broker.Runner("r1"))
		w.submit("t2", "k", nil)
		<-done
		w.want("t1", "started", "result null")
		w.want("t2")
		w.wantQueues(map[string][2]int{"tasks.k": {2, 0}})
	})
}

func TestStopGivesBackWhatDoesNotEndInTime(t *testing.T) {
	inWorld(t, func(w *world) {
		var cause error
		stop := w.handle(func(ctx context.Context, _ *Task) (any, error) {
			<-ctx.Done()
			cause = context.Cause(ctx)
			return nil, cause
		})
		w.submit("t1", "k", nil)
		pass(time.Second)
		began := time.Now()
		stop()
		if d := time.Since(began); d != 30*time.Second || cause != errStopped {
			t.Errorf("stopped after %v by %v, want 30s", d, cause)
		}
		w.want("t1", "started") // and no error: somebody else runs it
		w.wantQueues(map[string][2]int{"tasks.k": {1, 0}})

		defer w.handle(func(_ context.Context, task *Task) (any, error) { return task.Attempt, nil })()
		w.want("t1", "started", "result 2")
	})
}

func TestStopWhileTheBrokerIsAwayIsBounded(t *testing.T) {
	inWorld(t, func(w *world) {
		stop := w.handle(func(context.Context, *Task) (any, error) { time.Sleep(2 * time.Second); return nil, nil })
		w.submit("t1", "k", nil)
		w.OnPublish(func(memory.Publish) memory.Verdict { return memory.Verdict{Fate: memory.Hang} })
		pass(time.Second)
		w.Down(true)
		began := time.Now()
		stop()
		if d := time.Since(began); d > 35*time.Second {
			t.Errorf("stopped after %v", d)
		}
	})
}

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
