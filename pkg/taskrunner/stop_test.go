package taskrunner

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wscluster/wscluster/pkg/broker"
	"github.com/wscluster/wscluster/pkg/broker/memory"
)

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
		w.wantQueues(none)      // the ledger has it

		defer w.run(&Runner{Name: "r2", Kinds: map[string]Kind{"k": {Handler: HandlerFunc(func(_ context.Context, task *Task) (any, error) { return task.Attempt, nil })}}})()
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
