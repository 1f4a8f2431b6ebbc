package taskrunner

import (
	"github.com/wscluster/wscluster/pkg/broker"
	"github.com/wscluster/wscluster/pkg/wire"
)

// eventOverhead is what an event costs beside its body, in bytes: headers and bookkeeping.
const eventOverhead = 512

// outbox holds the events of one run from their making until the broker has stored them. They go
// out in order, many in flight, and come back in order of their outcomes (go-back-N): what the
// broker has stored, with copies left out, is in order and whole at any time.
//
// It is pure: the run around it locks, publishes and waits.
type outbox struct {
	limit  int           // bytes
	bytes  int           // of events
	events []*wire.Event // oldest first
	sent   int           // events[:sent] are in flight
}

// add puts e behind all others. It never refuses: whoever has a choice asks room before.
func (o *outbox) add(e *wire.Event) {
	o.events = append(o.events, e)
	o.bytes += len(e.Body) + eventOverhead
}

// room reports whether the events are below the limit. What is added in one go after it may
// exceed the limit by its own size.
func (o *outbox) room() bool { return o.bytes < o.limit }

func (o *outbox) empty() bool  { return len(o.events) == 0 }
func (o *outbox) unsent() bool { return o.sent < len(o.events) }

// next returns the next event to publish and counts it as in flight; nil if there is none.
func (o *outbox) next() *wire.Event {
	if !o.unsent() {
		return nil
	}
	o.sent++
	return o.events[o.sent-1]
}

// settle takes the outcome of the oldest event in flight. True means that it is done with. False
// means that it was not stored: all events in flight count as unsent again, and their outcomes,
// which are still to come, mean nothing.
func (o *outbox) settle(outcome broker.Outcome) bool {
	if e := o.events[0]; outcome != broker.Stored && e.Durable {
		o.rewind()
		return false
	}
	o.drop(0)
	o.sent--
	return true
}

// rewind makes every event unsent again and drops the transient ones: they are old by now.
func (o *outbox) rewind() {
	o.sent = 0
	for i := 0; i < len(o.events); {
		if o.events[i].Durable {
			i++
		} else {
			o.drop(i)
		}
	}
}

func (o *outbox) drop(i int) {
	o.bytes -= len(o.events[i].Body) + eventOverhead
	if i == 0 {
		o.events[0] = nil // let the event go before the array does
		o.events = o.events[1:]
		return
	}
	o.events = append(o.events[:i], o.events[i+1:]...)
}
