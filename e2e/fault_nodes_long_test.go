//go:build long

package e2e

import (
	"testing"

	"github.com/wscluster/wscluster/internal/rig"
)

func threeNodes(t *testing.T) *cluster {
	return start(t, rig.ClusterOptions{Nodes: 3, RunnerSettings: []string{"WSCLUSTER_SLOTS=100"}}, "i1-w1", "i1-w2", "i2-w1")
}

func TestFault11TheNodeThatLeadsAQueueIsKilled(t *testing.T) {
	t.Parallel()
	c := threeNodes(t)
	for _, queue := range []string{"mailbox.i1-w1", "tasks.countdown", "control.i1-w1"} { // the last is a lock: it lives where its owner is connected
		crowd := gather(t, 12, c.addrs()...)
		crowd.ask(150, lineEvery)
		crowd.flows(5)
		c.must(c.Brokers.Sync(c.ctx()))
		node, err := c.Brokers.Leader(c.ctx(), queue)
		c.must(err)
		crowd.pause()
		c.Brokers.Nodes[node].Kill()
		crowd.flows(20)
		t.Logf("%s, node %d killed: the longest pause between two events of a client was %v", queue, node, crowd.pause())
		c.must(c.Brokers.Nodes[node].Restart(c.ctx()))
		c.must(c.Brokers.AwaitWhole(c.ctx()))
		crowd.goHome(c)
	}
}

func TestFault12APartitionGivesNoMailboxTwoOwners(t *testing.T) {
	t.Parallel()
	c := threeNodes(t)
	for _, cut := range []struct {
		how string
		do  func(node int) error
	}{
		{"reset", func(node int) error { c.Brokers.Cut(node); return nil }},
		{"silent", c.Brokers.Stall},
	} {
		crowd := gather(t, 12, c.addrs()...)
		crowd.ask(600, lineEvery)
		crowd.flows(5)
		c.must(c.Brokers.Sync(c.ctx()))
		node, err := c.Brokers.Leader(c.ctx(), "control.i1-w1")
		c.must(err)
		crowd.pause()
		c.must(cut.do(node))
		c.must(c.Brokers.AwaitPaused(c.ctx(), node))
		crowd.flows(20)
		t.Logf("%s, node %d cut off: the longest pause between two events of a client was %v", cut.how, node, crowd.pause())
		c.isWhole()
		c.must(c.Brokers.Heal())
		c.must(c.Brokers.AwaitWhole(c.ctx()))
		crowd.goHome(c)
		c.isWhole()
	}
}
