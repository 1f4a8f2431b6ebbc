package session

import (
	"slices"

	"github.com/wscluster/wscluster/internal/engine"
	"github.com/wscluster/wscluster/pkg/socketmeta"
	"github.com/wscluster/wscluster/pkg/wire"
)

// maxRecords bounds the tasks that a session remembers: the open ones and as many that have ended
// as fit beside them; the oldest ended ones are forgotten first.
const maxRecords = 4 * wire.MaxOpenTasks

// place says where a session is: at a worker, in an epoch. The higher one has it.
type place struct {
	epoch  socketmeta.Epoch
	server socketmeta.ServerID
}

func (p place) less(o place) bool {
	return p.epoch < o.epoch || p.epoch == o.epoch && p.server < o.server
}

// core is the state of one session and all of its rules: it has no lock, clock, socket or
// goroutine. Every method takes what happened, in Unix milliseconds, and leaves in fx what is to
// be done about it with the broker.
//
// A session is attached (conn is set), away (it is not, and epoch may be 0 for a client that this
// worker has never seen), or passed on: it is away, and moved says who has it now.
//
// An idle client is all that most are, so what it needs is small, and the rest comes with its first task or event.
type core struct {
	o      *Options            // set once
	client socketmeta.ClientID // set once

	conn  engine.ConnRef   // 0 while the client is away
	epoch socketmeta.Epoch // in which it was last attached here; 0 for never, and once it moved
	heard int64            // when it was last known where its client is: here, or elsewhere
	moved *passed          // who has the session

	*work // nil until there is any
}

// work is what a session has to do with tasks and events.
type work struct {
	tasks   map[wire.TaskID]*task
	order   []*task // the same, oldest first
	open    int     // tasks that have not ended
	stalled int64   // since when nothing has been acknowledged of what was sent; 0: nothing is awaited

	// Counted over all queues.
	held, heldBytes int
	sent, sentBytes int

	since    int64           // since when, after heard, events are held for a client that is away; 0: none were
	flying   int             // entries in jobs that have not ended
	lost     map[uint64]bool // lives that ended while jobs were under way; nil when none is
	overflow map[uint64]int  // events that lie in the overflow of a mailbox, by life; never of 0
	fullAt   int64           // when the broker refused to take what is given up, until it is tried again; else 0
	stuckAt  int64           // when the overflow refused a gap last
	park     bool            // the mailbox had no room for a gap: the next one is parked
	pressed  bool            // the worker has asked for room: if the overflow is full, some of what waits is given up
	sought   int64           // when seek was last asked for
	ended    int64           // since when there has been nothing to give up for an expired client; 0: not expired

	waiting map[wire.TaskID][]Reply // for the answers to submits that did not come by the socket: Session's, not the rules'
}

// begin makes the work if there is none.
func (c *core) begin() {
	if c.work == nil {
		c.work = &work{tasks: make(map[wire.TaskID]*task)}
	}
}

// task returns the record of a task, or nil.
func (c *core) task(id wire.TaskID) *task {
	if c.work == nil {
		return nil
	}
	return c.tasks[id]
}

// passed is what is left of a session that another worker has.
type passed struct {
	to place
	at int64 // when it was last heard of
}

// known is the highest place of the session that this worker has heard of.
func (c *core) known() place {
	switch {
	case c.epoch != 0:
		return place{c.epoch, c.o.Server}
	case c.moved != nil:
		return c.moved.to
	}
	return place{}
}

// attach gives the session to conn under epoch. The client's application has what positions say;
// everything else that is held is to be sent again. elsewhere says that the client comes from another
// worker. False if somebody has the session in a higher epoch.
func (c *core) attach(conn engine.ConnRef, epoch socketmeta.Epoch, elsewhere bool, positions []wire.Position, now int64, fx *Effects) (old engine.ConnRef, ok bool) {
	if !c.known().less(place{epoch, c.o.Server}) {
		return 0, false
	}
	old = c.conn
	c.conn, c.epoch, c.moved = conn, epoch, nil
	c.hear(now)
	if c.work != nil {
		c.stalled = 0
		c.resend()
	}
	for _, p := range positions {
		c.record(p.Task).renumber(p, elsewhere)
	}
	c.ack(positions, now, fx)
	c.wantOverflow(fx)
	return old, true
}

// states tells a client that comes back what is known of its open tasks. fresh says that its session
// is new: tasks that are not known here are then lost to it.
func (c *core) states(positions []wire.Position, fresh bool) (out []wire.TaskStatus) {
	for _, p := range positions {
		state := wire.TaskRunning
		switch t := c.task(p.Task); {
		case t != nil && t.state == stateFinished:
			state = wire.TaskFinished
		case t == nil && fresh:
			state = wire.TaskUnknown
		}
		out = append(out, wire.TaskStatus{Task: p.Task, State: state})
	}
	return out
}

// detach notes that conn is gone. It reports false if the session has another socket by now.
func (c *core) detach(conn engine.ConnRef, now int64, fx *Effects) bool {
	if c.conn != conn || conn == 0 {
		return false
	}
	c.conn = 0
	c.hear(now)
	if c.work == nil {
		return true
	}
	c.resend()
	c.keepCaps(now, fx)
	if c.held > 0 {
		c.seek(now, fx)
	}
	return true
}

