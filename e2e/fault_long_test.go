//go:build long

package e2e

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/wscluster/wscluster/internal/rig"
	"github.com/wscluster/wscluster/pkg/amqp"
	"github.com/wscluster/wscluster/pkg/broker"
	"github.com/wscluster/wscluster/pkg/taskrunner"
	"github.com/wscluster/wscluster/pkg/wire"
)

func TestFault02AWorkerThatReturnsLateGetsItsMailboxBack(t *testing.T) {
	for _, later := range []time.Duration{5 * time.Second, 30 * time.Second} {
		t.Run(later.String(), func(t *testing.T) { town(t).returns(later) })
	}
}

// TestFault04ClientsThatNeverComeBack is fault 4 for those: what they did not get lies among the
// dead, nothing else does, and in the end their worker's mailbox is gone.
func TestFault04ClientsThatNeverComeBackLeaveTheDeadAndNoMailbox(t *testing.T) {
	t.Parallel()
	internal, err := rig.FreePort("127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	c := start(t, rig.ClusterOptions{
		WorkerSettings: []string{"WSCLUSTER_RESUME_WINDOW=20s"},
		RunnerSettings: []string{"WSCLUSTER_SLOTS=100", "WSCLUSTER_INTERNAL_LISTEN=" + internal},
	}, "i1-w1", "i1-w2")
	crowd := gather(t, 12, c.addrs()...)
	gone, stay := crowd.all[:6], crowd.all[6:]
	crowd.ask(60, lineEvery)
	crowd.flows(5)
	for _, g := range gone {
		g.away()
	}
	// For their last acknowledgements to reach the broker: else what they name comes again. There is nothing to poll:
	// a worker counts them together with those of the guests who stay, and before the broker has them.
	time.Sleep(time.Second)
	for _, w := range c.Workers {
		w.Kill()
	}
	c.replace(crowd, "i2-w3", "i2-w4")
	crowd.ended(stay...)
	runner := &rig.Member{Name: "r1", Internal: internal}
	await(t, homeWithin, func() error {
		if n, err := metric(runner, "wscluster_runner_tasks"); err != nil || n > 0 {
			return errors.Join(fmt.Errorf("%v tasks run", n), err)
		}
		return nil
	})
	confirmed, err := metric(runner, `wscluster_runner_events_total{durable="true",outcome="confirmed"}`)
	c.must(err)
	lost := int(confirmed)
	for _, had := range crowd.counts() {
		lost -= had
	}
	if lost <= 0 {
		t.Fatalf("%d events were not delivered, want some", lost)
	}
	await(t, homeWithin, func() error {
		if n := c.dead(); n != lost {
			return fmt.Errorf("%d events lie among the dead, want %d", n, lost)
		}
		return nil
	})
	await(t, 5*time.Minute, func() error { // a gap waits for as long as its client's token lives
		queues, err := c.Rabbit.ListQueues(c.ctx())
		if err != nil {
			return err
		}
		for _, q := range queues {
			if q.Name == "mailbox.i1-w1" || q.Name == "mailbox.i1-w2" {
				return fmt.Errorf("there is still a queue: %+v", q)
			}
		}
		return nil
	})
	c.isQuietBut(lost)
}

// shortHeartbeat is the broker's in tests that wait for several of them.
const shortHeartbeat = 2 * time.Second

var withShortHeartbeat = fmt.Sprintf("heartbeat = %d", int(shortHeartbeat.Seconds()))

