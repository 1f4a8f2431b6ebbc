package brokertest

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"github.com/wscluster/wscluster/pkg/broker"
	"github.com/wscluster/wscluster/pkg/wire"
)

func messageArrivesAsItWasSent(c *testCase) {
	s := c.server()
	l := c.join()
	m := c.own(l, s, 10)
	large := make([]byte, broker.MaxMessage)
	rand.NewChaCha8([32]byte{}).Read(large)
	for name, sent := range map[string]broker.Message{
		"nothing in it": {},
		"everything in it": {
			ID: "id", Type: "type", Content: "text/plain", Correlation: "task-1", App: "app",
			Time: time.Date(2026, 10, 18, 9, 30, 15, 0, time.UTC),
			Headers: map[string]any{
				"text": "grün", "empty": "", "long": strings.Repeat("x", 1000), "yes": true, "no": false,
				"zero": int64(0), "small": int64(-3), "lowest": int64(math.MinInt64), "highest": int64(math.MaxInt64),
			},
			Body: []byte(`{"a": 1}`),
		},
		"transient":         {ID: "t", Transient: true, Body: []byte(`{}`)},
		"body is not JSON":  {ID: "b", Body: []byte("\x00\xff\r\n")},
		"body of one block": {ID: "l", Body: large},
		"fractions of time": {ID: "f", Time: time.Date(2026, 10, 18, 9, 30, 15, 999, time.UTC)},
	} {
		if o := c.await(c.publish(l, broker.ToMailbox(s), sent)); o != broker.Stored {
			c.Fatalf("%s: %v, want stored", name, o)
		}
		d := c.next(m)
		c.ack(m, d)
		c.same(name, d.Message, sent)
		if d.Redelivered {
			c.Errorf("%s: marked as redelivered", name)
		}
	}
}

// same compares what came with what was sent.
func (c *testCase) same(name string, got, want broker.Message) {
	c.Helper()
	if got.ID != want.ID || got.Type != want.Type || got.Content != want.Content || got.Correlation != want.Correlation || got.App != want.App || got.Transient != want.Transient {
		c.Errorf("%s: got %+v, want %+v", name, got, want)
	}
	if !got.Time.Equal(want.Time.Truncate(time.Second)) {
		c.Errorf("%s: time: got %v, want the whole second of %v", name, got.Time, want.Time)
	}
	if !maps.Equal(got.Headers, want.Headers) {
		c.Errorf("%s: headers: got %v, want %v", name, got.Headers, want.Headers)
	}
	if !bytes.Equal(got.Body, want.Body) {
		c.Errorf("%s: body: got %d bytes, want %d of other content", name, len(got.Body), len(want.Body))
	}
}

func publishKeepsNothingOfTheMessage(c *testCase) {
	s := c.server()
	l := c.join()
	m := c.own(l, s, 10)
	sent := broker.Message{ID: "m", Body: []byte("first"), Headers: map[string]any{"n": int64(1)}}
	r := c.publish(l, broker.ToMailbox(s), sent)
	copy(sent.Body, "other")
	sent.Headers["n"] = int64(2)
	c.await(r)
	d := c.next(m)
	if string(d.Body) != "first" || d.Headers["n"] != int64(1) {
		c.Errorf("got %q, %v: changed by its publisher after Publish", d.Body, d.Headers)
	}
}

func messageOverTheLimitIsNotSent(c *testCase) {
	s := c.server()
	l := c.join()
	m := c.own(l, s, 10)
	_, err := l.Publish(c.ctx, broker.ToMailbox(s), broker.Message{Body: make([]byte, broker.MaxMessage+1)})
	if !errors.Is(err, broker.ErrTooLarge) {
		c.Errorf("got %v, want ErrTooLarge", err)
	}
	c.store(l, broker.ToMailbox(s), "next")
	c.expect(m, "next")
}

func headerOfAnotherTypeIsNotSent(c *testCase) {
	s := c.server()
	l := c.join()
	m := c.own(l, s, 10)
	for _, v := range []any{nil, 1, uint64(1), 1.5, []byte("x"), time.Now(), map[string]any{}} {
		if _, err := l.Publish(c.ctx, broker.ToMailbox(s), broker.Message{Headers: map[string]any{"h": v}}); err == nil {
			c.Errorf("a header of type %T was taken", v)
		}
	}
	c.store(l, broker.ToMailbox(s), "next")
	c.expect(m, "next")
}

func taskOfUnknownKindIsReturned(c *testCase) {
	l := c.join()
	if o := c.outcome(l, broker.ToTasks(c.kind(), wire.Normal), "t"); o != broker.Returned {
		c.Errorf("task of a kind that nobody ever offered: %v, want returned", o)
	}
	c.store(l, broker.ToAll(), "next")
}

func controlOfNobodyIsReturned(c *testCase) {
	l := c.join()
	id := c.worker()
	if o := c.outcome(l, broker.ToControl(id), "c"); o != broker.Returned {
		c.Errorf("control of a process that never joined: %v, want returned", o)
	}
	other := c.joinAs(c.Broker(), id)
	c.store(l, broker.ToControl(id), "c")
	c.closeLink(other)
	gone := errors.New("still stored")
	c.soon("control of a process that left", gone, func() error {
		if c.outcome(l, broker.ToControl(id), "c") == broker.Stored {
			return gone
		}
		return nil
	})
	if o := c.outcome(l, broker.ToControl(id), "c"); o != broker.Returned {
		c.Errorf("control of a process that left: %v, want returned", o)
	}
}

