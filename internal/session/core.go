package session

import (
	"cmp"
	"slices"
	"time"

	"github.com/wscluster/wscluster/internal/engine"
	"github.com/wscluster/wscluster/pkg/socketmeta"
	"github.com/wscluster/wscluster/pkg/wire"
)

// Ref names the broker's delivery behind a held event: which life of the mailbox it came in, and
// its tag there. Bytes is the size of its body, for the caps.
type Ref struct {
	Generation, Tag uint64
	Bytes           int
}

// Bounds of one session.
const (
	// The send window: what may be with the socket and not yet acknowledged. One event always
	// passes, however big.
	windowEvents = 256
	windowBytes  = 256 << 10

	// maxRecords bounds the tasks that a session remembers: the open ones and as many that have
	// ended as fit beside them; the oldest ended ones are forgotten first.
	maxRecords = 4 * wire.MaxOpenTasks
)

// core is the state of one session and all of its rules: it has no lock, clock, socket or
// goroutine. Every method takes what happened and leaves or returns what to do about it; refs
// that it returns are to be settled with the broker.
type core struct {
	conn  engine.ConnRef // 0 while the client is away
	epoch socketmeta.Epoch
	since time.Time // when conn last changed

	tasks   map[wire.TaskID]*task // nil until the client has a task
	order   []*task               // the same, oldest first
	open    int                   // tasks that have not ended
	plain   wire.RunID            // the run under which events without numbers are sent
	sent    int                   // events with the socket, not acknowledged
	bytes   int                   // their bytes
	held    int                   // events in all queues, sent ones included
	stalled time.Time             // while sent > 0: since when nothing has been acknowledged
}

// task is what a session remembers of one task.
type task struct {
	id       wire.TaskID
	state    taskState
	digest   digest // of what was submitted; zero if it is not known here
	reply    string // the request ID to echo when the submit is answered
	position wire.Position
	queue    []entry // not acknowledged, in the order of (attempt, run, seq), each once
	sent     int     // queue[:sent] are with the socket
	plainSeq int64
}

type taskState uint8

const (
	stateOpen       taskState = iota // accepted, or heard of, and not ended
	stateSubmitting                  // on its way to the broker
	stateFinished                    // its final event is acknowledged
)

type entry struct {
	event wire.Event
	ref   Ref
}

func (e *entry) size() int { return len(e.event.Body) }

// attached is what came of an attach.
type attached struct {
	old    engine.ConnRef // the connection that had the session before; 0 for none
	states []wire.TaskStatus
	settle []Ref
}

// attach gives the session to conn under epoch. The client's application has what positions say;
// everything else that is held is to be sent again. absent says that the client was away for
// longer than the resume window: tasks that are not known here are then lost to it.
func (c *core) attach(conn engine.ConnRef, epoch socketmeta.Epoch, now time.Time, positions []wire.Position, absent bool) attached {
	a := attached{old: c.conn}
	c.conn, c.epoch, c.since = conn, epoch, now
	c.resend()
	for _, p := range positions {
		state := wire.TaskRunning
		switch t := c.tasks[p.Task]; {
		case t != nil && t.state == stateFinished:
			state = wire.TaskFinished
		case t == nil && absent:
			state = wire.TaskUnknown
		case t == nil:
			c.record(p.Task)
		}
		a.states = append(a.states, wire.TaskStatus{Task: p.Task, State: state})
	}
	a.settle = c.ack(positions, now)
	return a
}

// detach notes that conn is gone. It reports false if the session has another socket by now.
func (c *core) detach(conn engine.ConnRef, now time.Time) bool {
	if c.conn != conn || conn == 0 {
		return false
	}
	c.conn, c.since = 0, now
	c.resend()
	return true
}

// resend counts everything that is held as not sent: the socket that it was sent to is gone.
func (c *core) resend() {
	for _, t := range c.order {
		t.sent = 0
	}
	c.sent, c.bytes = 0, 0
}

// verdict is what becomes of an event that came from the broker.
type verdict uint8

const (
	hold verdict = iota // kept until it is acknowledged; next will hand it out
	pass                // transient: try to send it now, then settle it whatever came of it
	drop                // the client has it, or is away and it is transient: settle it
)

// deliver takes one event. An event without numbers is given some.
func (c *core) deliver(e *wire.Event, ref Ref, run func() wire.RunID) verdict {
	if !e.Durable {
		if c.conn == 0 {
			return drop
		}
		return pass
	}
	t := c.record(e.Task)
	if e.Attempt == 0 {
		c.number(t, e, run)
	}
	if t.state == stateFinished {
		return drop
	}
	if covers(&t.position, e) {
		if e.Last {
			c.finish(t) // acknowledged in another life of this worker
		}
		return drop
	}
	at, found := slices.BinarySearchFunc(t.queue, e, func(have entry, e *wire.Event) int { return compare(&have.event, e) })
	if found {
		return drop // the same event, published twice
	}
	t.queue = slices.Insert(t.queue, at, entry{*e, ref})
	c.held++
	for t.sent > at { // what was sent after it waits for it at the client: send all that again, in order
		t.sent--
		c.sent--
		c.bytes -= t.queue[t.sent+1].size()
	}
	return hold
}

