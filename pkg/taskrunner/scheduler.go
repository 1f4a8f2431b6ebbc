package taskrunner

import (
	"cmp"
	"time"

	"github.com/wscluster/wscluster/pkg/wire"
)

// scheduler decides which tasks a runner runs. It is pure: no broker, lock, goroutine or clock. Every
// method takes what happened, at a time, and appends to orders what is to be done, in that order.
//
// The rules: what is delivered is claimed in the ledger and begins once its claim is read there as the
// first; a task that the ledger knows is acknowledged, for it is somebody's. The ledger keeps a task from
// then on, so its delivery is acknowledged after a minute. Tasks that nobody runs any more come before
// new ones. What is only to be told its end, a dead or canceled task, waits for no place. Without a link nothing is claimed, told or begun, and runs that have no link for longer than
// their fence are given up: the others know that, and wait for longer.
type scheduler struct {
	self   string            // set once, as are the next three
	slots  int               // jobs at once
	kinds  map[string]Kind   // with their fences
	newRun func() wire.RunID // names for runs, each higher than those before

	orders []order // what is to be done; the caller takes them

	ledger  *ledger
	next    int64 // offset of the record after the last one that was read
	jobs    map[key]*job
	owed    map[key]*wire.LedgerRecord // how jobs ended, until it is read in the ledger
	waiting []waiting                  // deliveries that came without a place
	stopped bool

	mark    wire.RunID // of this link: when it is read, all before the link was read; "" without a link
	current bool       // it was read
	joined  time.Time  // when this link came

	alive  time.Time // until when this runner had a link for certain
	doubt  time.Time // a link that survives until then is alive
	ticked time.Time // when tick was called last

	spool   string          // whose lock this process has; "" if none
	probing time.Time       // when to look for the other runners next
	missing map[string]span // runners that were not there, since when and when they were looked for last
}

// job is one run, from its claim to its end.
type job struct {
	task    *wire.Task
	attempt int
	run     wire.RunID
	fence   time.Duration
	spool   string
	dead    wire.DeadReason // why it only ends its task, and takes no place; "" for a run
	holds   []hold          // deliveries to settle; those of lost links are taken out
	held    time.Time       // since when there are some
	mark    wire.RunID      // the link over which it was claimed
	state   state

	canceled bool // its client wants it to end: it begins only to say so
}

type state uint8

const (
	claimed state = iota // its claim was not read yet
	running              // it was ordered to begin
	leaving              // it was ordered to give up
	lost                 // the same, and somebody else has its task
)

type waiting struct {
	task    *wire.Task
	attempt int
	hold    hold
}

type span struct{ from, to time.Time }

// order is one thing to be done.
type order struct {
	verb   verb
	record *wire.LedgerRecord // write
	job    *job               // begin, abandon, cancel: whoever does it says over when nothing of the run is left
	cause  error              // abandon
	hold   hold               // settle, requeue
	runner string             // probe: say whether it was there, by probed
}

type verb uint8

const (
	write   verb = iota // to the ledger, over the present link; to be forgotten with it
	begin               // the run
	abandon             // the run
	cancel              // the run: it ends as canceled
	settle              // acknowledge the delivery
	requeue             // give it back
	probe               // see whether the runner's control key has anybody
)

const (
	settleAfter = time.Minute // until then a delivery backs the claim, which a broker may have only in memory
	staleAfter  = 6 * time.Hour
	renewAfter  = time.Hour
	stall       = 5 * time.Second  // between two ticks: this process stood still
	notice      = 30 * time.Second // after which a dead link is known to be dead: three heartbeats (pkg/amqp)
	margin      = time.Minute      // notice, and what a runner needs to end its runs
	probeEvery  = 15 * time.Second // between two looks at another runner
	probeGap    = 2 * probeEvery   // if it was longer, the runner may have been there in between
)

func newScheduler(self string, slots int, kinds map[string]Kind, newRun func() wire.RunID) *scheduler {
	return &scheduler{
		self: self, slots: slots, kinds: kinds, newRun: newRun,
		ledger: newLedger(), jobs: map[key]*job{}, owed: map[key]*wire.LedgerRecord{}, missing: map[string]span{},
	}
}

func (s *scheduler) order(o order) { s.orders = append(s.orders, o) }

