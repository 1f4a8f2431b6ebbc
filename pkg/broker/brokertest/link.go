package brokertest

import (
	"context"
	"errors"

	"github.com/wscluster/wscluster/pkg/broker"
	"github.com/wscluster/wscluster/pkg/wire"
)

func joinTakesTheLock(c *testCase) {
	b, id := c.Broker(), c.worker()
	c.joinAs(b, id)
	for name, other := range map[string]broker.Broker{"the same process": b, "another process": c.Broker()} {
		if _, err := other.Join(c.ctx, id); !errors.Is(err, broker.ErrLocked) {
			c.Errorf("second join from %s: got %v, want ErrLocked", name, err)
		}
	}
	c.join() // another identity
}

func closeFreesTheLock(c *testCase) {
	id := c.worker()
	l := c.joinAs(c.Broker(), id)
	c.closeLink(l)
	c.joinAs(c.Broker(), id)
}

func cutFreesTheLock(c *testCase) {
	id := c.worker()
	l := c.joinAs(c.Broker(), id)
	c.cut(l)
	c.joinAs(c.Broker(), id)
}

func generationsRise(c *testCase) {
	b, id := c.Broker(), c.worker()
	last := uint64(0)
	for i := range 4 {
		l := c.joinAs(b, id)
		if l.Generation() <= last {
			c.Errorf("link %d: generation %d after %d", i+1, l.Generation(), last)
		}
		last = l.Generation()
		if i%2 == 0 {
			c.closeLink(l)
		} else {
			c.cut(l)
		}
	}
}

func contextBoundsOnlyTheJoining(c *testCase) {
	ctx, cancel := context.WithCancel(context.Background())
	s := c.server()
	l, err := c.Broker().Join(ctx, broker.Worker(s))
	if err != nil {
		c.Fatalf("join: %v", err)
	}
	c.Cleanup(func() { l.Close(c.ctx) })
	m, err := l.OpenMailbox(ctx, s, 10)
	if err != nil {
		c.Fatalf("open the mailbox: %v", err)
	}
	cancel()
	c.store(l, broker.ToMailbox(s), "after")
	c.ack(m, c.expect(m, "after")...)

	if _, err := c.Broker().Join(ctx, c.worker()); !errors.Is(err, context.Canceled) {
		c.Errorf("join with a context that has ended: got %v, want context.Canceled", err)
	}
}

func closeEndsTheLink(c *testCase) {
	o := c.openAll()
	c.closeLink(o.link)
	c.done(o.link)
	if err := o.link.Err(); err != nil {
		c.Errorf("link's error after Close: %v, want nil", err)
	}
	c.allEnded(o)
	for name, k := range o.consumers() {
		if err := k.Err(); err != nil {
			c.Errorf("%s: error after Close of its link: %v, want nil", name, err)
		}
	}
	if err := o.link.Close(c.ctx); err != nil {
		c.Errorf("second Close: %v", err)
	}
}

func cutEndsTheLink(c *testCase) {
	o := c.openAll()
	c.cut(o.link)
	if o.link.Err() == nil {
		c.Error("link's error after a cut is nil")
	}
	c.allEnded(o)
	for name, k := range o.consumers() {
		if k.Err() == nil {
			c.Errorf("%s: error after a cut is nil", name)
		}
	}
	if err := o.link.Close(c.ctx); err != nil {
		c.Errorf("Close after a cut: %v", err)
	}
}

// opened is a link with one of everything on it, and one unsettled delivery on each consumer.
type opened struct {
	link    broker.Link
	mailbox broker.Mailbox
	tasks   broker.Consumer
	tags    map[string]uint64
}

func (o *opened) consumers() map[string]broker.Consumer {
	return map[string]broker.Consumer{"mailbox": o.mailbox, "tasks": o.tasks}
}

func (c *testCase) openAll() *opened {
	c.Helper()
	s, kind := c.server(), c.kind()
	o := &opened{link: c.joinAs(c.Broker(), broker.Worker(s))}
	o.mailbox, o.tasks = c.own(o.link, s, 5), c.take(o.link, 5, kind)
	c.store(o.link, broker.ToMailbox(s), "event")
	c.store(o.link, broker.ToTasks(kind, wire.Normal), "task")
	o.tags = map[string]uint64{
		"mailbox": c.expect(o.mailbox, "event")[0].Tag,
		"tasks":   c.expect(o.tasks, "task")[0].Tag,
	}
	return o
}

