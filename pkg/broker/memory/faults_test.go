package memory_test

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wscluster/wscluster/pkg/broker"
	"github.com/wscluster/wscluster/pkg/broker/memory"
	"github.com/wscluster/wscluster/pkg/socketmeta"
	"github.com/wscluster/wscluster/pkg/wire"
)

const server socketmeta.ServerID = "i1-w1"

var (
	mailbox = broker.ToMailbox(server)
	queue   = broker.MailboxQueue(server)
)

// bubble runs a test with a broker, a link, and the mailbox of server, in a synctest bubble.
func bubble(t *testing.T, o memory.Options, test func(*testing.T, *memory.Broker, broker.Link, broker.Consumer)) {
	synctest.Test(t, func(t *testing.T) {
		b := memory.New(o)
		l := join(t, b, broker.Worker(server))
		m, err := l.OpenMailbox(t.Context(), server, 100)
		if err != nil {
			t.Fatal(err)
		}
		test(t, b, l, m)
	})
}

func join(t *testing.T, b *memory.Broker, id broker.Identity) broker.Link {
	t.Helper()
	l, err := b.Join(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close(context.Background()) })
	return l
}

func publish(t *testing.T, l broker.Link, to broker.Address, m broker.Message) broker.Receipt {
	t.Helper()
	r, err := l.Publish(t.Context(), to, m)
	if err != nil {
		t.Fatalf("publish %q: %v", m.ID, err)
	}
	return r
}

func names(ms []broker.Message) (list []string) {
	for _, m := range ms {
		list = append(list, m.ID)
	}
	return list
}

// wants sees each receipt at its outcome once nothing more happens by itself.
func wants(t *testing.T, want broker.Outcome, rs ...broker.Receipt) {
	t.Helper()
	synctest.Wait()
	for i, r := range rs {
		if o := r.Outcome(); o != want {
			t.Errorf("receipt %d: %v, want %v", i+1, o, want)
		}
	}
}

func TestEachFateDoesWhatItSays(t *testing.T) {
	for _, test := range []struct {
		fate     memory.Fate
		mailed   bool
		parked   bool
		outcome  broker.Outcome
		afterCut broker.Outcome
	}{
		{memory.Deliver, true, false, broker.Stored, broker.Stored},
		{memory.Mislead, true, false, broker.Unknown, broker.Unknown},
		{memory.Hang, true, false, broker.Pending, broker.Unknown},
		{memory.Lose, false, false, broker.Unknown, broker.Unknown},
		{memory.Swallow, false, false, broker.Pending, broker.Unknown},
		{memory.Refuse, false, false, broker.Refused, broker.Refused},
		{memory.Park, false, true, broker.Stored, broker.Stored},
	} {
		bubble(t, memory.Options{}, func(t *testing.T, b *memory.Broker, l broker.Link, _ broker.Consumer) {
			var judged memory.Publish
			b.OnPublish(func(p memory.Publish) memory.Verdict {
				judged = p
				return memory.Verdict{Fate: test.fate}
			})
			r := publish(t, l, mailbox, broker.Message{ID: "m"})
			if judged.From != broker.Worker(server) || judged.To != mailbox || judged.Message.ID != "m" {
				t.Errorf("fate %d was decided for %+v", test.fate, judged)
			}
			wants(t, test.outcome, r)
			if got := len(b.Messages(queue)) == 1; got != test.mailed {
				t.Errorf("fate %d: in the mailbox: %v, want %v", test.fate, got, test.mailed)
			}
			if got := len(b.Messages(broker.QueueParked)) == 1; got != test.parked {
				t.Errorf("fate %d: parked: %v, want %v", test.fate, got, test.parked)
			}
			b.OnPublish(nil)
			wants(t, broker.Stored, publish(t, l, mailbox, broker.Message{}))
			b.CutLinks()
			wants(t, test.afterCut, r)
		})
	}
}

func TestDelayedAnswerHoldsThoseBehindIt(t *testing.T) {
	bubble(t, memory.Options{}, func(t *testing.T, b *memory.Broker, l broker.Link, m broker.Consumer) {
		b.OnPublish(func(p memory.Publish) (v memory.Verdict) {
			if p.Message.ID == "late" {
				v.Delay = time.Minute
			}
			return v
		})
		first := publish(t, l, mailbox, broker.Message{ID: "first"})
		late := publish(t, l, mailbox, broker.Message{ID: "late"})
		behind := publish(t, l, mailbox, broker.Message{ID: "behind"})
		wants(t, broker.Stored, first)
		if len(m.Deliveries()) != 3 {
			t.Errorf("%d deliveries, want all 3: only answers are late", len(m.Deliveries()))
		}
		time.Sleep(time.Minute - time.Nanosecond)
		wants(t, broker.Pending, late, behind)
		time.Sleep(time.Nanosecond)
		wants(t, broker.Stored, late, behind)
	})
}

