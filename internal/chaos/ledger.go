package chaos

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"sort"
	"time"

	"github.com/wscluster/wscluster/pkg/wire"
)

// Ledger adds up journals. It is pure: it reads no file, clock or queue by itself. The entries of
// one client must come in the order in which they were noted; journals may come in any order.
type Ledger struct {
	tasks   map[wire.TaskID]*account
	runs    map[RunKey]*run
	clients map[string]string // client ID: whose session it is
	met     map[string]int    // who: how many sessions
	faults  []Struck          // by time

	duplicates, misordered int // found while reading
}

// account is what is known of one task.
type account struct {
	who       string // who asked for it
	kind      string
	accepted  bool
	abandoned string // why the server says that nothing more comes

	at   RunKey // the run that the application is in
	had  int64  // the last durable event of it that it has
	over bool   // it has the final one
}

// run is what is known of one run of a task.
type run struct {
	key    RunKey
	client string // for whom it is published; "" where no journal of a publisher tells
	events []event
	gaps   []gap
	got    map[string]int // who: how many events came off its sockets, or reached its application
}

// event is what is known of one durable event.
type event struct {
	attempted, confirmed, got time.Time // zero: not
	wire                      int       // how often it came off a socket
	dead                      string    // where it lies among the dead: the reason
}

type gap struct {
	from, to int64
	reason   string
}

// Struck is a fault that struck.
type Struck struct {
	Fault
	Time time.Time
}

// NewLedger returns an empty ledger.
func NewLedger() *Ledger {
	return &Ledger{tasks: map[wire.TaskID]*account{}, runs: map[RunKey]*run{}, clients: map[string]string{}, met: map[string]int{}}
}

// Read adds a journal.
func (l *Ledger) Read(journal io.Reader) error { return ReadJournal(journal, l.Add) }

// Fault adds a fault that struck at a time, no earlier than those added before.
func (l *Ledger) Fault(f Fault, at time.Time) { l.faults = append(l.faults, Struck{f, at}) }

// Dead adds an event that lies in the dead queue.
func (l *Ledger) Dead(key RunKey, seq int64, reason string) { l.event(key, seq).dead = reason }

// Add adds one entry of a journal.
func (l *Ledger) Add(e Entry) {
	switch e.Op {
	case OpMet:
		l.clients[e.Client] = e.Who
		l.met[e.Who]++
	case OpAsked:
		a := l.task(e.Run.Task)
		a.who, a.kind = e.Who, e.Text
	case OpAccepted:
		l.task(e.Run.Task).accepted = true
	case OpAbandoned:
		l.task(e.Run.Task).abandoned = e.Text
	case OpAttempted:
		l.run(e.Run).client = e.Who
		if ev := l.event(e.Run, e.Seq); ev.attempted.IsZero() {
			ev.attempted = e.Time
		}
	case OpConfirmed:
		if ev := l.event(e.Run, e.Seq); ev.confirmed.IsZero() {
			ev.confirmed = e.Time
		}
	case OpWire:
		l.run(e.Run).got[e.Who]++
		l.event(e.Run, e.Seq).wire++
	case OpGot:
		l.got(e)
	case OpGap:
		if l.inOrder(e) {
			l.run(e.Run).gaps = append(l.run(e.Run).gaps, gap{e.Prev, e.Seq, e.Text})
		}
	}
}

func (l *Ledger) task(id wire.TaskID) *account {
	a := l.tasks[id]
	if a == nil {
		a = &account{}
		l.tasks[id] = a
	}
	return a
}

func (l *Ledger) run(key RunKey) *run {
	r := l.runs[key]
	if r == nil {
		r = &run{key: key, got: map[string]int{}}
		l.runs[key] = r
	}
	return r
}

func (l *Ledger) event(key RunKey, seq int64) *event {
	r := l.run(key)
	for int64(len(r.events)) < seq {
		r.events = append(r.events, event{})
	}
	return &r.events[seq-1]
}

// got judges an event that an application got: it must be the first time, and its turn.
func (l *Ledger) got(e Entry) {
	r, ev := l.run(e.Run), l.event(e.Run, e.Seq)
	if ev.wire == 0 {
		r.got[e.Who]++ // nobody noted it on the wire
	}
	if !ev.got.IsZero() {
		l.duplicates++
		return
	}
	ev.got = e.Time
	l.inOrder(e)
}

// inOrder moves the application's place in a task to e, and reports whether it was e's turn: a run
// begins with its first event, nothing between is left out, and nothing comes after the final one.
func (l *Ledger) inOrder(e Entry) bool {
	a := l.task(e.Run.Task)
	if e.Run.compare(a.at) > 0 && !a.over {
		a.at, a.had = e.Run, 0
	}
	before := e.Prev // of a gap: the first event that it stands for
	if e.Op == OpGap {
		before--
	}
	ok := !a.over && e.Run == a.at && e.Seq > a.had && before <= a.had
	if !ok {
		l.misordered++
	}
	if !a.over && e.Run == a.at {
		a.had, a.over = max(a.had, e.Seq), e.Last
	}
	return ok
}

