package e2e

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/wscluster/wscluster/pkg/amqp"
	"github.com/wscluster/wscluster/pkg/broker"
	"github.com/wscluster/wscluster/pkg/wire"
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

// TestFault23ATaskThatTheBrokerGivesUpEndsWithOneError has a taker give a task back until RabbitMQ gives it
// up, as at the shipped limit of 100,000 deliveries. Whatever tells its client of that again is dropped there.
func TestFault23ATaskThatTheBrokerGivesUpEndsWithOneError(t *testing.T) {
	c := town(t)
	const kind = "doomed"
	_, err := c.Rabbit.Ctl(c.ctx(), "set_policy", "--priority", "9", "--apply-to", "queues", kind, "^tasks\\."+kind+"$",
		`{"delivery-limit": 1, "overflow": "reject-publish", "dead-letter-strategy": "at-least-once"}`)
	c.must(err)
	b, err := amqp.New(amqp.Options{URLs: []string{c.Rabbit.URL()}})
	c.must(err)
	link, err := b.Join(c.ctx(), broker.Runner(kind))
	c.must(err)
	defer link.Close(context.Background())
	from, err := link.OpenTasks(c.ctx(), []string{kind}, 1)
	c.must(err)
	publish := func(to broker.Address, m broker.Message) {
		t.Helper()
		r, err := link.Publish(c.ctx(), to, m)
		c.must(err)
		if outcome, err := broker.Await(c.ctx(), r); outcome != broker.Stored {
			t.Fatalf("publish to %v: %v, %v", to, outcome, err)
		}
	}

	cl, _ := client(t, c.Workers[0].Addr)
	began := time.Now()
	task, err := cl.Submit(c.ctx(), kind, nil)
	c.must(err)
	var body []byte
	for range 2 {
		d := <-from.Deliveries()
		body = d.Body
		c.must(from.Requeue(d.Tag))
	}
	var told []wire.EventType
	for e := range task.Events(c.ctx()) {
		told = append(told, e.Type)
	}
	_, err = task.Wait(c.ctx())
	if e, ok := errors.AsType[*wire.Error](err); !ok || e.Code != wire.CodeAttempts || !slices.Equal(told, []wire.EventType{wire.EventError}) {
		t.Errorf("the application has %v and %v, want one error of code %s", told, err, wire.CodeAttempts)
	}
	t.Logf("told %v after the submit", time.Since(began).Round(time.Millisecond))

	// A runner that died in between would have its dead task come again, and here it was also told by another.
	publish(broker.ToDeadTasks(), broker.Message{Correlation: string(task.ID()), Body: body})
	asked, err := wire.DecodeTask(body)
	c.must(err)
	meta, id := asked.Meta, task.ID()
	failure, err := wire.Body(meta.Client, wire.Failure{Error: *wire.Errorf(wire.CodeInternal, "again"), Timestamp: wire.Time{Time: time.Now()}})
	c.must(err)
	again := wire.Event{Client: meta.Client, Task: id, Attempt: wire.DeadAttempt + 1, Run: wire.NewRunID(), Seq: 1, Type: wire.EventError, Durable: true, Last: true, Epoch: meta.Epoch, Home: meta.Server, Body: failure}
	publish(broker.ToMailbox(meta.Server), broker.Message{Type: string(again.Type), Correlation: string(id), Headers: again.Headers(), Body: again.Body})
	await(t, homeWithin, func() error {
		q, err := c.Rabbit.QueueDepth(c.ctx(), broker.QueueKeptTasks)
		if err == nil && q.Ready != 2 {
			err = fmt.Errorf("%d tasks are kept, want the dead one and its copy", q.Ready)
		}
		return err
	})
	c.isQuietBut(0)
	if s := cl.Stats(); s.Events != 1 {
		t.Errorf("the application got %d events: %+v", s.Events, s)
	}
	_, err = c.Rabbit.Ctl(c.ctx(), "purge_queue", broker.QueueKeptTasks)
	c.must(err)
	_, err = c.Rabbit.Ctl(c.ctx(), "clear_policy", kind)
	c.must(err)
}