// number gives e, which came from a publisher that does not count, the next number of its task.
func (c *core) number(t *task, e *wire.Event, run func() wire.RunID) {
	if c.plain == "" {
		c.plain = run()
	}
	t.plainSeq++
	e.Run, e.Seq, e.Prev = c.plain, t.plainSeq, 0
}

// next returns the next event to send and counts it as sent, or nil if there is none, the window
// is closed or the client is away. If sending fails, unsend takes it back.
func (c *core) next(now time.Time) (*wire.Event, *task) {
	if c.conn == 0 || c.held == c.sent {
		return nil, nil
	}
	for _, t := range c.order {
		if t.sent == len(t.queue) {
			continue
		}
		e := &t.queue[t.sent]
		if c.sent > 0 && (c.sent >= windowEvents || c.bytes+e.size() > windowBytes) {
			return nil, nil
		}
		if c.sent == 0 {
			c.stalled = now // what was sent is awaited from now on
		}
		t.sent++
		c.sent++
		c.bytes += e.size()
		return &e.event, t
	}
	return nil, nil
}

// unsend takes back what next handed out last.
func (c *core) unsend(t *task) {
	t.sent--
	c.sent--
	c.bytes -= t.queue[t.sent].size()
}

// ack notes what the client's application has and returns what may be settled.
func (c *core) ack(positions []wire.Position, now time.Time) (settle []Ref) {
	for _, p := range positions {
		t := c.tasks[p.Task]
		if t == nil || t.state == stateFinished {
			continue
		}
		if comparePositions(&p, &t.position) > 0 {
			t.position = p
		}
		n := 0
		for n < len(t.queue) && covers(&t.position, &t.queue[n].event) {
			e := &t.queue[n]
			if n < t.sent {
				c.sent--
				c.bytes -= e.size()
			}
			settle = append(settle, e.ref)
			if e.event.Last {
				c.finish(t)
			}
			n++
		}
		t.sent = max(0, t.sent-n)
		c.held -= n
		t.queue = slices.Delete(t.queue, 0, n)
		if len(t.queue) == 0 {
			t.queue = nil
		}
	}
	if len(settle) > 0 {
		c.stalled = now
	}
	return settle
}

func (c *core) finish(t *task) {
	if t.state != stateFinished {
		t.state = stateFinished
		c.open--
	}
}

// forget drops every event that came in the given life of the mailbox or an earlier one: the
// broker will deliver them again. Positions stay, so that the client is not sent twice what it has.
func (c *core) forget(generation uint64) (dropped int) {
	for _, t := range c.order {
		kept := t.queue[:0]
		sent := 0
		for i := range t.queue {
			e := &t.queue[i]
			if e.ref.Generation > generation {
				if i < t.sent {
					sent++
				}
				kept = append(kept, *e)
				continue
			}
			dropped++
			if i < t.sent {
				c.sent--
				c.bytes -= e.size()
			}
		}
		clear(t.queue[len(kept):])
		t.queue, t.sent = kept, sent
	}
	c.held -= dropped
	return dropped
}

// record returns the record of a task, making one as an open task if there is none.
func (c *core) record(id wire.TaskID) *task {
	if t := c.tasks[id]; t != nil {
		return t
	}
	if c.tasks == nil {
		c.tasks = make(map[wire.TaskID]*task)
	}
	if len(c.order) >= maxRecords {
		c.forgetOldest()
	}
	t := &task{id: id, position: wire.Position{Task: id}}
	c.tasks[id] = t
	c.order = append(c.order, t)
	c.open++
	return t
}

// forgetOldest makes room for a record: the oldest ended task goes; if none has ended, the
// oldest that holds nothing. If all hold events there is no room to make, and the mailbox's own
// caps are the bound.
func (c *core) forgetOldest() {
	at := slices.IndexFunc(c.order, func(t *task) bool { return t.state == stateFinished })
	if at < 0 {
		at = slices.IndexFunc(c.order, func(t *task) bool { return t.state == stateOpen && len(t.queue) == 0 })
	}
	if at >= 0 {
		c.remove(c.order[at])
	}
}

func (c *core) remove(t *task) {
	if t.state != stateFinished {
		c.open--
	}
	delete(c.tasks, t.id)
	c.order = slices.DeleteFunc(c.order, func(have *task) bool { return have == t })
}

// compare orders the events of one task: by attempt, run and seq (docs/PROTOCOL.md).
func compare(a, b *wire.Event) int {
	return cmp.Or(cmp.Compare(a.Attempt, b.Attempt), cmp.Compare(a.Run, b.Run), cmp.Compare(a.Seq, b.Seq))
}

// covers reports whether a client at p has e, or wants it no more.
func covers(p *wire.Position, e *wire.Event) bool {
	return cmp.Or(cmp.Compare(p.Attempt, e.Attempt), cmp.Compare(p.Run, e.Run), cmp.Compare(p.Next, e.Seq)) > 0
}

func comparePositions(a, b *wire.Position) int {
	return cmp.Or(cmp.Compare(a.Attempt, b.Attempt), cmp.Compare(a.Run, b.Run), cmp.Compare(a.Next, b.Next))
}