func TestCutEndsOneLink(t *testing.T) {
	bubble(t, memory.Options{}, func(t *testing.T, b *memory.Broker, l broker.Link, _ broker.Consumer) {
		other := join(t, b, broker.Runner("r1"))
		b.Cut(broker.Runner("nobody"))
		b.Cut(broker.Worker(server))
		if <-l.Done(); !errors.Is(l.Err(), broker.ErrLinkGone) {
			t.Errorf("error %v, want ErrLinkGone", l.Err())
		}
		wants(t, broker.Stored, publish(t, other, mailbox, broker.Message{}))
		b.CutLinks()
		<-other.Done()
		join(t, b, broker.Worker(server))
	})
}

// TestCutLinksIsOneMoment: a task of one taker is not handed to another that dies with it.
func TestCutLinksIsOneMoment(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := memory.New(memory.Options{})
		for _, name := range []string{"r1", "r2", "r3"} {
			if _, err := join(t, b, broker.Runner(name)).OpenTasks(t.Context(), []string{"make"}, 5); err != nil {
				t.Fatal(err)
			}
		}
		wants(t, broker.Stored, publish(t, join(t, b, broker.Worker(server)), broker.ToTasks("make", wire.Normal), broker.Message{}))
		b.CutLinks()
		k, err := join(t, b, broker.Runner("r4")).OpenTasks(t.Context(), []string{"make"}, 5)
		if err != nil {
			t.Fatal(err)
		}
		if d := <-k.Deliveries(); d.Attempt != 2 {
			t.Errorf("attempt %d, want 2", d.Attempt)
		}
	})
}

func TestDownForgetsTransientMessagesOnly(t *testing.T) {
	bubble(t, memory.Options{}, func(t *testing.T, b *memory.Broker, l broker.Link, _ broker.Consumer) {
		publish(t, l, mailbox, broker.Message{ID: "durable"})
		publish(t, l, mailbox, broker.Message{ID: "transient", Transient: true, Body: []byte("x")})
		b.Down(true)
		<-l.Done()
		if _, err := b.Join(t.Context(), broker.Worker(server)); err == nil {
			t.Error("joined a broker that is down")
		}
		if got := names(b.Messages(queue)); !slices.Equal(got, []string{"durable"}) {
			t.Errorf("after a restart: %v, want the durable one", got)
		}
		b.Down(false)
		join(t, b, broker.Worker(server))
	})
}

// TestDownForgetsNoMailbox: what is bound and what is not outlives a restart, as locks do not.
func TestDownForgetsNoMailbox(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := memory.New(memory.Options{})
		l := join(t, b, broker.Runner("r1"))
		for _, s := range []socketmeta.ServerID{"i1-w1", "i1-w2"} {
			m, err := l.OpenMailbox(t.Context(), s, 1)
			if err != nil {
				t.Fatal(err)
			}
			if s == "i1-w2" {
				if err := m.Unbind(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
		}
		if _, err := l.Lock(t.Context(), "janitor"); err != nil {
			t.Fatal(err)
		}
		b.Down(true)
		b.Down(false)
		l = join(t, b, broker.Worker("i1-w2")) // nobody retires its mailbox any more
		if _, err := l.Lock(t.Context(), "janitor"); err != nil {
			t.Errorf("lock after a restart: %v", err)
		}
		for _, id := range []string{"i1-w1", "i1-w2"} {
			wants(t, broker.Stored, publish(t, l, broker.ToMailbox(socketmeta.ServerID(id)), broker.Message{ID: id}))
		}
		if got := names(b.Messages(broker.MailboxQueue("i1-w1"))); !slices.Equal(got, []string{"i1-w1"}) {
			t.Errorf("in the bound mailbox: %v", got)
		}
		if got := names(b.Messages(broker.QueueParked)); !slices.Equal(got, []string{"i1-w2"}) {
			t.Errorf("parked: %v, want what was for the unbound mailbox", got)
		}
	})
}

func TestBlockHoldsPublishesAndNothingElse(t *testing.T) {
	bubble(t, memory.Options{}, func(t *testing.T, b *memory.Broker, l broker.Link, m broker.Consumer) {
		publish(t, l, mailbox, broker.Message{ID: "before"})
		b.Block(true)
		if !l.Blocked() {
			t.Error("Blocked is false under an alarm")
		}
		if err := m.Ack((<-m.Deliveries()).Tag); err != nil {
			t.Errorf("ack under an alarm: %v", err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if _, err := l.Publish(ctx, mailbox, broker.Message{}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("publish under an alarm: got %v, want a deadline exceeded", err)
		}

		through := make(chan error)
		try := func() {
			_, err := l.Publish(t.Context(), mailbox, broker.Message{ID: "after"})
			through <- err
		}
		go try()
		synctest.Wait()
		b.Block(false)
		if err := <-through; err != nil || l.Blocked() {
			t.Errorf("after the alarm: %v, blocked %v", err, l.Blocked())
		}
		if d := <-m.Deliveries(); d.ID != "after" {
			t.Errorf("got %q, want after", d.ID)
		}

		b.Block(true)
		go try()
		synctest.Wait()
		if err := l.Close(t.Context()); err != nil {
			t.Errorf("Close under an alarm: %v", err)
		}
		if err := <-through; !errors.Is(err, broker.ErrLinkGone) {
			t.Errorf("publish while the link was closed: got %v, want ErrLinkGone", err)
		}
	})
}