// allEnded sees that nothing that was opened on a link outlives it.
func (c *testCase) allEnded(o *opened) {
	c.Helper()
	drained(c, "inbox", o.link.Inbox())
	for name, k := range o.consumers() {
		drained(c, name, k.Deliveries())
		if err := k.Ack(o.tags[name]); !errors.Is(err, broker.ErrLinkGone) {
			c.Errorf("%s: ack after the end: got %v, want ErrLinkGone", name, err)
		}
		for call, f := range map[string]func(context.Context) error{"Pause": k.Pause, "Resume": k.Resume} {
			if err := f(c.ctx); !errors.Is(err, broker.ErrLinkGone) {
				c.Errorf("%s: %s after the end: got %v, want ErrLinkGone", name, call, err)
			}
		}
		if err := k.Close(c.ctx); err != nil {
			c.Errorf("%s: Close after the end: %v", name, err)
		}
	}
	c.ended(o.mailbox)
	if _, err := o.link.Publish(c.ctx, broker.ToAll(), broker.Message{}); !errors.Is(err, broker.ErrLinkGone) {
		c.Errorf("publish after the end: got %v, want ErrLinkGone", err)
	}
	if _, err := o.link.OpenMailbox(c.ctx, c.server(), 1); !errors.Is(err, broker.ErrLinkGone) {
		c.Errorf("open a mailbox after the end: got %v, want ErrLinkGone", err)
	}
	if _, err := o.link.AdoptMailbox(c.ctx, c.server(), 1); !errors.Is(err, broker.ErrLinkGone) {
		c.Errorf("adopt a mailbox after the end: got %v, want ErrLinkGone", err)
	}
	if _, err := o.link.OpenTasks(c.ctx, []string{c.kind()}, 1); !errors.Is(err, broker.ErrLinkGone) {
		c.Errorf("open tasks after the end: got %v, want ErrLinkGone", err)
	}
	if _, err := o.link.Lock(c.ctx, c.name); !errors.Is(err, broker.ErrLinkGone) {
		c.Errorf("lock after the end: got %v, want ErrLinkGone", err)
	}
	if err := o.link.Register(c.ctx, c.server()); !errors.Is(err, broker.ErrLinkGone) {
		c.Errorf("register after the end: got %v, want ErrLinkGone", err)
	}
	if _, err := o.link.Servers(c.ctx); !errors.Is(err, broker.ErrLinkGone) {
		c.Errorf("servers after the end: got %v, want ErrLinkGone", err)
	}
}

// ended sees that what only a mailbox can do is over with it.
func (c *testCase) ended(m broker.Mailbox) {
	c.Helper()
	if ds, _, err := m.TakeHeld(c.ctx, 1); !errors.Is(err, broker.ErrLinkGone) || len(ds) > 0 {
		c.Errorf("TakeHeld after the end: got %v, want ErrLinkGone", err)
	}
	for call, f := range map[string]func(context.Context) error{"Unbind": m.Unbind, "Delete": m.Delete} {
		if err := f(c.ctx); !errors.Is(err, broker.ErrLinkGone) {
			c.Errorf("%s after the end: got %v, want ErrLinkGone", call, err)
		}
	}
}

func restartKeepsWhatWasStored(c *testCase) {
	s, kind := c.server(), c.kind()
	l := c.joinAs(c.Broker(), broker.Worker(s))
	m := c.own(l, s, 3)
	c.closeConsumer(c.take(l, 1, kind))
	c.store(l, broker.ToMailbox(s), ids("e", 1, 6)...)
	c.store(l, broker.ToTasks(kind, wire.Normal), "task")
	c.store(l, broker.ToHold(s), ids("h", 1, 3)...)
	c.expect(m, ids("e", 1, 3)...)
	c.takeHeld(m, 2, "h1", "h2")
	if err := l.Register(c.ctx, s); err != nil {
		c.Fatalf("register: %v", err)
	}

	c.Restart(c.T)
	c.done(l)
	if l.Err() == nil {
		c.Error("link's error after a restart is nil")
	}
	l = c.joinAs(c.Broker(), broker.Worker(s))
	m = c.own(l, s, 10)
	c.ack(m, c.expect(m, ids("e", 1, 6)...)...)
	c.ack(m, c.takeHeld(m, 10, ids("h", 1, 3)...)...)
	c.registered(s)
	tasks := c.take(l, 1, kind)
	c.ack(tasks, c.expect(tasks, "task")...)
}