// from is the offset at which to read the ledger over a new link. What was not read for too long is
// read from its start: records of the present may have been forgotten in between. So is what was never read
// up to a link.
func (s *scheduler) from(now time.Time) int64 {
	if now.Sub(s.alive) > staleAfter {
		s.ledger, s.next = newLedger(), 0
	}
	return s.next
}

// join is a new link, over which the ledger is read from where from said.
func (s *scheduler) join(now time.Time) {
	s.mark, s.joined = s.newRun(), now
	s.write(&wire.LedgerRecord{Op: wire.LedgerMark, Run: s.mark, Runner: s.self})
}

// part is the end of the link. Deliveries that are not settled go to whoever is next.
func (s *scheduler) part() {
	s.mark, s.current = "", false
	s.waiting = nil
	clear(s.missing)
	for _, j := range s.jobs {
		j.holds = nil
	}
}

// read is the next record of the ledger.
func (s *scheduler) read(r *wire.LedgerRecord, offset int64, now time.Time) {
	s.next = offset + 1
	delete(s.missing, r.Runner) // whose record is news, and it may have been there in between
	c, k := s.ledger.add(r, now), key{r.Client, r.Task}
	if j := s.jobs[k]; j != nil {
		s.follow(j, r, c, now)
	}
	if o := s.owed[k]; o != nil && o.Op == r.Op && o.Run == r.Run {
		delete(s.owed, k)
	}
	if r.Op == wire.LedgerMark && r.Run == s.mark {
		s.current, s.alive, s.doubt = true, now, now
		s.review(now)
	}
	s.fill(now)
}

// follow is a record of a task that has a job here.
func (s *scheduler) follow(j *job, r *wire.LedgerRecord, c change, now time.Time) {
	switch {
	case c.canceled == j.run && j.state == running:
		s.order(order{verb: cancel, job: j})
	case c.began != nil && c.began.run == j.run:
		s.won(j, now)
	case c.began != nil, c.ended, j.state == claimed && r.Op == wire.LedgerClaim && r.Run == j.run:
		s.lose(j)
	}
}

// won is a claim that was read as the first: the task is ours. A runner that stops leaves it to others,
// and so does one that cannot know whether it has a link: they may have taken it.
func (s *scheduler) won(j *job, now time.Time) {
	switch {
	case j.state != claimed: // the broker had forgotten the claim, and was told again
	case !s.current: // what follows may take it away; review knows
	case s.stopped, now.Sub(s.alive) >= j.fence:
		s.drop(j)
		s.owe(j, wire.LedgerFree)
	default:
		j.state = running
		_, j.canceled = s.ledger.canceled[keyOf(j.task)]
		s.order(order{verb: begin, job: j})
	}
}

// lose is the end of a job whose task is somebody else's, or at its end.
func (s *scheduler) lose(j *job) {
	switch j.state {
	case claimed:
		s.drop(j)
	case running:
		j.state = lost
		s.order(order{verb: abandon, job: j, cause: errSuperseded})
	default:
		j.state = lost
	}
}

// review is the moment in which the ledger was read up to this link: claims of earlier links that were
// not read by now never will be, and what was not read may be written again.
func (s *scheduler) review(now time.Time) {
	for _, k := range ordered(s.jobs) {
		j, has := s.jobs[k], s.ledger.open[k]
		switch {
		case j.state == claimed && has != nil && has.run == j.run:
			s.won(j, now)
		case j.state == claimed && j.mark != s.mark:
			s.drop(j)
		case j.state == claimed:
		case has == nil && !s.ledger.ended[k]: // a broker that lost its power may forget
			s.write(claimOf(j, s.self))
		case has == nil || has.run != j.run:
			s.lose(j)
		}
	}
	for _, k := range ordered(s.owed) {
		if has := s.ledger.open[k]; has == nil || has.run != s.owed[k].Run {
			delete(s.owed, k)
			continue
		}
		s.write(s.owed[k])
	}
}

// deliver is a task from the broker, with how often it was delivered, counting this time; 0 if nobody
// counts.
func (s *scheduler) deliver(t *wire.Task, attempt int, h hold, now time.Time) {
	s.waiting = append(s.waiting, waiting{t, max(1, attempt), h})
	s.fill(now)
}

