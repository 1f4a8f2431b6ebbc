package taskrunner

import (
	"slices"
	"time"

	"github.com/wscluster/wscluster/pkg/wire"
)

// This file is what the simulation has of long schedules: a stream that forgets its start, and hours that pass.

// One of simLong schedules is long: faults go on for twenty hours, some tasks take longer than the stream
// keeps records, and some runners are without a link, dead or asleep for longer than that.
const simLong = 32

// simKeeps is for how long the stream keeps records at least: shorter than the day of RabbitMQ's, so that more
// is forgotten, and longer than staleAfter, up to which a runner reads on where it was.
const simKeeps = staleAfter + time.Hour

type simRecord struct {
	*wire.LedgerRecord
	at   time.Time
	lost bool // it is a claim that somebody else was before
}

// append writes a record. The stream forgets whole segments, and only where one begins.
func (w *sim) append(r *wire.LedgerRecord) {
	w.stream = append(w.stream, simRecord{r, w.now, w.long && w.judge(r)})
	if end := int64(len(w.stream)) - 1; w.long && end%w.segment == 0 {
		w.forget(end)
	}
}

// judge reports whether a record is a claim that was lost, and notes what it says of its task.
func (w *sim) judge(r *wire.LedgerRecord) (lost bool) {
	ended := w.truth.add(r, w.now).ended
	if r.Op == wire.LedgerClaim {
		has := w.truth.open[key{r.Client, r.Task}]
		lost = has == nil || has.run != r.Run
	}
	t := w.tasks[r.Task]
	switch {
	case ended:
		t.done = int64(len(w.stream))
	case lost && t.done > 0 && t.done < w.first && r.Run > w.stream[t.done].Run && (r.Attempt == 1 || r.Attempt >= wire.DeadAttempt):
		t.again = true
	}
	return lost
}

// forget forgets all segments before end whose records are old. Where a claim that was lost is the first that is
// left of a task, new readers believe it.
func (w *sim) forget(end int64) {
	was := w.first
	for w.first+w.segment <= end && w.now.Sub(w.stream[w.first+w.segment-1].at) > simKeeps {
		w.first += w.segment
	}
	if w.first == was {
		return
	}
	left := map[wire.TaskID]bool{}
	for _, r := range w.stream[w.first:] {
		if r.Op == wire.LedgerClaim && !left[r.Task] {
			left[r.Task] = true
			w.tasks[r.Task].again = w.tasks[r.Task].again || r.lost
		}
	}
	for k := range w.truth.open {
		if t := w.tasks[k.task]; !left[k.task] && !t.forgotten {
			t.forgotten = true
			if slices.ContainsFunc(w.runners, func(r *simRunner) bool { return r.linked && r.plan.current && w.now.Sub(r.fresh) > 3*renewAfter }) {
				w.fail("the stream forgets %s, which is open", k.task)
			}
		}
	}
}

// compare compares what a runner takes for open, as it has read up to its link, with what is done.
func (w *sim) compare(r *simRunner) {
	for k := range r.plan.ledger.open {
		if t := w.tasks[k.task]; t.done > 0 && t.done < r.next && !t.again {
			w.fail("%s takes %s for open, which is done", r.name, k.task)
		}
	}
}

// pass lets most of an hour go by where nothing is to be done before, and a tick would only note the time.
func (w *sim) pass() (passed bool) {
	until := w.now.Add(w.within(40 * time.Minute))
	before := func(t time.Time) {
		if t.Before(until) {
			until = t
		}
	}
	for _, r := range w.runners {
		if r.plan == nil {
			before(r.joinAt)
			continue
		}
		for _, u := range r.runs {
			if u.gone != r.frozen {
				return false
			}
			if !u.gone {
				before(u.endAt)
			}
		}
		switch {
		case r.frozen && !r.linked:
			before(r.noticeAt)
		case r.plan.mark == "" && len(r.runs) == 0:
			before(r.joinAt)
		case r.frozen, !r.linked, !w.rests(r):
			return false
		}
	}
	if !until.After(w.now) {
		return false
	}
	w.tell("nothing happens until %v", until.Sub(simStart))
	w.now = until
	for _, r := range w.runners {
		if r.plan != nil && !r.frozen {
			r.plan.ticked = w.now
			if r.plan.current {
				r.plan.alive = w.now
			}
		}
	}
	return true
}

// rests reports whether a runner that has a link has nothing to do but its runs.
func (w *sim) rests(r *simRunner) bool {
	if !r.plan.current || r.next < int64(len(w.stream)) || len(r.out)+len(w.dead)+len(r.plan.ledger.unbegun()) > 0 {
		return false
	}
	return r.plan.placed() >= r.plan.slots || len(w.ready) == 0 && len(r.plan.ledger.orphans(w.left)) == 0
}

// left reports whether nobody runs what somebody has.
func (w *sim) left(o *standing) bool {
	for _, r := range w.runners {
		if r.name == o.runner && r.linked {
			j := r.plan.jobs[keyOf(o.task)]
			return j == nil || j.run != o.run
		}
	}
	return true
}

// away is how long a runner is gone: most at most, or in a long schedule for hours, if another one has a link.
func (w *sim) away(r *simRunner, most time.Duration) time.Duration {
	if w.long && w.IntN(4) > 0 && slices.ContainsFunc(w.runners, func(o *simRunner) bool { return o != r && o.linked && !o.frozen }) {
		most = 3 * simKeeps
	}
	return w.within(most)
}
