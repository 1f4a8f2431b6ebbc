package taskrunner

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/wscluster/wscluster/pkg/broker"
	"github.com/wscluster/wscluster/pkg/broker/memory"
	"github.com/wscluster/wscluster/pkg/socketmeta"
	"github.com/wscluster/wscluster/pkg/wire"
)

// cancelKind writes, as a worker does whose client names the kind, that the client of the world wants a task to
// end.
func (w *world) cancelKind(id wire.TaskID, kind string) {
	w.Helper()
	body, err := wire.EncodeTask(&wire.Task{Meta: socketmeta.Meta{Client: w.client, Server: testServer, Epoch: 1}, Task: id, Kind: kind})
	must(w.T, err)
	w.record(&wire.LedgerRecord{Op: wire.LedgerCancel, Task: id, Client: w.client.String(), Body: body})
}

// claims counts the claims of a task that are written from now on, by whomever.
func (w *world) claims(id wire.TaskID) *atomic.Int64 {
	n := new(atomic.Int64)
	w.OnPublish(func(p memory.Publish) memory.Verdict {
		if p.Message.Type == string(wire.LedgerClaim) && p.Message.Correlation == string(id) {
			n.Add(1)
		}
		return memory.Verdict{}
	})
	return n
}

func TestACanceledTaskEndsAtOnceThoughNoPlaceIsFree(t *testing.T) {
	inWorld(t, func(w *world) {
		var runs atomic.Int64
		for i := range 3 {
			defer w.run(&Runner{Name: fmt.Sprint("r", i+1), Slots: 1, Kinds: map[string]Kind{"k": {Timeout: 24 * time.Hour, Handler: HandlerFunc(func(ctx context.Context, task *Task) (any, error) {
				runs.Add(1)
				return stay(5*time.Hour)(ctx, task)
			})}}})()
			w.submit(wire.TaskID(fmt.Sprint("t", i+1)), "k", nil)
			pass(300 * time.Millisecond) // their ticks are apart
		}
		w.submit("waits", "k", nil)
		pass(time.Minute)
		claims := w.claims("waits")
		w.cancelKind("waits", "k")
		w.cancelKind("waits", "k")
		pass(tickEvery)
		w.want("waits", canceled)
		w.cancelKind("waits", "k")
		w.wantQueues(map[string][2]int{"tasks.k": {1, 0}})
		pass(6 * time.Hour)
		if got := w.finals("waits"); !slices.Equal(got, []int{wire.DeadAttempt}) {
			t.Errorf("ended in attempts %v, want once", got)
		}
		for i := range 3 {
			w.want(wire.TaskID(fmt.Sprint("t", i+1)), "started", "result 1")
		}
		if runs.Load() != 3 || claims.Load() != 1 {
			t.Errorf("%d runs and %d claims, want the three that had places and one claim", runs.Load(), claims.Load())
		}
		w.wantQueues(none)
	})
}

func TestATaskThatIsDeliveredAsItIsCanceledEndsOnce(t *testing.T) {
	inWorld(t, func(w *world) {
		for _, name := range []string{"r1", "r2"} {
			defer w.run(&Runner{Name: name, Slots: 1, Kinds: map[string]Kind{"k": {Handler: stay(time.Hour / 2)}}})()
		}
		for i := range 40 {
			id := wire.TaskID(fmt.Sprint("t", i))
			first, then := func() { w.cancelKind(id, "k") }, func() { w.submit(id, "k", nil) }
			if i%2 == 1 {
				first, then = then, first
			}
			first()
			time.Sleep(time.Duration(i/2%10) * 100 * time.Millisecond) // at each moment between two ticks
			then()
			pass(5 * time.Second)
			if got := w.seen(id); len(got) == 0 || got[len(got)-1] != canceled || i%2 == 0 && len(got) != 1 {
				t.Errorf("%s: client has %q, want to be told that it is canceled, and a begin only before that", id, got)
			}
			if got := w.finals(id); len(got) != 1 {
				t.Errorf("%s ended in attempts %v, want once", id, got)
			}
		}
		pass(2 * time.Minute)
		w.wantQueues(none)
	})
}

