package brokertest

import (
	"slices"

	"github.com/wscluster/wscluster/pkg/broker"
)

// takeHeld takes from the overflow, and sees these IDs in this order.
func (c *testCase) takeHeld(m broker.Mailbox, max int, want ...string) []broker.Delivery {
	c.Helper()
	ds, left, err := m.TakeHeld(c.ctx, max)
	if err != nil {
		c.Fatalf("take what is held: %v", err)
	}
	got := idsOf(ds)
	if !slices.Equal(got, want) {
		c.Fatalf("take %d: got %v, want %v", max, got, want)
	}
	if len(ds) < max && left != 0 {
		c.Fatalf("take %d: got %v and %d left, want none left", max, got, left)
	}
	return ds
}

func idsOf(ds []broker.Delivery) (out []string) {
	for _, d := range ds {
		out = append(out, d.ID)
	}
	return out
}

func overflowGoesWithItsMailbox(c *testCase) {
	s := c.server()
	l := c.join()
	if o := c.outcome(l, broker.ToHold(s), "early"); o != broker.Returned {
		c.Errorf("overflow of a mailbox that does not exist: %v, want returned", o)
	}
	m := c.own(l, s, 10)
	c.takeHeld(m, 10)
	c.store(l, broker.ToHold(s), "m1")
	c.store(l, broker.ToHold(s), "m2")
	c.silent(m) // it is not delivered by itself
	c.closeConsumer(m)
	c.store(l, broker.ToHold(s), "m3")

	m = c.adopt(c.join(), s, 10)
	c.store(l, broker.ToHold(s), "m4")
	c.ack(m, c.takeHeld(m, 10, ids("m", 1, 4)...)...)
	c.takeHeld(m, 10)
	c.silent(m)

	parked := c.adopt(l, broker.ParkedServer, 10)
	c.store(l, broker.ToHold(broker.ParkedServer), "p")
	c.ack(parked, c.takeHeld(parked, 1, "p")...)
}

// takeHeldIsBounded: by its argument and by what is there, and it neither counts to the prefetch nor
// waits for it.
func takeHeldIsBounded(c *testCase) {
	s := c.server()
	l := c.join()
	m := c.own(l, s, 2)
	c.store(l, broker.ToMailbox(s), ids("m", 1, 4)...)
	c.store(l, broker.ToHold(s), ids("h", 1, 5)...)
	ds := c.expect(m, "m1", "m2")
	held, left, err := m.TakeHeld(c.ctx, 3)
	if got := idsOf(held); err != nil || !slices.Equal(got, ids("h", 1, 3)) || left != 2 {
		c.Fatalf("take 3 of 5: got %v and %d left (%v), want h1 to h3 and 2 left", got, left, err)
	}
	c.takeHeld(m, 0)
	held = append(held, c.takeHeld(m, 10, "h4", "h5")...)
	c.takeHeld(m, 1)
	c.ack(m, ds[0])
	ds = append(ds, c.expect(m, "m3")...)

	seen := map[uint64]string{}
	for _, d := range slices.Concat(ds, held) {
		if other, twice := seen[d.Tag]; twice {
			c.Errorf("%s and %s have the same tag", other, d.ID)
		}
		seen[d.Tag] = d.ID
		if d.Redelivered {
			c.Errorf("%s is marked as redelivered", d.ID)
		}
	}
	if err := m.Requeue(held[0].Tag); err == nil {
		c.Error("the overflow was requeued")
	}
	c.ack(m, held[4], held[0])
	c.silent(m) // the prefetch is as full as it was
	c.ack(m, ds[1], ds[2])
	c.ack(m, c.expect(m, "m4")...)
	c.takeHeld(m, 10)
}

func unsettledHeldComeAgainInOrder(c *testCase) {
	s := c.server()
	publisher, l := c.join(), c.join()
	m := c.own(l, s, 10)
	c.store(publisher, broker.ToHold(s), ids("h", 1, 8)...)
	ds := c.takeHeld(m, 3, "h1", "h2", "h3")
	ds = append(ds, c.takeHeld(m, 3, "h4", "h5", "h6")...)
	c.ack(m, ds[1])
	c.closeConsumer(m)
	c.store(publisher, broker.ToHold(s), "h9")

	l = c.join()
	m = c.adopt(l, s, 10)
	ds = c.takeHeld(m, 4, "h1", "h3", "h4", "h5")
	c.ack(m, ds[3])
	c.cut(l)

	m = c.adopt(publisher, s, 10)
	var again []string
	for _, d := range c.takeHeld(m, 100, "h1", "h3", "h4", "h6", "h7", "h8", "h9") {
		if d.Redelivered {
			again = append(again, d.ID)
		}
		c.ack(m, d)
	}
	if want := []string{"h1", "h3", "h4", "h6"}; !slices.Equal(again, want) {
		c.Errorf("marked as redelivered: %v, want %v", again, want)
	}
	c.closeConsumer(m)
	c.takeHeld(c.own(publisher, s, 10), 100)
}
