package chaos

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// Report is what a ledger adds up to. All counts but those of tasks, sessions and faults are of
// durable events.
type Report struct {
	Attempted   int            // handed to the broker, each counted once
	Confirmed   int            // by the broker; without those that were superseded
	Delivered   int            // of them: with their applications
	Recovered   int            // delivered although a fault struck on their way
	Superseded  int            // confirmed, and void: another run took the place of theirs before they arrived
	Unconfirmed int            // delivered besides: their publisher died before it saw the confirm
	Dead        map[string]int // confirmed and given up, by reason
	Lost        []Lost         // confirmed, and nowhere
	Wire        int            // times that an event came off a socket again
	Duplicates  int            // times that an application got an event again
	Misordered  int            // times that an application got an event that was not next
	Misrouted   int            // times that an event came to somebody else's socket
	Runners     int            // delivered events of task runners, whose confirms nobody here has seen

	Tasks      int      // accepted
	Unfinished []string // of them: without a final event, in words
	Sessions   int      // that were not resumed, and another one began
	Left       []string // what lies in queues at the end, in words

	Faults map[Kind]int // that struck while events were in flight
	Idle   map[Kind]int // that struck while none was, and do not count
}

// Lost is one event that was confirmed and is nowhere.
type Lost struct {
	Run       RunKey
	Seq       int64
	Client    string
	Confirmed time.Time
	Wire      int    // how often it came off a socket
	Seen      string // where it lies, if that is known
}

func (l Lost) String() string {
	seen := l.Seen
	switch {
	case seen != "":
	case l.Wire > 0:
		seen = fmt.Sprintf("last seen on its client's socket, %d times", l.Wire)
	default:
		seen = "last seen when the broker confirmed it"
	}
	return fmt.Sprintf("task %s attempt %d run %s event %d for %s, confirmed %s: %s",
		l.Run.Task, l.Run.Attempt, l.Run.Run, l.Seq, l.Client, l.Confirmed.Format("15:04:05.000"), seen)
}

// Check returns nil if the guarantee held: nothing lost, misrouted, misordered or given to an
// application twice, every task ended, nothing left in a queue, and nothing dead for a reason that
// is not among those allowed.
func (r *Report) Check(allowed ...string) error {
	var wrong []string
	is := func(bad bool, format string, args ...any) {
		if bad {
			wrong = append(wrong, fmt.Sprintf(format, args...))
		}
	}
	is(len(r.Lost) > 0, "%d events are lost", len(r.Lost))
	is(r.Misrouted > 0, "%d came to the wrong socket", r.Misrouted)
	is(r.Misordered > 0, "%d came out of order", r.Misordered)
	is(r.Duplicates > 0, "%d came twice", r.Duplicates)
	for _, reason := range slices.Sorted(maps.Keys(r.Dead)) {
		is(!slices.Contains(allowed, reason), "%d are dead (%s), which no fault explains", r.Dead[reason], reason)
	}
	is(r.Confirmed != r.Delivered+total(r.Dead)+len(r.Lost), "confirmed is not delivered and dead and lost")
	is(len(r.Unfinished) > 0, "%d tasks have no end", len(r.Unfinished))
	is(len(r.Left) > 0, "%d queues are not empty", len(r.Left))
	if len(wrong) == 0 {
		return nil
	}
	return fmt.Errorf("the guarantee did not hold: %s", strings.Join(wrong, ", "))
}

// shown is how many lines of one sort a report has at most.
const shown = 20

// String is the report for people; its last line, without an end, is for programs.
func (r *Report) String() string {
	var b strings.Builder
	row := func(name string, n int, what string) { fmt.Fprintf(&b, "  %-12s %9d  %s\n", name, n, what) }
	b.WriteString("durable events\n")
	row("attempted", r.Attempted, "handed to the broker")
	row("confirmed", r.Confirmed, "by the broker, and owed to an application")
	row("delivered", r.Delivered, "to their applications")
	row("recovered", r.Recovered, "delivered although a fault struck on their way")
	row("superseded", r.Superseded, "confirmed, but another run of the task came first")
	row("unconfirmed", r.Unconfirmed, "delivered besides; their publisher died before the confirm")
	row("duplicated", r.Wire, "on the wire, and dropped by the client")
	row("duplicated", r.Duplicates, "in an application")
	row("misordered", r.Misordered, "in an application")
	row("misrouted", r.Misrouted, "to somebody else's socket")
	row("lost", len(r.Lost), "confirmed, and neither delivered nor dead")
	row("dead", total(r.Dead), reasons(r.Dead))
	row("of runners", r.Runners, "delivered events of real task runners, judged by their chains")
	fmt.Fprintf(&b, "tasks\n")
	row("accepted", r.Tasks, "")
	row("unfinished", len(r.Unfinished), "without a final event")
	fmt.Fprintf(&b, "sessions\n")
	row("new", r.Sessions, "that began because one was not resumed")
	fmt.Fprintf(&b, "faults\n")
	for _, k := range slices.Sorted(maps.Keys(r.Faults)) {
		row("", r.Faults[k], string(k))
	}
	for _, k := range slices.Sorted(maps.Keys(r.Idle)) {
		row("not counted", r.Idle[k], string(k)+": nothing was in flight")
	}
	list(&b, "lost", r.Lost)
	list(&b, "unfinished", r.Unfinished)
	list(&b, "left in queues", r.Left)
	fmt.Fprintf(&b, "ledger: confirmed=%d delivered=%d lost=%d misrouted=%d misordered=%d app_duplicates=%d wire_duplicates=%d faults=%d",
		r.Confirmed, r.Delivered, len(r.Lost), r.Misrouted, r.Misordered, r.Duplicates, r.Wire, total(r.Faults))
	return b.String()
}

func list[T any](b *strings.Builder, name string, lines []T) {
	if len(lines) == 0 {
		return
	}
	fmt.Fprintln(b, name)
	for _, line := range lines[:min(len(lines), shown)] {
		fmt.Fprintf(b, "  %v\n", line)
	}
	if more := len(lines) - shown; more > 0 {
		fmt.Fprintf(b, "  and %d more\n", more)
	}
}

func reasons(dead map[string]int) string {
	if len(dead) == 0 {
		return "given up"
	}
	var all []string
	for _, reason := range slices.Sorted(maps.Keys(dead)) {
		all = append(all, fmt.Sprintf("%s %d", reason, dead[reason]))
	}
	return "given up: " + strings.Join(all, ", ")
}

func total[K comparable](counts map[K]int) (n int) {
	for _, c := range counts {
		n += c
	}
	return n
}
