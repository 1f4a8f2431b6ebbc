package taskrunner

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/wscluster/wscluster/pkg/batch"
	"github.com/wscluster/wscluster/pkg/broker"
	"github.com/wscluster/wscluster/pkg/broker/memory"
	"github.com/wscluster/wscluster/pkg/socketmeta"
	"github.com/wscluster/wscluster/pkg/wire"
)

const tooOften = "error attempts the task was given to task runners too often without an end"

// kept are queues in which only so many tasks lie, for the operator.
func kept(n int) map[string][2]int { return map[string][2]int{broker.QueueKeptTasks: {n, 0}} }

// die puts a task of kind k among the dead ones as RabbitMQ does at its delivery limit.
func (w *world) die(id wire.TaskID, kind string) {
	w.Helper()
	body, err := wire.EncodeTask(&wire.Task{Meta: socketmeta.Meta{Client: w.client, Server: testServer, Epoch: 1}, Task: id, Kind: kind})
	must(w.T, err)
	w.putDead(broker.Message{Correlation: string(id), Body: body, Headers: map[string]any{"x-first-death-reason": "delivery_limit"}})
}

func (w *world) putDead(m broker.Message) {
	w.Helper()
	w.mu.Lock()
	l := w.link
	w.mu.Unlock()
	r, err := l.Publish(w.Context(), broker.ToDeadTasks(), m)
	must(w.T, err)
	if out, err := broker.Await(w.Context(), r); out != broker.Stored {
		w.Fatal(out, err)
	}
}

// finals lists the attempts of the final events of a task that came, copies too.
func (w *world) finals(id wire.TaskID) (all []int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, e := range w.events {
		if e.Task == id && e.Last {
			all = append(all, e.Attempt)
		}
	}
	return all
}

// never is a handler of a task that nobody may run.
func never(t *testing.T) HandlerFunc {
	return func(context.Context, *Task) (any, error) {
		t.Error("a dead task was run")
		return nil, nil
	}
}

func TestADeadTaskEndsWithOneErrorAndIsKept(t *testing.T) {
	inWorld(t, func(w *world) {
		m := NewMetrics(nil)
		w.die("t1", "k") // before there is a runner
		defer w.run(&Runner{Metrics: m, Kinds: map[string]Kind{"k": {Handler: never(t)}}})()
		w.die("t2", "of-nobody")
		pass(time.Second)
		for _, id := range []wire.TaskID{"t1", "t2"} {
			w.want(id, tooOften)
			if got := w.finals(id); !slices.Equal(got, []int{wire.DeadAttempt}) {
				t.Errorf("%s ended in attempts %v, want once in %d", id, got, wire.DeadAttempt)
			}
		}
		w.wantQueues(kept(2))
		wantShown(t, m.Dead, map[string]float64{"dead_tasks_total delivery_limit": 2})
		if n := len(shownBy(m.Begun)); n != 0 {
			t.Errorf("%d kinds of runs are counted", n)
		}
		if k := w.Messages(broker.QueueKeptTasks)[0]; k.Headers["reason"] != "delivery_limit" || k.Correlation != "t1" {
			t.Errorf("kept as %+v", k)
		}
	})
}

// The runs before may have been those of runners without a ledger, and of any number.
func TestADeadTaskEndsAfterWhateverItsRunsHaveTold(t *testing.T) {
	inWorld(t, func(w *world) {
		defer w.handle(never(t))()
		e := &wire.Event{Client: w.client, Task: "t1", Attempt: 100_001, Run: wire.NewRunID(), Seq: 1, Type: wire.EventStarted, Durable: true,
			Home: testServer, Body: []byte(`{"client_id":"` + w.client.String() + `","kind":"k","runner":"x","total_steps":0,"timestamp":"2026-03-14T09:26:53.589Z"}`)}
		r, err := w.link.Publish(w.Context(), broker.ToMailbox(testServer), batch.Message(e, "x", time.Now()))
		must(t, err)
		if out, err := broker.Await(w.Context(), r); out != broker.Stored {
			t.Fatal(out, err)
		}
		w.want("t1", "started")
		w.die("t1", "k")
		w.want("t1", tooOften)
	})
}

