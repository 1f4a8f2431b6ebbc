//go:build long

package e2e

import (
	"fmt"
	"maps"
	mathrand "math/rand/v2"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/wscluster/wscluster/internal/rig"
	"github.com/wscluster/wscluster/pkg/broker"
	"github.com/wscluster/wscluster/pkg/taskrunner"
	"github.com/wscluster/wscluster/pkg/wire"
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

// TestRunsNeverOverlapAndEachTaskEndsOnceWhateverDies has builds that are many times as long as the broker lets a delivery
// wait, two on each of six runners. All but those of one runner are lost, each by another fault, and the broker dies.
// Later runs are shorter, for it is only the first that must still be there, were it not ended, when its task is taken over.
func TestRunsNeverOverlapAndEachTaskEndsOnceWhateverDies(t *testing.T) {
	t.Parallel()
	shop := newWorkshop(t)
	c := start(t, rig.ClusterOptions{
		Proxies: true, Runners: []string{"killed", "frozen", "cut", "stopped", "gone", "unhurt"},
		RunnerSettings: []string{shop.recipes("hold"), "WSCLUSTER_SLOTS=2", "WSCLUSTER_FENCE=10s", "WSCLUSTER_GRACE=1s"},
	}, "i1-w1", "i1-w2")
	c.impatient()
	for _, r := range c.Runners { // channels learn of it when they are opened
		c.must(r.Restart(c.ctx()))
	}
	crowd := gather(t, 12, c.addrs()...)
	shop.submit(crowd, "hold", 150, time.Second, 250*time.Millisecond)
	tasks := crowd.tasks()
	shop.awaitRuns(1, tasks...)
	var lost, unhurt []wire.TaskID
	of := map[string]int{}
	for _, task := range tasks {
		runner := shop.runs(task)[0].runner
		if of[runner]++; runner == "unhurt" {
			unhurt = append(unhurt, task)
		} else {
			lost = append(lost, task)
		}
	}
	if len(of) != len(c.Runners) || len(unhurt) != 2 {
		t.Fatalf("the runners have %v of the tasks, want two each", of)
	}
	_, err := c.AddRunner(c.ctx(), "spare", "WSCLUSTER_SLOTS=12")
	c.must(err)
	for _, r := range c.Runners[:len(of)] {
		_, err := r.WaitLine(c.ctx(), regexp.MustCompile("timed out"))
		c.must(err)
	}
	crowd.flows(3) // all have a link again
	for _, task := range tasks {
		if n := len(shop.runs(task)); n != 1 {
			t.Errorf("task %s was begun %d times after the broker took its delivery back: %v", task, n, shop.journal(task))
		}
	}

	killed, frozen, cut, stopped, gone := c.Runners[0], c.Runners[1], c.Runners[2], c.Runners[3], c.Runners[4]
	began := time.Now()
	c.must(frozen.Freeze())
	cut.Proxy.Cut()
	gone.Kill()
	c.must(killed.Restart(c.ctx()))
	c.must(stopped.Drain(c.ctx()))
	renamed := stopped.Renamed("renamed")
	c.Runners = append(c.Runners, renamed)
	c.must(renamed.Start())
	c.must(renamed.Await(c.ctx()))
	shop.awaitRuns(2, lost...)
	t.Logf("all that was lost runs again %v after the first fault", time.Since(began))
	c.must(frozen.Thaw())
	c.must(cut.Proxy.Heal())
	here := []string{"killed", "frozen", "cut", "unhurt", "spare", "renamed"}
	c.joined(here...)
	began = time.Now()
	c.killRabbit()
	c.must(c.Rabbit.Restart(c.ctx()))
	c.impatient()
	c.joined(here...)
	away := time.Since(began)
	t.Logf("the runners had no broker for %v", away)

	crowd.goHome(c)
	fenced := 0
	if away > 8*time.Second { // the broker's death may have ended runs, too
		fenced = 1
	}
	shop.wantRuns(1, 1+fenced, unhurt...)
	shop.wantRuns(2, 2+fenced, lost...)
	for _, task := range tasks {
		all := shop.journal(task)
		if ends := slices.IndexFunc(all, func(d deed) bool { return d.what == "end" }); ends < len(all)-1 && fenced == 0 {
			t.Errorf("task %s was done, and begun again: %v", task, all)
		}
	}
	shop.wantNoProcess(c)
}

// impatient has the broker take back what is delivered and not acknowledged within 10 s, over channels that are opened
// from now on, and until it is started again.
func (c *cluster) impatient() {
	c.t.Helper()
	_, err := c.Rabbit.Eval(c.ctx(), "ok = application:set_env(rabbit, consumer_timeout, 10000), ok = application:set_env(rabbit, channel_tick_interval, 500)")
	c.must(err)
}

// joined waits until the broker has a link of each of the runners.
func (c *cluster) joined(runners ...string) {
	c.t.Helper()
	await(c.t, homeWithin, func() error {
		queues, err := c.Rabbit.ListQueues(c.ctx())
		if err != nil {
			return err
		}
		for _, r := range runners {
			name := broker.Runner(r).ControlQueue()
			if !slices.ContainsFunc(queues, func(q rig.Queue) bool { return q.Name == name }) {
				return fmt.Errorf("there is no queue %s", name)
			}
		}
		return nil
	})
}

// TestNoTaskIsLeftBehindWhenEverythingWasKilled: workers, runners and the broker, in the middle of tasks, in each order, and
// started again in any. The seed is the time, or that of E2E_SEED. Nothing of what the tasks started is left.
// The guests of all rounds stay to the end: a classic queue writes its last acknowledgements down some 200 ms late, so that
// the next kill brings the last events of the round before once more.
func TestNoTaskIsLeftBehindWhenEverythingWasKilled(t *testing.T) {
	t.Parallel()
	seed := uint64(time.Now().UnixNano())
	if given := os.Getenv("E2E_SEED"); given != "" {
		var err error
		if seed, err = strconv.ParseUint(given, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("E2E_SEED=%d", seed)
	dice := mathrand.New(mathrand.NewPCG(seed, 0))
	shop := newWorkshop(t)
	c := start(t, rig.ClusterOptions{
		Runners: []string{"r1", "r2"}, RunnerSettings: []string{shop.recipes("hold"), "WSCLUSTER_SLOTS=4"},
	}, "i1-w1", "i1-w2")
	kill := map[string]func(){"workers": killAll(c.Workers), "runners": killAll(c.Runners), "broker": c.killRabbit}
	revive := map[string]func(){
		"workers": c.startAll(c.Workers), "runners": c.startAll(c.Runners),
		"broker": func() { c.must(c.Rabbit.Restart(c.ctx())) },
	}
	parts := slices.Sorted(maps.Keys(kill))
	orders := [][3]int{{0, 1, 2}, {0, 2, 1}, {1, 0, 2}, {1, 2, 0}, {2, 0, 1}, {2, 1, 0}}
	dice.Shuffle(len(orders), func(i, j int) { orders[i], orders[j] = orders[j], orders[i] })
	var crowds []*crowd
	for _, killed := range orders {
		crowd := gather(t, 12, c.addrs()...)
		crowds = append(crowds, crowd)
		shop.submit(crowd, "hold", 30, 100*time.Millisecond, 100*time.Millisecond) // four of twelve wait for a place
		crowd.flows(4, crowd.all[:1]...)
		if n := len(shop.processes(c)); n < 3 {
			t.Fatalf("the tasks have %d processes, want at least a guard, a program and its child", n)
		}
		var story []string
		in := func(order [3]int, do map[string]func()) {
			for _, part := range order {
				do[parts[part]]()
				pause := time.Duration(dice.IntN(300)) * time.Millisecond
				story = append(story, parts[part], pause.String())
				time.Sleep(pause) // the case is about time between the deaths, too
			}
		}
		began := time.Now()
		in(killed, kill)
		in(orders[dice.IntN(len(orders))], revive)
		c.must(c.AwaitReady(c.ctx()))
		crowd.ended(crowd.all...)
		c.isQuietBut(0)
		t.Logf("killed and started again: %s; all at its end %v after that began", strings.Join(story, " "), time.Since(began))
	}
	for _, crowd := range crowds {
		crowd.goHome(c)
		shop.wantRuns(1, 2, crowd.tasks()...)
	}
	shop.wantNoProcess(c)
}

func killAll(members []*rig.Member) func() {
	return func() {
		for _, m := range members {
			m.Kill()
		}
	}
}

func (c *cluster) startAll(members []*rig.Member) func() {
	return func() {
		for _, m := range members {
			c.must(m.Start())
		}
	}
}

// TestFault23ATaskThatKillsItsRunner has its runner started again each time, for six minutes and more.
func TestFault23ATaskThatKillsItsRunnerEndsAtTheLimitAndItsNeighboursEndWell(t *testing.T) {
	t.Parallel() // it waits more than it works
	shop := newWorkshop(t)
	c := start(t, rig.ClusterOptions{RunnerSettings: []string{shop.recipes("hold", "fatal"), "WSCLUSTER_SLOTS=8"}}, "i1-w1")
	crowd := gather(t, 5, c.addrs()...)
	killer, neighbours := crowd.all[0], crowd.all[1:]
	shop.submit(crowd, "hold", 40, time.Second, 100*time.Millisecond, neighbours...) // still there when the runner dies first
	theirs := crowd.tasks()
	shop.awaitRuns(1, theirs...)
	killer.mu.Lock()
	killer.mayFail = wire.CodeAttempts
	killer.mu.Unlock()
	shop.submit(crowd, "fatal", 0, time.Second, time.Second, killer)

	r, fatal, late := c.Runners[0], killer.errands()[0], time.After(10*time.Minute)
	for deaths, over := 0, false; !over; {
		select {
		case <-fatal.ended:
			over = true
		case <-r.Done():
			if deaths++; deaths > 2*taskrunner.DefaultAttempts {
				t.Fatalf("its runner died %d times: %s", deaths, r.Tail())
			}
			c.must(r.Start())
		case <-late:
			t.Fatal("it has not ended after 10 minutes")
		}
	}
	crowd.goHome(c)
	if !fatal.failed {
		t.Errorf("it ended without an error of code %s", wire.CodeAttempts)
	}
	for _, task := range crowd.tasks() {
		t.Logf("%s: %v", task, shop.journal(task))
		if slices.Contains(theirs, task) {
			continue
		}
		runs := shop.runs(task)
		if len(runs) != taskrunner.DefaultAttempts {
			t.Errorf("it was begun %d times, want %d", len(runs), taskrunner.DefaultAttempts)
		}
		for i, least := range []time.Duration{0, 2, 4, 8, 16, 32, 60, 60, 60} {
			if i+1 < len(runs) && runs[i+1].at.Sub(runs[i].at) < least*time.Second {
				t.Errorf("attempt %d began %v after the one before, want at least %d s", i+2, runs[i+1].at.Sub(runs[i].at), least)
			}
		}
	}
	shop.wantRuns(2, taskrunner.DefaultAttempts, theirs...) // each of its deaths costs those an attempt that run beside it
	shop.wantNoProcess(c)
}
