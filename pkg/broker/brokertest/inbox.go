package brokertest

import (
	"strconv"
	"time"

	"github.com/wscluster/wscluster/pkg/broker"
)

// inboxLimit is more than any inbox may hold.
const inboxLimit = 5000

// control reads the next message of an inbox.
func (c *testCase) control(l broker.Link) broker.Message {
	c.Helper()
	select {
	case m, ok := <-l.Inbox():
		if !ok {
			c.Fatalf("the inbox was closed: %v", l.Err())
		}
		return m
	case <-time.After(patience):
		c.Fatal("no control message came")
	}
	panic("unreachable")
}

func controlReachesItsIdentityOnly(c *testCase) {
	worker, runner := c.worker(), broker.Runner(c.name)
	l, w, r := c.join(), c.joinAs(c.Broker(), worker), c.joinAs(c.Broker(), runner)
	sent := broker.Message{
		ID: "id", Type: "type", Correlation: "task-1", App: "app", Transient: true,
		Time:    time.Date(2026, 10, 18, 9, 30, 15, 0, time.UTC),
		Headers: map[string]any{"n": int64(1), "s": "x", "b": true},
		Body:    []byte(`{"to":"one"}`),
	}
	for name, to := range map[broker.Identity]broker.Link{worker: w, runner: r} {
		if o := c.await(c.publish(l, broker.ToControl(name), sent)); o != broker.Stored {
			c.Fatalf("control to %v: %v, want stored", name, o)
		}
		c.same(name.String(), c.control(to), sent)
	}
	for _, l := range []broker.Link{l, w, r} {
		select {
		case m := <-l.Inbox():
			c.Errorf("unexpected control message %q", m.Body)
		case <-time.After(c.Quiet):
		}
	}
}

// Other tests may announce to the same broker, but not at the same time.
func announceReachesAll(c *testCase) {
	links := []broker.Link{c.join(), c.join(), c.joinAs(c.Broker(), broker.Runner(c.name))}
	c.store(links[0], broker.ToAll(), c.name)
	for i, l := range links {
		if m := c.control(l); m.ID != c.name {
			c.Errorf("link %d: got %q, want the announcement", i+1, m.ID)
		}
	}
}

func unreadInboxDropsTheNewest(c *testCase) {
	id, s := c.worker(), c.server()
	l := c.join()
	unread := c.joinAs(c.Broker(), id)
	m := c.own(unread, s, 10)
	c.store(l, broker.ToControl(id), ids("", 1, inboxLimit)...)
	c.store(l, broker.ToMailbox(s), "flows")
	c.expect(m, "flows")

	var got, last int
	take := func(msg broker.Message) {
		n, err := strconv.Atoi(msg.ID)
		if err != nil || n <= last || got == 0 && n != 1 {
			c.Fatalf("control message %d is %q, after %d", got+1, msg.ID, last)
		}
		got, last = got+1, n
	}
	for quiet := false; !quiet; {
		select {
		case msg := <-unread.Inbox():
			take(msg)
		case <-time.After(c.Quiet):
			quiet = true
		}
	}
	c.store(l, broker.ToControl(id), "next")
	for msg := c.control(unread); msg.ID != "next"; msg = c.control(unread) {
		take(msg) // it was on its way for longer
	}
	if got == 0 || got >= inboxLimit {
		c.Errorf("the inbox held %d of %d messages, want fewer", got, inboxLimit)
	}
}
