package amqp

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/wscluster/wscluster/pkg/broker"
	"github.com/wscluster/wscluster/pkg/socketmeta"
)

// onBothTypes runs a test on classic and on quorum mailboxes.
func onBothTypes(t *testing.T, test func(t *testing.T, b *Broker)) {
	for _, kind := range []string{Classic, Quorum} {
		t.Run(kind, func(t *testing.T) { test(t, open(t, Options{MailboxType: kind})) })
	}
}

// adopt adopts the mailbox of s as soon as its last owner has let go of it.
func adopt(t testing.TB, l *link, s socketmeta.ServerID, prefetch int) broker.Mailbox {
	t.Helper()
	for limit := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		m, err := l.AdoptMailbox(bounded(t), s, prefetch)
		if err == nil {
			return m
		}
		if !errors.Is(err, broker.ErrRefused) || time.Now().After(limit) {
			t.Fatalf("adopt: %v", err)
		}
	}
}

// numbers returns the IDs from to to.
func numbers(from, to int) (ids []string) {
	for i := from; i <= to; i++ {
		ids = append(ids, fmt.Sprintf("%03d", i))
	}
	return ids
}

// A quorum queue gives back what several of our consumers held in the order of their tags as text.
func TestAdopterGetsBackInOrderWhatWasUnsettledOverManyPauses(t *testing.T) {
	onBothTypes(t, func(t *testing.T, b *Broker) {
		s := server()
		l := join(t, b, broker.Worker(s))
		m := own(t, l, s, 100)
		for i := range 12 {
			id := numbers(i, i)
			store(t, l, broker.ToMailbox(s), id...)
			expect(t, m, id...)
			if err := errors.Join(m.Pause(bounded(t)), m.Resume(bounded(t))); err != nil {
				t.Fatal(err)
			}
		}
		adopter := join(t, b, broker.Worker(server()))
		l.consuming.cut()
		ended(t, l)
		m = adopt(t, adopter, s, 100)
		expect(t, m, numbers(0, 11)...)
		if err := m.Close(bounded(t)); err != nil {
			t.Fatal(err)
		}
		expect(t, adopt(t, adopter, s, 100), numbers(0, 11)...)
	})
}

func TestAdoptingWhatIsNotThereMakesNothing(t *testing.T) {
	l := join(t, open(t, Options{}), broker.Worker(server()))
	s := server()
	if _, err := l.AdoptMailbox(bounded(t), s, 10); !errors.Is(err, broker.ErrNoMailbox) {
		t.Errorf("got %v, want ErrNoMailbox", err)
	}
	queues := eval(t, `[io:format("~s~n", [element(4, amqqueue:get_name(Q))]) || Q <- rabbit_amqqueue:list()]`)
	for queue := range strings.Lines(queues) {
		if strings.Contains(queue, string(s)) {
			t.Errorf("queue %s was left", queue)
		}
	}
	if n := len(l.locks); n != 0 {
		t.Errorf("%d locks are left", n)
	}
}

// RabbitMQ answers 404 for a classic queue whose node is down, too.
func TestMailboxWhoseNodeIsDownIsNotGone(t *testing.T) {
	s := server()
	l := join(t, open(t, Options{}), broker.Worker(server()))
	if err := own(t, l, s, 10).Close(bounded(t)); err != nil {
		t.Fatal(err)
	}
	name := fmt.Sprintf(`rabbit_misc:r(<<"/">>, queue, <<"%s">>)`, broker.MailboxQueue(s))
	// The queue's process is made one of a node that does not run: 88 begins a pid, 100 an atom.
	node := "rabbit@nowhere"
	eval(t, fmt.Sprintf(`{ok, Q} = rabbit_amqqueue:lookup(%s),
		Away = binary_to_term(<<131, 88, 100, %d:16, "%s", 1:32, 0:32, 1:32>>),
		ok = mnesia:dirty_write(rabbit_durable_queue, amqqueue:set_pid(Q, Away)),
		ok = mnesia:dirty_delete(rabbit_queue, %s)`, name, len(node), node, name))
	defer eval(t, fmt.Sprintf(`ok = mnesia:dirty_delete(rabbit_durable_queue, %s)`, name))
	_, err := l.AdoptMailbox(bounded(t), s, 10)
	if err == nil || errors.Is(err, broker.ErrNoMailbox) || !strings.Contains(err.Error(), node) {
		t.Errorf("adopt: got %v, want the broker's word about %s", err, node)
	}
	_, err = l.OpenMailbox(bounded(t), s, 10)
	if err == nil || !strings.Contains(err.Error(), node) {
		t.Errorf("open: got %v, want the broker's word about %s", err, node)
	}
	if l.Err() != nil {
		t.Errorf("the link ended: %v", l.Err())
	}
}

