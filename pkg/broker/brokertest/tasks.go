package brokertest

import (
	"errors"
	"fmt"
	"slices"

	"github.com/wscluster/wscluster/pkg/broker"
	"github.com/wscluster/wscluster/pkg/wire"
)

func slotsBoundTasksOverAllKinds(c *testCase) {
	a, b := c.kind(), c.kind()
	l := c.join()
	k := c.take(l, 3, a, b)
	c.store(l, broker.ToTasks(a, wire.Normal), ids("a", 1, 3)...)
	c.store(l, broker.ToTasks(b, wire.Normal), ids("b", 1, 3)...)
	var held []broker.Delivery
	var got []string
	receive := func() {
		d := c.next(k)
		held, got = append(held, d), append(got, d.ID)
	}
	for range 3 {
		receive()
	}
	c.silent(k)
	for range 3 {
		c.ack(k, held[0])
		held = held[1:]
		receive()
		c.silent(k)
	}
	c.ack(k, held...)
	c.silent(k)
	slices.Sort(got)
	if want := append(ids("a", 1, 3), ids("b", 1, 3)...); !slices.Equal(got, want) {
		c.Errorf("got %v, want %v", got, want)
	}
}

// takerKeepsNoTaskFromOthers: what does not fit a taker's slots is for those that have room, also
// where the tasks of several kinds lie in several queues.
func takerKeepsNoTaskFromOthers(c *testCase) {
	a, b := c.kind(), c.kind()
	l := c.join()
	busy := c.take(l, 1, a, b)
	c.store(l, broker.ToTasks(a, wire.Normal), "a")
	c.store(l, broker.ToTasks(b, wire.Normal), "b")
	held := c.next(busy)
	idle := c.take(c.join(), 1, a, b)
	d := c.next(idle)
	if d.ID == held.ID {
		c.Errorf("%s was given to two takers", d.ID)
	}
	c.ack(idle, d)
	c.ack(busy, held)
	c.silent(idle)
	c.silent(busy)
}

func takersShareTasks(c *testCase) {
	kind := c.kind()
	l := c.join()
	var takers []broker.Consumer
	for range 3 {
		takers = append(takers, c.take(c.join(), 2, kind))
	}
	c.store(l, broker.ToTasks(kind, wire.Normal), ids("t", 10, 35)...)
	var got []string
	for range 2 {
		for _, k := range takers { // each has its share, though nobody has settled anything
			d := c.next(k)
			got = append(got, d.ID)
			defer c.ack(k, d)
		}
	}
	for _, k := range takers {
		c.silent(k)
	}
	rest := c.take(c.join(), 5, kind)
	for len(got) < 26 {
		d := c.next(rest)
		c.ack(rest, d)
		got = append(got, d.ID)
	}
	c.silent(rest)
	slices.Sort(got)
	if want := ids("t", 10, 35); !slices.Equal(got, want) {
		c.Errorf("got %v, want %v", got, want)
	}
}

func waitingCountsWhatNobodyHas(c *testCase) {
	kind := c.kind()
	l := c.join()
	if n, err := l.Waiting(c.ctx, kind, wire.Normal); err == nil {
		c.Errorf("%d tasks of a kind that nobody has", n)
	}
	k := c.take(l, 2, kind)
	c.store(l, broker.ToTasks(kind, wire.Normal), ids("t", 1, 5)...)
	first := c.next(k)
	c.next(k)
	c.waiting(l, kind, wire.Normal, 3)
	c.ack(k, first)
	c.next(k)
	c.waiting(l, kind, wire.Normal, 2)
}

// waiting sees the broker count so many tasks, when it has the time to.
func (c *testCase) waiting(l broker.Link, kind string, p wire.Priority, want int) {
	c.Helper()
	other := errors.New("another number")
	c.soon(fmt.Sprint(want, " waiting tasks"), other, func() error {
		n, err := l.Waiting(c.ctx, kind, p)
		if err == nil && n != want {
			err = other
		}
		return err
	})
}

func requeueRaisesTheAttempt(c *testCase) {
	kind := c.kind()
	l := c.join()
	k := c.take(l, 1, kind)
	c.store(l, broker.ToTasks(kind, wire.Normal), "t")
	for attempt := 1; attempt <= 4; attempt++ {
		d := c.expect(k, "t")[0]
		if d.Attempt != attempt || d.Redelivered != (attempt > 1) {
			c.Errorf("attempt %d: got %d, redelivered %v", attempt, d.Attempt, d.Redelivered)
		}
		if attempt == 4 {
			c.ack(k, d)
			break
		}
		if err := k.Requeue(d.Tag); err != nil {
			c.Fatalf("requeue: %v", err)
		}
	}
	c.closeConsumer(k)
	c.silent(c.take(l, 1, kind))
}

