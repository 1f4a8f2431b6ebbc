//go:build long

package rig

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// programs builds wsworker and taskrunner and returns their folder.
func programs(t *testing.T, root string) string {
	t.Helper()
	bin := t.TempDir()
	build := exec.CommandContext(t.Context(), "go", "build", "-o", bin+"/", "./cmd/wsworker", "./cmd/taskrunner")
	build.Dir = root
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the programs: %v\n%s", err, out)
	}
	return bin
}

func TestClusterOnThreeBrokersLosesAndGetsMembers(t *testing.T) {
	t.Parallel()
	root, err := Root()
	if err != nil {
		t.Fatal(err)
	}
	bin := programs(t, root)
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	began := time.Now()
	c, err := StartCluster(ctx, ClusterOptions{
		Dir: t.TempDir(), Bin: bin, Nodes: 3, Proxies: true, Workers: []string{"i1-w1", "i1-w2"}, Runners: []string{"r1"},
		HAProxy: filepath.Join(root, "deploy/haproxy/haproxy.cfg"), WorkerSettings: []string{"WSCLUSTER_DRAIN_WINDOW=1s"},
	})
	if err != nil {
		t.Fatal(err)
	}
	stopped := false
	t.Cleanup(func() {
		if !stopped {
			c.Stop()
		}
	})
	step := func(what string, err error) {
		t.Helper()
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		t.Logf("%s: after %v", what, time.Since(began))
		began = time.Now()
	}
	step("start", nil)
	unready := func(m *Member) error {
		return poll(ctx, func() error {
			if m.Ready() == nil {
				return fmt.Errorf("%s is ready", m.Name)
			}
			return nil
		})
	}
	one, two := c.Worker("i1-w1"), c.Worker("i1-w2")

	kinds, err := c.Rabbit.Eval(ctx, `[io:format("~s ", [amqqueue:get_type(Q)]) || Q <- rabbit_amqqueue:list(),
		{0, _} <- [binary:match(element(4, amqqueue:get_name(Q)), <<"mailbox.">>)]]`)
	if err != nil || strings.TrimSpace(kinds) != "rabbit_quorum_queue rabbit_quorum_queue" {
		t.Errorf("mailboxes: %v, %q, want two quorum queues", err, kinds)
	}

	one.Proxy.Cut()
	step("the worker that is cut off is unready", unready(one))
	if err := two.Ready(); err != nil {
		t.Errorf("the other one: %v", err)
	}
	step("heal", one.Proxy.Heal())
	step("it is ready again", one.Await(ctx))

	step("the worker drains", one.Drain(ctx))
	if err := one.Drain(ctx); err == nil {
		t.Error("it drained twice")
	}
	step("and is back as itself", one.Restart(ctx))
	two.Signal(syscall.SIGKILL)
	<-two.Done()
	if err := two.Drain(ctx); err == nil {
		t.Error("the dead worker drained")
	}
	step("so is a killed one", two.Restart(ctx))
	step("and a killed runner", c.Runners[0].Restart(ctx))

	three, err := c.AddWorker(ctx, "i2-w3")
	step("another worker", err)
	if err := c.HAProxy.Await(ctx, "UP", "i1-w1", "i1-w2", "i2-w3"); err != nil {
		t.Error(err)
	}
	if four, err := c.AddWorker(ctx, "i9-w1"); err != nil || four.Ready() != nil {
		t.Errorf("a worker that HAProxy has no place for: %v", err)
	}
	if _, err := c.AddWorker(ctx, "i2-w3"); err == nil {
		t.Error("two workers of one name")
	}
	began = time.Now()
	stopped = true
	step("stop", c.Stop())
	for _, addr := range []string{three.Addr, three.Proxy[0].Addr, one.Proxy[2].Addr, c.Rabbit.addr, c.HAProxy.Addr} {
		if dialable(addr) == nil {
			t.Errorf("%s still listens", addr)
		}
	}
}
