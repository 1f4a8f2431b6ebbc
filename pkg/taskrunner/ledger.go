package taskrunner

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"github.com/wscluster/wscluster/pkg/wire"
)

// ledger is what the records of the ledger say: which runner has which task, and which tasks have
// ended. It is pure. All runners read the same records in the same order, so all have the same ledger,
// and nobody needs any other lock: of those who claim one attempt, the first one that is read has it.
type ledger struct {
	open  map[key]*standing
	ended map[key]bool
	past  []key // the same, oldest first

	canceled map[key]*wire.Task // what the cancel says of the task; nil if nothing
	wishes   []key              // the same, oldest first, and some that have ended

	read int64 // records so far
}

// standing is who has a task that has not ended.
type standing struct {
	task    *wire.Task
	attempt int
	run     wire.RunID
	runner  string
	fence   time.Duration   // after which runner gives the run up if it has no broker
	spool   string          // whose lock the runner held; "" if it had none
	dead    wire.DeadReason // it is to be ended and not run; "" for others
	free    bool            // was given up by who has it
	since   int64           // which record said so
	heard   time.Time       // when a record of the run was read last
}

const (
	// rememberEnded bounds the ended tasks that a ledger remembers; the oldest are forgotten first. A copy
	// of one that is delivered after that is run again.
	rememberEnded = 100_000
	// rememberCanceled bounds the cancels of tasks that have not ended, in the same way.
	rememberCanceled = 10_000
)

// key names one task of all: clients choose the IDs of their tasks, and two may choose the same.
type key struct {
	client string // a socketmeta.ClientID
	task   wire.TaskID
}

func keyOf(t *wire.Task) key { return key{t.Client.String(), t.Task} }

func compareKeys(a, b key) int {
	return cmp.Or(cmp.Compare(a.client, b.client), cmp.Compare(a.task, b.task))
}

// ordered are the keys of a map, in an order that does not change.
func ordered[V any](m map[key]V) []key { return slices.SortedFunc(maps.Keys(m), compareKeys) }

func newLedger() *ledger {
	return &ledger{open: map[key]*standing{}, ended: map[key]bool{}, canceled: map[key]*wire.Task{}}
}

// change is what one record changed: at most one run began, and one lost its task to it.
type change struct {
	began *standing
	lost  wire.RunID
	ended bool

	canceled wire.RunID // the run that has the task is to end
}

// add reads the next record, at now. A record that breaks the rules changes nothing:
//
//   - a claim needs a task that nobody has, or the attempt after the present one, and a task that has not
//     ended; the present run may claim its task again, so that young readers find it;
//   - a cancel needs a task that has not ended, and counts for one that is claimed later too; another one
//     counts only for what the first has not said of the task;
//   - free and done need to name the present run, but of a task that nobody has done is believed: its
//     claim may be forgotten.
func (l *ledger) add(r *wire.LedgerRecord, now time.Time) (c change) {
	l.read++
	k := key{r.Client, r.Task}
	have := l.open[k]
	present := have != nil && have.run == r.Run && have.attempt == r.Attempt
	if present {
		have.heard = now
	}
	switch r.Op {
	case wire.LedgerClaim:
		switch {
		case l.ended[k], present, have != nil && r.Attempt != have.attempt+1:
			return c
		}
		task, err := wire.DecodeTask(r.Body)
		if err != nil {
			return c // wire.DecodeLedger has refused it already
		}
		if have != nil {
			c.lost = have.run
		}
		c.began = &standing{task: task, attempt: r.Attempt, run: r.Run, runner: r.Runner,
			fence: time.Duration(r.Fence) * time.Second, spool: r.Spool, dead: r.Dead, since: l.read, heard: now}
		l.open[k] = c.began
	case wire.LedgerCancel:
		if !l.ended[k] && l.cancel(k, r.Body) && have != nil {
			c.canceled = have.run
		}
	case wire.LedgerFree:
		if present && !have.free {
			have.free, have.since = true, l.read
		}
	case wire.LedgerDone:
		if present || have == nil && !l.ended[k] {
			delete(l.open, k)
			l.end(k)
			c.ended = true
		}
	}
	return c
}

// cancel remembers a cancel and what it says of the task, if anything, and reports whether it is the first.
func (l *ledger) cancel(k key, body []byte) (first bool) {
	task, again := l.canceled[k]
	if task == nil && body != nil {
		task, _ = wire.DecodeTask(body) // wire.DecodeLedger has refused what cannot be read
	}
	l.canceled[k] = task
	if again {
		return false
	}
	l.wishes = append(l.wishes, k)
	if len(l.wishes) > rememberCanceled {
		delete(l.canceled, l.wishes[0])
		l.wishes = l.wishes[1:]
	}
	return true
}

// unbegun returns the canceled tasks that nobody has, as far as their cancels say what they are, oldest first.
func (l *ledger) unbegun() (found []*wire.Task) {
	for _, k := range l.wishes {
		if t := l.canceled[k]; t != nil && l.open[k] == nil {
			found = append(found, t)
		}
	}
	return found
}

func (l *ledger) end(k key) {
	delete(l.canceled, k)
	l.ended[k] = true
	l.past = append(l.past, k)
	if len(l.past) > rememberEnded {
		delete(l.ended, l.past[0])
		l.past = l.past[1:]
	}
}

// knows reports whether a delivery of the task is a copy: somebody has it, or it has ended.
func (l *ledger) knows(k key) bool { return l.open[k] != nil || l.ended[k] }

// orphans returns the tasks that abandoned says yes to, the ones that have waited for longest first.
func (l *ledger) orphans(abandoned func(*standing) bool) (found []*standing) {
	for _, s := range l.open {
		if abandoned(s) {
			found = append(found, s)
		}
	}
	slices.SortFunc(found, func(a, b *standing) int { return cmp.Compare(a.since, b.since) })
	return found
}

// owners returns the runners that have tasks which watched says yes to, sorted.
func (l *ledger) owners(watched func(*standing) bool) []string {
	names := map[string]bool{}
	for _, s := range l.open {
		if watched(s) {
			names[s.runner] = true
		}
	}
	return slices.Sorted(maps.Keys(names))
}
