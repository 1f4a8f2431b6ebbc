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
	"github.com/wscluster/wscluster/pkg/wire"
)

func TestQueueRefusesBeyondItsMessages(t *testing.T) {
	bubble(t, memory.Options{Limits: memory.Limits{QueueMessages: 3}}, func(t *testing.T, b *memory.Broker, l broker.Link, m broker.Consumer) {
		for range 100 { // given to the owner: these do not count
			wants(t, broker.Stored, publish(t, l, mailbox, broker.Message{}))
		}
		for range 3 {
			wants(t, broker.Stored, publish(t, l, mailbox, broker.Message{}))
		}
		wants(t, broker.Refused, publish(t, l, mailbox, broker.Message{}))
		if ready, unsettled := b.Depth(queue); ready != 3 || unsettled != 100 {
			t.Errorf("%d ready and %d unsettled, want 3 and 100", ready, unsettled)
		}
		m.Ack((<-m.Deliveries()).Tag)
		wants(t, broker.Stored, publish(t, l, mailbox, broker.Message{}))
	})
}

func TestQueueRefusesBeyondItsBytes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := memory.New(memory.Options{Limits: memory.Limits{QueueBytes: 10}})
		l := join(t, b, broker.Worker(server))
		for _, to := range []broker.Address{broker.ToDeadEvents(), broker.ToDeadTasks(), mailbox} { // the last is parked
			wants(t, broker.Stored, publish(t, l, to, broker.Message{Body: make([]byte, 6)}))
			wants(t, broker.Refused, publish(t, l, to, broker.Message{Body: make([]byte, 5)}))
			wants(t, broker.Stored, publish(t, l, to, broker.Message{Body: make([]byte, 4)}))
		}
		for _, name := range []string{broker.QueueDeadEvents, broker.QueueDeadTasks, broker.QueueParked} {
			if ready, _ := b.Depth(name); ready != 2 {
				t.Errorf("%s holds %d, want 2", name, ready)
			}
		}
		if ready, unsettled := b.Depth("no such queue"); ready+unsettled > 0 || b.Messages("no such queue") != nil {
			t.Error("a queue that does not exist holds something")
		}
	})
}

func TestOverflowRefusesBeyondItsOwnBounds(t *testing.T) {
	limits := memory.Limits{QueueMessages: 1, QueueBytes: 1, HoldMessages: 3, HoldBytes: 10}
	bubble(t, memory.Options{Limits: limits}, func(t *testing.T, b *memory.Broker, l broker.Link, m broker.Consumer) {
		hold, overflow := broker.ToHold(server), m.(broker.Mailbox)
		for range 3 {
			wants(t, broker.Stored, publish(t, l, hold, broker.Message{Body: make([]byte, 3)}))
		}
		wants(t, broker.Refused, publish(t, l, hold, broker.Message{}))
		ds, _, err := overflow.TakeHeld(t.Context(), 1) // what is taken does not count
		if err != nil || len(ds) != 1 {
			t.Fatalf("take one: got %d, %v", len(ds), err)
		}
		wants(t, broker.Refused, publish(t, l, hold, broker.Message{Body: make([]byte, 5)}))
		wants(t, broker.Stored, publish(t, l, hold, broker.Message{Body: make([]byte, 4)}))
		if ready, unsettled := b.Depth(broker.HoldQueue(server)); ready != 3 || unsettled != 1 {
			t.Errorf("%d ready and %d unsettled, want 3 and 1", ready, unsettled)
		}
	})
}

func TestPublishBlocksBeyondTheWindow(t *testing.T) {
	bubble(t, memory.Options{Window: 2}, func(t *testing.T, b *memory.Broker, l broker.Link, _ broker.Consumer) {
		b.OnPublish(func(memory.Publish) memory.Verdict { return memory.Verdict{Delay: time.Minute} })
		first := publish(t, l, mailbox, broker.Message{})
		publish(t, l, mailbox, broker.Message{})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := l.Publish(ctx, mailbox, broker.Message{}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("third publish: got %v, want a deadline exceeded", err)
		}
		publish(t, l, mailbox, broker.Message{})
		if first.Outcome() != broker.Stored {
			t.Error("the third publish went before the first was answered")
		}
		gone := make(chan error)
		go func() {
			publish(t, l, mailbox, broker.Message{})
			_, err := l.Publish(t.Context(), mailbox, broker.Message{})
			gone <- err
		}()
		synctest.Wait()
		b.CutLinks()
		if err := <-gone; !errors.Is(err, broker.ErrLinkGone) {
			t.Errorf("publish that waited for room when the link was cut: got %v, want ErrLinkGone", err)
		}
	})
}

func TestInboxDropsTheNewestAndCountsThem(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := memory.New(memory.Options{Inbox: 2})
		l := join(t, b, broker.Worker(server))
		for _, id := range []string{"1", "2", "3"} {
			wants(t, broker.Stored, publish(t, l, broker.ToAll(), broker.Message{ID: id}))
		}
		for _, want := range []string{"1", "2"} {
			if m := <-l.Inbox(); m.ID != want {
				t.Errorf("got %q, want %q", m.ID, want)
			}
		}
		if len(l.Inbox()) > 0 || b.Dropped() != 1 {
			t.Errorf("%d left and %d dropped, want 0 and 1", len(l.Inbox()), b.Dropped())
		}
	})
}

