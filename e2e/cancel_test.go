package e2e

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/wscluster/wscluster/internal/rig"
	"github.com/wscluster/wscluster/pkg/broker"
	"github.com/wscluster/wscluster/pkg/wire"
	"github.com/wscluster/wscluster/pkg/wsclient"
)

// TestACanceledTaskEndsAndOthersGoOn cancels tasks at once, twice, and after a move to another worker.
func TestACanceledTaskEndsAndOthersGoOn(t *testing.T) {
	c := town(t)
	crowd := gather(t, 6, c.addrs()...)
	crowd.ask(100, lineEvery)
	crowd.flows(3)
	for i, g := range crowd.all[:4] {
		g.mu.Lock()
		g.mayFail = wire.CodeCanceled
		g.mu.Unlock()
		if i >= 2 {
			g.away()
			g.come()
		}
	}
	ends := map[*guest][]*wsclient.Task{}
	for _, g := range crowd.all[:4] {
		ends[g] = g.client.Tasks()
		for _, task := range ends[g] {
			task.Cancel()
			task.Cancel()
		}
	}
	for g, tasks := range ends {
		for _, task := range tasks {
			_, err := task.Wait(c.ctx())
			if e, ok := errors.AsType[*wire.Error](err); !ok || e.Code != wire.CodeCanceled {
				t.Errorf("guest %d: ended by %v, want canceled", g.id, err)
			}
		}
		if len(tasks) != 1 {
			t.Errorf("guest %d has %d open tasks, want one", g.id, len(tasks))
		}
	}
	crowd.goHome(c)
}

// canceledWithin bounds the time from the cancel of a task that waits to its final event at the client: a second
// for the runners' ticks, and what a machine with much else to do needs.
const canceledWithin = 5 * time.Second

// TestACanceledTaskThatWaitsEndsWhileAllPlacesAreTaken cancels a task in the queue, from another worker than it
// was submitted at. Its message lies there until a place is free, and is acknowledged then, and not run.
func TestACanceledTaskThatWaitsEndsWhileAllPlacesAreTaken(t *testing.T) {
	t.Parallel() // it waits more than it works
	c := start(t, withLogs(rig.ClusterOptions{Runners: []string{"r1", "r2"}, RunnerSettings: []string{"WSCLUSTER_SLOTS=1"}}), "i1-w1", "i1-w2")
	long := map[string]any{"lines": 1200, "interval_ms": 100}
	busy, _ := client(t, c.Workers[0].Addr)
	running := []*wsclient.Task{submit(t, busy, "countdown", long), submit(t, busy, "countdown", long)}
	for _, task := range running {
		for range task.Events(c.ctx()) {
			break // its first event: it has begun
		}
	}
	early, leave := client(t, c.Workers[0].Addr)
	id := submit(t, early, "countdown", long).ID()
	waiting := func() rig.Queue {
		t.Helper()
		q, err := c.Rabbit.QueueDepth(c.ctx(), broker.TasksQueue("countdown", wire.Normal))
		c.must(err)
		return q
	}
	if n := waiting().Ready; n != 1 {
		t.Fatalf("%d tasks wait, want the one that is to be canceled", n)
	}
	leave()

	var told []string
	late, _ := client(t, c.Workers[1].Addr, func(o *wsclient.Options) {
		o.State = early.State()
		o.OnEvent = func(_ *wsclient.Task, e wsclient.Event) { told = append(told, fmt.Sprint(e.Type, " ", e.Attempt)) }
	})
	task := late.Tasks()[0]
	if task.ID() != id {
		t.Fatalf("the client goes on with task %s, want %s", task.ID(), id)
	}
	began := time.Now()
	task.Cancel()
	_, err := task.Wait(c.ctx())
	took := time.Since(began)
	if e, ok := errors.AsType[*wire.Error](err); !ok || e.Code != wire.CodeCanceled || took > canceledWithin {
		t.Errorf("ended by %v after %v, want canceled within %v", err, took, canceledWithin)
	}
	t.Logf("told %v after the cancel", took.Round(time.Millisecond))
	if n := waiting().Ready; n != 1 {
		t.Errorf("%d tasks wait: a place was free", n)
	}

	for _, task := range running {
		task.Cancel()
		if _, err := task.Wait(c.ctx()); err == nil {
			t.Error("a task that ran was not canceled")
		}
	}
	await(t, homeWithin, func() error {
		if q := waiting(); q.Ready+q.Unacked > 0 {
			return fmt.Errorf("the queue holds %+v", q)
		}
		return nil
	})
	if want := []string{fmt.Sprint(wire.EventError, " ", wire.DeadAttempt)}; !slices.Equal(told, want) {
		t.Errorf("the application got %q, want %q", told, want)
	}
	var runs struct {
		wire.RunInfo
		Earlier []wire.RunInfo `json:"earlier_runs"`
	}
	_, body := ask(t, fmt.Sprintf("http://%s/v1/tasks/%s", c.Workers[0].Addr, id), late.State().Token, "")
	c.must(json.Unmarshal(body, &runs))
	if runs.Attempt != wire.DeadAttempt || runs.Status != wire.RunFailed || runs.Error == nil || runs.Error.Code != wire.CodeCanceled || len(runs.Earlier) != 0 {
		t.Errorf("the runners have %s of it, want its end alone", body)
	}
}