func TestADeadCopyOfATaskThatRunsOrHasEndedTellsNothing(t *testing.T) {
	inWorld(t, func(w *world) {
		for _, name := range []string{"r1", "r2"} { // one of them has it, and any of them gets the copy
			defer w.run(&Runner{Name: name, Slots: 1, Kinds: map[string]Kind{"k": {Handler: stay(10 * time.Second)}}})()
		}
		var claims atomic.Int64
		w.OnPublish(func(p memory.Publish) memory.Verdict {
			if p.Message.Type == string(wire.LedgerClaim) {
				claims.Add(1)
			}
			return memory.Verdict{}
		})
		w.submit("t1", "k", nil)
		pass(time.Second)
		w.die("t1", "k")
		w.die("t1", "k")
		w.want("t1", "started")
		pass(20 * time.Second)
		w.want("t1", "started", "result 1")
		w.die("t1", "k")
		w.die("t1", "k")
		pass(time.Second)
		if got := w.finals("t1"); !slices.Equal(got, []int{1}) {
			t.Errorf("ended in attempts %v, want once", got)
		}
		if n := claims.Load(); n != 1 {
			t.Errorf("%d claims: the ledger knew the task from the first on", n)
		}
		w.wantQueues(kept(4))
	})
}

// A dead task takes no place, and none is needed to end it.
func TestDeadTasksDoNotWaitForAPlaceNorTakeOne(t *testing.T) {
	inWorld(t, func(w *world) {
		defer w.run(&Runner{Slots: 1, Kinds: map[string]Kind{"k": {Handler: stay(time.Minute)}}})()
		w.submit("t1", "k", nil)
		pass(time.Second)
		w.die("t2", "k")
		w.want("t2", tooOften)
		w.want("t1", "started")
		pass(2 * time.Minute)

		full := atomic.Bool{}
		full.Store(true)
		w.OnPublish(func(p memory.Publish) memory.Verdict {
			if full.Load() && w.has(p, wire.EventError) {
				return memory.Verdict{Fate: memory.Refuse} // the mailbox of its client has no room
			}
			return memory.Verdict{}
		})
		for i := range 20 {
			w.die(wire.TaskID(fmt.Sprint("d", i)), "k")
		}
		w.submit("t3", "k", nil)
		pass(50 * time.Second)
		w.want("t3", "started")
		ready, unsettled := w.Depth(broker.QueueDeadTasks)
		if ready != 20-deadAtOnce || unsettled != deadAtOnce {
			t.Errorf("%d dead tasks wait and %d are in hand, want %d and %d", ready, unsettled, 20-deadAtOnce, deadAtOnce)
		}
		full.Store(false)
		pass(time.Minute)
		for i := range 20 {
			w.want(wire.TaskID(fmt.Sprint("d", i)), tooOften)
		}
		w.want("t3", "started", "result 1")
		w.wantQueues(kept(21))
	})
}

// A runner with dead tasks in hand and no other jobs asks the broker for tasks, and gives them places.
func TestDeadTasksInHandAreNoJobs(t *testing.T) {
	now := epoch
	s := newScheduler("r1", 1, map[string]Kind{"k": {}}, wire.NewRunID)
	s.join(now)
	s.read(s.orders[0].record, 0, now)
	for i := range 3 {
		s.deliverDead(&wire.Task{Meta: testTask.Meta, Task: wire.TaskID(fmt.Sprint("d", i)), Kind: "k"}, wire.DeadExpired, hold{tag: uint64(i)}, now)
	}
	if s.full() {
		t.Error("tasks are held off")
	}
	s.orders = nil
	s.deliver(testTask, 1, hold{tag: 9}, now)
	if len(s.orders) != 1 || s.orders[0].record.Op != wire.LedgerClaim || s.orders[0].record.Task != testTask.Task {
		t.Errorf("a task gets %+v, want a claim", s.orders)
	}
	if s.deliver(&wire.Task{Meta: testTask.Meta, Task: "t2", Kind: "k"}, 1, hold{tag: 10}, now); !s.full() {
		t.Error("two tasks for one place, and more are asked for")
	}

	s.stop()
	s.orders = nil
	s.deliverDead(&wire.Task{Meta: testTask.Meta, Task: "d9", Kind: "k"}, wire.DeadExpired, hold{tag: 11}, now)
	if len(s.orders) != 1 || s.orders[0].verb != requeue || s.orders[0].hold.tag != 11 {
		t.Errorf("a runner that stops does %+v with a dead task, want to give it back", s.orders)
	}
	s.part()
	s.orders = nil
	if s.deliverDead(testTask, wire.DeadExpired, hold{tag: 12}, now); len(s.orders) != 0 {
		t.Errorf("a delivery of a link that is gone: %+v", s.orders)
	}
}

func TestManyDeadTasksEndOnceEachWhoeverTakesThem(t *testing.T) {
	inWorld(t, func(w *world) {
		for i := range 60 {
			for range 1 + i%2 { // every other one twice
				w.die(wire.TaskID(fmt.Sprint("t", i)), "k")
			}
		}
		for _, name := range []string{"r1", "r2", "r3"} {
			defer w.run(&Runner{Name: name, Kinds: map[string]Kind{"k": {Handler: never(t)}}})()
		}
		pass(5 * time.Second)
		for i := range 60 {
			if id := wire.TaskID(fmt.Sprint("t", i)); !slices.Equal(w.finals(id), []int{wire.DeadAttempt}) {
				t.Errorf("%s ended in attempts %v, want once", id, w.finals(id))
			}
		}
		w.wantQueues(kept(90))
	})
}