// Report adds all up.
func (l *Ledger) Report() Report {
	rep := Report{Duplicates: l.duplicates, Misordered: l.misordered, Dead: map[string]int{}, Faults: map[Kind]int{}, Idle: map[Kind]int{}}
	var attempted, got []time.Time // of events that were delivered, each sorted below
	for _, r := range l.sorted() {
		a := l.task(r.key.Task)
		for who, n := range r.got {
			if who != a.who || r.client != "" && l.clients[r.client] != who {
				rep.Misrouted += n
			}
		}
		for i := range r.events {
			ev := &r.events[i]
			rep.wire(ev)
			switch {
			case r.client == "": // a run of the code under test: its chain is judged, not its confirms
				if !ev.got.IsZero() {
					rep.Runners++
				}
				continue
			case !ev.attempted.IsZero():
				rep.Attempted++
			}
			if !ev.got.IsZero() {
				attempted, got = append(attempted, ev.attempted), append(got, ev.got)
				if l.between(ev.attempted, ev.got) {
					rep.Recovered++
				}
			}
			rep.settle(r, int64(i+1), ev, superseded(a, r.key))
		}
	}
	l.countTasks(&rep)
	l.countFaults(&rep, attempted, got)
	for _, n := range l.met {
		rep.Sessions += n - 1
	}
	return rep
}

// superseded reports whether another run of the task has taken the place of this one.
func superseded(a *account, key RunKey) bool {
	return a.over && a.at != key || key.compare(a.at) < 0
}

// settle says what became of one event.
func (rep *Report) settle(r *run, seq int64, ev *event, superseded bool) {
	reason := ev.dead
	for _, g := range r.gaps {
		if g.from <= seq && seq <= g.to {
			reason = g.reason
		}
	}
	switch confirmed := !ev.confirmed.IsZero(); {
	case !confirmed && !ev.got.IsZero():
		rep.Unconfirmed++
	case !confirmed:
	case !ev.got.IsZero():
		rep.Confirmed++
		rep.Delivered++
	case superseded:
		rep.Superseded++
	case reason != "":
		rep.Confirmed++
		rep.Dead[reason]++
	default:
		rep.Confirmed++
		rep.Lost = append(rep.Lost, Lost{Run: r.key, Seq: seq, Client: r.client, Confirmed: ev.confirmed, Wire: ev.wire})
	}
}

func (rep *Report) wire(ev *event) { rep.Wire += max(0, ev.wire-1) }

// countTasks looks for accepted tasks without an end.
func (l *Ledger) countTasks(rep *Report) {
	for _, id := range slices.Sorted(maps.Keys(l.tasks)) {
		a := l.tasks[id]
		if !a.accepted && !a.over {
			continue
		}
		rep.Tasks++
		if !a.over {
			why := a.abandoned
			if why == "" {
				why = "nothing more came"
			}
			rep.Unfinished = append(rep.Unfinished, fmt.Sprintf("%s %s of %s has %d events of attempt %d: %s", a.kind, id, a.who, a.had, a.at.Attempt, why))
		}
	}
}

// countFaults counts a fault if durable events were in flight when it struck: handed to the broker
// before, and with their applications after. Only events that were delivered count for that.
func (l *Ledger) countFaults(rep *Report, attempted, got []time.Time) {
	slices.SortFunc(attempted, time.Time.Compare)
	slices.SortFunc(got, time.Time.Compare)
	upTo := func(ts []time.Time, t time.Time) int {
		return sort.Search(len(ts), func(i int) bool { return ts[i].After(t) })
	}
	for _, f := range l.faults {
		if upTo(attempted, f.Time) > upTo(got, f.Time) {
			rep.Faults[f.Kind]++
		} else {
			rep.Idle[f.Kind]++
		}
	}
}

// between reports whether a fault struck from one time to another.
func (l *Ledger) between(from, to time.Time) bool {
	i := sort.Search(len(l.faults), func(i int) bool { return !l.faults[i].Time.Before(from) })
	return i < len(l.faults) && l.faults[i].Time.Before(to)
}

// sorted lists the runs in one order, so that reports of the same journals are the same.
func (l *Ledger) sorted() []*run {
	all := slices.Collect(maps.Values(l.runs))
	slices.SortFunc(all, func(a, b *run) int {
		if a.key.Task != b.key.Task {
			if a.key.Task < b.key.Task {
				return -1
			}
			return 1
		}
		return a.key.compare(b.key)
	})
	return all
}
