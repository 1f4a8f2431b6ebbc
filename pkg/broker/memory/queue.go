package memory

import (
	"slices"

	"github.com/wscluster/wscluster/pkg/broker"
)

// queue is a mailbox or a dead queue, the overflow of a mailbox, or a queue of tasks.
type queue struct {
	kind   kind
	limit  limit
	bound  bool     // a mailbox, an overflow: publishes reach it
	ready  []*entry // oldest first
	bytes  int      // the bodies in ready
	held   int      // given to takers, not settled
	takers []*Taker
	turn   int // which taker is asked next
}

// limit bounds what is ready in one queue; beyond either a publish to it is refused.
type limit struct{ messages, bytes int }

// kind is how a queue gives its messages out, and where those go that come back unsettled. What the
// owner of mail or overflow leaves unsettled goes back in front, in order, since one taker has it
// at a time and takes from the front. Tasks go back to the end, so that one that fails again and
// again does not stand in the way of the others.
type kind uint8

const (
	mail     kind = iota // to one taker, as it has room; the dead tasks to all in turn
	overflow             // to one taker, when it asks
	tasks                // to all takers in turn, as they have room
)

// entry is one message in one queue.
type entry struct {
	msg       broker.Message
	delivered int // how often it has been given to a taker
}

// put stores m and gives it on, or refuses it.
func (q *queue) put(m broker.Message) broker.Outcome {
	if len(q.ready) >= q.limit.messages || q.bytes+len(m.Body) > q.limit.bytes {
		return broker.Refused
	}
	q.push(&entry{msg: m})
	q.pump()
	return broker.Stored
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
	if q.kind == tasks {
		q.push(es...)
		return
	}
	q.ready = slices.Concat(es, q.ready)
	q.bytes += size(es)
}

// pump gives ready messages to the takers with room, one each in turn.
func (q *queue) pump() {
	if q.kind == overflow {
		return
	}
	for len(q.ready) > 0 {
		t := q.next()
		if t == nil {
			return
		}
		t.give(t.take(q))
	}
}

func (q *queue) next() *Taker {
	for range q.takers {
		t := q.takers[q.turn%len(q.takers)]
		q.turn = (q.turn + 1) % len(q.takers)
		if t.room() {
			return t
		}
	}
	return nil
}

func (q *queue) leave(t *Taker) {
	q.takers = slices.DeleteFunc(q.takers, func(other *Taker) bool { return other == t })
}

func (q *queue) empty() bool { return len(q.ready)+q.held == 0 }

func size(es []*entry) (n int) {
	for _, e := range es {
		n += len(e.msg.Body)
	}
	return n
}
