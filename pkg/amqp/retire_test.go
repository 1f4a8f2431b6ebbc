package amqp

import (
	"errors"
	"strings"
	"testing"

	"github.com/wscluster/wscluster/pkg/broker"
	"github.com/wscluster/wscluster/pkg/socketmeta"
)

// abandoned makes a mailbox without an owner.
func abandoned(t testing.TB, l *link) socketmeta.ServerID {
	t.Helper()
	s := server()
	if err := own(t, l, s, 10).Close(bounded(t)); err != nil {
		t.Fatal(err)
	}
	return s
}

// An exclusive queue does not lock out the connection that has it: so the broker would let us.
func TestWhoeverLivesIsNotRetired(t *testing.T) {
	s := server()
	l := join(t, open(t, Options{}), broker.Worker(s))
	m := own(t, l, s, 10)
	if err := m.Unbind(bounded(t)); !errors.Is(err, broker.ErrLocked) {
		t.Errorf("the own mailbox: got %v, want ErrLocked", err)
	}
	store(t, l, broker.ToMailbox(s), "still bound")
	expect(t, m, "still bound")

	parked, err := l.AdoptMailbox(bounded(t), broker.ParkedServer, 10)
	if err != nil {
		t.Fatal(err)
	}
	if err := parked.Unbind(bounded(t)); err == nil {
		t.Error("the parked mailbox was unbound")
	}
	if err := errors.Join(parked.Close(bounded(t)), m.Close(bounded(t)), l.Err()); err != nil {
		t.Error(err)
	}
}

func TestDeleteSaysWhatComesFirst(t *testing.T) {
	l := join(t, open(t, Options{}), broker.Worker(server()))
	m := adopt(t, l, abandoned(t, l), 10)
	if err := m.Delete(bounded(t)); err == nil || !strings.Contains(err.Error(), "Unbind") {
		t.Errorf("bound: got %v", err)
	}
	if err := errors.Join(m.Unbind(bounded(t)), m.Pause(bounded(t))); err != nil {
		t.Fatal(err)
	}
	if err := m.Delete(bounded(t)); err == nil || !strings.Contains(err.Error(), "Resume") {
		t.Errorf("paused: got %v", err)
	}
	if err := errors.Join(m.Resume(bounded(t)), m.Delete(bounded(t))); err != nil {
		t.Error(err)
	}
}

// The owner who published it died before it came.
func TestNobodyGetsALeftFence(t *testing.T) {
	onBothTypes(t, func(t *testing.T, b *Broker) {
		l := join(t, b, broker.Worker(server()))
		s := abandoned(t, l)
		fence := broker.Message{ID: "fence", Headers: map[string]any{headerFence: true}}
		for _, to := range []broker.Address{broker.ToMailbox(s), broker.ToHold(s)} {
			if o := outcome(t, publish(t, l, to, fence)); o != broker.Stored {
				t.Fatal(o)
			}
			store(t, l, to, "behind it")
		}
		m := adopt(t, l, s, 1)
		tag := expect(t, m, "behind it")[0]
		ds, _, err := m.TakeHeld(bounded(t), 1)
		if err != nil || len(ds) != 1 || ds[0].ID != "behind it" {
			t.Fatalf("took %v, %v", ds, err)
		}
		if err := errors.Join(m.Ack(tag), m.Ack(ds[0].Tag), m.Unbind(bounded(t)), m.Delete(bounded(t))); err != nil {
			t.Error(err)
		}
	})
}

// What comes between the last look and the deletion comes by another way here than the one that
// Unbind takes away, as a publish that is under way does.
func TestWhatComesAtTheLastMomentIsNotDeleted(t *testing.T) {
	onBothTypes(t, func(t *testing.T, b *Broker) {
		l := join(t, b, broker.Worker(server()))
		s := abandoned(t, l)
		back := broker.Address{Exchange: broker.ExchangeHold, Key: "back-door-" + string(s)}
		if err := l.bind(broker.MailboxQueue(s), back.Exchange, back.Key); err != nil {
			t.Fatal(err)
		}
		m := adopt(t, l, s, 10).(*mailbox)
		if err := m.Unbind(bounded(t)); err != nil {
			t.Fatal(err)
		}
		for _, id := range []string{"before the pause", "after the pause"} {
			err := func() error {
				m.calls.Lock()
				defer m.calls.Unlock()
				if err := m.empty(bounded(t)); err != nil {
					return err
				}
				if id == "after the pause" {
					if err := m.pause(); err != nil {
						return err
					}
				}
				store(t, l, back, id)
				return m.deleteQueues(bounded(t))
			}()
			if !errors.Is(err, broker.ErrNotEmpty) {
				t.Fatalf("%s: got %v, want ErrNotEmpty", id, err)
			}
			if err := m.Ack(expect(t, m, id)[0]); err != nil {
				t.Error(err)
			}
			if ds, _, err := m.TakeHeld(bounded(t), 1); err != nil || len(ds) != 0 { // the overflow is there
				t.Errorf("took %v, %v", ds, err)
			}
		}
		if err := m.Delete(bounded(t)); err != nil {
			t.Error(err)
		}
		if err := l.Err(); err != nil {
			t.Errorf("the link ended: %v", err)
		}
		if o := outcome(t, publish(t, l, back, broker.Message{})); o != broker.Returned {
			t.Errorf("a publish to what is deleted: %v", o)
		}
	})
}