func TestFault05AWorkerThatHangsForThreeHeartbeats(t *testing.T) {
	t.Parallel()
	c := start(t, rig.ClusterOptions{Broker: withShortHeartbeat, RunnerSettings: []string{"WSCLUSTER_SLOTS=100"}}, "i1-w1", "i1-w2", "i2-w1")
	crowd := gather(t, 18, c.addrs()...)
	w, before := c.Worker("i1-w1"), c.adoptions()
	theirs := crowd.on(w.Name)
	crowd.ask(400, lineEvery)
	crowd.flows(5)
	c.must(w.Freeze())
	frozen := time.Now()
	crowd.open(c.addrs()[1:]...)
	movers := theirs[:len(theirs)/2] // the others stay on sockets where nothing comes
	for _, g := range movers {
		g.client.Cut()
	}
	t.Logf("%s adopted its mailbox %v after it stood still", c.adopter(before).Name, time.Since(frozen))
	crowd.flows(5, movers...)
	time.Sleep(time.Until(frozen.Add(4 * shortHeartbeat))) // the case is about real time
	c.must(w.Thaw())
	crowd.open(c.addrs()...)
	crowd.flows(5)
	crowd.goHome(c)
}

func TestFault06AWorkerWhoseLinkToTheBrokerFallsSilent(t *testing.T) {
	t.Parallel()
	c := start(t, rig.ClusterOptions{Proxies: true, Broker: withShortHeartbeat, RunnerSettings: []string{"WSCLUSTER_SLOTS=100"}}, "i1-w1", "i1-w2")
	crowd := gather(t, 12, c.addrs()...)
	w, before := c.Worker("i1-w1"), c.adoptions()
	attached := crowd.on(w.Name)
	crowd.ask(500, lineEvery)
	crowd.flows(5)
	c.must(w.Proxy.Stall())
	stalled := time.Now()
	t.Logf("%s adopted its mailbox %v after its link fell silent", c.adopter(before).Name, time.Since(stalled))
	crowd.flows(5, without(crowd.all, attached)...)
	time.Sleep(time.Until(stalled.Add(4 * shortHeartbeat))) // the case is about real time
	c.must(w.Proxy.Heal())
	crowd.flows(5)
	crowd.goHome(c)
	for _, g := range attached {
		if s := g.client.Stats(); s.Sockets != 1 {
			t.Errorf("guest %d has had %d sockets, want one", g.id, s.Sockets)
		}
	}
}

func TestFault10TheBrokerIsAway(t *testing.T) {
	t.Parallel()
	for _, outage := range []time.Duration{30 * time.Second, 5 * time.Minute} {
		t.Run(outage.String(), func(t *testing.T) {
			t.Parallel()
			c := start(t, rig.ClusterOptions{RunnerSettings: []string{"WSCLUSTER_SLOTS=100", "WSCLUSTER_FENCE=10m"}}, "i1-w1", "i1-w2")
			crowd := gather(t, 12, c.addrs()...)
			crowd.ask(int((outage+15*time.Second)/lineEvery), lineEvery)
			crowd.flows(5)
			c.killRabbit()
			time.Sleep(outage) // the case is about real time
			c.must(c.Rabbit.Restart(c.ctx()))
			crowd.goHome(c)
			for _, g := range crowd.all {
				if s := g.client.Stats(); s.Sockets != 1 {
					t.Errorf("guest %d has had %d sockets, want one", g.id, s.Sockets)
				}
			}
		})
	}
}

func TestFault13AMemoryAlarmOfAMinuteLeavesNothingBehind(t *testing.T) {
	town(t).alarm((*rig.RabbitMQ).MemoryAlarm, time.Minute)
}

