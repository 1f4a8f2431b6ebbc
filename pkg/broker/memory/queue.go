package memory

import (
	"maps"
	"slices"

	"github.com/wscluster/wscluster/pkg/broker"
)

// queue is a mailbox, a queue of tasks or a dead queue.
//
// What the taker of a mailbox leaves unsettled goes back in front, in order, since one taker has
// it at a time and takes from the front. Tasks go back to the end, so that one that fails again
// and again does not stand in the way of the others.
type queue struct {
	tasks  bool
	limit  limit
	ready  []*entry // oldest first
	bytes  int      // the bodies in ready
	held   int      // given to takers, not settled
	takers []*taker
	turn   int // which taker is asked next
}

// entry is one message in one queue.
type entry struct {
	msg       broker.Message
	delivered int // how often it has been given to a taker
}

func (q *queue) push(es ...*entry) {
	q.ready = append(q.ready, es...)
	q.bytes += size(es)
}

func (q *queue) pop() *entry {
	e := q.ready[0]
	q.ready[0] = nil
	if len(q.ready) > 1 {
		q.ready = q.ready[1:]
	} else {
		q.ready = q.ready[:0] // keeps its capacity: a queue that keeps up allocates nothing here
	}
	q.bytes -= len(e.msg.Body)
	return e
}

// giveBack takes what a taker held, in the order in which it was given out.
func (q *queue) giveBack(es []*entry) {
	q.held -= len(es)
	if q.tasks {
		q.push(es...)
		return
	}
	q.ready = slices.Concat(es, q.ready)
	q.bytes += size(es)
}

// pump gives ready messages to the takers with room, one each in turn.
func (q *queue) pump() {
	for len(q.ready) > 0 {
		t := q.next()
		if t == nil {
			return
		}
		t.take(q)
	}
}

func (q *queue) next() *taker {
	for range q.takers {
		t := q.takers[q.turn%len(q.takers)]
		q.turn = (q.turn + 1) % len(q.takers)
		if t.room() {
			return t
		}
	}
	return nil
}

func size(es []*entry) (n int) {
	for _, e := range es {
		n += len(e.msg.Body)
	}
	return n
}

// taker is one consumer: the owner of a mailbox, or one of those who share queues of tasks.
type taker struct {
	queues []*queue
	limit  int                   // unsettled deliveries at most, over all queues
	give   func(broker.Delivery) // must neither block nor call back
	paused bool
	turn   int // which queue is asked next
	tag    uint64
	held   map[uint64]given // by tag
}

// given is a delivery that is not settled.
type given struct {
	from  *queue
	entry *entry
}

// enter begins to take.
func (t *taker) enter() {
	t.held = map[uint64]given{}
	for _, q := range t.queues {
		q.takers = append(q.takers, t)
	}
	t.fill()
}

// leave ends taking and gives back what is unsettled. The caller pumps the queues.
func (t *taker) leave() {
	back := map[*queue][]*entry{}
	for _, tag := range slices.Sorted(maps.Keys(t.held)) {
		g := t.held[tag]
		back[g.from] = append(back[g.from], g.entry)
	}
	clear(t.held)
	for _, q := range t.queues {
		q.takers = slices.DeleteFunc(q.takers, func(other *taker) bool { return other == t })
		q.giveBack(back[q])
	}
}

func (t *taker) room() bool { return !t.paused && len(t.held) < t.limit }

// fill takes from the queues in turn while there is room.
func (t *taker) fill() {
	for empty := 0; t.room() && empty < len(t.queues); {
		q := t.queues[t.turn]
		t.turn = (t.turn + 1) % len(t.queues)
		if len(q.ready) == 0 {
			empty++
			continue
		}
		empty = 0
		t.take(q)
	}
}

// take gives the first ready message of q to t.
func (t *taker) take(q *queue) {
	e := q.pop()
	e.delivered++
	q.held++
	t.tag++
	d := broker.Delivery{Message: e.msg, Tag: t.tag, Redelivered: e.delivered > 1}
	if q.tasks {
		d.Attempt = e.delivered
	}
	t.held[t.tag] = given{q, e}
	t.give(d)
}

// settle forgets a delivery, or gives it back to its queue; false if t does not hold it.
func (t *taker) settle(tag uint64, again bool) bool {
	g, ok := t.held[tag]
	if !ok {
		return false
	}
	delete(t.held, tag)
	if again {
		g.from.giveBack([]*entry{g.entry})
		g.from.pump()
	} else {
		g.from.held--
	}
	t.fill()
	return true
}

// pause stops taking or begins it again.
func (t *taker) pause(on bool) {
	t.paused = on
	t.fill()
}