// move notes that another worker has the session, and passes on what is held for its client. It
// returns the connection to be closed, 0 for none.
func (c *core) move(to place, now int64, fx *Effects) (old engine.ConnRef) {
	if to.less(c.known()) {
		return 0
	}
	old = c.conn
	c.conn, c.epoch = 0, 0
	c.hear(now)
	c.moved = &passed{to, now}
	if c.work == nil {
		return old
	}
	// A claim takes the events of its own epoch too: they came this far with an earlier one of the
	// same worker, which has lost them since.
	c.forward(c.extractIf(func(e *entry) bool { return e.event.Epoch <= to.epoch }), fx)
	c.order = slices.DeleteFunc(c.order, func(t *task) bool {
		if len(t.queue) == 0 {
			delete(c.tasks, t.id)
		}
		return len(t.queue) == 0
	})
	c.open = len(c.order)
	c.resend()
	c.wantOverflow(fx)
	return old
}

// verdict is what becomes of an event that came from the broker.
type verdict uint8

const (
	kept verdict = iota // in a queue: next hands it out, or it is in fx already
	pass                // transient: try to send it now; it is settled whatever comes of it
	done                // the client has it, or is away and it is transient: it is settled
)

// deliver takes one event. An event without numbers is given some. What is settled is in fx.
func (c *core) deliver(e *wire.Event, ref Ref, now int64, fx *Effects) verdict {
	if ref.Overflow && c.work != nil {
		c.unhold(ref.Life)
	}
	in := entry{*e, ref, now}
	if c.moved != nil {
		switch {
		case e.Epoch < c.moved.to.epoch:
			c.forward([]entry{in}, fx)
			return kept
		case e.Epoch > c.moved.to.epoch: // it has been where the client was later than we know
			c.moved = nil
			c.hear(now)
		}
	}
	if !e.Durable {
		fx.Settle = append(fx.Settle, ref)
		if c.conn == 0 {
			fx.Dropped++
			return done
		}
		return pass
	}
	t := c.record(e.Task)
	if e.Attempt == 0 {
		t.number(&in.event, c.o.NewRun)
		*e = in.event
	}
	if ended(&t.position, &in.event) {
		c.finish(t) // acknowledged in another life of this worker
	}
	if t.state == stateFinished || covers(&t.position, &in.event) {
		fx.Settle = append(fx.Settle, ref)
		fx.Duplicates++
		return done
	}
	if c.conn == 0 && ref.Part > 0 {
		c.refresh([]entry{in}, fx)
		c.seek(now, fx)
		return kept
	}
	at, ok := c.keep(t, in, fx)
	if !ok {
		fx.Settle = append(fx.Settle, ref)
		fx.Duplicates++
		return done
	}
	// Once events of this client lie in the overflow, later ones follow them there, so that it is
	// read in order. One that others wait for is kept.
	if c.overflow[ref.Life] > 0 && !ref.Overflow && at == len(t.queue)-1 && in.event.Type != wire.EventGap {
		c.hold(c.extract(t, at, at+1), fx)
	}
	if c.conn == 0 {
		c.keepCaps(now, fx)
		c.seek(now, fx)
	}
	return kept
}

// ack notes what the client's application has and leaves in fx what may be settled.
func (c *core) ack(positions []wire.Position, now int64, fx *Effects) {
	if c.work == nil {
		return
	}
	for _, p := range positions {
		t := c.tasks[p.Task]
		if t == nil || t.state == stateFinished {
			continue
		}
		if comparePositions(&p, &t.position) > 0 {
			t.position = p
			c.stalled = now
		}
		n := 0
		for n < len(t.queue) && covers(&t.position, &t.queue[n].event) {
			n++
		}
		if n == 0 {
			continue
		}
		for i := range t.queue[:n] {
			e := &t.queue[i]
			fx.Settle = append(fx.Settle, e.ref)
			fx.Delivered++
			if ended(&t.position, &e.event) {
				c.finish(t)
			}
		}
		c.drop(t, 0, n)
		if t.state == stateFinished { // of a run that came later: its client takes one end of a task
			for _, e := range c.extract(t, 0, len(t.queue)) {
				fx.Settle = append(fx.Settle, e.ref)
				fx.Duplicates++
			}
		}
	}
	if c.sent == 0 {
		c.stalled = 0
	}
	if c.held-c.sent < c.o.MaxWaiting/2 {
		c.wantOverflow(fx)
	}
}

func (c *core) finish(t *task) {
	if t.state != stateFinished {
		t.state = stateFinished
		c.open--
	}
}

// forget drops every event that came in the given life, or in any for 0: the broker will deliver
// it again. Positions stay, so that the client is not sent twice what it has.
func (c *core) forget(life uint64, now int64) (dropped int) {
	if life == 0 {
		c.hear(now) // while the link was away, others may have said what we did not hear: every window starts again
	}
	if c.work == nil {
		return 0
	}
	dropped = len(c.extractIf(func(e *entry) bool { return life == 0 || e.ref.Life == life }))
	if c.flying > 0 && life != 0 {
		if c.lost == nil {
			c.lost = make(map[uint64]bool)
		}
		c.lost[life] = true
	}
	if life == 0 {
		clear(c.overflow)
	}
	delete(c.overflow, life)
	return dropped
}

// record returns the record of a task, making one as an open task if there is none.
func (c *core) record(id wire.TaskID) *task {
	c.begin()
	if t := c.tasks[id]; t != nil {
		return t
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
// oldest that holds nothing. If all hold events there is no room to make, and the caps of what is
// held are the bound.
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