// One runner is delivered the task, the other one would end it. Whose claim the ledger has first does so, and
// the delivery is acknowledged.
func TestTheFirstOfTwoClaimsEndsACanceledTask(t *testing.T) {
	task, err := wire.DecodeTask(ledgerTask("t"))
	must(t, err)
	for _, delivered := range []bool{true, false} {
		var ids int
		newRun := func() wire.RunID { ids++; return runID(ids) }
		taker, ender := newScheduler("r1", 1, map[string]Kind{"k": {}}, newRun), newScheduler("r2", 1, map[string]Kind{"k": {}}, newRun)
		stream := []*wire.LedgerRecord{}
		for _, s := range []*scheduler{taker, ender} {
			s.join(epoch)
			stream = append(stream, s.orders[0].record)
			s.orders = nil
		}
		stream = append(stream, &wire.LedgerRecord{Op: wire.LedgerCancel, Task: "t", Client: ledgerClient.String(), Body: ledgerTask("t")})
		read := func(from int) {
			for i := from; i < len(stream); i++ {
				taker.read(stream[i], int64(i), epoch)
				ender.read(stream[i], int64(i), epoch)
			}
		}
		read(0)
		taker.deliver(task, 1, hold{tag: 7}, epoch)
		ender.tick(epoch)
		if len(taker.orders) != 1 || len(ender.orders) != 1 {
			t.Fatalf("orders %+v and %+v, want a claim each", taker.orders, ender.orders)
		}
		claims := []*wire.LedgerRecord{taker.orders[0].record, ender.orders[0].record}
		winner, loser := taker, ender
		if !delivered {
			winner, loser = ender, taker
			slices.Reverse(claims)
		}
		taker.orders, ender.orders = nil, nil
		stream = append(stream, claims...)
		read(3)
		if len(winner.orders) != 1 || winner.orders[0].verb != begin || !winner.orders[0].job.canceled || len(loser.jobs) != 0 {
			t.Errorf("delivered first %t: the winner does %+v, the loser has %d jobs", delivered, winner.orders, len(loser.jobs))
			continue
		}
		winner.over(winner.orders[0].job, true, epoch)
		settled := slices.ContainsFunc(taker.orders, func(o order) bool { return o.verb == settle && o.hold.tag == 7 })
		if !settled {
			t.Errorf("delivered first %t: the delivery is left: %+v", delivered, taker.orders)
		}
	}
}

// A runner is lost at each step of ending a canceled task. Another one ends it, of whatever kinds if the ledger
// says that somebody had it, and nobody runs it.
func TestACanceledTaskWhoseRunnerIsLostAtAnyStepEndsOnce(t *testing.T) {
	for step, is := range map[string]func(memory.Publish) bool{
		"claim": func(p memory.Publish) bool { return p.Message.Type == string(wire.LedgerClaim) },
		"event": func(p memory.Publish) bool { return p.Message.Type == string(wire.EventError) },
		"done":  func(p memory.Publish) bool { return p.Message.Type == string(wire.LedgerDone) },
	} {
		for when, fate := range map[string]memory.Fate{"before": memory.Swallow, "after": memory.Hang} {
			t.Run(when+" the "+step, func(t *testing.T) {
				inWorld(t, func(w *world) {
					var away atomic.Bool
					long := Kind{Handler: stay(50 * time.Minute), Fence: time.Hour} // which is not that of an ending
					defer w.run(&Runner{Slots: 1, Broker: solitary{w.Broker, &away}, Kinds: map[string]Kind{"k": long}})()
					w.submit("first", "k", nil)
					w.submit("waits", "k", nil)
					pass(time.Second)
					w.cutAt(&away, fate, is)
					w.cancelKind("waits", "k")
					pass(2 * tickEvery)
					if !away.Load() {
						t.Fatal("the step did not come")
					}
					kind := "other"
					if step == "claim" && when == "before" { // nobody but runners of its kind knows that it is theirs
						kind = "k"
					}
					w.OnPublish(nil)
					defer w.run(&Runner{Name: "r2", Slots: 1, Kinds: map[string]Kind{kind: {Handler: stay(50 * time.Minute)}}})()
					w.submit("second", kind, nil)
					pass(2 * (defaultFence + margin))
					w.want("waits", canceled)
					pass(2 * time.Hour)
					w.want("waits", canceled)
					n := len(w.finals("waits"))
					if again := step == "done" || step == "event" && when == "after"; n < 1 || n > 2 || n > 1 && !again {
						t.Errorf("%d final events came", n)
					}
				})
			})
		}
	}
}

func TestACanceledTaskOfAnotherKindWaitsForARunnerOfItsKind(t *testing.T) {
	inWorld(t, func(w *world) {
		defer w.run(&Runner{Kinds: map[string]Kind{"k": {Handler: never(t)}}})()
		w.cancelKind("t1", "of-others") // who may not keep to the ledger, and run it all the same
		pass(time.Minute)
		w.want("t1")
		defer w.run(&Runner{Name: "r2", Kinds: map[string]Kind{"of-others": {Handler: never(t)}}})()
		pass(time.Minute)
		w.want("t1", canceled)
	})
}

func TestACancelEndsATaskThatWaitsForItsRetryAtOnceThoughNoPlaceIsFree(t *testing.T) {
	inWorld(t, func(w *world) {
		defer w.run(&Runner{Slots: 1, Kinds: map[string]Kind{
			"no":   {Retries: 9, Handler: HandlerFunc(func(context.Context, *Task) (any, error) { return nil, errors.New("no") })},
			"long": {Handler: stay(50 * time.Minute)},
		}})()
		w.submit("t1", "no", nil)
		pass(10 * time.Second) // attempts at 0, 0, 2 and 6 s; the next at 14
		w.submit("t2", "long", nil)
		pass(time.Second)
		w.cancel(w.client, "t1")
		pass(tickEvery)
		w.want("t1", canceled)
		if got := w.finals("t1"); !slices.Equal(got, []int{5}) {
			t.Errorf("ended in attempts %v, want the fifth", got)
		}
		pass(time.Hour)
		w.want("t2", "started", "result 1")
		w.wantQueues(none)
	})
}

