package e2e

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/wscluster/wscluster/internal/rig"
)

func TestFault09TheBrokerIsKilledUnderLoad(t *testing.T) {
	c := town(t)
	crowd := gather(t, 24, c.addrs()...)
	crowd.ask(50, lineEvery)
	crowd.flows(5)
	c.killRabbit()
	c.must(c.Rabbit.Restart(c.ctx()))
	crowd.goHome(c)
	for _, g := range crowd.all {
		if s := g.client.Stats(); s.Sockets != 1 {
			t.Errorf("guest %d has had %d sockets, want one", g.id, s.Sockets)
		}
	}
}

func TestFault14ADiskAlarmHoldsPublishersUpAndNotConsumers(t *testing.T) {
	town(t).alarm((*rig.RabbitMQ).DiskAlarm, 2*time.Second)
}

// alarm raises an alarm under load for so long. Clients who were away come back meanwhile and get
// what waits for them. In the end no worker has more goroutines than before.
func (c *cluster) alarm(set func(*rig.RabbitMQ, context.Context, bool) error, last time.Duration) {
	t := c.t
	t.Helper()
	before := c.goroutines()
	crowd := gather(t, 12, c.addrs()...)
	crowd.ask(60+int(last/lineEvery), lineEvery)
	crowd.flows(3)
	back := crowd.all[:4]
	for _, g := range back {
		g.away()
	}
	had := crowd.counts()
	crowd.flows(5, crowd.all[4:]...)
	c.must(set(c.Rabbit, c.ctx(), true))
	raised := time.Now()
	for _, g := range back {
		g.door -= g.stride(len(c.Workers)) // to the worker that holds its events: a claim from another one is a publish
		g.come()
	}
	crowd.flowsFrom(had, 3, back...)
	c.isEmpty("mailbox.")                    // what they acknowledge reaches the broker
	time.Sleep(time.Until(raised.Add(last))) // the case is about real time
	c.must(set(c.Rabbit, c.ctx(), false))
	crowd.goHome(c)
	const ours = 3 // a probe of this test may have a connection more, and its two goroutines
	await(t, homeWithin, func() error {
		for name, n := range c.goroutines() {
			if n > before[name]+ours {
				return fmt.Errorf("%s has %v goroutines, and had %v before", name, n, before[name])
			}
		}
		return nil
	})
}

// goroutines is how many each worker has.
func (c *cluster) goroutines() map[string]float64 {
	c.t.Helper()
	all := map[string]float64{}
	for _, w := range c.Workers {
		n, err := metric(w, "go_goroutines")
		c.must(err)
		all[w.Name] = n
	}
	return all
}
