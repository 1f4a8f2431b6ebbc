package taskrunner

import (
	"slices"

	"github.com/wscluster/wscluster/pkg/broker"
	"github.com/wscluster/wscluster/pkg/wire"
)

// eventOverhead is what an event costs beside its body, in bytes: headers and bookkeeping.
const eventOverhead = 512

// outbox holds the events of one run from their making until the broker has stored them. They go
// out in order, many in flight, and come back in order of their outcomes (go-back-N): what the
// broker has stored, with copies left out, is in order and whole at any time.
//
// The oldest events are the head, in memory: only they are in flight. The youngest are the tail,
// in memory too. When the tail is full and the head has not taken it, it goes to a file between the
// two, from which the head is filled again. Head and tail have half of the limit each, and may each
// exceed it by one event; beside that, what is on its way to the file is counted in the tail.
//
// It is pure: the run around it locks, publishes, writes, reads and waits.
type outbox struct {
	limit   int // bytes in memory
	head    queue
	sent    int   // head.events[:sent] are in flight
	spilled int   // events in the file
	tail    queue // durable ones only, as in the file
	writing int   // tail.events[:writing] are on their way to the file
	full    bool  // the file takes no more
}

// queue is events, oldest first, and their size.
type queue struct {
	events []*wire.Event
	bytes  int
}

// add puts e behind all others; a transient one that would have to wait in the tail is dropped
// instead. It never refuses: whoever has a choice asks room before.
func (o *outbox) add(e *wire.Event) {
	if e.Durable || o.open() && len(o.tail.events) == 0 {
		o.tail.push(e)
		o.advance()
	}
}

// open reports whether the head takes what the tail has.
func (o *outbox) open() bool { return o.spilled == 0 && o.writing == 0 && o.head.bytes < o.limit/2 }

// room reports whether there is room to add. What is added in one go after it may exceed the
// limit by its own size.
func (o *outbox) room() bool { return o.tail.bytes < o.limit/2 }

func (o *outbox) len() int     { return len(o.head.events) + o.spilled + len(o.tail.events) }
func (o *outbox) empty() bool  { return o.len() == 0 }
func (o *outbox) unsent() bool { return o.len() > o.sent }

// next returns the next event to publish and counts it as in flight; nil if there is none in
// memory.
func (o *outbox) next() *wire.Event {
	if o.sent == len(o.head.events) {
		return nil
	}
	o.sent++
	return o.head.events[o.sent-1]
}

// settle takes the outcome of the oldest event in flight. True means that it is done with. False
// means that it was not stored: rewind.
func (o *outbox) settle(outcome broker.Outcome) bool {
	if outcome != broker.Stored && o.head.events[0].Durable {
		return false
	}
	o.head.pop()
	o.sent--
	o.advance()
	return true
}

// rewind makes every event in flight unsent again and drops the transient ones: they are old by
// now. The outcomes of those in flight, which are still to come, mean nothing. It returns how many
// events will be published again.
func (o *outbox) rewind() (again int) {
	for _, e := range o.head.events[:o.sent] {
		if e.Durable {
			again++
		}
	}
	o.sent = 0
	o.head.events = slices.DeleteFunc(o.head.events, func(e *wire.Event) bool {
		if !e.Durable {
			o.head.bytes -= len(e.Body) + eventOverhead
		}
		return !e.Durable
	})
	o.advance()
	return again
}

// spill returns the events to append to the file now: the tail, when there is no room. It is nil
// if there is nothing to do. Only wrote or refused ends it, and there is one at a time.
func (o *outbox) spill() []*wire.Event {
	if o.full || o.writing > 0 || o.room() {
		return nil
	}
	o.writing = len(o.tail.events)
	return o.tail.events[:o.writing]
}

// wrote says that the file has what spill returned.
func (o *outbox) wrote() {
	o.spilled += o.writing
	for range o.writing {
		o.tail.pop()
	}
	o.writing = 0
}

// refused says that the file did not take what spill returned: the tail stays, and spill returns
// nothing until full is false again.
func (o *outbox) refused() {
	o.writing, o.full = 0, true
	o.advance()
}

// wanted is how many bytes of events to read from the front of the file now; 0 for none.
func (o *outbox) wanted() int {
	if o.spilled == 0 {
		return 0
	}
	return max(0, o.limit/2-o.head.bytes)
}

// loaded takes events that were read from the front of the file: they follow the head.
func (o *outbox) loaded(events []*wire.Event) {
	for _, e := range events {
		o.head.push(e)
	}
	o.spilled -= len(events)
	o.advance()
}

// advance moves the tail into the head as far as there is room and nothing is between them.
func (o *outbox) advance() {
	for len(o.tail.events) > 0 && o.open() {
		o.head.push(o.tail.pop())
	}
}

func (q *queue) push(e *wire.Event) {
	q.events = append(q.events, e)
	q.bytes += len(e.Body) + eventOverhead
}

func (q *queue) pop() *wire.Event {
	e := q.events[0]
	q.events[0] = nil // let the event go before the array does
	q.events = q.events[1:]
	q.bytes -= len(e.Body) + eventOverhead
	return e
}
