package wsclient

import (
	"cmp"
	"encoding/json"
	"slices"
	"strconv"

	"github.com/wscluster/wscluster/pkg/wire"
)

// This file is the pure core of the client: what becomes of an event that came off the socket.
// It knows no lock, clock or socket. client/src/order.ts follows the same rules.

// Event is one event as the application sees it.
//
// One of type gap says that durable events were given up: those from its body's from_seq
// (wire.Gap) to its own Seq will not come, and the application had none of them.
type Event struct {
	wire.Event

	// Reset says that this event begins another run of the task (a runner died and another one
	// took the task over): what the events before it told is void.
	Reset bool
}

// verdict is what became of an event.
type verdict uint8

const (
	inOrder   verdict = iota // the application may have it, and perhaps others that waited for it
	early                    // kept: a durable event before it is missing
	duplicate                // dropped: the application has it, or it is on its way there
	stale                    // dropped: of an earlier run, or progress older than what the application has
	shed                     // dropped: no room; a durable one comes again with the next socket
	unknown                  // dropped: of a task that is not open, and of which the application had nothing
)

// room is what the views of one client may hold together, beside what the application has in hand.
type room struct {
	events, bytes int
	shed          int // durable events dropped for want of room since the socket came up
}

// take reports whether e fits, and if so counts it in.
func (r *room) take(e *wire.Event) bool {
	if r.events < 1 || r.bytes < len(e.Body) {
		return false
	}
	r.events--
	r.bytes -= len(e.Body)
	return true
}

func (r *room) give(e *wire.Event) {
	r.events++
	r.bytes += len(e.Body)
}

// view is what one client has of one task. The zero value has nothing; see newView.
type view struct {
	room *room

	had  wire.Position // what the application has
	next wire.Position // had and what is ready; always of the highest run seen

	hand  *Event       // given to the application, which has not yet said that it is done with it
	ready []Event      // next in order, for the application to take
	late  []wire.Event // durable events of next's run that came too early, in the order of inLate

	logs bool // the application wants every line of the log
	log  logView

	live  int64 // the highest Seq of a transient event of next's run
	told  bool  // the application was given something of the task
	reset bool  // the next event to become ready begins another run
}

// newView begins at p, a position that the application has reached (in an earlier life, perhaps).
func newView(r *room, p wire.Position, logs bool) *view {
	return &view{room: r, had: p, next: p, told: p.Next > 0, logs: logs, log: logView{next: 1}}
}

// wants is all that may be acknowledged: what the application has of the highest run seen, and no
// more of an earlier run.
func (v *view) wants() wire.Position {
	if compareRuns(v.had, v.next) == 0 {
		return v.had
	}
	return wire.Position{Task: v.next.Task, Attempt: v.next.Attempt, Run: v.next.Run, Next: 1}
}

// compareRuns orders runs of one task: by attempt, then by run ID.
func compareRuns(a, b wire.Position) int {
	return cmp.Or(cmp.Compare(a.Attempt, b.Attempt), cmp.Compare(a.Run, b.Run))
}

// covers reports whether somebody at p needs e no more.
func covers(p wire.Position, e *wire.Event) bool {
	c := compareRuns(e.Position(), p)
	return c < 0 || c == 0 && e.Seq < p.Next
}

// put takes e off the socket. What is kept is bounded by the room: for a durable event that does
// not fit, higher ones of its task make way, or it is dropped itself; none of them was ever
// acknowledged. Transient events never wait, and the latest takes the place of one not yet taken.
func (v *view) put(e wire.Event) verdict {
	switch c := compareRuns(e.Position(), v.next); {
	case c < 0:
		return stale
	case c > 0:
		v.forget()
		v.next = wire.Position{Task: e.Task, Attempt: e.Attempt, Run: e.Run}
		v.live, v.reset = 0, v.told
		v.log = logView{next: 1}
	}
	v.next.Next = max(v.next.Next, 1) // a run's events count from 1
	switch {
	case !e.Durable && e.Type == wire.EventLog && v.logs:
		return v.putLog(e)
	case !e.Durable:
		return v.putTransient(e)
	case e.Seq < v.next.Next:
		return duplicate
	case e.Prev >= v.next.Next:
		return v.putLate(e)
	case !v.fit(&e, 0):
		return shed
	}
	v.append(e)
	v.next.Next = e.Seq + 1
	v.catchUp()
	return inOrder
}

