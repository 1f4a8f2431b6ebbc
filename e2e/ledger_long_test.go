//go:build long

package e2e

import (
	"testing"
	"time"

	"github.com/wscluster/wscluster/internal/rig"
)

// wantRuns checks how often each task was begun.
func (c *crowd) wantRuns(least, most int) {
	c.t.Helper()
	for _, g := range c.all {
		for _, r := range g.errands() {
			if r.runs < least || r.runs > most {
				c.t.Errorf("begun %d times, want %d to %d: %s", r.runs, least, most, g.describe(r))
			}
		}
	}
}

// TestFault24ABuild has builds that are four times as long as the broker lets a delivery wait, and that
// are cut off in the middle.
func TestFault24ABuildLongerThanTheConsumerTimeoutRunsOnce(t *testing.T) {
	t.Parallel() // it waits more than it works
	c := start(t, rig.ClusterOptions{
		Proxies: true, Runners: []string{"r1", "r2"}, RunnerSettings: []string{"WSCLUSTER_SLOTS=8"},
	}, "i1-w1", "i1-w2")
	_, err := c.Rabbit.Eval(c.ctx(), "ok = application:set_env(rabbit, consumer_timeout, 10000), ok = application:set_env(rabbit, channel_tick_interval, 500)")
	c.must(err)
	for _, r := range c.Runners { // channels learn of it when they are opened
		c.must(r.Restart(c.ctx()))
	}
	crowd := gather(t, 12, c.addrs()...)
	crowd.ask(int(40*time.Second/lineEvery), lineEvery)
	crowd.flows(int(25 * time.Second / lineEvery))
	c.Runners[0].Proxy.Cut()
	time.Sleep(time.Second)
	c.must(c.Runners[0].Proxy.Heal())
	crowd.goHome(c)
	crowd.wantRuns(1, 1)
}

// TestFault08ATaskOfARunnerThatIsGone waits for the fence and the margin behind it.
func TestFault08ATaskOfARunnerThatIsGoneIsRunByAnotherOne(t *testing.T) {
	t.Parallel()
	c := start(t, rig.ClusterOptions{
		Runners: []string{"r1", "r2"}, RunnerSettings: []string{"WSCLUSTER_SLOTS=20", "WSCLUSTER_FENCE=10s"},
	}, "i1-w1", "i1-w2")
	crowd := gather(t, 12, c.addrs()...)
	crowd.ask(50, lineEvery)
	crowd.flows(5)
	c.Runners[0].Kill()
	crowd.goHome(c)
	crowd.wantRuns(1, 2)
}

// TestNoTaskIsLeftBehindWhenEverythingWasKilled: workers, runners and the broker, in the middle of tasks.
// The guests of all rounds stay to the end: a classic queue writes its last acknowledgements down some 200 ms late, so that
// the next kill brings the last events of the round before once more.
func TestNoTaskIsLeftBehindWhenEverythingWasKilled(t *testing.T) {
	t.Parallel()
	c := start(t, rig.ClusterOptions{Runners: []string{"r1", "r2"}, RunnerSettings: []string{"WSCLUSTER_SLOTS=4"}}, "i1-w1", "i1-w2")
	var crowds []*crowd
	for round := range 3 {
		crowd := gather(t, 12, c.addrs()...)
		crowds = append(crowds, crowd)
		crowd.ask(30, lineEvery) // four of twelve wait for a place
		crowd.flows(2, crowd.all[:1]...)
		for _, r := range c.Runners {
			r.Kill()
		}
		if round > 0 {
			for _, w := range c.Workers {
				w.Kill()
			}
		}
		c.killRabbit()
		c.must(c.Rabbit.Restart(c.ctx()))
		for _, m := range append(c.Workers[:len(c.Workers):len(c.Workers)], c.Runners...) {
			if m.Ready() != nil {
				c.must(m.Restart(c.ctx()))
			}
		}
		crowd.ended(crowd.all...)
		c.isQuietBut(0)
	}
	for _, crowd := range crowds {
		crowd.goHome(c)
	}
}
