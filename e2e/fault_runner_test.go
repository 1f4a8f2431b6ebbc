package e2e

import (
	"testing"
	"time"
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

// TestFault08 kills a runner that is started again. The ledger's own test
// (pkg/taskrunner/TestEveryTaskEndsAndNoTwoRunsOverlapWhateverDies) does it at each step.
func TestFault08ATaskWhoseRunnerIsKilledIsRunAgain(t *testing.T) {
	c := town(t)
	crowd := gather(t, 12, c.addrs()...)
	crowd.ask(50, lineEvery)
	crowd.flows(5)
	victim := c.Runners[0]
	victim.Kill()
	c.must(victim.Restart(c.ctx()))
	crowd.flows(5)
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
