package amqp

import (
	"errors"
	"strings"
	"testing"
	"time"

	amqp091 "github.com/rabbitmq/amqp091-go"

	"github.com/wscluster/wscluster/pkg/broker"
	"github.com/wscluster/wscluster/pkg/wire"
)

func deleteQueue(t *testing.T, l *link, queue string) {
	t.Helper()
	err := l.consuming.try(func(ch *amqp091.Channel) error {
		_, err := ch.QueueDelete(queue, false, false, false)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// The contract suite runs on classic mailboxes; what quorum ones do by other means is here.
func TestQuorumMailbox(t *testing.T) {
	b := open(t, Options{MailboxType: Quorum})
	s := server()
	l, other := join(t, b, broker.Worker(s)), join(t, b, broker.Worker(server()))
	m := own(t, l, s, 2)
	for _, l := range []*link{l, other} {
		if _, err := l.OpenMailbox(bounded(t), s, 2); !errors.Is(err, broker.ErrRefused) {
			t.Errorf("a second owner: got %v, want ErrRefused", err)
		}
	}
	store(t, l, broker.ToMailbox(s), "1", "2", "3", "4", "5", "6", "7")
	first := expect(t, m, "1", "2")

	if err := m.Pause(bounded(t)); err != nil {
		t.Fatal(err)
	}
	if _, err := other.OpenMailbox(bounded(t), s, 2); !errors.Is(err, broker.ErrRefused) {
		t.Errorf("while the owner pauses: got %v, want ErrRefused", err)
	}
	if err := m.Ack(first[0]); err != nil {
		t.Fatal(err)
	}
	if err := m.Resume(bounded(t)); err != nil {
		t.Fatal(err)
	}
	expect(t, m, "3", "4") // 2 is still unsettled
	if err := m.Close(bounded(t)); err != nil {
		t.Fatal(err)
	}

	m = own(t, other, s, 10)
	expect(t, m, "2", "3", "4", "5", "6", "7")
	other.consuming.cut()
	ended(t, other)
	for {
		m, err := l.OpenMailbox(bounded(t), s, 10)
		if errors.Is(err, broker.ErrRefused) { // the broker has not seen the cut yet
			continue
		} else if err != nil {
			t.Fatal(err)
		}
		expect(t, m, "2", "3", "4", "5", "6", "7")
		return
	}
}

func TestPauseKeepsThePrefetch(t *testing.T) {
	s := server()
	l := join(t, open(t, Options{}), broker.Worker(s))
	m := own(t, l, s, 2)
	store(t, l, broker.ToMailbox(s), "1", "2", "3", "4", "5")
	tags := expect(t, m, "1", "2")
	for range 2 {
		if err := errors.Join(m.Pause(bounded(t)), m.Resume(bounded(t))); err != nil {
			t.Fatal(err)
		}
	}
	select {
	case d := <-m.Deliveries():
		t.Errorf("%s came while two were unsettled", d.ID)
	case <-time.After(100 * time.Millisecond):
	}
	if err := m.Ack(tags[1]); err != nil {
		t.Fatal(err)
	}
	expect(t, m, "3")
}

func TestConsumerEndsWhenItsQueueIsTakenAway(t *testing.T) {
	s, kind := server(), "taken-away"
	l := join(t, open(t, Options{}), broker.Worker(s))
	m := own(t, l, s, 10)
	tag := func() uint64 {
		store(t, l, broker.ToMailbox(s), "m")
		return expect(t, m, "m")[0]
	}()
	deleteQueue(t, l, broker.MailboxQueue(s))
	if _, more := <-m.Deliveries(); more {
		t.Error("a delivery from a queue that is gone")
	}
	if m.Err() == nil {
		t.Error("no reason")
	}
	if err := m.Ack(tag); !errors.Is(err, broker.ErrLinkGone) {
		t.Errorf("ack: got %v, want ErrLinkGone", err)
	}
	m = own(t, l, s, 10) // the link lives, and the queue is made anew
	store(t, l, broker.ToMailbox(s), "again")
	expect(t, m, "again")

	tasks, err := l.OpenTasks(bounded(t), []string{kind}, 1)
	if err != nil {
		t.Fatal(err)
	}
	_ = l.consuming.try(func(ch *amqp091.Channel) error { // who asks a queue that is gone for tasks ends the link, and cuts off the answer
		_, err := ch.QueueDelete(broker.TasksQueue(kind, wire.Normal), false, false, false)
		return err
	})
	if _, more := <-tasks.Deliveries(); more {
		t.Error("a task from a queue that is gone")
	}
	if tasks.Err() == nil {
		t.Error("no reason")
	}
}

func TestLinkEndsWhenItsIdentityIsTakenAway(t *testing.T) {
	id := broker.Worker(server())
	l := join(t, open(t, Options{}), id)
	_ = l.consuming.try(func(ch *amqp091.Channel) error { // the answer may be cut off by the end
		_, err := ch.QueueDelete(id.ControlQueue(), false, false, false)
		return err
	})
	if err := ended(t, l); err == nil || !strings.Contains(err.Error(), "control queue") {
		t.Errorf("ended with %v", err)
	}
}

func TestSettlingTwiceEndsTheLinkAndSettlesNothingElse(t *testing.T) {
	s := server()
	b := open(t, Options{})
	l := join(t, b, broker.Worker(s))
	m := own(t, l, s, 10)
	store(t, l, broker.ToMailbox(s), "1", "2")
	tags := expect(t, m, "1", "2")
	for range 2 {
		if err := m.Ack(tags[0]); err != nil {
			t.Fatal(err)
		}
	}
	if err := ended(t, l); err == nil || !strings.Contains(err.Error(), "unknown delivery tag") {
		t.Errorf("ended with %v, want the broker's reason", err)
	}
	l = join(t, b, broker.Worker(server()))
	m = own(t, l, s, 10)
	expect(t, m, "2")
}