// fill gives the free places away: to tasks that nobody runs any more, then to new ones.
func (s *scheduler) fill(now time.Time) {
	if !s.current {
		return
	}
	if !s.stopped && s.placed() < s.slots {
		for _, o := range s.ledger.orphans(func(o *standing) bool { return s.orphaned(o, now) && s.fate(o) == "" }) {
			if s.placed() < s.slots {
				s.claim(o.task, o.attempt+1, "", now)
			}
		}
	}
	left := s.waiting
	s.waiting = nil
	for _, w := range left {
		j := s.jobs[keyOf(w.task)]
		switch {
		case s.ledger.knows(keyOf(w.task)):
			s.order(order{verb: settle, hold: w.hold})
		case j != nil: // a copy of what is being claimed
			j.holds = append(j.holds, w.hold)
		case s.stopped || s.placed() >= s.slots:
			s.waiting = append(s.waiting, w)
		default:
			j := s.claim(w.task, w.attempt, "", now)
			j.holds = []hold{w.hold}
		}
	}
}

// placed counts the jobs that have a place.
func (s *scheduler) placed() (n int) {
	for _, j := range s.jobs {
		if j.dead == "" {
			n++
		}
	}
	return n
}

// claim asks for a task, and gives it a place unless it is only to be ended, which is not what the fence of
// its kind is for.
func (s *scheduler) claim(t *wire.Task, attempt int, dead wire.DeadReason, now time.Time) *job {
	fence := defaultFence
	if dead == "" {
		fence = cmp.Or(s.kinds[t.Kind].Fence, defaultFence)
	}
	j := &job{task: t, attempt: attempt, run: s.newRun(), fence: fence, spool: s.spool, dead: dead, held: now, mark: s.mark}
	s.jobs[keyOf(t)] = j
	s.write(claimOf(j, s.self))
	return j
}

// claimOf is the record that a job of runner asks with.
func claimOf(j *job, runner string) *wire.LedgerRecord {
	body, err := wire.EncodeTask(j.task)
	if err != nil {
		panic("a task that was decoded cannot be encoded: " + err.Error())
	}
	return &wire.LedgerRecord{Op: wire.LedgerClaim, Client: j.task.Client.String(), Task: j.task.Task, Attempt: j.attempt, Run: j.run,
		Runner: runner, Fence: int64(j.fence / time.Second), Spool: j.spool, Dead: j.dead, Body: body}
}

// over says that nothing of a run is left, and whether its final event is stored.
func (s *scheduler) over(j *job, stored bool, now time.Time) {
	s.drop(j)
	switch {
	case stored:
		s.owe(j, wire.LedgerDone)
	case j.state != lost:
		s.owe(j, wire.LedgerFree)
	}
	s.fill(now)
}

// drop ends a job, and its deliveries: the ledger has the task.
func (s *scheduler) drop(j *job) {
	for _, h := range j.holds {
		s.order(order{verb: settle, hold: h})
	}
	j.holds = nil
	delete(s.jobs, keyOf(j.task))
}

// owe writes how a job ended, until it is read.
func (s *scheduler) owe(j *job, op wire.LedgerOp) {
	r := &wire.LedgerRecord{Op: op, Client: j.task.Client.String(), Task: j.task.Task, Attempt: j.attempt, Run: j.run, Runner: s.self}
	s.owed[keyOf(j.task)] = r
	if s.current {
		s.write(r)
	}
}

func (s *scheduler) write(r *wire.LedgerRecord) { s.order(order{verb: write, record: r}) }

// stop takes no task any more. The runs go on.
func (s *scheduler) stop() { s.stopped = true }

// quit gives up the runs that go on.
func (s *scheduler) quit(cause error) {
	for _, k := range ordered(s.jobs) {
		if j := s.jobs[k]; j.state == running {
			j.state = leaving
			s.order(order{verb: abandon, job: j, cause: cause})
		}
	}
}

// idle reports whether there is nothing left to do for a runner that stops.
func (s *scheduler) idle() bool { return len(s.jobs)+len(s.owed) == 0 }

// full reports whether deliveries must be held off: there is no place for one more, but the broker
// would send it, since some runs have no delivery any more.
func (s *scheduler) full() bool {
	held := len(s.waiting)
	for _, j := range s.jobs {
		if j.dead == "" {
			held += len(j.holds)
		}
	}
	return s.stopped || s.placed() >= s.slots && (held < s.slots || len(s.waiting) > 0)
}

// turnAway gives back what came without a place; to be called once deliveries are held off.
func (s *scheduler) turnAway() {
	if !s.full() {
		return
	}
	for _, w := range s.waiting {
		s.order(order{verb: requeue, hold: w.hold})
	}
	s.waiting = nil
}