// cutAt cuts r1 off for good at the moment of a publish, before or after it is stored.
func (w *world) cutAt(away *atomic.Bool, fate memory.Fate, is func(memory.Publish) bool) {
	w.OnPublish(func(p memory.Publish) memory.Verdict {
		if p.From != broker.Runner("r1") || !is(p) || away.Swap(true) {
			return memory.Verdict{}
		}
		go w.Cut(broker.Runner("r1"))
		return memory.Verdict{Fate: fate}
	})
}

// A runner is lost at each step of what it does with a dead task. Another one that has nothing to do with its
// kind ends it, and one that has does not run it; the client has one end, whatever came twice.
func TestADeadTaskWhoseRunnerIsLostAtAnyStepEndsOnce(t *testing.T) {
	for step, is := range map[string]func(memory.Publish) bool{
		"claim": func(p memory.Publish) bool { return p.Message.Type == string(wire.LedgerClaim) },
		"event": func(p memory.Publish) bool { return p.Message.Type == string(wire.EventError) },
		"done":  func(p memory.Publish) bool { return p.Message.Type == string(wire.LedgerDone) },
		"keep":  func(p memory.Publish) bool { return p.To == broker.ToKeptTasks() },
	} {
		for when, fate := range map[string]memory.Fate{"before": memory.Swallow, "after": memory.Hang} {
			t.Run(when+" the "+step, func(t *testing.T) {
				inWorld(t, func(w *world) {
					var away atomic.Bool
					w.cutAt(&away, fate, is)
					defer w.run(&Runner{Broker: solitary{w.Broker, &away}, Kinds: map[string]Kind{"k": {Handler: never(t)}}})()
					w.die("t1", "k")
					pass(time.Second)
					if !away.Load() {
						t.Fatal("the step did not come")
					}
					defer w.run(&Runner{Name: "r2", Kinds: map[string]Kind{"other": {Handler: never(t)}}})()
					pass(2 * (defaultFence + margin))
					w.want("t1", tooOften)
					defer w.run(&Runner{Name: "r3", Kinds: map[string]Kind{"k": {Handler: never(t)}}})()
					pass(time.Hour)
					w.want("t1", tooOften)
					n := len(w.finals("t1"))
					if again := step == "done" || step == "keep" || step == "event" && when == "after"; n < 1 || n > 2 || n > 1 && !again {
						t.Errorf("%d final events came", n)
					}
					ready, _ := w.Depth(broker.QueueKeptTasks)
					if w.wantQueues(kept(ready)); ready < 1 || ready > 2 {
						t.Errorf("%d tasks are kept", ready)
					}
				})
			})
		}
	}
}

func TestADeadTaskThatNobodyCanReadEndsIfItSaysWhoseItIs(t *testing.T) {
	inWorld(t, func(w *world) {
		m := NewMetrics(nil)
		defer w.run(&Runner{Metrics: m, Kinds: map[string]Kind{"k": {Handler: never(t)}}})()
		l := w.link
		r, err := l.Publish(w.Context(), broker.ToTasks("k", wire.Normal), broker.Message{Correlation: "t1", Body: []byte(`{"kind": 7}`),
			Headers: map[string]any{"client_id": w.client.String(), "server_id": string(testServer)}})
		must(t, err)
		if out, err := broker.Await(w.Context(), r); out != broker.Stored {
			t.Fatal(out, err)
		}
		pass(time.Second)
		w.want("t1", "error internal no task runner can read the task")
		w.putDead(broker.Message{ID: "m1", Body: []byte("\xff")})
		pass(time.Second)
		w.wantQueues(kept(2))
		wantShown(t, m.Dead, map[string]float64{"dead_tasks_total bad_body": 1, "dead_tasks_total other": 1})
		if got := w.Messages(broker.QueueKeptTasks)[1]; string(got.Body) != "\xff" || got.ID != "m1" {
			t.Errorf("kept as %+v", got)
		}
		if n := counted(m, "confirmed"); n != 1 {
			t.Errorf("%v events are counted, want 1", n)
		}
	})
}

func TestAnUnreadableCopyOfATaskThatRunsTellsNothing(t *testing.T) {
	inWorld(t, func(w *world) {
		defer w.handle(stay(10 * time.Second))()
		w.submit("t1", "k", nil)
		pass(time.Second)
		w.putDead(broker.Message{Correlation: "t1", Body: []byte(`{}`),
			Headers: map[string]any{"client_id": w.client.String(), "server_id": string(testServer), "reason": "bad_body"}})
		pass(time.Minute)
		w.want("t1", "started", "result 1")
		w.wantQueues(kept(1))
	})
}