func taskOfGoneTakerIsTakenAgain(c *testCase) {
	kind := c.kind()
	l := c.join()
	first := c.join()
	k := c.take(first, 1, kind)
	c.store(l, broker.ToTasks(kind, wire.Normal), "t")
	c.expect(k, "t")

	c.cut(first)
	k = c.take(l, 1, kind)
	if d := c.expect(k, "t")[0]; d.Attempt != 2 || !d.Redelivered {
		c.Errorf("after a cut: attempt %d, redelivered %v; want 2, true", d.Attempt, d.Redelivered)
	}
	c.closeConsumer(k)
	k = c.take(c.join(), 1, kind)
	d := c.expect(k, "t")[0]
	if d.Attempt != 3 || !d.Redelivered {
		c.Errorf("after Close: attempt %d, redelivered %v; want 3, true", d.Attempt, d.Redelivered)
	}
	c.ack(k, d)
}

func tasksWaitForATaker(c *testCase) {
	kind := c.kind()
	l := c.join()
	c.closeConsumer(c.take(l, 1, kind))
	c.store(l, broker.ToTasks(kind, wire.Normal), ids("t", 1, 3)...)
	k := c.take(l, 5, kind)
	for _, d := range c.expect(k, ids("t", 1, 3)...) {
		if d.Attempt != 1 || d.Redelivered {
			c.Errorf("%s: attempt %d, redelivered %v; want 1, false", d.ID, d.Attempt, d.Redelivered)
		}
	}
}

func pausedTakerTakesNothing(c *testCase) {
	kind := c.kind()
	l := c.join()
	paused, other := c.take(l, 1, kind), c.take(c.join(), 10, kind)
	if err := paused.Pause(c.ctx); err != nil {
		c.Fatalf("pause: %v", err)
	}
	c.store(l, broker.ToTasks(kind, wire.Normal), ids("t", 1, 3)...)
	c.ack(other, c.expect(other, ids("t", 1, 3)...)...)
	c.silent(paused)
	c.closeConsumer(other)
	if err := paused.Resume(c.ctx); err != nil {
		c.Fatalf("resume: %v", err)
	}
	c.store(l, broker.ToTasks(kind, wire.Normal), "t4")
	c.ack(paused, c.expect(paused, "t4")...)
}

// highPriorityIsTakenFirst: of any kind, although normal tasks have waited for longer.
func highPriorityIsTakenFirst(c *testCase) {
	a, b := c.kind(), c.kind()
	l := c.join()
	c.closeConsumer(c.take(l, 1, a, b))
	for _, kind := range []string{a, b} {
		c.store(l, broker.ToTasks(kind, wire.Normal), ids("normal", 1, 2)...)
	}
	for _, kind := range []string{a, b} {
		c.store(l, broker.ToTasks(kind, wire.High), ids("high", 1, 2)...)
	}
	k := c.take(l, 1, a, b)
	for _, ids := range [][]string{{"high1", "high1", "high2", "high2"}, {"normal1", "normal1", "normal2", "normal2"}} {
		for _, id := range ids {
			c.ack(k, c.expect(k, id)...)
		}
	}
	c.silent(k)
}

// highPriorityWaitsForASlotOnly: what came while all slots were taken is the next, before normal tasks
// that came earlier; and nobody needs a normal one to be given a high one.
func highPriorityWaitsForASlotOnly(c *testCase) {
	kind := c.kind()
	l := c.join()
	k := c.take(l, 1, kind)
	c.store(l, broker.ToTasks(kind, wire.High), "first")
	d := c.expect(k, "first")[0]
	c.store(l, broker.ToTasks(kind, wire.Normal), ids("normal", 1, 2)...)
	c.store(l, broker.ToTasks(kind, wire.High), "second")
	c.ack(k, d)
	for _, id := range []string{"second", "normal1", "normal2"} {
		c.ack(k, c.expect(k, id)...)
	}
}

func kindsOfOnePriorityTakeTurns(c *testCase) {
	kinds := []string{c.kind(), c.kind(), c.kind()}
	l := c.join()
	c.closeConsumer(c.take(l, 1, kinds...))
	for _, p := range []wire.Priority{wire.Normal, wire.High} {
		for i, kind := range kinds {
			c.store(l, broker.ToTasks(kind, p), ids(fmt.Sprint(p, "-", i, "-"), 1, 4)...)
		}
	}
	k := c.take(l, 1, kinds...)
	for _, p := range []wire.Priority{wire.High, wire.Normal} {
		for round := range 4 {
			var got, want []string
			for i := range kinds {
				d := c.next(k)
				got, want = append(got, d.ID), append(want, fmt.Sprint(p, "-", i, "-", round+1))
				c.ack(k, d)
			}
			slices.Sort(got) // who is first in a round is the broker's choice
			if !slices.Equal(got, want) {
				c.Fatalf("round %d of the %s ones: got %v, want one of each kind, %v", round+1, p, got, want)
			}
		}
	}
}

func waitingCountsWhatIsTakenBefore(c *testCase) {
	kind := c.kind()
	l := c.join()
	c.closeConsumer(c.take(l, 1, kind))
	c.store(l, broker.ToTasks(kind, wire.Normal), ids("normal", 1, 3)...)
	c.store(l, broker.ToTasks(kind, wire.High), ids("high", 1, 2)...)
	c.waiting(l, kind, wire.High, 2)
	c.waiting(l, kind, wire.Normal, 5)
}