func TestCloseGivesUpOnReceiptsWhenItsContextEnds(t *testing.T) {
	bubble(t, memory.Options{}, func(t *testing.T, b *memory.Broker, l broker.Link, _ broker.Consumer) {
		other := join(t, b, broker.Runner("r1"))
		b.OnPublish(func(memory.Publish) memory.Verdict { return memory.Verdict{Delay: time.Hour} })
		r := publish(t, l, mailbox, broker.Message{ID: "1"})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		closed := make(chan error)
		go func() { closed <- l.Close(ctx) }()
		synctest.Wait()
		publish(t, other, mailbox, broker.Message{ID: "2"}) // the mailbox was given up at once
		if m, err := other.AdoptMailbox(t.Context(), server, 2); err != nil {
			t.Errorf("adopt while the owner's link is closed: %v", err)
		} else if first, second := <-m.Deliveries(), <-m.Deliveries(); first.ID != "1" || second.ID != "2" {
			t.Errorf("the adopter got %q and %q, want 1 and 2", first.ID, second.ID)
		}
		if err := <-closed; !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Close: got %v, want a deadline exceeded", err)
		}
		wants(t, broker.Unknown, r)
		if l.Err() != nil {
			t.Errorf("error %v after Close, want nil", l.Err())
		}
	})
}

func TestSettlingTwiceEndsTheLink(t *testing.T) {
	bubble(t, memory.Options{}, func(t *testing.T, _ *memory.Broker, l broker.Link, m broker.Consumer) {
		publish(t, l, mailbox, broker.Message{})
		d := <-m.Deliveries()
		if err := m.Ack(d.Tag); err != nil {
			t.Fatal(err)
		}
		if err := m.Ack(d.Tag); !errors.Is(err, broker.ErrLinkGone) {
			t.Errorf("second ack: got %v, want ErrLinkGone", err)
		}
		<-l.Done()
	})
}

func TestKindNamedTwiceIsTakenOnce(t *testing.T) {
	bubble(t, memory.Options{}, func(t *testing.T, b *memory.Broker, l broker.Link, _ broker.Consumer) {
		k, err := l.OpenTasks(t.Context(), []string{"make", "build", "make"}, 5)
		if err != nil {
			t.Fatal(err)
		}
		publish(t, l, broker.ToTasks("make", wire.Normal), broker.Message{ID: "t"})
		if err := k.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := names(b.Messages(broker.TasksQueue("make", wire.Normal))); !slices.Equal(got, []string{"t"}) {
			t.Errorf("given back: %v, want t once", got)
		}
	})
}

func TestEndedContextDoesNothing(t *testing.T) {
	bubble(t, memory.Options{}, func(t *testing.T, b *memory.Broker, l broker.Link, m broker.Consumer) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := l.Publish(ctx, mailbox, broker.Message{}); !errors.Is(err, context.Canceled) {
			t.Errorf("publish: got %v, want context.Canceled", err)
		}
		if _, err := l.OpenTasks(ctx, []string{"make"}, 1); !errors.Is(err, context.Canceled) {
			t.Errorf("open tasks: got %v, want context.Canceled", err)
		}
		if _, err := l.AdoptMailbox(ctx, "i1-w2", 1); !errors.Is(err, context.Canceled) {
			t.Errorf("adopt: got %v, want context.Canceled", err)
		}
		if _, err := l.Lock(ctx, "janitor"); !errors.Is(err, context.Canceled) {
			t.Errorf("lock: got %v, want context.Canceled", err)
		}
		if _, _, err := m.(broker.Mailbox).TakeHeld(ctx, 1); !errors.Is(err, context.Canceled) {
			t.Errorf("take what is held: got %v, want context.Canceled", err)
		}
		if _, err := l.OpenTasks(t.Context(), nil, 1); err == nil {
			t.Error("tasks of no kind were opened")
		}
		if ms := b.Messages(queue); ms != nil {
			t.Errorf("%d messages were stored", len(ms))
		}
	})
}

func BenchmarkPublishToAck(b *testing.B) {
	br := memory.New(memory.Options{})
	l, err := br.Join(b.Context(), broker.Worker(server))
	if err != nil {
		b.Fatal(err)
	}
	m, err := l.OpenMailbox(b.Context(), server, 1000)
	if err != nil {
		b.Fatal(err)
	}
	sent := broker.Message{Headers: map[string]any{"seq": int64(1)}, Body: make([]byte, 256)}
	b.ReportAllocs()
	for b.Loop() {
		r, err := l.Publish(b.Context(), mailbox, sent)
		if err != nil {
			b.Fatal(err)
		}
		if err := m.Ack((<-m.Deliveries()).Tag); err != nil {
			b.Fatal(err)
		}
		<-r.Done()
	}
	l.Close(b.Context())
}