// The client's mailbox takes nothing, and the ends of endAtOnce tasks wait for it: no more are claimed.
func TestARunnerEndsABoundedNumberOfTasksAtOnce(t *testing.T) {
	inWorld(t, func(w *world) {
		m := NewMetrics(nil)
		defer w.run(&Runner{Slots: 1, Metrics: m, Kinds: map[string]Kind{"k": {Handler: stay(time.Minute)}}})()
		var claims atomic.Int64
		var full atomic.Bool
		full.Store(true)
		w.OnPublish(func(p memory.Publish) memory.Verdict {
			switch {
			case p.Message.Type == string(wire.LedgerClaim):
				claims.Add(1)
			case p.To.Exchange == broker.ExchangeUtils && full.Load():
				return memory.Verdict{Fate: memory.Refuse}
			}
			return memory.Verdict{}
		})
		for i := range endAtOnce + 20 {
			w.cancelKind(wire.TaskID(fmt.Sprint("t", i)), "k")
		}
		pass(time.Minute)
		if n := claims.Load(); n != endAtOnce {
			t.Errorf("%d claims, want %d", n, endAtOnce)
		}
		w.submit("runs", "k", nil)
		pass(time.Second)
		if n := claims.Load(); n != endAtOnce+1 {
			t.Errorf("%d claims, want one for the task that has a place", n)
		}
		full.Store(false)
		pass(time.Minute)
		for i := range endAtOnce + 20 {
			w.want(wire.TaskID(fmt.Sprint("t", i)), canceled)
		}
		w.want("runs", "started", "result 1")
		wantShown(t, m.Begun, map[string]float64{"task_runs_total first k": 1})
	})
}

func TestALedgerKnowsTheCanceledTasksThatNobodyHas(t *testing.T) {
	cancels := func(id wire.TaskID, body []byte) *wire.LedgerRecord {
		return &wire.LedgerRecord{Op: wire.LedgerCancel, Task: id, Client: ledgerClient.String(), Body: body}
	}
	l := newLedger()
	for _, r := range []*wire.LedgerRecord{
		record("claim runs 1 r1 1"), cancels("runs", ledgerTask("runs")),
		cancels("unknown", nil),
		cancels("late", nil), cancels("waits", ledgerTask("waits")), cancels("late", ledgerTask("late")), cancels("late", nil),
		cancels("ended", ledgerTask("ended")), record("claim ended 1 r1 2"), record("done ended 1 r1 2"), cancels("ended", ledgerTask("ended")),
		cancels("begins", ledgerTask("begins")), record("claim begins 1 r1 3"),
	} {
		c := l.add(r, time.Time{})
		if r.Task == "runs" && r.Op == wire.LedgerCancel && c.canceled != runID(1) {
			t.Errorf("the cancel of what runs ends %q", c.canceled)
		}
	}
	var names []string
	for _, task := range l.unbegun() {
		names = append(names, string(task.Task))
	}
	if want := []string{"late", "waits"}; !slices.Equal(names, want) {
		t.Errorf("nobody has %v, want %v", names, want)
	}
	for i := range rememberCanceled {
		id := wire.TaskID(fmt.Sprint(i))
		l.add(cancels(id, ledgerTask(id)), time.Time{})
	}
	if n, first := len(l.unbegun()), l.unbegun()[0].Task; n != rememberCanceled || first != "0" {
		t.Errorf("%d are remembered from %s on, want the last %d", n, first, rememberCanceled)
	}
}

// A runner that stops claims nothing, nor one that has not read the ledger up to its link.
func TestOnlyARunnerThatTakesTasksEndsCanceledOnes(t *testing.T) {
	now := epoch
	s := newScheduler("r1", 1, map[string]Kind{"k": {}}, wire.NewRunID)
	s.join(now)
	mark := s.orders[0].record
	s.orders = nil
	s.read(&wire.LedgerRecord{Op: wire.LedgerCancel, Task: "t", Client: ledgerClient.String(), Body: ledgerTask("t")}, 0, now)
	if s.tick(now); len(s.orders) != 0 {
		t.Errorf("before the ledger was read: %+v", s.orders)
	}
	s.read(mark, 1, now)
	s.stop()
	if s.tick(now); len(s.orders) != 0 {
		t.Errorf("a runner that stops: %+v", s.orders)
	}
	s.stopped = false
	if s.tick(now); len(s.orders) != 1 || s.orders[0].record.Dead != wire.DeadCanceled || s.orders[0].record.Attempt != wire.DeadAttempt {
		t.Errorf("a tick orders %+v, want a claim to end the task", s.orders)
	}
	s.orders = nil
	if s.tick(now); len(s.orders) != 0 {
		t.Errorf("what is claimed is claimed again: %+v", s.orders)
	}
	s.part() // the claim may be lost with the link
	s.join(now)
	s.read(s.orders[0].record, 2, now)
	s.orders = nil
	if s.tick(now); len(s.orders) != 1 || s.orders[0].record.Dead != wire.DeadCanceled {
		t.Errorf("over the next link it orders %+v, want the claim", s.orders)
	}
}
