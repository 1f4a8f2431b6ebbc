package e2e

import (
	"context"
	"encoding/json"
	"slices"
	"testing"
	"time"

	"github.com/wscluster/wscluster/internal/rig"
	"github.com/wscluster/wscluster/pkg/wire"
)

// TestABrokerKilledDuringABuildCostsNothing kills RabbitMQ with SIGKILL while a task emits every
// 50 ms. The client's socket stays open, and it gets everything once and in order.
func TestABrokerKilledDuringABuildCostsNothing(t *testing.T) {
	t.Parallel() // it waits more than it works
	c := start(t, rig.ClusterOptions{}, "i1-w1")
	cl, _ := client(t, c.Workers[0].Addr)
	const count = 200
	task := submit(t, cl, "countdown", map[string]any{"lines": count, "interval_ms": 50})

	restarted := make(chan error, 1)
	var lines []string
	var next, prev int64 = 1, 0
	killed := false
	for e := range task.Events(t.Context()) {
		if !e.Durable {
			continue
		}
		if e.Prev != prev {
			t.Fatalf("event %d names %d as the one before it, want %d", e.Seq, e.Prev, prev)
		}
		prev = e.Seq
		if e.Type == wire.EventLog {
			var l wire.Log
			if err := json.Unmarshal(e.Body, &l); err != nil {
				t.Fatal(err)
			}
			if l.FirstLine != next {
				t.Fatalf("log line %d, want %d", l.FirstLine, next)
			}
			next += int64(len(l.Lines))
			lines = append(lines, l.Lines...)
		}
		if len(lines) >= 20 && !killed {
			killed = true
			c.killRabbit()
			go func() {
				ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
				defer cancel()
				restarted <- c.Rabbit.Restart(ctx)
			}()
		}
	}
	if err := <-restarted; err != nil {
		t.Fatal(err)
	}
	if _, err := task.Wait(t.Context()); err != nil {
		t.Errorf("the result: %v", err)
	}
	if len(lines) != count || len(slices.Compact(slices.Clone(lines))) != count {
		t.Errorf("%d lines, want %d, each once", len(lines), count)
	}
	if s := cl.Stats(); s.Sockets != 1 || s.Resets != 0 {
		t.Errorf("%d sockets and %d runs, want one of each", s.Sockets, s.Resets+1)
	}
}

// TestAWorkerWithoutABrokerIsNotReadyAndRecovers starts a worker before its broker is there.
func TestAWorkerWithoutABrokerIsNotReadyAndRecovers(t *testing.T) {
	t.Parallel()
	c := start(t, rig.ClusterOptions{}, "i1-w1")
	w := c.Workers[0]
	w.Kill()
	c.killRabbit()
	if err := w.Start(); err != nil {
		t.Fatal(err)
	}
	if err := w.WaitPort(t.Context(), w.Addr); err != nil {
		t.Fatal(err)
	}
	if err := w.Ready(); err == nil {
		t.Error("the worker is ready without a broker")
	} else {
		t.Log(err)
	}
	if err := c.Rabbit.Restart(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := c.AwaitReady(t.Context()); err != nil {
		t.Fatal(err)
	}
	cl, _ := client(t, w.Addr)
	if _, err := submit(t, cl, "countdown", countdown(1)).Wait(t.Context()); err != nil {
		t.Error(err)
	}
}

// killRabbit kills the node with SIGKILL. The queues of a new cluster are young: see rig's Sync.
func (c *cluster) killRabbit() {
	c.t.Helper()
	if err := c.Rabbit.Sync(c.t.Context()); err != nil {
		c.t.Fatal(err)
	}
	c.Rabbit.Kill()
}
