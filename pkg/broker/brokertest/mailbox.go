package brokertest

import (
	"errors"
	"slices"

	"github.com/wscluster/wscluster/pkg/broker"
)

func mailboxHasOneOwner(c *testCase) {
	s := c.server()
	l := c.join()
	m := c.own(l, s, 10)
	other := c.join()
	for name, l := range map[string]broker.Link{"the owner's link": l, "another link": other} {
		if _, err := l.OpenMailbox(c.ctx, s, 10); !errors.Is(err, broker.ErrRefused) {
			c.Errorf("second open from %s: got %v, want ErrRefused", name, err)
		}
	}
	c.store(l, broker.ToMailbox(s), "undisturbed")
	c.store(other, broker.ToMailbox(s), "both")
	c.ack(m, c.expect(m, "undisturbed", "both")...)

	c.closeConsumer(m)
	if err := m.Err(); err != nil {
		c.Errorf("error after Close: %v, want nil", err)
	}
	drained(c, "deliveries of a closed consumer", m.Deliveries())
	c.own(other, s, 10)
	c.cut(other)
	c.own(l, s, 10)
}

func mailboxOutlivesItsOwner(c *testCase) {
	s := c.server()
	l := c.join()
	c.closeConsumer(c.own(l, s, 10))
	c.store(l, broker.ToMailbox(s), ids("m", 1, 3)...)
	c.closeLink(l)
	l = c.join()
	c.store(l, broker.ToMailbox(s), ids("m", 4, 6)...)
	m := c.own(l, s, 10)
	for _, d := range c.expect(m, ids("m", 1, 6)...) {
		if d.Redelivered {
			c.Errorf("%s is marked as redelivered", d.ID)
		}
	}
}

func prefetchBoundsUnsettledDeliveries(c *testCase) {
	s := c.server()
	l := c.join()
	m := c.own(l, s, 3)
	c.store(l, broker.ToMailbox(s), ids("m", 1, 6)...)
	ds := c.expect(m, ids("m", 1, 3)...)
	c.silent(m)
	c.ack(m, ds[1])
	c.expect(m, "m4")
	c.silent(m)
	c.ack(m, ds[0], ds[2])
	c.expect(m, "m5", "m6")
}

// manyAreSettledAtOnce settles some of the deliveries together, in no order, and others alone.
func manyAreSettledAtOnce(c *testCase) {
	s := c.server()
	publisher, l := c.join(), c.join()
	m := c.own(l, s, 20)
	c.store(publisher, broker.ToMailbox(s), ids("m", 1, 12)...)
	ds := c.expect(m, ids("m", 1, 12)...)
	c.ack(m)
	c.ack(m, ds[6], ds[3])               // nothing below is settled
	c.ack(m, ds[2], ds[0], ds[1], ds[8]) // up to the fourth, and one behind
	c.ack(m, ds[5])
	c.ack(m, ds[10], ds[4]) // up to the seventh
	c.closeConsumer(m)

	m = c.own(publisher, s, 20)
	rest := c.expect(m, "m8", "m10", "m12")
	c.ack(m, rest...)
	c.closeConsumer(m)
	c.silent(c.own(l, s, 20))
}

func prefetchOutOfRangeIsAnError(c *testCase) {
	s := c.server()
	l := c.join()
	for _, prefetch := range []int{-1, 0, 1 << 16} {
		if _, err := l.OpenMailbox(c.ctx, s, prefetch); err == nil {
			c.Errorf("a mailbox with prefetch %d was opened", prefetch)
		}
	}
	c.own(l, s, 1<<16-1)
}

func closeRedeliversInOrder(c *testCase) {
	redeliversInOrder(c, func(_ broker.Link, m broker.Consumer) { c.closeConsumer(m) })
}

func cutRedeliversInOrder(c *testCase) {
	redeliversInOrder(c, func(l broker.Link, _ broker.Consumer) { c.cut(l) })
}

// redeliversInOrder ends the owner when it has settled one message in the middle of those that it
// holds, and sees the next owner get the rest in order, with later messages behind.
func redeliversInOrder(c *testCase, end func(broker.Link, broker.Consumer)) {
	s := c.server()
	publisher, l := c.join(), c.join()
	m := c.own(l, s, 5)
	c.store(publisher, broker.ToMailbox(s), ids("m", 1, 10)...)
	ds := c.expect(m, ids("m", 1, 5)...)
	c.ack(m, ds[1])
	c.expect(m, "m6") // the broker has had the ack
	end(l, m)
	c.store(publisher, broker.ToMailbox(s), "m11", "m12")

	m = c.own(publisher, s, 20)
	want := append([]string{"m1"}, ids("m", 3, 12)...)
	for i, d := range c.expect(m, want...) {
		if redelivered := i < 5; d.Redelivered != redelivered { // m1, m3 to m6
			c.Errorf("%s: redelivered is %v, want %v", d.ID, d.Redelivered, redelivered)
		}
	}
}

