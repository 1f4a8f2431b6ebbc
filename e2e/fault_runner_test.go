package e2e

import (
	"errors"
	"testing"
	"time"

	"github.com/wscluster/wscluster/internal/rig"
)

func TestFault07ARunnerCutFromTheBrokerInTheMiddleOfATask(t *testing.T) {
	c := town(t)
	crowd := gather(t, 12, c.addrs()...)
	crowd.ask(60, lineEvery)
	crowd.flows(5)
	for _, r := range c.Runners { // first in silence: what is published then is never answered
		c.must(r.Proxy.Stall())
	}
	time.Sleep(time.Second)
	for _, r := range c.Runners {
		r.Proxy.Cut()
	}
	time.Sleep(500 * time.Millisecond) // of output that must wait
	for _, r := range c.Runners {
		c.must(r.Proxy.Heal())
	}
	crowd.goHome(c)
}

// TestFault08 is about a death at any time. What a death at each step of the ledger costs is the
// ledger's own test.
func TestFault08ATaskWhoseRunnerIsKilledIsRunAgain(t *testing.T) {
	c := town(t)
	crowd := gather(t, 12, c.addrs()...)
	crowd.ask(50, lineEvery)
	crowd.flows(5)
	victim := c.Runners[0]
	victim.Kill()
	crowd.flows(5)
	c.must(victim.Restart(c.ctx()))
	crowd.goHome(c)
	again := 0
	for _, g := range crowd.all {
		for _, r := range g.errands() {
			if r.runs > 1 {
				again++
			}
		}
	}
	if again == 0 || again == len(crowd.all) {
		t.Errorf("%d of %d tasks were run again, want those of one runner of two", again, len(crowd.all))
	}
}

func TestFault35AFullMailboxHoldsUpNobodyElse(t *testing.T) {
	t.Parallel()
	internal, err := rig.FreePort("127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	c := start(t, rig.ClusterOptions{
		WorkerSettings: []string{"WSCLUSTER_MAX_HELD=100"}, // so many a frozen worker is given
		RunnerSettings: []string{"WSCLUSTER_SLOTS=100", "WSCLUSTER_INTERNAL_LISTEN=" + internal},
	}, "i1-w1", "i1-w2")
	_, err = c.Rabbit.Ctl(c.ctx(), "set_policy", "--priority", "9", "full", `^mailbox\.i1-w1$`, `{"max-length": 50, "overflow": "reject-publish"}`)
	c.must(err)
	crowd := gather(t, 20, c.addrs()...)
	w := c.Worker("i1-w1")
	theirs := crowd.on(w.Name)
	crowd.ask(400, 10*time.Millisecond)
	crowd.flows(1)
	c.must(w.Freeze())
	runner := &rig.Member{Name: "r1", Internal: internal}
	await(t, homeWithin, func() error {
		if n, err := metric(runner, `wscluster_runner_events_total{durable="true",outcome="refused"}`); err != nil || n == 0 {
			return errors.Join(errors.New("the broker has refused nothing for the full mailbox"), err)
		}
		return nil
	})
	refused := time.Now()
	others := without(crowd.all, theirs)
	crowd.flows(10, others...)
	t.Logf("the other worker's clients got 10 events each within %v", time.Since(refused))
	c.must(w.Thaw())
	crowd.goHome(c)
}
