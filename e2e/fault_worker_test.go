package e2e

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/wscluster/wscluster/internal/rig"
)

// lineEvery is between two lines of a countdown: the runner makes one durable event of those of 100 ms.
const lineEvery = 50 * time.Millisecond

func TestFault01AKilledWorkersClientsGetTheRestElsewhere(t *testing.T) {
	c := town(t)
	victim, before := c.Worker("i1-w1"), c.adoptions()
	crowd := gather(t, 24, c.addrs()...)
	crowd.ask(50, lineEvery)
	crowd.flows(5)
	crowd.forgetArrivals()
	victim.Kill()
	first := <-crowd.arrivals
	adopter := c.adopter(before)
	t.Logf("%s adopted its mailbox %v after the first client came to %s", adopter.Name, time.Since(first.at), first.server)
	crowd.goHome(c)
	c.must(victim.Restart(c.ctx()))
}

func TestFault02AWorkerThatReturnsGetsItsMailboxBack(t *testing.T) {
	town(t).returns(time.Second)
}

// returns kills a worker under load and starts it again so much later.
func (c *cluster) returns(later time.Duration) {
	c.t.Helper()
	victim, before := c.Worker("i1-w1"), c.adoptions()
	crowd := gather(c.t, 24, c.addrs()...)
	crowd.ask(50+int(later/lineEvery), lineEvery)
	crowd.flows(5)
	victim.Kill()
	killed := time.Now()
	c.adopter(before)
	time.Sleep(time.Until(killed.Add(later))) // the case is about real time
	c.must(victim.Start())
	c.t.Logf("its mailbox is its own again %v after its process was started", c.owns(victim))
	crowd.flows(3)
	crowd.goHome(c)
}

func TestFault03TheAdopterDiesTooAndAThirdWorkerTakesOver(t *testing.T) {
	c := town(t)
	victim, before := c.Worker("i1-w1"), c.adoptions()
	crowd := gather(t, 24, c.addrs()...)
	crowd.ask(60, lineEvery)
	crowd.flows(5)
	victim.Kill()
	adopter := c.adopter(before)
	adopter.Kill()
	crowd.flows(5) // all are on the third one
	c.must(errors.Join(victim.Restart(c.ctx()), adopter.Restart(c.ctx())))
	crowd.goHome(c)
}

func TestFault04AllWorkersDieAndOthersServeTheirClients(t *testing.T) {
	t.Parallel() // it waits more than it works
	c := start(t, rig.ClusterOptions{RunnerSettings: []string{"WSCLUSTER_SLOTS=100"}}, "i1-w1", "i1-w2")
	crowd := gather(t, 16, c.addrs()...)
	late := crowd.all[:8]
	crowd.ask(60, lineEvery)
	crowd.flows(5)
	for _, g := range late {
		g.away()
	}
	dead := []*rig.Member{c.Workers[0], c.Workers[1]}
	for _, w := range dead {
		w.Kill()
	}
	c.replace(crowd, "i2-w3", "i2-w4")
	crowd.flows(5, crowd.all[8:]...)
	for _, g := range late { // after the others: their worker may have adopted and served what was theirs
		g.come()
	}
	crowd.goHome(c)
}

// replace starts workers in the place of all those that there were, and opens their doors.
func (c *cluster) replace(crowd *crowd, ids ...string) {
	c.t.Helper()
	c.Workers = nil
	for _, id := range ids {
		if _, err := c.AddWorker(c.ctx(), id); err != nil {
			c.t.Fatal(err)
		}
	}
	crowd.open(c.addrs()...)
}

func TestFault06AWorkerCutFromTheBrokerKeepsItsClients(t *testing.T) {
	c := town(t)
	crowd := gather(t, 12, c.addrs()...)
	crowd.ask(70, lineEvery)
	crowd.flows(5)
	w := c.Worker("i1-w1")
	attached := crowd.on(w.Name)
	w.Proxy.Cut()
	await(t, homeWithin, func() error {
		if w.Ready() == nil {
			return errors.New("the worker does not notice that it is cut off")
		}
		return nil
	})
	crowd.flows(8, without(crowd.all, attached)...) // the others do not notice
	c.must(w.Proxy.Heal())
	t.Logf("its mailbox is its own again %v after the cut was mended", c.owns(w))
	crowd.goHome(c)
	for _, g := range attached {
		if s := g.client.Stats(); s.Sockets != 1 {
			t.Errorf("guest %d has had %d sockets, want one", g.id, s.Sockets)
		}
	}
}

func TestFault20ASecondProcessWithAServerIDStaysUnreadyAndDisturbsNobody(t *testing.T) {
	c := town(t)
	crowd := gather(t, 6, c.addrs()...)
	crowd.ask(60, lineEvery)
	first := c.Worker("i1-w1")
	attached := crowd.on(first.Name)
	second, err := first.Double()
	c.must(err)
	c.must(second.Start())
	t.Cleanup(second.Kill)
	c.must(second.WaitPort(c.ctx(), second.Addr))
	await(t, homeWithin, func() error {
		if err := first.Ready(); err != nil {
			t.Fatalf("the first process: %v", err)
		}
		if err := second.Ready(); err == nil || !strings.Contains(err.Error(), "another process") {
			return errors.Join(errors.New("the second process does not say that there is another"), err)
		}
		return nil
	})
	crowd.flows(5)
	crowd.goHome(c)
	for _, g := range attached {
		if s := g.client.Stats(); s.Sockets != 1 {
			t.Errorf("guest %d of the first process has had %d sockets, want one", g.id, s.Sockets)
		}
	}
	first.Kill()
	if err := second.WaitReady(c.ctx(), second.Ready); err != nil {
		t.Errorf("after the first one's death: %v", err)
	}
	second.Kill()
	c.must(first.Restart(c.ctx()))
}
