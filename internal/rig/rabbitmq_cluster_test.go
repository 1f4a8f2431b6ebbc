//go:build long

package rig

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

func TestRabbitMQClusterIsPartedKilledAndHealed(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	began := time.Now()
	c, err := StartRabbitMQCluster(ctx, 3, RabbitOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Stop() })
	t.Logf("the start took %v", time.Since(began))
	step := func(what string, err error) {
		t.Helper()
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		t.Logf("%s: after %v", what, time.Since(began))
		began = time.Now()
	}

	declare(t, c.Nodes[1], "q", "quorum", 3)
	step("sync", c.Sync(ctx))
	leader, err := c.Leader(ctx, "q")
	if err != nil || leader != 1 {
		t.Errorf("leader %d, %v, want 1: where it was declared", leader, err)
	}
	if n := strings.Count(strings.Join(c.URLs("worker"), " "), "amqp://worker:"); n != 3 {
		t.Errorf("%d URLs for worker, want 3", n)
	}

	alarmed := func(on bool) error { // as node 0 sees it
		return poll(ctx, func() error {
			_, err := c.Nodes[0].Eval(ctx, fmt.Sprintf("%v = [] =/= rabbit_alarm:get_alarms()", on))
			return err
		})
	}
	for _, on := range []bool{true, false} {
		step("alarm of node 1", c.Nodes[1].MemoryAlarm(ctx, on))
		step("seen by node 0", alarmed(on))
	}

	c.Nodes[1].Kill()
	step("another leader", poll(ctx, func() error { leader, err = c.Leader(ctx, "q"); return err }))
	if leader == 1 {
		t.Error("a dead node leads")
	}
	if q, err := c.Nodes[leader].QueueDepth(ctx, "q"); err != nil || q.Ready != 3 {
		t.Errorf("the new leader has %v, %v, want 3 messages", q, err)
	}
	step("restart of one", c.Nodes[1].Restart(ctx))
	step("whole again", c.AwaitWhole(ctx))

	for name, part := range map[string]func(int) error{"cut": func(i int) error { c.Cut(i); return nil }, "stall": c.Stall} {
		step(name, part(2))
		if err := speaksAMQP(c.Nodes[2].addr); err != nil {
			t.Errorf("%s: clients do not reach the parted node: %v", name, err)
		}
		began = time.Now()
		step(name+": the minority pauses", c.AwaitPaused(ctx, 2))
		for _, i := range []int{0, 1} {
			if err := speaksAMQP(c.Nodes[i].addr); err != nil {
				t.Errorf("%s: node %d of the majority: %v", name, i, err)
			}
		}
		if _, err := c.Leader(ctx, "q"); err != nil {
			t.Error(err)
		}
		step(name+": heal", c.Heal())
		step(name+": whole again", c.AwaitWhole(ctx))
	}

	for _, r := range c.Nodes {
		r.Kill()
	}
	step("restart of all", c.Restart(ctx))
	step("leader", poll(ctx, func() error { _, err = c.Leader(ctx, "q"); return err }))
	if err := c.Stop(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(c.dir); !os.IsNotExist(err) {
		t.Errorf("%s is still there: %v", c.dir, err)
	}
	for l, p := range c.links {
		if dialable(p.Addr) == nil {
			t.Errorf("link %v still listens", l)
		}
	}
}
