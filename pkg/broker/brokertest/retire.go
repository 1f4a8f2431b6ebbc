package brokertest

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/wscluster/wscluster/pkg/broker"
	"github.com/wscluster/wscluster/pkg/socketmeta"
)

func (c *testCase) unbind(m broker.Mailbox) {
	c.Helper()
	// A worker that has just gone may be seen alive for a moment.
	c.soon("unbind", broker.ErrLocked, func() error { return m.Unbind(c.ctx) })
}

// delete deletes a mailbox as soon as the broker knows that it is empty.
func (c *testCase) delete(m broker.Mailbox) {
	c.Helper()
	c.soon("delete", broker.ErrNotEmpty, func() error { return m.Delete(c.ctx) })
}

func mailboxOfALivingWorkerIsNotUnbound(c *testCase) {
	s := c.server()
	worker, l := c.joinAs(c.Broker(), broker.Worker(s)), c.join()
	own := c.own(worker, s, 10)
	locked := func(who string, m broker.Mailbox) {
		c.Helper()
		if err := m.Unbind(c.ctx); !errors.Is(err, broker.ErrLocked) {
			c.Errorf("%s unbinds the mailbox of a living worker: got %v, want ErrLocked", who, err)
		}
		if err := m.Delete(c.ctx); err == nil {
			c.Errorf("%s deleted a mailbox that is bound", who)
		}
		id := who + " goes on"
		c.store(l, broker.ToMailbox(s), id)
		c.store(l, broker.ToHold(s), id)
		c.ack(m, c.expect(m, id)...)
		c.ack(m, c.takeHeld(m, 1, id)...)
	}
	locked("the worker", own)
	c.closeConsumer(own)
	m := c.adopt(l, s, 10)
	locked("an adopter", m)
	c.closeConsumer(m)
	locked("the worker again", c.own(worker, s, 10))

	if err := c.adopt(l, broker.ParkedServer, 10).Unbind(c.ctx); err == nil {
		c.Error("the parked mailbox was unbound")
	}
}

func unboundMailboxGetsNothingNew(c *testCase) {
	s := c.abandoned()
	publisher, l := c.join(), c.join()
	c.store(publisher, broker.ToMailbox(s), "m1", "m2", "m3")
	c.store(publisher, broker.ToHold(s), "h1")
	m := c.adopt(l, s, 1)
	first := c.expect(m, "m1")
	c.unbind(m)
	c.unbind(m) // again: nothing changes
	c.store(publisher, broker.ToMailbox(s), c.name)
	if o := c.outcome(publisher, broker.ToHold(s), "h2"); o != broker.Returned {
		c.Errorf("overflow of an unbound mailbox: %v, want returned", o)
	}
	if _, err := c.Broker().Join(c.ctx, broker.Worker(s)); !errors.Is(err, broker.ErrLocked) {
		c.Errorf("join as the worker while its mailbox is retired: got %v, want ErrLocked", err)
	}
	c.store(publisher, broker.ToControl(broker.Worker(s)), "control")
	if got := c.control(l); got.ID != "control" {
		c.Errorf("control: got %q", got.ID)
	}

	c.ack(m, first...)
	for _, id := range []string{"m2", "m3"} {
		c.ack(m, c.expect(m, id)...)
	}
	c.ack(m, c.takeHeld(m, 10, "h1")...)
	c.silent(m)
	c.contains(c.adopt(publisher, broker.ParkedServer, 100), c.name)
}

func onlyAnEmptyMailboxIsDeleted(c *testCase) {
	s := c.abandoned()
	l, other := c.join(), c.join()
	c.store(l, broker.ToMailbox(s), "m1", "m2")
	c.store(l, broker.ToHold(s), "h1")
	m := c.adopt(l, s, 1)
	c.unbind(m)
	left := func(what string) {
		c.Helper()
		if err := m.Delete(c.ctx); !errors.Is(err, broker.ErrNotEmpty) {
			c.Fatalf("delete with %s left: got %v, want ErrNotEmpty", what, err)
		}
		if _, err := other.AdoptMailbox(c.ctx, s, 1); !errors.Is(err, broker.ErrRefused) {
			c.Errorf("adopt from an owner that could not delete: got %v, want ErrRefused", err)
		}
	}
	d := c.expect(m, "m1")
	left("everything")
	c.ack(m, d...)
	d = c.expect(m, "m2")
	c.ack(m, c.takeHeld(m, 10, "h1")...)
	left("an unsettled delivery")
	c.ack(m, d...)
	c.delete(m)
}

func overflowIsNotDeletedEither(c *testCase) {
	s := c.abandoned()
	l := c.join()
	c.store(l, broker.ToHold(s), "h1", "h2")
	m := c.adopt(l, s, 1)
	c.unbind(m)
	for _, id := range []string{"h1", "h2"} {
		if err := m.Delete(c.ctx); !errors.Is(err, broker.ErrNotEmpty) {
			c.Fatalf("delete with %s in the overflow: got %v, want ErrNotEmpty", id, err)
		}
		ds := c.takeHeld(m, 1, id)
		if err := m.Delete(c.ctx); !errors.Is(err, broker.ErrNotEmpty) {
			c.Fatalf("delete with %s unsettled: got %v, want ErrNotEmpty", id, err)
		}
		c.ack(m, ds...)
	}
	c.delete(m)
}

