package taskrunner

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/wscluster/wscluster/pkg/broker"
	"github.com/wscluster/wscluster/pkg/socketmeta"
	"github.com/wscluster/wscluster/pkg/wire"
)

const canceled = "error canceled the task was canceled"

// cancel writes into the ledger, as a worker does, that a client wants its task to end.
func (w *world) cancel(client socketmeta.ClientID, id wire.TaskID) {
	w.Helper()
	w.record(&wire.LedgerRecord{Op: wire.LedgerCancel, Task: id, Client: client.String()})
}

// record writes into the ledger as the worker does.
func (w *world) record(record *wire.LedgerRecord) {
	w.Helper()
	body, err := wire.EncodeLedger(record)
	must(w.T, err)
	w.mu.Lock()
	l := w.link
	w.mu.Unlock()
	r, err := l.Publish(w.Context(), broker.ToLedger(), broker.Message{Body: body})
	must(w.T, err)
	if out, err := broker.Await(w.Context(), r); out != broker.Stored {
		w.Fatal(out, err)
	}
}

func TestARunningTaskIsCanceled(t *testing.T) {
	inWorld(t, func(w *world) {
		defer w.run(&Runner{Slots: 1, Kinds: map[string]Kind{"k": {Handler: stay(time.Hour / 2)}}})()
		w.submit("t1", "k", nil)
		w.submit("t2", "k", nil)
		pass(time.Second)
		w.cancel(w.client, "t1")
		w.want("t1", "started", canceled)
		w.want("t2", "started") // the place is free
		w.cancel(w.client, "t1")
		w.cancel(w.client, "t2")
		pass(time.Minute)
		w.want("t1", "started", canceled)
		w.want("t2", "started", canceled)
		w.wantQueues(none)
	})
}

func TestATaskIsCanceledBeforeItBegins(t *testing.T) {
	inWorld(t, func(w *world) {
		var runs atomic.Int64
		defer w.run(&Runner{Slots: 1, Kinds: map[string]Kind{"k": {Handler: HandlerFunc(func(context.Context, *Task) (any, error) {
			runs.Add(1)
			time.Sleep(time.Minute)
			return nil, nil
		})}}})()
		w.submit("t1", "k", nil)
		w.submit("t2", "k", nil)
		w.cancel(w.client, "t2")
		w.cancel(w.client, "t3") // the cancel comes first
		w.submit("t3", "k", nil)
		w.submit("t4", "k", nil)
		pass(10 * time.Minute)
		w.want("t1", "started", "result null")
		w.want("t2", canceled)
		w.want("t3", canceled)
		w.want("t4", "started", "result null")
		if runs.Load() != 2 {
			t.Errorf("%d handlers were called, want those of t1 and t4", runs.Load())
		}
	})
}

func TestACancelThatComesTooLateChangesNothing(t *testing.T) {
	inWorld(t, func(w *world) {
		defer w.handle(func(ctx context.Context, _ *Task) (any, error) {
			<-ctx.Done()
			return "done all the same", nil
		})()
		w.submit("t1", "k", nil)
		pass(time.Second)
		w.cancel(w.client, "t1") // its handler has just what it needs
		w.want("t1", "started", `result "done all the same"`)
		w.cancel(w.client, "t1")
		pass(time.Minute)
		w.want("t1", "started", `result "done all the same"`)
	})
}

func TestOnlyItsOwnClientCancelsATask(t *testing.T) {
	inWorld(t, func(w *world) {
		defer w.handle(stay(time.Minute))()
		w.cancel(socketmeta.NewClientID(), "t1")
		w.submit("t1", "k", nil)
		pass(time.Second)
		w.cancel(socketmeta.NewClientID(), "t1")
		w.submit("t2", "k", nil)
		pass(time.Second)
		w.cancel(socketmeta.NewClientID(), "t2")
		pass(2 * time.Minute)
		w.want("t1", "started", "result 1")
		w.want("t2", "started", "result 1")
	})
}

func TestATaskIsCanceledWhileNobodyRunsIt(t *testing.T) {
	inWorld(t, func(w *world) {
		w.leave("r1", "", "t1")
		w.cancel(testTask.Client, "t1")
		defer w.handle(func(context.Context, *Task) (any, error) { t.Error("it was started"); return nil, nil })()
		pass(time.Hour)
		w.want("t1", canceled)
		w.wantQueues(none)
	})
}

func TestACancelReachesATaskWhoseRunnerHasNoBroker(t *testing.T) {
	inWorld(t, func(w *world) {
		var away atomic.Bool
		defer w.run(&Runner{Broker: solitary{w.Broker, &away}, Kinds: map[string]Kind{"k": {Handler: stay(time.Hour / 2)}}})()
		w.submit("t1", "k", nil)
		pass(time.Second)
		away.Store(true)
		w.Cut(broker.Runner("r1"))
		w.cancel(w.client, "t1")
		pass(time.Minute)
		away.Store(false)
		pass(time.Minute)
		w.want("t1", "started", canceled)
	})
}
