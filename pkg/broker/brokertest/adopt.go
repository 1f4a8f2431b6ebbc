package brokertest

import (
	"errors"

	"github.com/wscluster/wscluster/pkg/broker"
	"github.com/wscluster/wscluster/pkg/socketmeta"
)

// abandoned makes a mailbox whose worker is gone.
func (c *testCase) abandoned() socketmeta.ServerID {
	c.Helper()
	s := c.server()
	l := c.joinAs(c.Broker(), broker.Worker(s))
	c.own(l, s, 10)
	c.closeLink(l)
	return s
}

// adopt adopts the mailbox of s as soon as its last owner has let go of it.
func (c *testCase) adopt(l broker.Link, s socketmeta.ServerID, prefetch int) (m broker.Mailbox) {
	c.Helper()
	c.soon("adopt the mailbox of "+string(s), broker.ErrRefused, func() (err error) {
		m, err = l.AdoptMailbox(c.ctx, s, prefetch)
		return err
	})
	return m
}

// returned sees that an address takes nothing, as soon as those who answered to it are gone.
func (c *testCase) returned(l broker.Link, to broker.Address) {
	c.Helper()
	somebody := errors.New("it was not returned")
	c.soon("publish to "+to.Exchange+" "+to.Key, somebody, func() error {
		if c.outcome(l, to, "nobody") != broker.Returned {
			return somebody
		}
		return nil
	})
}

func adoptionMakesNothing(c *testCase) {
	s := c.server()
	l := c.join()
	for range 2 {
		if _, err := l.AdoptMailbox(c.ctx, s, 10); !errors.Is(err, broker.ErrNoMailbox) {
			c.Errorf("adopt a mailbox that nobody ever opened: got %v, want ErrNoMailbox", err)
		}
	}
	for _, to := range []broker.Address{broker.ToHold(s), broker.ToControl(broker.Worker(s))} {
		if o := c.outcome(l, to, "m"); o != broker.Returned {
			c.Errorf("publish to %v: %v, want returned", to, o)
		}
	}
	c.store(l, broker.ToMailbox(s), c.name)
	parked := c.adopt(l, broker.ParkedServer, 100)
	c.contains(parked, c.name)
	c.closeConsumer(parked)

	m := c.own(l, s, 10)
	c.silent(m)
	c.closeConsumer(m)
	for _, prefetch := range []int{-1, 0, 1 << 16} {
		if _, err := l.AdoptMailbox(c.ctx, s, prefetch); err == nil || errors.Is(err, broker.ErrRefused) {
			c.Errorf("adopt with prefetch %d: got %v, want an error that says so", prefetch, err)
		}
	}
	c.adopt(l, s, 1<<16-1)
}

func ownedMailboxIsNotAdopted(c *testCase) {
	s := c.server()
	l, other := c.joinAs(c.Broker(), broker.Worker(s)), c.join()
	refused := func(owner string) {
		c.Helper()
		for name, l := range map[string]broker.Link{"its worker": l, "another": other} {
			if _, err := l.AdoptMailbox(c.ctx, s, 10); !errors.Is(err, broker.ErrRefused) {
				c.Errorf("%s adopts from %s: got %v, want ErrRefused", name, owner, err)
			}
			if _, err := l.OpenMailbox(c.ctx, s, 10); !errors.Is(err, broker.ErrRefused) {
				c.Errorf("%s opens from %s: got %v, want ErrRefused", name, owner, err)
			}
		}
	}
	m := c.own(l, s, 10)
	refused("its worker")
	c.store(other, broker.ToMailbox(s), "m1")
	c.ack(m, c.expect(m, "m1")...)

	c.closeConsumer(m) // handed over: its worker lives on
	m = c.adopt(other, s, 10)
	refused("an adopter")
	c.store(l, broker.ToMailbox(s), "m2")
	c.ack(m, c.expect(m, "m2")...)

	c.closeConsumer(m) // and handed back
	m = c.own(l, s, 10)
	refused("its worker again")
	c.store(other, broker.ToMailbox(s), "m3")
	c.ack(m, c.expect(m, "m3")...)
}

func adopterGetsWhatWasUnsettledInOrder(c *testCase) {
	s := c.server()
	publisher, l := c.join(), c.joinAs(c.Broker(), broker.Worker(s))
	m := c.own(l, s, 5)
	c.store(publisher, broker.ToMailbox(s), ids("m", 1, 8)...)
	ds := c.expect(m, ids("m", 1, 5)...)
	c.ack(m, ds[2])
	c.expect(m, "m6") // the broker has had the ack
	c.cut(l)
	c.store(publisher, broker.ToMailbox(s), "m9")

	adopter := c.join()
	m = c.adopt(adopter, s, 3)
	c.expect(m, "m1", "m2", "m4")
	c.cut(adopter) // in the middle of it

	m = c.adopt(c.join(), s, 20)
	for i, d := range c.expect(m, "m1", "m2", "m4", "m5", "m6", "m7", "m8", "m9") {
		if redelivered := i < 5; d.Redelivered != redelivered {
			c.Errorf("%s: redelivered is %v, want %v", d.ID, d.Redelivered, redelivered)
		}
		c.ack(m, d)
	}
	c.silent(m)
}

func controlReachesTheAdopter(c *testCase) {
	s := c.abandoned()
	id := broker.Worker(s)
	l, adopter := c.join(), c.join()
	c.returned(l, broker.ToControl(id))
	m := c.adopt(adopter, s, 10)
	reaches := func(id string, ls ...broker.Link) {
		c.Helper()
		c.store(l, broker.ToControl(broker.Worker(s)), id)
		for i, l := range ls {
			if m := c.control(l); m.ID != id {
				c.Errorf("inbox %d: got %q, want %q", i+1, m.ID, id)
			}
		}
	}
	reaches("adopted", adopter)
	worker := c.joinAs(c.Broker(), id)
	reaches("its worker is back", worker, adopter)
	c.closeConsumer(m)
	reaches("given back", worker)
	m = c.adopt(adopter, s, 10)
	c.closeLink(worker)
	reaches("gone again", adopter)
	c.closeConsumer(m)
	if o := c.outcome(l, broker.ToControl(id), "nobody"); o != broker.Returned {
		c.Errorf("control after the adopter has closed the mailbox: %v, want returned", o)
	}

	second := c.join()
	c.adopt(second, s, 10)
	reaches("adopted by another", second)
	c.cut(second)
	c.returned(l, broker.ToControl(id))
	select {
	case m := <-adopter.Inbox():
		c.Errorf("the adopter got %q after it gave the mailbox up", m.ID)
	default:
	}
}
