package taskrunner

import (
	"time"

	"github.com/wscluster/wscluster/pkg/wire"
)

// endAtOnce bounds the tasks to be ended that a runner has in hand before it claims another one of its own
// accord. The others wait for the next tick, or for other runners.
const endAtOnce = 100

// end claims the tasks that nobody runs and that are only to be told their end: those that somebody has left, and
// those of this runner's kinds that were canceled before anybody had them. They take no place, and need none.
//
// It belongs to the tick and not to the reading of a cancel, which all runners do at the same moment: their ticks
// are apart, so mostly one of them claims, and the others have read its claim when their turn comes. Each
// claims a task once at most, as long as its link is the same.
func (s *scheduler) end(now time.Time) {
	if s.stopped {
		return
	}
	room := endAtOnce - (len(s.jobs) - s.placed())
	claim := func(t *wire.Task, attempt int, why wire.DeadReason) {
		if room > 0 {
			room--
			s.claim(t, attempt, why, now)
		}
	}
	for _, o := range s.ledger.orphans(func(o *standing) bool { return s.fate(o) != "" && s.orphaned(o, now) }) {
		claim(o.task, o.attempt+1, s.fate(o))
	}
	for _, t := range s.ledger.unbegun() {
		if _, ours := s.kinds[t.Kind]; ours && s.jobs[keyOf(t)] == nil {
			claim(t, wire.DeadAttempt, wire.DeadCanceled)
		}
	}
}

// fate is why a task that somebody has is to be ended, and not run, by who takes it over; "" if it is to be run.
func (s *scheduler) fate(o *standing) wire.DeadReason {
	if _, canceled := s.ledger.canceled[keyOf(o.task)]; canceled && o.dead == "" {
		return wire.DeadCanceled
	}
	return o.dead
}
