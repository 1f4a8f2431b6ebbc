package brokertest

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/wscluster/wscluster/pkg/broker"
)

// open opens the ledger, as a runner does. Other tests write to the same one: theirs is what record
// passes over.
func (c *testCase) open(l broker.Link, from int64) broker.Ledger {
	c.Helper()
	r, err := l.OpenLedger(c.ctx, from)
	if err != nil {
		c.Fatalf("open the ledger: %v", err)
	}
	return r
}

func (c *testCase) runner() broker.Link {
	c.Helper()
	c.count++
	return c.joinAs(c.Broker(), broker.Runner(c.kind()))
}

// record returns the next record of this test.
func (c *testCase) record(r broker.Ledger) broker.Record {
	c.Helper()
	for {
		got, err := r.Next(c.ctx)
		if err != nil {
			c.Fatalf("the next record: %v", err)
		}
		if strings.HasPrefix(got.ID, c.name) {
			return got
		}
	}
}

// ledgerHasOneOrder: several write at once, and all read the same, from the start, from the middle and as
// it comes.
func ledgerHasOneOrder(c *testCase) {
	const writers, each = 4, 50
	a, b := c.runner(), c.runner()
	tail := c.open(a, 0)
	c.open(b, 0)
	var wg sync.WaitGroup
	for w := range writers {
		l := []broker.Link{a, b}[w%2]
		wg.Go(func() {
			for _, id := range ids(c.name+"."+string(rune('a'+w))+".", 1, each) {
				r, err := l.Publish(c.ctx, broker.ToLedger(), broker.Message{ID: id, Type: "t", Headers: map[string]any{"n": int64(1)}, Body: []byte(`{}`)})
				if err != nil {
					c.Errorf("publish: %v", err)
					return
				}
				if o, err := broker.Await(c.ctx, r); o != broker.Stored {
					c.Errorf("%s: %v, %v, want stored", id, o, err)
				}
			}
		})
	}
	var want []broker.Record
	last := map[string]int{}
	for range writers * each {
		r := c.record(tail)
		if n := len(want); n > 0 && r.Offset <= want[n-1].Offset {
			c.Fatalf("record %q has offset %d, after %d", r.ID, r.Offset, want[n-1].Offset)
		}
		if r.Type != "t" || string(r.Body) != `{}` || len(r.Headers) != 1 || r.Headers["n"] != int64(1) {
			c.Errorf("got %+v", r.Message)
		}
		writer := r.ID[:strings.LastIndexByte(r.ID, '.')]
		if last[writer]++; !slices.Contains(ids(writer+".", last[writer], last[writer]), r.ID) {
			c.Errorf("%s is the record %d of its writer", r.ID, last[writer])
		}
		want = append(want, r)
	}
	wg.Wait()
	middle := len(want) / 2
	for from, rest := range map[int64][]broker.Record{0: want, want[middle].Offset: want[middle:], want[len(want)-1].Offset: want[len(want)-1:]} {
		r := c.open(c.runner(), from)
		for i, w := range rest {
			if got := c.record(r); got.ID != w.ID || got.Offset != w.Offset {
				c.Fatalf("from %d, record %d: got %q at %d, want %q at %d", from, i, got.ID, got.Offset, w.ID, w.Offset)
			}
		}
	}
}

// ledgerIsReadAsItComes: a reader that has read all waits for the next one, also from an offset that
// nobody has written yet.
func ledgerIsReadAsItComes(c *testCase) {
	l := c.runner()
	r := c.open(l, 0)
	c.store(l, broker.ToLedger(), c.name+".1")
	first := c.record(r)
	ctx, cancel := context.WithTimeout(c.ctx, c.Quiet)
	defer cancel()
	if got, err := r.Next(ctx); !errors.Is(err, context.DeadlineExceeded) {
		c.Errorf("got %+v, %v, want nothing yet", got, err)
	}
	late := c.open(c.runner(), first.Offset+1)
	got := make(chan broker.Record, 2)
	for _, r := range []broker.Ledger{r, late} {
		go func() {
			record, _ := r.Next(c.ctx)
			got <- record
		}()
	}
	c.store(l, broker.ToLedger(), c.name+".2")
	for range 2 {
		select {
		case record := <-got:
			if record.ID != c.name+".2" || record.Offset <= first.Offset {
				c.Errorf("got %q at %d, want the second record", record.ID, record.Offset)
			}
		case <-time.After(patience):
			c.Fatal("a reader waits for ever")
		}
	}
}

func ledgerEndsWithItsLink(c *testCase) {
	for name, end := range map[string]func(broker.Link){"close": c.closeLink, "cut": func(l broker.Link) { c.Cut(c.T, l) }} {
		l := c.runner()
		r := c.open(l, 0)
		failed := make(chan error, 1)
		go func() {
			for {
				if _, err := r.Next(c.ctx); err != nil {
					failed <- err
					return
				}
			}
		}()
		end(l)
		select {
		case err := <-failed:
			if !errors.Is(err, broker.ErrLinkGone) {
				c.Errorf("%s: got %v, want ErrLinkGone", name, err)
			}
		case <-time.After(patience):
			c.Fatalf("%s: a reader waits for ever", name)
		}
		if _, err := l.OpenLedger(c.ctx, 0); !errors.Is(err, broker.ErrLinkGone) {
			c.Errorf("%s: opened after that: %v, want ErrLinkGone", name, err)
		}
	}
}