func deletedMailboxIsGone(c *testCase) {
	s := c.abandoned()
	l := c.join()
	m := c.adopt(l, s, 10)
	c.unbind(m)
	c.delete(m)
	drained(c, "deliveries of a deleted mailbox", m.Deliveries())
	if err := m.Err(); err != nil {
		c.Errorf("error after Delete: %v, want nil", err)
	}
	c.ended(m)
	if err := m.Close(c.ctx); err != nil {
		c.Errorf("Close after Delete: %v", err)
	}

	for name, l := range map[string]broker.Link{"the same": l, "another": c.join()} {
		if _, err := l.AdoptMailbox(c.ctx, s, 10); !errors.Is(err, broker.ErrNoMailbox) {
			c.Errorf("adopt after Delete by %s: got %v, want ErrNoMailbox", name, err)
		}
	}
	for _, to := range []broker.Address{broker.ToHold(s), broker.ToControl(broker.Worker(s))} {
		if o := c.outcome(l, to, "m"); o != broker.Returned {
			c.Errorf("publish to %v after Delete: %v, want returned", to, o)
		}
	}
	c.store(l, broker.ToMailbox(s), c.name)
	c.contains(c.adopt(l, broker.ParkedServer, 100), c.name)

	worker, err := c.Broker().Join(c.ctx, broker.Worker(s))
	if err != nil {
		c.Fatalf("join as the worker whose mailbox was deleted: %v", err)
	}
	c.Cleanup(func() { worker.Close(c.ctx) })
	m = c.own(worker, s, 10) // a new one
	c.store(l, broker.ToMailbox(s), "new")
	c.store(l, broker.ToHold(s), "new")
	c.ack(m, c.expect(m, "new")...)
	c.ack(m, c.takeHeld(m, 10, "new")...)
}

// returningWorkerBindsAgain: whoever retires its mailbox may give up, or die, half way.
func returningWorkerBindsAgain(c *testCase) {
	for _, end := range []func(broker.Link, broker.Mailbox){
		func(_ broker.Link, m broker.Mailbox) { c.closeConsumer(m) },
		func(l broker.Link, _ broker.Mailbox) { c.cut(l) },
	} {
		s := c.abandoned()
		publisher, l := c.join(), c.join()
		c.store(publisher, broker.ToMailbox(s), "before")
		c.store(publisher, broker.ToHold(s), "before")
		m := c.adopt(l, s, 10)
		c.expect(m, "before")
		c.unbind(m)
		end(l, m)

		m = c.adopt(publisher, s, 10) // it is there for another to go on
		c.ack(m, c.expect(m, "before")...)
		c.closeConsumer(m)

		m = c.own(c.joinAs(c.Broker(), broker.Worker(s)), s, 10)
		c.store(publisher, broker.ToMailbox(s), "after")
		c.store(publisher, broker.ToHold(s), "after")
		c.ack(m, c.expect(m, "after")...)
		c.ack(m, c.takeHeld(m, 10, "before", "after")...)
	}
}

// retirementIsBegunAgain by whoever goes on with it, since the hold on the identity has ended.
func retirementIsBegunAgain(c *testCase) {
	s := c.abandoned()
	first, second := c.join(), c.join()
	m := c.adopt(first, s, 10)
	c.unbind(m)
	c.closeConsumer(m)
	m = c.adopt(second, s, 10)
	if err := m.Delete(c.ctx); err == nil {
		c.Fatal("a mailbox was deleted whose worker could return")
	}
	c.unbind(m)
	c.delete(m)
}

// retiringLosesNothing publishes all the while that a mailbox is retired: what is stored was in the
// mailbox or is parked, once.
func retiringLosesNothing(c *testCase) {
	const publishers, each = 10, 30 // at least
	s := c.abandoned()
	l := c.join()
	m := c.adopt(l, s, 500)

	deleted := make(chan struct{})
	stored := make(chan string, 100_000)
	var publishing sync.WaitGroup
	for p := range publishers {
		from := c.join()
		publishing.Go(func() { c.publishUntil(deleted, from, s, fmt.Sprintf("%s-%d-", c.name, p), each, stored) })
	}
	found := map[string]int{}
	drain := func(quiet time.Duration) {
		for {
			select {
			case d, ok := <-m.Deliveries():
				if !ok {
					c.Fatalf("deliveries ended: %v", m.Err())
				}
				found[d.ID]++
				c.ack(m, d)
			case <-time.After(quiet):
				return
			}
		}
	}
	for len(found) < 50 {
		d := c.next(m)
		found[d.ID]++
		c.ack(m, d)
	}
	c.unbind(m)
	drain(2 * c.Quiet) // what was on its way
	inMailbox := len(found)
	c.delete(m)
	close(deleted)
	publishing.Wait()
	close(stored)

	end := c.name + "-end"
	c.store(l, broker.ToMailbox(s), end)
	parked := c.adopt(l, broker.ParkedServer, 500)
	for d := c.next(parked); d.ID != end; d = c.next(parked) {
		found[d.ID]++
		c.ack(parked, d)
	}
	count := 0
	for id := range stored {
		if count++; found[id] != 1 {
			c.Errorf("%s was stored and came %d times, want once", id, found[id])
		}
	}
	if count == inMailbox {
		c.Errorf("all %d came before the mailbox was unbound: this tells nothing", count)
	}
}

// publishUntil publishes one after the other until it is told to stop, and at least so many, and
// sends the IDs of those that were stored.
func (c *testCase) publishUntil(stop <-chan struct{}, l broker.Link, s socketmeta.ServerID, prefix string, least int, stored chan<- string) {
	for i := 0; ; i++ {
		select {
		case <-stop:
			if i >= least {
				return
			}
		case <-time.After(time.Millisecond): // other work goes on beside it
		}
		id := fmt.Sprint(prefix, i)
		r, err := l.Publish(c.ctx, broker.ToMailbox(s), broker.Message{ID: id})
		if err != nil {
			c.Errorf("publish %s: %v", id, err)
			return
		}
		if o, err := broker.Await(c.ctx, r); o != broker.Stored {
			c.Errorf("publish %s: %v, %v; want stored", id, o, err)
			return
		}
		stored <- id
	}
}