func TestADeadTaskThatWasCanceledEndsSo(t *testing.T) {
	inWorld(t, func(w *world) {
		defer w.handle(never(t))()
		w.cancel(w.client, "t1")
		w.die("t1", "k")
		w.want("t1", canceled)
	})
}

// unlit is a broker whose dead tasks cannot be taken while dark is set.
type unlit struct {
	broker.Broker
	dark  *atomic.Bool
	joins *atomic.Int64
}

type unlitLink struct {
	broker.Link
	dark *atomic.Bool
}

func (b unlit) Join(ctx context.Context, id broker.Identity) (broker.Link, error) {
	b.joins.Add(1)
	l, err := b.Broker.Join(ctx, id)
	return unlitLink{l, b.dark}, err
}

func (l unlitLink) OpenDeadTasks(ctx context.Context, prefetch int) (broker.Consumer, error) {
	if l.dark.Load() {
		return nil, errors.New("ACCESS_REFUSED")
	}
	return l.Link.OpenDeadTasks(ctx, prefetch)
}

func TestARunnerThatMayNotTakeDeadTasksDoesAllElse(t *testing.T) {
	inWorld(t, func(w *world) {
		var dark atomic.Bool
		var joins atomic.Int64
		dark.Store(true)
		defer w.run(&Runner{Broker: unlit{w.Broker, &dark, &joins}, Kinds: map[string]Kind{"k": {Handler: HandlerFunc(returnNil)}}})()
		w.die("t1", "k")
		w.submit("t2", "k", nil)
		pass(10 * time.Minute)
		w.want("t2", "started", "result null")
		w.want("t1")
		dark.Store(false)
		pass(deadPause)
		w.want("t1", tooOften)
		if n := joins.Load(); n != 1 {
			t.Errorf("it joined %d times", n)
		}
	})
}

func TestDeadTasksAreKeptUntilTheirQueueTakesThem(t *testing.T) {
	inWorld(t, func(w *world) {
		refused := 5
		w.OnPublish(func(p memory.Publish) memory.Verdict {
			if p.To == broker.ToKeptTasks() && refused > 0 {
				refused--
				return memory.Verdict{Fate: memory.Refuse}
			}
			return memory.Verdict{}
		})
		defer w.handle(never(t))()
		w.die("t1", "k")
		pass(time.Second)
		w.want("t1", tooOften)
		w.wantQueues(map[string][2]int{broker.QueueDeadTasks: {0, 1}})
		pass(5 * insistPause)
		w.wantQueues(kept(1))
		if n := len(w.finals("t1")); n != 1 {
			t.Errorf("told %d times", n)
		}
	})
}

// once is a consumer that notes what is acknowledged.
type once struct {
	broker.Consumer
	acked []uint64
}

func (o *once) Ack(tags ...uint64) error { o.acked = append(o.acked, tags...); return nil }

// A stranger may have put more there than a runner may publish.
func TestADeadTaskThatIsTooLargeIsKeptInPart(t *testing.T) {
	inWorld(t, func(w *world) {
		r := &Runner{Name: "r1", Kinds: map[string]Kind{"k": {Handler: HandlerFunc(returnNil)}}, SpoolBytes: -1}
		s, err := r.shift()
		must(t, err)
		from := &once{}
		s.keep(w.Context(), w.link, hold{from, 7, &broker.Message{ID: "m1", Body: make([]byte, broker.MaxMessage+1)}})
		if m := w.Messages(broker.QueueKeptTasks); len(m) != 1 || len(m[0].Body) != broker.MaxMessage || !slices.Equal(from.acked, []uint64{7}) {
			t.Errorf("%d kept, %v acknowledged", len(m), from.acked)
		}
	})
}

// TestAStoppingRunnerLeavesDeadTasksToOthers also while it waits for its runs.
func TestAStoppingRunnerLeavesDeadTasksToOthers(t *testing.T) {
	inWorld(t, func(w *world) {
		stop := w.run(&Runner{Grace: time.Hour, Kinds: map[string]Kind{"k": {Handler: stay(time.Minute)}}})
		w.submit("t1", "k", nil)
		pass(time.Second)
		go stop()
		pass(time.Second)
		w.die("t2", "k")
		pass(10 * time.Second)
		w.want("t2")
		if ready, unsettled := w.Depth(broker.QueueDeadTasks); ready != 1 || unsettled != 0 {
			t.Errorf("%d wait and %d are in hand", ready, unsettled)
		}
		defer w.run(&Runner{Name: "r2", Kinds: map[string]Kind{"k": {Handler: never(t)}}})()
		w.want("t2", tooOften)
		pass(time.Hour)
		w.want("t1", "started", "result 1")
	})
}