// TestFault29 counts what comes back of 49,000 events, which come in batches: each waits for its client alone, in the mailbox
// or, where the worker holds so many for a moment as a batch and alone, in the overflow.
func TestFault29FiftyThousandHeldEventsSurviveTheirWorker(t *testing.T) {
	const guests, each = 50, 980
	c := start(t, rig.ClusterOptions{WorkerSettings: []string{"WSCLUSTER_MAX_HELD=65535"}}, "i1-w1", "i1-w2", "i2-w1")
	crowd := gather(t, guests, c.Worker("i1-w1").Addr)
	gate := c.flood(each)
	crowd.submit("flood", same(nil), 0)
	for _, g := range crowd.all {
		g.away()
	}
	had := crowd.counts()
	close(gate)
	await(t, homeWithin, func() error {
		q, err := c.Rabbit.QueueDepth(c.ctx(), broker.MailboxQueue("i1-w1"))
		if err != nil {
			return err
		}
		hold, err := c.Rabbit.QueueDepth(c.ctx(), broker.HoldQueue("i1-w1"))
		if err == nil && q.Unacked+hold.Ready+hold.Unacked < guests*each {
			err = fmt.Errorf("%+v and %+v, want %d messages", q, hold, guests*each)
		}
		return err
	})
	victim := c.Worker("i1-w1")
	victim.Kill()
	crowd.open(c.Worker("i1-w2").Addr)
	came := time.Now()
	for _, g := range crowd.all {
		go g.come()
	}
	crowd.flowsFrom(had, each)
	t.Logf("%d events were with their clients %v after the first of those came", guests*each, time.Since(came))
	c.must(victim.Restart(c.ctx()))
	crowd.goHome(c)
}

// flood starts a runner in this process that takes tasks of kind flood: each tells of so many
// artifacts as soon as gate is closed.
func (c *cluster) flood(each int) (gate chan struct{}) {
	c.t.Helper()
	b, err := amqp.New(amqp.Options{URLs: []string{c.Rabbit.URLFor("runner")}})
	c.must(err)
	gate = make(chan struct{})
	r := taskrunner.Runner{
		Name: "flood", Broker: b, Slots: 200, SpoolDir: c.t.TempDir(),
		Kinds: map[string]taskrunner.Kind{"flood": {Handler: taskrunner.HandlerFunc(func(ctx context.Context, t *taskrunner.Task) (any, error) {
			select {
			case <-gate:
			case <-ctx.Done():
				return nil, context.Cause(ctx)
			}
			var errs []error
			for i := range each {
				errs = append(errs, t.Artifact(wire.Artifact{Name: fmt.Sprint(i), ContentType: "text/plain"}))
			}
			return nil, errors.Join(errs...)
		})}},
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	c.t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			c.t.Errorf("the runner in this process: %v", err)
		}
	})
	await(c.t, homeWithin, func() error {
		_, err := c.Rabbit.QueueDepth(ctx, broker.TasksQueue("flood", wire.Normal))
		return err
	})
	return gate
}

// TestFault24 holds events for longer than the broker lets a delivery wait.
func TestFault24AConsumerTimeoutBelowTheHoldTimeClosesNobodysMailbox(t *testing.T) {
	t.Parallel() // it waits more than it works
	c := start(t, rig.ClusterOptions{
		WorkerSettings: []string{"WSCLUSTER_REFRESH_AFTER=1s"}, RunnerSettings: []string{"WSCLUSTER_SLOTS=100"},
	}, "i1-w1", "i1-w2")
	_, err := c.Rabbit.Eval(c.ctx(), "ok = application:set_env(rabbit, consumer_timeout, 6000), ok = application:set_env(rabbit, channel_tick_interval, 500)")
	c.must(err)
	for _, w := range c.Workers { // channels learn of it when they are opened
		c.must(w.Restart(c.ctx()))
	}
	crowd := gather(t, 12, c.addrs()...)
	absent := crowd.all[:6]
	crowd.ask(20, lineEvery)
	crowd.flows(1)
	for _, g := range absent {
		g.away()
	}
	for until := time.Now().Add(10 * time.Second); time.Now().Before(until); time.Sleep(20 * time.Millisecond) {
		for _, w := range c.Workers {
			if err := w.Ready(); err != nil {
				t.Fatalf("a worker lost its mailbox: %v", err)
			}
		}
	}
	var refreshed float64
	for _, w := range c.Workers {
		n, err := metric(w, `wscluster_mailbox_events_total{outcome="refresh"}`)
		if err == nil {
			refreshed += n
		}
	}
	if refreshed == 0 {
		t.Error("no event was published again")
	}
	for _, g := range absent {
		g.come()
	}
	crowd.goHome(c)
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