func eventForUnknownMailboxIsParked(c *testCase) {
	l := c.join()
	id := c.name + "-parked"
	c.store(l, broker.ToMailbox(c.server()), id)
	c.contains(c.adopt(l, broker.ParkedServer, 100), id)
}

func deadQueuesTakeWhatIsGivenUp(c *testCase) {
	l := c.join()
	c.store(l, broker.ToDeadEvents(), "event")
	c.store(l, broker.ToDeadTasks(), "task")
}

// contains settles what a queue that others fill too delivers, until it comes to id.
func (c *testCase) contains(k broker.Consumer, id string) {
	c.Helper()
	for {
		d := c.next(k)
		c.ack(k, d)
		if d.ID == id {
			return
		}
	}
}

func fullMailboxRefusesAndOthersFlow(c *testCase) {
	s, limit := c.Limited()
	other := c.server()
	l := c.join()
	c.closeConsumer(c.own(l, s, 1))
	m := c.own(l, other, 10)

	var stored []string
	for _, id := range ids("m", 1, 2*limit) {
		switch o := c.outcome(l, broker.ToMailbox(s), id); o {
		case broker.Stored:
			stored = append(stored, id)
		case broker.Refused:
		default:
			c.Fatalf("%s: %v, want stored or refused", id, o)
		}
	}
	if len(stored) == 0 || len(stored) >= 2*limit {
		c.Fatalf("%d of %d messages were stored at a limit of %d", len(stored), 2*limit, limit)
	}
	c.store(l, broker.ToMailbox(other), "flows")
	c.expect(m, "flows")

	full := c.own(l, s, 2*limit)
	c.ack(full, c.expect(full, stored...)...)
	c.silent(full)
	c.store(l, broker.ToMailbox(s), "again")
	c.expect(full, "again")
}

func thousandGoroutinesPublishOnOneLink(c *testCase) {
	const goroutines, each = 1000, 5
	s := c.server()
	l := c.join()
	m := c.own(c.join(), s, 500)
	var publishers sync.WaitGroup
	for g := range goroutines {
		publishers.Go(func() {
			var rs []broker.Receipt
			for i := range each {
				r, err := l.Publish(c.ctx, broker.ToMailbox(s), broker.Message{Headers: map[string]any{"g": int64(g), "i": int64(i)}})
				if err != nil {
					c.Errorf("goroutine %d: publish %d: %v", g, i, err)
					return
				}
				rs = append(rs, r)
			}
			for i, r := range rs {
				if o, err := broker.Await(c.ctx, r); o != broker.Stored {
					c.Errorf("goroutine %d: publish %d: %v, %v; want stored", g, i, o, err)
				}
			}
		})
	}
	var next [goroutines]int64 // what each goroutine's next delivery must be
	for range goroutines * each {
		d := c.next(m)
		c.ack(m, d)
		g, i := d.Headers["g"].(int64), d.Headers["i"].(int64)
		if i != next[g] {
			c.Fatalf("goroutine %d: delivery of %d, want %d", g, i, next[g])
		}
		next[g]++
	}
	publishers.Wait()
	c.silent(m)
}

func closeWaitsForReceipts(c *testCase) {
	s := c.server()
	watch := c.own(c.join(), s, 1000)
	l := c.join()
	var rs []broker.Receipt
	for range 500 {
		rs = append(rs, c.publish(l, broker.ToMailbox(s), broker.Message{}))
	}
	c.closeLink(l)
	for i, r := range rs {
		if o := r.Outcome(); o != broker.Stored {
			c.Fatalf("publish %d: %v after Close, want stored", i+1, o)
		}
		c.next(watch)
	}
}

func cutLeavesNoReceiptPending(c *testCase) {
	s := c.server()
	m := c.own(c.join(), s, 10_000)
	l := c.join()
	started := make(chan struct{})
	var rs []broker.Receipt
	var publisher sync.WaitGroup
	publisher.Go(func() {
		for i := 1; ; i++ {
			r, err := l.Publish(c.ctx, broker.ToMailbox(s), broker.Message{ID: fmt.Sprint(i)})
			if err != nil {
				if !errors.Is(err, broker.ErrLinkGone) {
					c.Errorf("publish while the link is cut: got %v, want ErrLinkGone", err)
				}
				return
			}
			rs = append(rs, r)
			if i == 100 {
				close(started)
			}
		}
	})
	<-started
	c.cut(l)
	publisher.Wait()

	c.store(c.join(), broker.ToMailbox(s), "end")
	arrived := map[string]bool{}
	for d := c.next(m); d.ID != "end"; d = c.next(m) {
		c.ack(m, d)
		if arrived[d.ID] {
			c.Errorf("message %s arrived twice", d.ID)
		}
		arrived[d.ID] = true
	}
	for i, r := range rs {
		switch o := c.await(r); o {
		case broker.Stored:
			if !arrived[fmt.Sprint(i+1)] {
				c.Errorf("message %d was stored and did not arrive", i+1)
			}
		case broker.Unknown:
		default:
			c.Errorf("message %d: %v after a cut, want stored or unknown", i+1, o)
		}
	}
}