func TestAdopterStandsInForControlMessages(t *testing.T) {
	b := open(t, Options{})
	s := server()
	owner, adopter := join(t, b, broker.Worker(s)), join(t, b, broker.Worker(server()))
	if err := own(t, owner, s, 10).Close(bounded(t)); err != nil {
		t.Fatal(err)
	}
	if err := owner.Close(bounded(t)); err != nil {
		t.Fatal(err)
	}
	to := broker.ToControl(broker.Worker(s))
	returned := func(when string) {
		t.Helper()
		if o := outcome(t, publish(t, adopter, to, broker.Message{ID: when})); o != broker.Returned {
			t.Errorf("%s: %v, want returned", when, o)
		}
	}
	returned("before the adoption")
	m := adopt(t, adopter, s, 10)
	store(t, adopter, to, "to the adopter")
	if got := <-adopter.Inbox(); got.ID != "to the adopter" {
		t.Errorf("got %q", got.ID)
	}
	owner = join(t, b, broker.Worker(s)) // the identity is free, and both hear
	store(t, adopter, to, "to both")
	if a, o := <-adopter.Inbox(), <-owner.Inbox(); a.ID != "to both" || o.ID != "to both" {
		t.Errorf("the adopter got %q and the owner %q", a.ID, o.ID)
	}
	if err := owner.Close(bounded(t)); err != nil {
		t.Fatal(err)
	}
	if err := m.Close(bounded(t)); err != nil {
		t.Fatal(err)
	}
	returned("after the adoption")
}

// An exclusive queue does not lock out the connection that has it.
func TestLockIsNotTakenTwiceOnOneLink(t *testing.T) {
	b := open(t, Options{})
	l, other := join(t, b, broker.Worker(server())), join(t, b, broker.Worker(server()))
	name := "test-" + string(server())
	release, err := l.Lock(bounded(t), name)
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range []*link{l, other} {
		if _, err := l.Lock(bounded(t), name); !errors.Is(err, broker.ErrLocked) {
			t.Errorf("a second lock: got %v, want ErrLocked", err)
		}
	}
	release()
	if _, err = other.Lock(bounded(t), name); err != nil {
		t.Errorf("after the release: %v", err)
	}
	release() // not the other's
	if _, err = l.Lock(bounded(t), name); !errors.Is(err, broker.ErrLocked) {
		t.Errorf("after a second release: got %v, want ErrLocked", err)
	}
}

