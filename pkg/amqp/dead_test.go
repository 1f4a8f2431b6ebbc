package amqp

import (
	"strings"
	"testing"
	"time"

	amqp091 "github.com/rabbitmq/amqp091-go"

	"github.com/wscluster/wscluster/pkg/broker"
	"github.com/wscluster/wscluster/pkg/wire"
)

// What RabbitMQ gives up at its delivery limit comes to the taker of dead tasks, whole, and says why.
func TestATaskBeyondItsDeliveryLimitIsDead(t *testing.T) {
	const kind = "too-often"
	_, err := rabbit.Ctl(bounded(t), "set_policy", "--priority", "9", "--apply-to", "queues", kind, "^tasks\\."+kind+"$",
		`{"delivery-limit": 2, "overflow": "reject-publish", "dead-letter-strategy": "at-least-once"}`)
	if err != nil {
		t.Fatal(err)
	}
	l := join(t, open(t, Options{}), broker.Runner(kind))
	tasks, err := l.OpenTasks(bounded(t), []string{kind}, 1)
	if err != nil {
		t.Fatal(err)
	}
	store(t, l, broker.ToTasks(kind, wire.Normal), kind)
	for range 3 {
		if err := tasks.Requeue(expect(t, tasks, kind)[0]); err != nil {
			t.Fatal(err)
		}
	}
	dead, err := l.OpenDeadTasks(bounded(t), 1)
	if err != nil {
		t.Fatal(err)
	}
	for {
		select {
		case d := <-dead.Deliveries():
			if err := dead.Ack(d.Tag); err != nil {
				t.Fatal(err)
			}
			if d.ID != kind {
				continue // another test has left it
			}
			if reason := wire.DeadReasonOf(d.Headers); reason != wire.DeadDeliveryLimit || d.Headers["x-first-death-queue"] != broker.TasksQueue(kind, wire.Normal) {
				t.Errorf("dead for reason %s: %v", reason, d.Headers)
			}
			return
		case <-time.After(patience):
			t.Fatal("no dead task came")
		}
	}
}

// The queues are a worker's to make, and a runner may come before any.
func TestDeadTasksCannotBeTakenBeforeTheirQueuesExist(t *testing.T) {
	l := join(t, open(t, Options{}), broker.Runner("early"))
	err := l.consuming.try(func(ch *amqp091.Channel) error {
		_, err := ch.QueueDelete(broker.QueueKeptTasks, false, false, false)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	k, err := l.OpenDeadTasks(bounded(t), 1)
	if err == nil || k != nil || !strings.Contains(err.Error(), broker.QueueKeptTasks) || l.Err() != nil {
		t.Errorf("got %v, link %v: want an error that names the queue, and the link alive", err, l.Err())
	}
	join(t, open(t, Options{}), broker.Worker(server()))
	if _, err := l.OpenDeadTasks(bounded(t), 1); err != nil {
		t.Error(err)
	}
}
