package memory

import (
	"maps"
	"slices"

	"github.com/wscluster/wscluster/pkg/broker"
	"github.com/wscluster/wscluster/pkg/socketmeta"
)

// Taker is one consumer of a process: the owner of a mailbox, or one of those who share queues of
// tasks. It gives its deliveries to the give function that it was made with, beginning before it
// is returned: at most prefetch unsettled ones, by tags that rise from 1. give must neither block
// nor call the store.
type Taker struct {
	in     *Inbox
	turns  []turn // what it takes from as it has room: from the first that has something
	limit  int    // unsettled deliveries at most, over all of its turns
	give   func(broker.Delivery)
	paused bool
	closed bool
	tag    uint64
	held   map[uint64]given // by tag
	count  int              // of those in held that came from queues

	// The owner of a mailbox only.
	server   socketmeta.ServerID
	overflow *queue
	adopted  bool // control messages for the worker reach in
	retiring bool // nobody can join as the worker
}

// turn is queues that are asked one after the other.
type turn struct {
	queues []*queue
	next   int // which is asked next
}

// given is a delivery that is not settled.
type given struct {
	from  *queue
	entry *entry
}

func (in *Inbox) newTaker(limit int, give func(broker.Delivery)) *Taker {
	t := &Taker{in: in, limit: limit, give: give, held: map[uint64]given{}}
	in.takers = append(in.takers, t)
	return t
}

// enter begins to take.
func (t *Taker) enter() {
	for _, q := range t.queues() {
		q.takers = append(q.takers, t)
	}
	t.fill()
}

// mailbox is what an owner takes from.
func (t *Taker) mailbox() *queue { return t.turns[0].queues[0] }

// queues returns what t takes from as it has room, in the order of the turns.
func (t *Taker) queues() (qs []*queue) {
	for _, c := range t.turns {
		qs = append(qs, c.queues...)
	}
	return qs
}

func (t *Taker) room() bool { return !t.paused && t.count < t.limit }

// fill takes from the queues while there is room: from those of a later turn only if those of the
// earlier ones are empty.
func (t *Taker) fill() {
	for t.room() {
		q := t.first()
		if q == nil {
			return
		}
		t.give(t.take(q))
	}
}

func (t *Taker) first() *queue {
	for i := range t.turns {
		if q := t.turns[i].ask(); q != nil {
			return q
		}
	}
	return nil
}

// ask returns the next queue that has something; nil if there is none.
func (c *turn) ask() *queue {
	for range c.queues {
		q := c.queues[c.next]
		c.next = (c.next + 1) % len(c.queues)
		if len(q.ready) > 0 {
			return q
		}
	}
	return nil
}

// take makes the first ready message of q a delivery to t.
func (t *Taker) take(q *queue) broker.Delivery {
	e := q.pop()
	e.delivered++
	q.held++
	t.tag++
	d := broker.Delivery{Message: e.msg, Tag: t.tag, Redelivered: e.delivered > 1}
	if q.kind == tasks {
		d.Attempt = e.delivered
	}
	if q.kind != overflow {
		t.count++
	}
	t.held[t.tag] = given{q, e}
	return d
}

// TakeHeld returns at most max messages from the front of the mailbox's overflow, in order, under
// tags of t, and how many wait behind them. They do not count to the prefetch.
func (t *Taker) TakeHeld(max int) (ds []broker.Delivery, left int) {
	if t.closed {
		return nil, 0
	}
	for len(ds) < max && len(t.overflow.ready) > 0 {
		ds = append(ds, t.take(t.overflow))
	}
	return ds, len(t.overflow.ready)
}

// Settle forgets a delivery or, if it is a task that is to be tried again, gives it back to its
// queue. It is false, and nothing happens, if t does not hold that tag: it was settled before, or
// t is closed.
func (t *Taker) Settle(tag uint64, again bool) bool {
	g, ok := t.held[tag]
	if !ok {
		return false
	}
	delete(t.held, tag)
	if g.from.kind != overflow {
		t.count--
	}
	if again {
		g.from.giveBack([]*entry{g.entry})
		g.from.pump()
	} else {
		g.from.held--
	}
	t.fill()
	return true
}

// Pause stops the taking, but not TakeHeld, or begins it again.
func (t *Taker) Pause(on bool) {
	t.paused = on
	t.fill()
}

// Close ends the taking alone, be it given up or cut off: what is unsettled goes back and to the
// takers that remain. All that is called on t after does nothing.
func (t *Taker) Close() { closeAll([]*Taker{t}) }

// closeAll closes takers at one moment: nothing of one is given to another of them.
func closeAll(takers []*Taker) {
	takers = slices.Clone(takers) // they may be an inbox's own
	for _, t := range takers {
		t.leave()
	}
	for _, t := range takers {
		for _, q := range t.queues() {
			q.pump()
		}
		t.turns = nil
	}
}

// leave gives back what is unsettled. The caller pumps the queues.
func (t *Taker) leave() {
	if t.closed {
		return
	}
	t.closed = true
	t.in.takers = slices.DeleteFunc(t.in.takers, func(other *Taker) bool { return other == t })
	back := map[*queue][]*entry{}
	for _, tag := range slices.Sorted(maps.Keys(t.held)) {
		g := t.held[tag]
		back[g.from] = append(back[g.from], g.entry)
	}
	clear(t.held)
	t.count = 0
	qs := t.queues()
	if t.overflow != nil {
		qs = append(qs, t.overflow)
	}
	for _, q := range qs {
		q.leave(t)
		q.giveBack(back[q])
	}
}
