package batch

import (
	"time"

	"github.com/wscluster/wscluster/pkg/broker"
	"github.com/wscluster/wscluster/pkg/socketmeta"
	"github.com/wscluster/wscluster/pkg/wire"
)

// maxWait is how long an event waits for others, at most.
const maxWait = time.Millisecond

// core decides which events share a message. An event is sent at once if no message to its mailbox is under way.
// Else it waits for others, until every message that is under way there was answered, or the message that they fill
// has wire.MaxBatch events or no room for the next one, or maxWait has passed. What does not fit into a batch, or has
// no numbers, goes alone. Events to one mailbox leave in the order in which they were offered.
//
// It is pure. It has a line for each mailbox with something that waits or is under way, and no other memory.
type core struct {
	lines   map[socketmeta.ServerID]*line
	waiting []*message // being filled, in the order in which they were begun; and some that have left
	ready   []*message // to be sent, in order; whoever sends takes them
}

// line is the way to one mailbox.
type line struct {
	to     socketmeta.ServerID
	open   *message // being filled; nil if nothing waits
	flying int      // messages that are ready or sent, and not answered

	flights   []flight // the publisher's: sent and not answered, in order
	answering bool     // somebody waits for their answers
}

// message is what is sent at once: one event, or a batch. It is the receipt of each of its events.
type message struct {
	line   *line
	events []*wire.Event
	trace  string // of the first event
	bytes  int    // of the batch
	begun  time.Time
	closed bool // it takes no more, and is ready, sent or answered

	done    chan struct{}
	outcome broker.Outcome // written before done is closed
}

const batchHead = 2 // bytes of a batch before its first event

// offer takes an event for a mailbox, and returns the message with which it goes or will go.
func (c *core) offer(to socketmeta.ServerID, e *wire.Event, trace string, now time.Time) *message {
	if c.lines == nil {
		c.lines = make(map[socketmeta.ServerID]*line)
	}
	l := c.lines[to]
	if l == nil {
		l = &line{to: to}
		c.lines[to] = l
	}
	size := wire.BatchedSize(e)
	alone := e.Seq == 0 || batchHead+size > wire.MaxBatchBytes
	if l.open != nil && (alone || l.open.bytes+size > wire.MaxBatchBytes) {
		c.close(l.open)
	}
	m := l.open
	if m == nil {
		m = &message{line: l, trace: trace, bytes: batchHead, begun: now, done: make(chan struct{})}
		l.open = m
	}
	m.events, m.bytes = append(m.events, e), m.bytes+size
	if alone || l.flying == 0 || len(m.events) == wire.MaxBatch {
		c.close(m)
	} else if len(m.events) == 1 {
		c.waiting = append(c.waiting, m)
	}
	return m
}

// close has a message sent.
func (c *core) close(m *message) {
	m.line.open = nil
	m.line.flying++
	m.closed = true
	c.ready = append(c.ready, m)
}

// answered notes that the broker has answered a message, whatever it said.
func (c *core) answered(m *message) {
	l := m.line
	switch l.flying--; {
	case l.flying > 0:
	case l.open != nil:
		c.close(l.open)
	default:
		delete(c.lines, l.to)
	}
}

// tick has sent what has waited long enough.
func (c *core) tick(now time.Time) {
	for {
		due, ok := c.due()
		if !ok || due.After(now) {
			return
		}
		c.close(c.waiting[0])
	}
}

// due is when to tick next; false if nothing waits.
func (c *core) due() (time.Time, bool) {
	for len(c.waiting) > 0 && c.waiting[0].closed {
		c.waiting[0] = nil
		c.waiting = c.waiting[1:]
	}
	if len(c.waiting) == 0 {
		return time.Time{}, false
	}
	return c.waiting[0].begun.Add(maxWait), true
}
