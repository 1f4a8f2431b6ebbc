package taskrunner

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
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
			if p.To.Exchange != broker.ExchangeUtils {
				return memory.Verdict{}
			}
			fate := memory.Deliver
			if dice.IntN(5) == 0 {
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
		w.wantQueues(none) // the task came again, and the ledger has it
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
			if w.has(p, wire.EventResult) {
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

// TestATaskThatKillsItsRunnerLetsItsNeighboursEnd: of tasks that began together one kills their runner as soon as it
// begins, whenever that is started again.
func TestATaskThatKillsItsRunnerLetsItsNeighboursEnd(t *testing.T) {
	const killer, step = "killer", 100 * time.Millisecond
	names := []string{killer, "a", "b", "c"}
	for try := range 50 {
		ids := 1000 * try
		newRun := func() wire.RunID { ids++; return runID(ids) }
		now := simStart
		var stream []*wire.LedgerRecord
		for _, name := range names {
			claim := record("claim " + name + " 1 r1 0")
			claim.Run, claim.Spool = newRun(), "s"
			stream = append(stream, claim)
		}
		ended := map[wire.TaskID]int{} // in which attempt
		for len(ended) < len(names) {
			s := newScheduler("r1", len(names), map[string]Kind{"k": {}}, newRun)
			s.spool = "s"
			s.join(now)
			begun := map[*job]time.Time{}
			for dead := false; !dead && len(ended) < len(names); now = now.Add(step) {
				s.tick(now)
				for s.next < int64(len(stream)) {
					s.read(stream[s.next], s.next, now)
				}
				for j, at := range begun {
					if now.Sub(at) >= 3*time.Second || j.attempt > DefaultAttempts {
						delete(begun, j)
						ended[j.task.Task] = j.attempt
						s.over(j, true, now)
					}
				}
				for _, o := range s.orders {
					switch {
					case o.verb == write:
						stream = append(stream, o.record)
					case o.verb == begin:
						begun[o.job] = now
						dead = dead || o.job.task.Task == killer && o.job.attempt <= DefaultAttempts
					}
				}
				s.orders = nil
			}
		}
		for _, name := range names[1:] {
			if n := ended[wire.TaskID(name)]; n > DefaultAttempts {
				t.Errorf("try %d: %s was begun %d times without an end, as the killer was", try, name, DefaultAttempts)
			}
		}
		if n := ended[killer]; n != DefaultAttempts+1 {
			t.Errorf("try %d: the killer ended in attempt %d", try, n)
		}
	}
}

func TestATaskThatComesWithoutAPlaceGoesToAnotherRunner(t *testing.T) {
	inWorld(t, func(w *world) {
		long := HandlerFunc(func(context.Context, *Task) (any, error) { time.Sleep(time.Hour / 2); return nil, nil })
		defer w.run(&Runner{Slots: 1, Kinds: map[string]Kind{"k": {Handler: long}}})()
		w.submit("t1", "k", nil)
		pass(2 * settleAfter) // r1 holds no delivery any more, and has no place
		w.submit("t2", "k", nil)
		pass(time.Minute)
		w.wantQueues(map[string][2]int{"tasks.k": {1, 0}})
		defer w.run(&Runner{Name: "r2", Slots: 1, Kinds: map[string]Kind{"k": {Handler: HandlerFunc(returnNil)}}})()
		w.want("t2", "started", "result null")
		pass(time.Hour / 2)
		w.want("t1", "started", "result null")
		w.submit("t3", "k", nil) // r1 has its place again
		w.submit("t4", "k", nil)
		pass(time.Hour)
		w.want("t3", "started", "result null")
		w.want("t4", "started", "result null")
		w.wantQueues(none)
	})
}

func TestALedgerThatWasNotReadForSixHoursOrNotUpToALinkIsReadFromItsStart(t *testing.T) {
	for _, c := range []struct {
		current bool // the first link's mark was read
		gone    time.Duration
		from    int64
	}{{true, staleAfter, 2}, {true, staleAfter + 1, 0}, {false, time.Second, 0}} {
		s := newScheduler("r1", 1, map[string]Kind{"k": {}}, wire.NewRunID)
		s.from(epoch)
		s.join(epoch)
		second := record("free t 1 r2 7")
		if c.current {
			second = s.orders[0].record
		}
		s.read(record("claim t 1 r2 7"), 0, epoch)
		s.read(second, 1, epoch)
		s.part()
		if from, knows := s.from(epoch.Add(c.gone)), s.ledger.knows(ledgerKey("t")); from != c.from || knows != (c.from > 0) {
			t.Errorf("%+v: reads from %d, and knows what was before: %v", c, from, knows)
		}
	}
}