func oldTagSettlesNothing(c *testCase) {
	s := c.server()
	publisher := c.join()
	c.closeConsumer(c.own(publisher, s, 1))
	c.store(publisher, broker.ToMailbox(s), "m1", "m2")

	var old []broker.Consumer
	var tags []uint64
	settleOld := func() {
		c.Helper()
		for _, m := range old {
			for _, tag := range tags {
				if err := m.Ack(tag); !errors.Is(err, broker.ErrLinkGone) {
					c.Errorf("ack on an ended consumer: got %v, want ErrLinkGone", err)
				}
				if err := m.Requeue(tag); err == nil {
					c.Error("requeue on an ended consumer worked")
				}
			}
		}
	}
	own := func(l broker.Link) broker.Consumer {
		c.Helper()
		m := c.own(l, s, 10)
		for _, d := range c.expect(m, "m1", "m2") {
			tags = append(tags, d.Tag)
		}
		settleOld()
		old = append(old, m)
		return m
	}

	l := c.join()
	c.closeConsumer(own(l))
	own(l) // on the same link
	c.cut(l)
	l = c.join() // on a later one
	own(l)
	c.closeLink(l)

	m := c.own(publisher, s, 10)
	ds := c.expect(m, "m1", "m2")
	settleOld()
	c.ack(m, ds...)
	c.closeConsumer(m)
	c.silent(c.own(publisher, s, 10))
}

func mailboxIsNotRequeued(c *testCase) {
	s := c.server()
	l := c.join()
	m := c.own(l, s, 10)
	c.store(l, broker.ToMailbox(s), "m")
	d := c.next(m)
	if err := m.Requeue(d.Tag); err == nil {
		c.Error("a mailbox was requeued")
	}
	c.ack(m, d)
}

func pauseKeepsOrderAndLosesNothing(c *testCase) {
	s := c.server()
	l := c.join()
	m := c.own(l, s, 5)
	c.store(l, broker.ToMailbox(s), ids("m", 1, 12)...)
	held := c.expect(m, "m1", "m2") // stays unsettled throughout
	if err := m.Pause(c.ctx); err != nil {
		c.Fatalf("pause: %v", err)
	}
	var got []string
	for underWay := true; underWay; {
		select {
		case d := <-m.Deliveries():
			got = append(got, d.ID)
			c.ack(m, d)
		default:
			underWay = false
		}
	}
	c.store(l, broker.ToMailbox(s), ids("m", 13, 15)...)
	for len(got) < 3 { // those that were under way may come late
		d := c.next(m)
		got = append(got, d.ID)
		c.ack(m, d)
		if len(got) > 3 {
			c.Fatalf("paused, got %v", got)
		}
	}
	c.silent(m)
	if err := m.Resume(c.ctx); err != nil {
		c.Fatalf("resume: %v", err)
	}
	for len(got) < 13 {
		d := c.next(m)
		got = append(got, d.ID)
		c.ack(m, d)
	}
	if want := ids("m", 3, 15); !slices.Equal(got, want) {
		c.Errorf("got %v, want %v", got, want)
	}
	c.ack(m, held...)
	c.silent(m)
}

func pauseKeepsTheOwnership(c *testCase) {
	s := c.server()
	l, other := c.join(), c.join()
	m := c.own(l, s, 5)
	if err := m.Pause(c.ctx); err != nil {
		c.Fatalf("pause: %v", err)
	}
	if _, err := other.OpenMailbox(c.ctx, s, 5); !errors.Is(err, broker.ErrRefused) {
		c.Errorf("open while the owner pauses: got %v, want ErrRefused", err)
	}
	c.store(other, broker.ToMailbox(s), "m")
	c.silent(m)
	if err := m.Resume(c.ctx); err != nil {
		c.Fatalf("resume: %v", err)
	}
	c.ack(m, c.expect(m, "m")...)

	if err := m.Pause(c.ctx); err != nil {
		c.Fatalf("second pause: %v", err)
	}
	c.closeConsumer(m)
	c.own(other, s, 5)
}
