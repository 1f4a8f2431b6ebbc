package brokertest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"testing"
	"time"

	"github.com/wscluster/wscluster/pkg/broker"
	"github.com/wscluster/wscluster/pkg/socketmeta"
)

// patience is how long a test waits for what must happen, all in all.
const patience = 30 * time.Second

// testCase is one subtest: its broker, its unique names, and steps that fail the test.
type testCase struct {
	*testing.T
	Harness
	ctx   context.Context // ends when patience does, after all that the test closes
	name  string          // [a-z0-9]+, unique
	count int
}

func newCase(t *testing.T, h Harness) *testCase {
	h.Quiet = cmp.Or(h.Quiet, 50*time.Millisecond)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return &testCase{T: t, Harness: h, ctx: ctx, name: "t" + strconv.FormatUint(rand.Uint64(), 36)}
}

func (c *testCase) server() socketmeta.ServerID {
	c.count++
	return socketmeta.ServerID(fmt.Sprintf("%s-w%d", c.name, c.count))
}

func (c *testCase) worker() broker.Identity { return broker.Worker(c.server()) }

func (c *testCase) kind() string {
	c.count++
	return fmt.Sprintf("%s-k%d", c.name, c.count)
}

// join makes a link of a process of its own, as a fresh worker.
func (c *testCase) join() broker.Link {
	c.Helper()
	return c.joinAs(c.Broker(), c.worker())
}

// joinAs joins as soon as id's lock is free. The link is closed when the test ends.
func (c *testCase) joinAs(b broker.Broker, id broker.Identity) (l broker.Link) {
	c.Helper()
	c.soon("join as "+id.String(), broker.ErrLocked, func() (err error) {
		l, err = b.Join(c.ctx, id)
		return err
	})
	c.Cleanup(func() { l.Close(c.ctx) })
	return l
}

// soon tries until it works, as long as it fails with the error that passes by itself.
func (c *testCase) soon(what string, passing error, try func() error) {
	c.Helper()
	for limit := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
		err := try()
		if err == nil {
			return
		}
		if !errors.Is(err, passing) || time.Now().After(limit) {
			c.Fatalf("%s: %v", what, err)
		}
	}
}

// own opens the mailbox of s as soon as its last owner has let go of it.
func (c *testCase) own(l broker.Link, s socketmeta.ServerID, prefetch int) (m broker.Mailbox) {
	c.Helper()
	c.soon("open the mailbox of "+string(s), broker.ErrRefused, func() (err error) {
		m, err = l.OpenMailbox(c.ctx, s, prefetch)
		return err
	})
	return m
}

func (c *testCase) take(l broker.Link, slots int, kinds ...string) broker.Consumer {
	c.Helper()
	k, err := l.OpenTasks(c.ctx, kinds, slots)
	if err != nil {
		c.Fatalf("open tasks: %v", err)
	}
	return k
}

func (c *testCase) publish(l broker.Link, to broker.Address, m broker.Message) broker.Receipt {
	c.Helper()
	r, err := l.Publish(c.ctx, to, m)
	if err != nil {
		c.Fatalf("publish %q to %v: %v", m.ID, to, err)
	}
	return r
}

func (c *testCase) await(r broker.Receipt) broker.Outcome {
	c.Helper()
	o, err := broker.Await(c.ctx, r)
	if err != nil {
		c.Fatalf("no answer to a publish: %v", err)
	}
	return o
}

// outcome publishes a small durable message and returns what became of it.
func (c *testCase) outcome(l broker.Link, to broker.Address, id string) broker.Outcome {
	c.Helper()
	return c.await(c.publish(l, to, broker.Message{ID: id, Body: []byte(`{}`)}))
}

// store publishes small durable messages with these IDs and sees them stored.
func (c *testCase) store(l broker.Link, to broker.Address, ids ...string) {
	c.Helper()
	var rs []broker.Receipt
	for _, id := range ids {
		rs = append(rs, c.publish(l, to, broker.Message{ID: id, Body: []byte(`{}`)}))
	}
	for i, r := range rs {
		if o := c.await(r); o != broker.Stored {
			c.Fatalf("publish %q to %v: %v, want stored", ids[i], to, o)
		}
	}
}

// next returns the next delivery.
func (c *testCase) next(k broker.Consumer) broker.Delivery {
	c.Helper()
	select {
	case d, ok := <-k.Deliveries():
		if !ok {
			c.Fatalf("deliveries ended: %v", k.Err())
		}
		return d
	case <-time.After(patience):
		c.Fatal("no delivery came")
	}
	panic("unreachable")
}

// expect takes deliveries with these IDs in this order, and returns them.
func (c *testCase) expect(k broker.Consumer, ids ...string) (ds []broker.Delivery) {
	c.Helper()
	for i, id := range ids {
		d := c.next(k)
		if d.ID != id {
			c.Fatalf("delivery %d: got %q, want %q", i+1, d.ID, id)
		}
		if i > 0 && d.Tag <= ds[i-1].Tag {
			c.Fatalf("delivery %d: tag %d after tag %d", i+1, d.Tag, ds[i-1].Tag)
		}
		ds = append(ds, d)
	}
	return ds
}

// silent sees that no delivery comes for a while.
func (c *testCase) silent(k broker.Consumer) {
	c.Helper()
	select {
	case d, ok := <-k.Deliveries():
		if ok {
			c.Fatalf("unexpected delivery of %q", d.ID)
		}
		c.Fatalf("deliveries ended: %v", k.Err())
	case <-time.After(c.Quiet):
	}
}

// ack acknowledges these deliveries, all at once.
func (c *testCase) ack(k broker.Consumer, ds ...broker.Delivery) {
	c.Helper()
	var tags []uint64
	for _, d := range ds {
		tags = append(tags, d.Tag)
	}
	if err := k.Ack(tags...); err != nil {
		c.Fatalf("ack of %d deliveries: %v", len(ds), err)
	}
}

func (c *testCase) closeConsumer(k broker.Consumer) {
	c.Helper()
	if err := k.Close(c.ctx); err != nil {
		c.Fatalf("close the consumer: %v", err)
	}
}

func (c *testCase) closeLink(l broker.Link) {
	c.Helper()
	if err := l.Close(c.ctx); err != nil {
		c.Fatalf("close the link: %v", err)
	}
}

// cut cuts a link and waits until it has noticed.
func (c *testCase) cut(l broker.Link) {
	c.Helper()
	c.Cut(c.T, l)
	c.done(l)
}

func (c *testCase) done(l broker.Link) {
	c.Helper()
	select {
	case <-l.Done():
	case <-time.After(patience):
		c.Fatal("the link did not end")
	}
}

// drained reads a channel until it is closed, and fails if that does not happen.
func drained[T any](c *testCase, what string, ch <-chan T) {
	c.Helper()
	for timeout := time.After(patience); ; {
		select {
		case _, ok := <-ch:
			if !ok {
				return
			}
		case <-timeout:
			c.Fatalf("%s: not closed", what)
		}
	}
}

// ids returns "<prefix><from>" to "<prefix><to>".
func ids(prefix string, from, to int) (list []string) {
	for i := from; i <= to; i++ {
		list = append(list, prefix+strconv.Itoa(i))
	}
	return list
}
