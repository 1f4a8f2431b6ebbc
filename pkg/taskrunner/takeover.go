package taskrunner

import (
	"hash/fnv"
	"io"
	"maps"
	"time"

	"github.com/wscluster/wscluster/pkg/wire"
)

// orphaned reports whether nobody runs a task that somebody has, and this runner may take it over.
//
// Of another runner that is so once its control key was returned for its whole fence and a margin: it
// has no link for so long, so it has given its runs up. Of this runner itself, if it runs the task not:
// at once if the process that did had the lock of the spool that this one has, for then it is dead, else
// after the same time with this link, during which nobody else had this name. A task that was taken over
// before waits, twice as long each time, for it may be what kills its runners, and apart from those that were lost with
// it; one that was given up and is only to be ended does not.
func (s *scheduler) orphaned(o *standing, now time.Time) bool {
	switch {
	case !s.takes(o), s.jobs[keyOf(o.task)] != nil, s.owed[keyOf(o.task)] != nil:
		return false
	case o.free && s.fate(o) != "":
		return true
	case now.Sub(o.heard) < pause(o.attempt):
		return false
	case o.free:
		return true
	case now.Sub(o.heard) < pause(o.attempt)+spread(o):
		return false
	case o.runner == s.self:
		return o.spool != "" && o.spool == s.spool || now.Sub(s.joined) >= o.fence+margin
	default:
		gone, is := s.missing[o.runner]
		return is && gone.to.Sub(gone.from) >= o.fence+margin && now.Sub(gone.to) <= probeGap
	}
}

// takes reports whether this runner can do what somebody has left: run a task of its kinds, or end one.
func (s *scheduler) takes(o *standing) bool {
	_, ours := s.kinds[o.task.Kind]
	return ours || s.fate(o) != ""
}

// pause is how long a task waits after an attempt that did not end: not at all after the first, then 2 s,
// 4 s and so on up to a minute.
func pause(attempt int) time.Duration {
	if attempt == 1 {
		return 0
	}
	return min(time.Second<<min(attempt-1, 6), time.Minute)
}

// spread is what a task whose runner was lost waits for beside its pause: up to half of that, by its last run. Tasks that
// were lost together would else begin together each time, and one that kills its runners would take all of them along.
func spread(o *standing) time.Duration {
	const parts = 1000
	h := fnv.New32a()
	_, _ = io.WriteString(h, string(o.run)) // never fails
	return pause(o.attempt) / 2 / parts * time.Duration(h.Sum32()%parts)
}

// probed says whether the control key of a runner was returned, or else had somebody.
func (s *scheduler) probed(runner string, returned bool, now time.Time) {
	gone, was := s.missing[runner]
	switch {
	case !s.current || !returned:
		delete(s.missing, runner)
	case was && now.Sub(gone.to) <= probeGap:
		s.missing[runner] = span{gone.from, now}
	default:
		s.missing[runner] = span{now, now}
	}
	s.fill(now)
}

// tick is to be called every second or so.
func (s *scheduler) tick(now time.Time) {
	s.fence(now)
	for _, k := range ordered(s.jobs) {
		j := s.jobs[k]
		if j.state != claimed && len(j.holds) > 0 && now.Sub(j.held) >= settleAfter {
			for _, h := range j.holds {
				s.order(order{verb: settle, hold: h})
			}
			j.holds = nil
		}
	}
	if s.current {
		s.renew(now)
		s.look(now)
		s.end(now)
		s.fill(now)
	}
}

// fence gives up the runs that had no link for too long. A process that stood still (SIGSTOP, a machine
// that slept) may have a link that is dead, and not know it yet.
func (s *scheduler) fence(now time.Time) {
	if !s.ticked.IsZero() && now.Sub(s.ticked) >= stall {
		s.doubt = now.Add(notice)
	}
	s.ticked = now
	if s.current && !now.Before(s.doubt) {
		s.alive = now
	}
	for _, k := range ordered(s.jobs) {
		j := s.jobs[k]
		if j.state == running && now.Sub(s.alive) >= j.fence {
			j.state = leaving
			s.order(order{verb: abandon, job: j, cause: errFenced})
		}
	}
}

// renew writes again what the ledger would forget: an hour after it was heard of last for runs of this
// runner, two hours for others', which somebody must keep if they have no owner.
func (s *scheduler) renew(now time.Time) {
	for _, k := range ordered(s.ledger.open) {
		o := s.ledger.open[k]
		after := 2 * renewAfter
		if o.runner == s.self {
			after = renewAfter
		}
		if now.Sub(o.heard) < after {
			continue
		}
		o.heard = now // once; should it be lost, after another hour
		s.write(claimOf(&job{task: o.task, attempt: o.attempt, run: o.run, fence: o.fence, spool: o.spool, dead: o.dead}, o.runner))
		if o.free {
			s.write(&wire.LedgerRecord{Op: wire.LedgerFree, Client: k.client, Task: k.task, Attempt: o.attempt, Run: o.run, Runner: o.runner})
		}
	}
}

// look asks for the runners that have tasks which this one could take over.
func (s *scheduler) look(now time.Time) {
	if now.Before(s.probing) {
		return
	}
	s.probing = now.Add(probeEvery)
	maps.DeleteFunc(s.missing, func(_ string, gone span) bool { return now.Sub(gone.to) > probeGap }) // nobody looks for them any more
	for _, runner := range s.ledger.owners(func(o *standing) bool {
		return s.takes(o) && !o.free && o.runner != s.self
	}) {
		s.order(order{verb: probe, runner: runner})
	}
}
