package wsclient

import (
	"cmp"
	"maps"
	"slices"

	"github.com/wscluster/wscluster/pkg/wire"
)

// inbox is what one client has of all its tasks, and what it owes the server in acknowledgements.
// Like the view it is pure.
type inbox struct {
	room  room
	logs  bool // the application wants every line of every log
	open  map[wire.TaskID]*view
	ended endedTasks

	owed  map[wire.TaskID]wire.Position // to be acknowledged
	count int                           // durable events since the last acknowledgement
}

func newInbox(events, bytes int) *inbox {
	return &inbox{
		room: room{events: events, bytes: bytes},
		open: map[wire.TaskID]*view{},
		owed: map[wire.TaskID]wire.Position{},
	}
}

// begin opens a task at p, a position that the application has reached.
func (b *inbox) begin(p wire.Position) { b.open[p.Task] = newView(&b.room, p, b.logs) }

// put takes an event off the socket. Durable events that the application will never be given are
// acknowledged at once: by what it wants of the task, or by name where the task is over or unknown.
// So are the events of a run that another one takes the place of, or they would fill the server's
// window for ever.
func (b *inbox) put(e *wire.Event) verdict {
	v := b.open[e.Task]
	if v == nil {
		return b.putAway(e)
	}
	before := v.next
	what := v.put(*e)
	replaced := before.Next > 0 && compareRuns(before, v.next) < 0
	if p := v.wants(); replaced || e.Durable && covers(p, e) {
		b.owe(p)
	}
	return what
}

// putAway takes an event of a task that is not open. One that was never open is over with its first
// durable event: that is acknowledged now and does not come again, so a submit under the same ID
// would wait for it for ever.
func (b *inbox) putAway(e *wire.Event) verdict {
	final, over := b.ended.position(e.Task)
	if e.Durable {
		b.owe(later(final, e.Position()))
		if !over {
			b.ended.add(wire.Position{Task: e.Task})
		}
	}
	if final.Next > 0 {
		return duplicate
	}
	return unknown
}

// take gives the application the next event of a task, or the one that it is not done with.
func (b *inbox) take(id wire.TaskID) (Event, bool) {
	if v := b.open[id]; v != nil {
		return v.take()
	}
	return Event{}, false
}

// took says that the application is done with what take gave it, and reports whether that was the
// final event. The task is over then, also for what has come of a later run meanwhile.
func (b *inbox) took(id wire.TaskID) (last bool) {
	v := b.open[id]
	if v == nil || v.hand == nil {
		return false // it was ended meanwhile
	}
	e := v.took()
	if e.Durable {
		b.owe(v.had)
	}
	if !e.Last {
		return false
	}
	b.owe(v.next)
	if n := len(v.late); n > 0 {
		b.owe(v.late[n-1].Position())
	}
	b.end(id)
	return true
}

// end forgets all of a task but its name and the application's position.
func (b *inbox) end(id wire.TaskID) {
	if v := b.open[id]; v != nil {
		b.drop(id)
		b.ended.add(v.had)
	}
}

// drop forgets all of an open task.
func (b *inbox) drop(id wire.TaskID) {
	b.open[id].forget()
	delete(b.open, id)
}

// restart prepares for another socket, which brings again whatever is not acknowledged.
func (b *inbox) restart() {
	for _, v := range b.open {
		v.forgetLate()
	}
	b.room.shed = 0
}

// starved reports whether events were dropped for want of room and the application has since
// taken all that it can: only another socket brings more.
func (b *inbox) starved() bool {
	if b.room.shed == 0 {
		return false
	}
	for _, v := range b.open {
		if v.hand != nil || len(v.ready) > 0 || v.behind() {
			return false
		}
	}
	return true
}

func (b *inbox) owe(p wire.Position) {
	b.owed[p.Task] = later(b.owed[p.Task], p)
	b.count++
}

// acknowledge returns what is owed, at most wire.MaxPositions of it, and owes it no more.
func (b *inbox) acknowledge() []wire.Position {
	ps := slices.SortedFunc(maps.Values(b.owed), func(a, b wire.Position) int { return cmp.Compare(a.Task, b.Task) })
	ps = ps[:min(len(ps), wire.MaxPositions)]
	for _, p := range ps {
		delete(b.owed, p.Task)
	}
	b.count = 0
	return ps
}

// later returns the position that covers more.
func later(a, b wire.Position) wire.Position {
	if cmp.Or(compareRuns(a, b), cmp.Compare(a.Next, b.Next)) > 0 {
		return a
	}
	return b
}

// maxEnded is how many ended tasks a client remembers.
const maxEnded = 200

// endedTasks remembers the last maxEnded tasks that are over, and where the application was in each:
// at next 0 if it had nothing of it.
type endedTasks struct {
	at    map[wire.TaskID]wire.Position
	order []wire.TaskID
}

func (m *endedTasks) position(id wire.TaskID) (p wire.Position, ok bool) {
	p, ok = m.at[id]
	return p, ok
}

// add remembers a task that is not yet in m, in the place of the oldest one if there are too many.
func (m *endedTasks) add(p wire.Position) {
	if m.at == nil {
		m.at = map[wire.TaskID]wire.Position{}
	}
	if len(m.order) == maxEnded {
		delete(m.at, m.order[0])
		m.order = m.order[1:]
	}
	m.at[p.Task] = p
	m.order = append(m.order, p.Task)
}
