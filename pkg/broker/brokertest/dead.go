package brokertest

import (
	"github.com/wscluster/wscluster/pkg/broker"
)

// The queue of dead tasks is one for all: others may have left something there, and a test settles only
// what is its own or passed over.

// takeDead takes dead tasks.
func (c *testCase) takeDead(l broker.Link, prefetch int) broker.Consumer {
	c.Helper()
	k, err := l.OpenDeadTasks(c.ctx, prefetch)
	if err != nil {
		c.Fatalf("open the dead tasks: %v", err)
	}
	return k
}

// noDead settles what others have left.
func (c *testCase) noDead(l broker.Link) {
	c.Helper()
	id := c.name + "-last"
	c.store(l, broker.ToDeadTasks(), id)
	k := c.takeDead(l, 100)
	c.contains(k, id)
	c.closeConsumer(k)
}

func deadTaskIsTakenOnce(c *testCase) {
	l := c.join()
	c.noDead(l)
	dead := broker.Message{ID: c.name, Correlation: "t1", Body: []byte(`{"task_id":"t1"}`), Headers: map[string]any{"reason": "bad_body"}}
	if o := c.await(c.publish(l, broker.ToDeadTasks(), dead)); o != broker.Stored {
		c.Fatalf("a dead task: %v", o)
	}
	k, other := c.takeDead(l, 10), c.takeDead(c.join(), 10)
	d := c.next(k)
	if d.ID != dead.ID || d.Correlation != "t1" || string(d.Body) != string(dead.Body) || d.Headers["reason"] != "bad_body" {
		c.Errorf("got %+v, want %+v", d.Message, dead)
	}
	c.silent(other)
	c.ack(k, d)
	c.silent(k)
	c.store(l, broker.ToKeptTasks(), c.name) // where no taker of dead tasks looks
	c.silent(k)
	c.silent(other)
}

func unsettledDeadTasksComeAgain(c *testCase) {
	l, first := c.join(), c.join()
	c.noDead(l)
	c.store(l, broker.ToDeadTasks(), "1", "2", "3")
	k := c.takeDead(first, 2)
	ds := c.expect(k, "1", "2")
	c.silent(k) // beyond the prefetch
	c.ack(k, ds[0])
	c.expect(k, "3")
	c.cut(first)
	next := c.takeDead(l, 10)
	got := map[string]broker.Delivery{}
	for range 2 {
		d := c.next(next)
		got[d.ID] = d
		if !d.Redelivered {
			c.Errorf("%s comes again, and is not marked so", d.ID)
		}
	}
	if len(got) != 2 || got["1"].Tag != 0 {
		c.Errorf("got %v, want 2 and 3", got)
	}
	if err := next.Requeue(got["2"].Tag); err != nil {
		c.Fatalf("requeue: %v", err)
	}
	c.ack(next, got["3"], c.expect(next, "2")[0])
	c.silent(next)
}

func pausedTakerLeavesDeadTasks(c *testCase) {
	l := c.join()
	c.noDead(l)
	k := c.takeDead(l, 1)
	if err := k.Pause(c.ctx); err != nil {
		c.Fatalf("pause: %v", err)
	}
	c.store(l, broker.ToDeadTasks(), "1")
	c.silent(k)
	other := c.takeDead(c.join(), 1)
	c.ack(other, c.expect(other, "1")...)
	c.closeConsumer(other)
	if err := k.Resume(c.ctx); err != nil {
		c.Fatalf("resume: %v", err)
	}
	c.store(l, broker.ToDeadTasks(), "2")
	c.ack(k, c.expect(k, "2")...)
	for _, prefetch := range []int{-1, 0, 1 << 16} {
		if k, err := l.OpenDeadTasks(c.ctx, prefetch); err == nil || k != nil {
			c.Errorf("prefetch %d: no error", prefetch)
		}
	}
}