func TestOverflowKeepsItsOrder(t *testing.T) {
	onBothTypes(t, func(t *testing.T, b *Broker) {
		s := server()
		l := join(t, b, broker.Worker(s))
		m := own(t, l, s, 2)
		all := numbers(1, 200)
		store(t, l, broker.ToHold(s), all...)
		takeHeld := func(m broker.Mailbox, max int, want ...string) (tags []uint64) {
			t.Helper()
			ds, _, err := m.TakeHeld(bounded(t), max)
			if err != nil {
				t.Fatal(err)
			}
			if len(ds) != len(want) {
				t.Fatalf("took %d, want %d", len(ds), len(want))
			}
			for i, d := range ds {
				if d.ID != want[i] {
					t.Fatalf("took %q as number %d, want %q", d.ID, i, want[i])
				}
				tags = append(tags, d.Tag)
			}
			return tags
		}
		for i := 0; i < 150; i += 5 { // 30 times
			takeHeld(m, 5, all[i:i+5]...)
		}
		store(t, l, broker.ToMailbox(s), "m")
		tag := expect(t, m, "m")[0] // settled by its own tag, not by the other channel's first
		l2 := join(t, b, broker.Worker(server()))
		if err := m.Ack(tag); err != nil {
			t.Fatal(err)
		}
		takeHeld(m, 1, all[150])
		l.consuming.cut()
		ended(t, l)
		m = adopt(t, l2, s, 2)
		tags := takeHeld(m, 1000, all...)
		takeHeld(m, 1000)
		for _, tag := range tags[:199] {
			if err := m.Ack(tag); err != nil {
				t.Fatal(err)
			}
		}
		store(t, l2, broker.ToHold(s), "last")
		takeHeld(m, 1000, "last") // the broker has had the acks
		if err := m.Close(bounded(t)); err != nil {
			t.Fatal(err)
		}
		m = adopt(t, l2, s, 2)
		takeHeld(m, 1000, all[199], "last")
		store(t, l2, broker.ToMailbox(s), "not redelivered")
		expect(t, m, "not redelivered")
	})
}

func TestExceptionOfTheOverflowEndsTheLink(t *testing.T) {
	s := server()
	l := join(t, open(t, Options{}), broker.Worker(s))
	m := own(t, l, s, 2)
	store(t, l, broker.ToHold(s), "1")
	if _, _, err := m.TakeHeld(bounded(t), 1); err != nil {
		t.Fatal(err)
	}
	if err := m.Ack(heldTag | 7); err != nil { // an exception, as a delivery held for too long would be
		t.Fatal(err)
	}
	if err := ended(t, l); err == nil || !strings.Contains(err.Error(), "unknown delivery tag 7") {
		t.Fatalf("ended with %v, want the broker's reason", err)
	}
	if _, more := <-m.Deliveries(); more {
		t.Error("a delivery after the end")
	}
}

func TestRegisterRemembersServers(t *testing.T) {
	b := open(t, Options{})
	l := join(t, b, broker.Worker(server()))
	want := []socketmeta.ServerID{server(), server()}
	for _, s := range []socketmeta.ServerID{want[1], want[0], want[1]} {
		if err := l.Register(bounded(t), s); err != nil {
			t.Fatal(err)
		}
	}
	if r, err := l.Publish(bounded(t), toRegister, broker.Message{Type: recordServer, Body: []byte(`"not a server"`)}); err != nil || outcome(t, r) != broker.Stored {
		t.Fatal(err)
	}
	for _, l := range []*link{l, join(t, b, broker.Worker(server()))} {
		got, err := l.Servers(bounded(t))
		if err != nil {
			t.Fatal(err)
		}
		found := 0
		for i, s := range got {
			if _, err := socketmeta.ParseServerID(string(s)); err != nil {
				t.Error(err)
			}
			if i > 0 && s <= got[i-1] {
				t.Errorf("%q after %q", s, got[i-1])
			}
			if s == want[0] || s == want[1] {
				found++
			}
		}
		if found != 2 {
			t.Errorf("%v holds %d of %v", got, found, want)
		}
	}
	if l.Err() != nil {
		t.Errorf("the link ended: %v", l.Err())
	}
}

func TestWorkersThatMakeTheRegisterTogetherKeepTheirLinks(t *testing.T) {
	b := open(t, Options{})
	var links []*link
	for range 6 {
		links = append(links, join(t, b, broker.Worker(server())))
	}
	for round := range 5 {
		if err := rabbit.DeleteQueue(t.Context(), broker.StreamServers); err != nil {
			t.Fatal(err)
		}
		var all sync.WaitGroup
		for _, l := range links {
			all.Go(func() {
				if err := l.Register(bounded(t), server()); err != nil {
					t.Errorf("round %d: %v", round, err)
				}
			})
		}
		all.Wait()
	}
	for _, l := range links {
		if err := l.Err(); err != nil {
			t.Errorf("a link ended: %v", err)
		}
	}
}