func (v *view) putTransient(e wire.Event) verdict {
	if e.Seq < v.next.Next || e.Seq <= v.live {
		return stale
	}
	v.live = e.Seq
	if n := len(v.ready) - 1; n >= 0 && !v.ready[n].Durable && !(v.logs && v.ready[n].Type == wire.EventLog) {
		v.reset = v.ready[n].Reset
		v.room.give(&v.ready[n].Event)
		v.ready = v.ready[:n]
	}
	if !v.room.take(&e) {
		return shed
	}
	v.append(e)
	return inOrder
}

func (v *view) putLate(e wire.Event) verdict {
	i, found := slices.BinarySearchFunc(v.late, e, inLate)
	if found {
		return duplicate
	}
	if !v.fit(&e, i) {
		return shed
	}
	v.late = slices.Insert(v.late, i, e)
	return early
}

// inLate orders what waits by Seq, and a gap behind the event whose Seq it has: if the events that
// a gap stands in for are all there, the application gets them. Of gaps that end together the one
// that covers less is first.
func inLate(a, b wire.Event) int {
	return cmp.Or(cmp.Compare(a.Seq, b.Seq), cmp.Compare(isGap(&a), isGap(&b)), cmp.Compare(b.Prev, a.Prev))
}

func isGap(e *wire.Event) int {
	if e.Type == wire.EventGap {
		return 1
	}
	return 0
}

// fit counts e in. Where it must, it makes way by dropping the highest that wait, but for the first keep.
func (v *view) fit(e *wire.Event, keep int) bool {
	for !v.room.take(e) {
		n := len(v.late) - 1
		v.room.shed++
		if n < keep {
			return false
		}
		v.room.give(&v.late[n])
		v.late = v.late[:n]
	}
	return true
}

// catchUp makes ready what waited only for what has just come. A gap takes the place of the events
// before it in late: they wait for others that it stands in for.
func (v *view) catchUp() {
	for i := 0; i < len(v.late); i++ {
		e := v.late[i]
		if e.Prev >= v.next.Next {
			continue
		}
		for j := range i {
			v.room.give(&v.late[j])
		}
		v.late, i = v.late[i+1:], -1
		if e.Seq < v.next.Next {
			v.room.give(&e)
			continue
		}
		v.append(e)
		v.next.Next = e.Seq + 1
	}
}

func (v *view) append(e wire.Event) {
	if v.logs && e.Durable {
		v.noteLog(&e)
	}
	v.ready = append(v.ready, Event{Event: e, Reset: v.reset})
	v.reset = false
}

// take gives the application the next event, or the one that it took and is not done with.
func (v *view) take() (Event, bool) {
	if v.hand == nil {
		if len(v.ready) == 0 || v.ready[0].Last && v.behind() {
			return Event{}, false
		}
		v.hand = new(v.ready[0])
		v.ready[0] = Event{} // its body is not pinned
		v.ready = v.ready[1:]
		v.room.give(&v.hand.Event)
		if v.hand.Type == wire.EventGap && compareRuns(v.hand.Position(), v.had) == 0 {
			narrow(&v.hand.Event, v.had.Next)
		}
		v.told = true
	}
	return *v.hand, true
}

// narrow has the gap e begin at first, unless it begins later: what the application has is not
// missing, whether or not its acknowledgement was in time. wire.DecodeServer has checked the body.
func narrow(e *wire.Event, first int64) {
	var body map[string]json.RawMessage
	if err := json.Unmarshal(e.Body, &body); err != nil {
		return
	}
	from, _ := strconv.ParseInt(string(body["from_seq"]), 10, 64)
	if from >= first {
		return
	}
	body["from_seq"] = strconv.AppendInt(nil, first, 10)
	e.Body, _ = json.Marshal(body) // it cannot fail: it was read just now
}

// took says that the application is done with what take gave it, and returns that.
func (v *view) took() *Event {
	e := v.hand
	v.hand = nil
	if e.Durable {
		v.had = e.Position()
	}
	return e
}

// forget gives back the room of all that the application has not taken.
func (v *view) forget() {
	for i := range v.ready {
		v.room.give(&v.ready[i].Event)
	}
	v.ready = nil
	v.forgetLate()
}

// forgetLate drops what came too early. A new socket brings it again, together with what it waited for.
func (v *view) forgetLate() {
	for i := range v.late {
		v.room.give(&v.late[i])
	}
	v.late = nil
}
