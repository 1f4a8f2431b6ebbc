package taskrunner

import (
	"context"
	"fmt"
	"math/rand/v2"
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
	had := copies{attempt: 1, tries: map[string]int{"a": 1, "b": 2}}
	for what, tt := range map[string]struct {
		d    broker.Delivery
		want bool
	}{
		"given back by a lost link, straight to us":           {broker.Delivery{Attempt: 2, Redelivered: true}, true},
		"somebody else had it in between":                     {broker.Delivery{Attempt: 3, Redelivered: true}, false},
		"another copy that nobody has had":                    {broker.Delivery{Message: broker.Message{ID: "c"}, Attempt: 1}, true},
		"another copy that somebody else has had":             {broker.Delivery{Message: broker.Message{ID: "c"}, Attempt: 2, Redelivered: true}, false},
		"another copy of ours, given back and straight to us": {broker.Delivery{Message: broker.Message{ID: "b"}, Attempt: 3, Redelivered: true}, true},
		"nobody counts, and it is new":                        {broker.Delivery{}, true},
		"nobody counts, and it may have been anywhere":        {broker.Delivery{Redelivered: true}, false},
	} {
		if tt.d.ID == "" {
			tt.d.ID = "a"
		}
		if got := had.continues(tt.d); got != tt.want {
			t.Errorf("%s: %t, want %t", what, got, tt.want)
		}
	}
	had.attempt = 3
	if !had.continues(broker.Delivery{Message: broker.Message{ID: "c"}, Attempt: 3, Redelivered: true}) {
		t.Error("who had the other copy ran attempt 2 at most, and ours is the third")
	}
}

// TestACopyThatSomebodyElseRanIsRunAgain: a client follows the run of the other copy, whose runner is dead.
func TestACopyThatSomebodyElseRanIsRunAgain(t *testing.T) {
	inWorld(t, func(w *world) {
		began := make(chan int, 10)
		defer w.run(&Runner{Slots: 1, Kinds: map[string]Kind{"k": {Handler: HandlerFunc(func(ctx context.Context, task *Task) (any, error) {
			began <- task.Attempt
			select {
			case <-time.After(10 * time.Second):
			case <-ctx.Done():
			}
			return nil, context.Cause(ctx)
		})}}})()
		w.submit("t1", "k", nil)
		pass(time.Second)
		other, err := w.Join(t.Context(), broker.Runner("other"))
		if err != nil {
			t.Fatal(err)
		}
		defer other.Close(context.Background())
		taken, err := other.OpenTasks(t.Context(), []string{"k"}, 1)
		if err != nil {
			t.Fatal(err)
		}
		w.submit("t1", "k", nil) // the other copy
		pass(time.Second)
		d := <-taken.Deliveries()
		if err := taken.Close(t.Context()); err != nil { // its runner dies
			t.Fatal(err)
		}
		pass(time.Minute)
		w.wantQueues(none)
		close(began)
		var attempts []int
		for n := range began {
			attempts = append(attempts, n)
		}
		if d.Attempt != 1 || !slices.Equal(attempts, []int{1, 2}) {
			t.Errorf("attempts %v, want a second one, which the client follows", attempts)
		}
	})
}

func TestRecentForgetsTheOldest(t *testing.T) {
	var m recent
	for i := range recentSize + 1 {
		m.add(wire.TaskID(fmt.Sprint(i)), copies{attempt: 1})
		m.add(wire.TaskID(fmt.Sprint(i)), copies{attempt: 2}) // the same task again takes no place
	}
	_, first := m.byTask["0"]
	second, ok := m.byTask["1"]
	if first || !ok || second.attempt != 2 || len(m.byTask) != recentSize || len(m.order) != recentSize {
		t.Errorf("first known: %t, second %+v, %d tasks, %d in order", first, second, len(m.byTask), len(m.order))
	}
}

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
