package taskrunner

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wscluster/wscluster/pkg/broker"
	"github.com/wscluster/wscluster/pkg/broker/memory"
	"github.com/wscluster/wscluster/pkg/wire"
)

// solitary is a broker that lets nobody join while away is set.
type solitary struct {
	*memory.Broker
	away *atomic.Bool
}

func (b solitary) Join(ctx context.Context, id broker.Identity) (broker.Link, error) {
	if b.away.Load() {
		return nil, errors.New("no route")
	}
	return b.Broker.Join(ctx, id)
}

// stay is a handler that runs for d, or until it is ended, and returns its attempt.
func stay(d time.Duration) HandlerFunc {
	return func(ctx context.Context, task *Task) (any, error) {
		select {
		case <-time.After(d):
			return task.Attempt, nil
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

func TestATaskWhoseRunnerIsCutOffGoesToAnotherOneAfterItsFence(t *testing.T) {
	inWorld(t, func(w *world) {
		var away atomic.Bool
		var running, ended atomic.Int64
		r1 := func(ctx context.Context, _ *Task) (any, error) {
			running.Add(1)
			<-ctx.Done()
			if cause := context.Cause(ctx); cause != errFenced {
				t.Errorf("ended by %v, want the fence", cause)
			}
			ended.Add(1)
			time.Sleep(10 * time.Second) // as processes do that are told to go
			running.Add(-1)
			return nil, ctx.Err()
		}
		defer w.run(&Runner{Broker: solitary{w.Broker, &away}, Kinds: map[string]Kind{"k": {Handler: HandlerFunc(r1)}}})()
		w.submit("t1", "k", nil)
		pass(time.Second)
		defer w.run(&Runner{Name: "r2", Kinds: map[string]Kind{"k": {Handler: HandlerFunc(func(ctx context.Context, task *Task) (any, error) {
			if running.Load() > 0 {
				t.Error("two runs of one task at once")
			}
			return stay(time.Second)(ctx, task)
		})}}})()
		pass(time.Hour / 2) // r1 has it, and a broker
		away.Store(true)
		w.Cut(broker.Runner("r1"))
		pass(defaultFence - 2*time.Second)
		if ended.Load() > 0 {
			t.Fatal("given up before its fence")
		}
		pass(4 * time.Second)
		if ended.Load() != 1 {
			t.Fatal("not given up at its fence")
		}
		pass(margin - 10*time.Second)
		w.want("t1", "started")
		pass(margin)
		w.want("t1", "started", "result 2")
		away.Store(false)
		pass(time.Minute)
		w.want("t1", "started", "result 2")
		if n := ended.Load(); n != 1 {
			t.Errorf("r1 ran it %d times", n)
		}
	})
}

func TestARunnerThatIsBackBeforeItsFenceGoesOn(t *testing.T) {
	inWorld(t, func(w *world) {
		var away atomic.Bool
		defer w.run(&Runner{Broker: solitary{w.Broker, &away}, Kinds: map[string]Kind{"k": {Handler: stay(20 * time.Minute)}}})()
		w.submit("t1", "k", nil)
		pass(time.Second)
		defer w.run(&Runner{Name: "r2", Kinds: map[string]Kind{"k": {Handler: HandlerFunc(returnNil)}}})()
		for range 5 {
			away.Store(true)
			w.Cut(broker.Runner("r1"))
			pass(defaultFence - 10*time.Second)
			away.Store(false)
			pass(time.Minute)
		}
		pass(20 * time.Minute)
		w.want("t1", "started", "result 1")
	})
}

func TestAFenceIsOfItsKind(t *testing.T) {
	inWorld(t, func(w *world) {
		defer w.run(&Runner{Slots: 2, Fence: time.Minute, Kinds: map[string]Kind{
			"k": {Handler: stay(30 * time.Minute), Fence: time.Hour}, "short": {Handler: stay(30 * time.Minute)},
		}})()
		w.submit("t1", "k", nil)
		w.submit("t2", "short", nil)
		pass(time.Second)
		w.Down(true)
		pass(20 * time.Minute)
		w.Down(false)
		pass(40 * time.Minute)
		w.want("t1", "started", "result 1")
		w.want("t2", "started", "result 2")
	})
}

// leave writes into the ledger what a runner of that name leaves that was killed in the middle of a task.
func (w *world) leave(runner, spool string, id wire.TaskID) {
	w.Helper()
	link := mustJoin(w, broker.Runner(runner))
	if _, err := link.OpenLedger(w.Context(), 0); err != nil {
		w.Fatal(err)
	}
	body, err := wire.EncodeTask(&wire.Task{Meta: testTask.Meta, Task: id, Kind: "k"})
	must(w.T, err)
	record, err := wire.EncodeLedger(&wire.LedgerRecord{Op: wire.LedgerClaim, Client: testTask.Client.String(), Task: id, Attempt: 1, Run: wire.NewRunID(), Runner: runner, Fence: 120, Spool: spool, Body: body})
	must(w.T, err)
	receipt, err := link.Publish(w.Context(), broker.ToLedger(), broker.Message{Body: record})
	must(w.T, err)
	if out, err := broker.Await(w.Context(), receipt); out != broker.Stored {
		w.Fatal(out, err)
	}
	must(w.T, link.Close(w.Context()))
}

func TestARunnerThatIsStartedAgainRunsItsTasksAgainAtOnce(t *testing.T) {
	inWorld(t, func(w *world) {
		dir, id := t.TempDir(), wire.NewRunID()
		must(t, os.WriteFile(filepath.Join(dir, "lock"), []byte(id), 0o600))
		w.leave("r1", string(id), "t1")
		began := time.Now()
		defer w.run(&Runner{SpoolDir: dir, Kinds: map[string]Kind{"k": {Handler: HandlerFunc(steps)}}})()
		pass(time.Second)
		if got := w.attempts("t1"); !slices.Equal(got, []int{2}) {
			t.Errorf("attempts %v, %v after the start", got, time.Since(began))
		}
	})
}

// TestARunnerOnAnotherDiskWaitsForItsNamesakesFence: it may live, on another machine without a broker.
func TestARunnerOnAnotherDiskWaitsForItsNamesakesFence(t *testing.T) {
	inWorld(t, func(w *world) {
		w.leave("r1", string(wire.NewRunID()), "t1")
		defer w.run(&Runner{Kinds: map[string]Kind{"k": {Handler: HandlerFunc(returnNil)}}})()
		pass(defaultFence + margin - 2*time.Second)
		w.want("t1")
		pass(4 * time.Second)
		w.want("t1", "started", "result null")
	})
}

func TestATaskThatKillsItsRunnersEndsAtTheLimitAndNotInATightLoop(t *testing.T) {
	inWorld(t, func(w *world) {
		var starts []time.Time
		defer w.run(&Runner{MaxAttempts: 5, Kinds: map[string]Kind{"k": {Handler: HandlerFunc(func(context.Context, *Task) (any, error) {
			starts = append(starts, time.Now())
			return nil, fmt.Errorf("no disk: %w", ErrGiveBack)
		})}}})()
		w.submit("t1", "k", nil)
		pass(10 * time.Minute)
		w.want("t1", "error attempts the task was started 5 times without an end")
		if len(starts) != 5 {
			t.Fatalf("%d starts, want 5", len(starts))
		}
		for i, least := range []time.Duration{0, 2, 4, 8} {
			if d := starts[i+1].Sub(starts[i]); d < least*time.Second || d > (least+2)*time.Second {
				t.Errorf("attempt %d begins %v after the one before, want %d s", i+2, d, least)
			}
		}
		w.wantQueues(none)
	})
}

func TestOneTaskThatTwoRunnersAreGivenRunsOnce(t *testing.T) {
	inWorld(t, func(w *world) {
		var runs atomic.Int64
		h := HandlerFunc(func(context.Context, *Task) (any, error) {
			runs.Add(1)
			time.Sleep(time.Second)
			return nil, nil
		})
		defer w.run(&Runner{Slots: 1, Kinds: map[string]Kind{"k": {Handler: h}}})()
		defer w.run(&Runner{Name: "r2", Slots: 1, Kinds: map[string]Kind{"k": {Handler: h}}})()
		for i := range 20 {
			id := wire.TaskID(fmt.Sprint("t", i))
			w.submit(id, "k", nil)
			w.submit(id, "k", nil)
			pass(5 * time.Second)
			w.want(id, "started", "result null")
		}
		if runs.Load() != 20 {
			t.Errorf("%d runs of 20 tasks", runs.Load())
		}
		w.wantQueues(none)
	})
}

func TestATaskRunsOnceThoughTheLedgerRefusesItsRecords(t *testing.T) {
	inWorld(t, func(w *world) {
		refused := 0
		w.OnPublish(func(p memory.Publish) memory.Verdict {
			if p.To == broker.ToLedger() && refused < 6 && p.Message.Type != string(wire.LedgerMark) {
				refused++
				return memory.Verdict{Fate: []memory.Fate{memory.Refuse, memory.Lose, memory.Mislead}[refused%3]}
			}
			return memory.Verdict{}
		})
		runs := 0
		defer w.handle(func(context.Context, *Task) (any, error) { runs++; time.Sleep(time.Second); return nil, nil })()
		for i := range 3 {
			w.submit(wire.TaskID(fmt.Sprint("t", i)), "k", nil)
			pass(3 * time.Minute)
			w.want(wire.TaskID(fmt.Sprint("t", i)), "started", "result null")
		}
		if runs != 3 || refused != 6 {
			t.Errorf("%d runs of 3 tasks, with %d records refused", runs, refused)
		}
		w.wantQueues(none)
	})
}

func TestADeliveryIsAcknowledgedAfterAMinuteAndTheLedgerKeepsTheTask(t *testing.T) {
	inWorld(t, func(w *world) {
		defer w.run(&Runner{Kinds: map[string]Kind{"k": {Handler: stay(24 * time.Hour), Timeout: 48 * time.Hour}}})()
		w.submit("t1", "k", nil)
		pass(settleAfter - time.Second)
		w.wantQueues(busy)
		pass(2 * time.Second)
		w.wantQueues(none)
		for range 5 { // a day on which the link goes now and then
			pass(4 * time.Hour)
			w.Cut(broker.Runner("r1"))
		}
		pass(5 * time.Hour)
		w.want("t1", "started", "result 1")
	})
}

func TestALeaseIsRenewedForAsLongAsThereIsABroker(t *testing.T) {
	inWorld(t, func(w *world) {
		var leases []time.Duration
		defer w.handle(func(ctx context.Context, task *Task) (any, error) {
			for range 3 {
				time.Sleep(30 * time.Second)
				leases = append(leases, task.Lease().Round(5*time.Second))
			}
			return nil, nil
		})()
		w.submit("t1", "k", nil)
		pass(45 * time.Second)
		w.Down(true)
		pass(time.Minute)
		w.Down(false)
		if want := []time.Duration{120 * time.Second, 105 * time.Second, 75 * time.Second}; !slices.Equal(leases, want) {
			t.Errorf("leases %v, want %v", leases, want)
		}
		synctest.Wait()
	})
}

func TestASpoolHasOneHolderAndKeepsItsID(t *testing.T) {
	dir := t.TempDir()
	open := func() *spool {
		s, err := openSpool(dir, 1<<20)
		must(t, err)
		return s
	}
	first, second := open(), open()
	id, err := first.hold()
	must(t, err)
	if again, err := first.hold(); again != id || err != nil {
		t.Errorf("held again: %q, %v; want %q", again, err, id)
	}
	if other, err := second.hold(); err == nil {
		t.Errorf("a second holder has %q", other)
	}
	first.release()
	if next, err := second.hold(); next != id || err != nil {
		t.Errorf("the next holder has %q, %v; want %q", next, err, id)
	}
	second.release()
	if none, err := (*spool)(nil).hold(); none != "" || err != nil {
		t.Errorf("no spool has %q, %v", none, err)
	}
}
