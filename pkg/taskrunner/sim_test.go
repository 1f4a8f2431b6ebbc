package taskrunner

import (
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/wscluster/wscluster/pkg/socketmeta"
	"github.com/wscluster/wscluster/pkg/wire"
)

// A simulated cluster of runners: schedulers, a ledger, a queue of tasks and processes, by a clock that
// jumps and dice with a seed. It knows what is really executed, which no scheduler does.

var (
	simSeed  = flag.Uint64("sim.seed", 0, "simulate this seed only, and tell what happens")
	simSeeds = flag.Uint64("sim.seeds", 250, "how many seeds to simulate")
)

// simEndsWithin bounds the time from a cancel that says what the task is to the task's end, where nothing fails
// and whatever else runs: a tick, the ten seconds that a run has to end, and the dice, by which runners of a
// simulation read, write and work.
const simEndsWithin = 2 * time.Minute

// simNotice bounds how long a runner's link may be gone before the runner sees it.
const simNotice = 25 * time.Second

type sim struct {
	*rand.Rand
	now  time.Time
	tell func(format string, args ...any)

	stream  []simRecord
	first   int64      // the offset of the first record that the stream has not forgotten
	segment int64      // records that are forgotten at once
	truth   *ledger    // of all records, also of those
	ready   []*simTask // the queue
	dead    []*simTask // what the broker has given up
	tasks   map[wire.TaskID]*simTask
	runners []*simRunner
	ids     int
	long    bool
	faults  bool
	died    bool // some runner was killed, or lost its link
	err     error
}

type simTask struct {
	task       *wire.Task
	done       int64 // the offset of the record that it has ended; 0 if there is none
	deliveries int
	finals     int
	tries      int
	copies     int
	executing  int // processes, of whatever runner
	canceledAt time.Time
	forgotten  bool // by the stream, while it was open and nobody was there for long enough to write it again
	told       bool // that it is canceled, by who did not run it
	again      bool // it may be begun though it is done: nobody can know that any more
}

// simRunner is a place where a runner of one name lives, or does not.
type simRunner struct {
	name     string
	spool    string
	plan     *scheduler // nil while it is dead
	frozen   bool
	linked   bool      // as the broker sees it
	next     int64     // the offset of the record that it reads next
	fresh    time.Time // when it began to read the ledger from its start
	end      int64     // of what it can read of the ledger without a link
	noticeAt time.Time
	joinAt   time.Time
	killedAt time.Time // of what it executes: the guards' doing

	out    []order // waits to be written or settled
	held   map[uint64]simHold
	tags   uint64
	paused bool
	runs   map[*job]*simRun
}

// simHold is a delivery, of the queue or of the dead.
type simHold struct {
	*simTask
	dead bool
}

type simRun struct {
	endAt  time.Time
	ending bool // was abandoned
	gone   bool // its processes were killed by their guard
}

func (w *sim) newRun() wire.RunID { w.ids++; return runID(w.ids) }

func (w *sim) fail(format string, args ...any) {
	if w.err == nil {
		w.err = fmt.Errorf("%v: "+format, append([]any{w.now.Sub(simStart)}, args...)...)
	}
}

var simStart = time.Unix(1_000_000_000, 0)

func (w *sim) within(d time.Duration) time.Duration { return time.Duration(w.Int64N(int64(d))) }

// simulate runs one schedule: faults for an hour, in a long one for twenty, and then time to end everything.
func simulate(seed uint64, tell func(format string, args ...any)) error {
	w := &sim{Rand: rand.New(rand.NewPCG(seed, 7)), now: simStart, truth: newLedger(), tasks: map[wire.TaskID]*simTask{}, faults: true}
	w.tell = func(format string, args ...any) {
		tell("%10v "+format, append([]any{w.now.Sub(simStart).Round(time.Millisecond)}, args...)...)
	}
	for i := range 2 + w.IntN(3) {
		r := &simRunner{name: fmt.Sprint("r", i+1), spool: fmt.Sprint("spool", i+1)}
		w.runners = append(w.runners, r)
		w.start(r)
	}
	quiet := w.IntN(8) == 0 // no faults at all
	rare := 150 + w.IntN(2000)
	if w.IntN(8) == 0 { // more tasks than places
		rare = 20 + w.IntN(30)
	}
	busy, end, fault := time.Hour, 4*time.Hour, 60
	if w.long = seed%simLong == 0; w.long {
		busy, end, fault = 20*time.Hour, 160*time.Hour, 8
		rare = 1 + w.IntN(3)
		w.segment = 1 + w.Int64N(20)
	}
	for w.now.Sub(simStart) < end && w.err == nil {
		w.faults = !quiet && w.now.Sub(simStart) < busy
		moment := !w.long || w.IntN(100) == 0 || w.IntN(100) == 0 && w.pass()
		if moment && w.now.Sub(simStart) < busy && w.IntN(rare) == 0 {
			w.submit()
		}
		if moment && len(w.tasks) > 0 && w.IntN(3*rare) == 0 {
			w.cancel(w.anyTask())
		}
		if moment && w.faults && w.IntN(fault) == 0 {
			w.fault()
		}
		r := w.runners[w.IntN(len(w.runners))]
		w.step(r)
		if w.IntN(3) == 0 {
			w.now = w.now.Add(w.within(3 * time.Second))
			w.tick()
		}
		if w.now.Sub(simStart) > busy && w.over() {
			break
		}
	}
	if w.err != nil {
		return w.err
	}
	for _, id := range slices.Sorted(maps.Keys(w.tasks)) {
		t := w.tasks[id]
		switch {
		case t.finals == 0 && !t.forgotten:
			return fmt.Errorf("%s has no end; %d tries, %d ready, %d dead", id, t.tries, len(w.ready), len(w.dead))
		case !w.died && (t.finals > 1 || t.tries > 1):
			return fmt.Errorf("%s ran %d times and ended %d times, and nothing had failed", id, t.tries, t.finals)
		}
	}
	return nil
}

// over reports whether nothing is left to do.
func (w *sim) over() bool {
	for _, r := range w.runners {
		if r.plan == nil || r.frozen || !r.plan.current || !r.plan.idle() || len(r.plan.ledger.open) > 0 || len(r.held) > 0 || len(r.out) > 0 {
			return false
		}
	}
	return len(w.ready)+len(w.dead) == 0
}

func (w *sim) anyTask() *simTask {
	return w.tasks[wire.TaskID(fmt.Sprint("t", 1+w.IntN(len(w.tasks))))]
}

func (w *sim) submit() {
	id := wire.TaskID(fmt.Sprint("t", len(w.tasks)+1))
	var t *simTask
	if len(w.tasks) > 0 && (w.IntN(4) == 0 || w.long && time.Duration(len(w.tasks)) > 8*w.now.Sub(simStart)/time.Hour) { // a copy of an earlier one
		t = w.anyTask()
		for i := 0; w.long && t.executing == 0 && i < 9; i++ {
			t = w.anyTask()
		}
		t.copies++
	} else {
		t = &simTask{task: &wire.Task{Meta: socketmeta.Meta{Client: socketmeta.ClientID{6: 0x70, 8: 0x80, 15: 1}, Server: "i1-w1"}, Task: id, Kind: "k", Submitted: wire.Time{Time: simStart}}}
		w.tasks[id] = t
		if w.IntN(8) == 0 { // the broker has its cancel first
			w.cancel(t)
		}
	}
	w.ready = append(w.ready, t)
	w.tell("%s is submitted", t.task.Task)
}

// cancel writes that the client of t wants it to end, and as a rule what the task is.
func (w *sim) cancel(t *simTask) {
	w.tell("%s is canceled", t.task.Task)
	r := &wire.LedgerRecord{Op: wire.LedgerCancel, Task: t.task.Task, Client: t.task.Client.String()}
	if w.IntN(4) > 0 {
		r.Body, _ = wire.EncodeTask(t.task)
		if t.canceledAt.IsZero() {
			t.canceledAt = w.now
		}
	}
	w.append(r)
}

func (w *sim) start(r *simRunner) {
	w.tell("%s starts", r.name)
	slots := 1 + w.IntN(3)
	r.plan = newScheduler(r.name, slots, map[string]Kind{"k": {Fence: 2 * time.Minute}}, w.newRun)
	r.runs, r.frozen, r.joinAt = map[*job]*simRun{}, false, w.now.Add(w.within(3*time.Second))
}

// fault is one thing that goes wrong.
func (w *sim) fault() {
	r := w.runners[w.IntN(len(w.runners))]
	if r.plan == nil || r.frozen {
		return
	}
	w.died = true
	switch w.IntN(6) {
	case 0: // kill -9, and it comes back, here or on another machine
		w.tell("%s is killed", r.name)
		w.kill(r)
		if w.IntN(3) == 0 {
			r.spool += "'"
		}
		r.joinAt = w.now.Add(w.away(r, 10*time.Minute))
	case 1: // stopped, longer or shorter
		w.tell("%s stands still", r.name)
		r.frozen = true
		r.noticeAt = w.now.Add(w.away(r, 6*time.Minute)) // it wakes
		r.killedAt = r.plan.alive.Add(2 * time.Minute)
	case 2, 3: // its link goes, and it sees that at once or later; the next one comes soon or not
		w.cut(r)
		r.noticeAt = w.now.Add(w.within(simNotice))
		r.joinAt = r.noticeAt.Add(w.within(10 * time.Second))
		if w.IntN(3) == 0 || w.long {
			r.joinAt = r.noticeAt.Add(w.away(r, 10*time.Minute))
		}
	case 4: // the broker dies
		w.tell("the broker dies")
		back := w.within(time.Minute)
		if w.IntN(5) == 0 {
			back = w.within(10 * time.Minute)
		}
		for _, r := range w.runners {
			if r.plan != nil {
				w.cut(r)
				r.noticeAt = w.now.Add(w.within(time.Second))
				r.joinAt = w.now.Add(back + w.within(5*time.Second))
			}
		}
	case 5: // SIGTERM, and another process
		w.tell("%s stops", r.name)
		r.plan.stop()
		r.plan.quit(errStopped)
		w.collect(r)
	}
}

// cut ends a link as the broker sees it: what the runner holds is ready again.
func (w *sim) cut(r *simRunner) {
	w.tell("%s has no link", r.name)
	was := r.linked
	if was {
		r.end = min(int64(len(w.stream)), r.next+w.Int64N(20))
	}
	r.linked = false
	for _, tag := range slices.Sorted(maps.Keys(r.held)) {
		w.giveBack(r.held[tag])
	}
	clear(r.held)
	sent := w.IntN(len(r.out) + 1) // the last words, which the broker may have read
	for _, o := range r.out[:sent] {
		if was && o.verb == write {
			w.append(o.record)
		}
	}
	r.out = nil
}

func (w *sim) giveBack(h simHold) {
	if h.dead {
		w.dead = append([]*simTask{h.simTask}, w.dead...)
	} else {
		w.ready = append([]*simTask{h.simTask}, w.ready...)
	}
}

// leaves is the end of what a job executes; a dead task executes nothing.
func (w *sim) leaves(j *job) {
	if j.dead == "" {
		w.tasks[j.task.Task].executing--
	}
}

func (w *sim) kill(r *simRunner) {
	w.cut(r)
	for j, u := range r.runs {
		if !u.gone {
			w.leaves(j)
		}
	}
	r.plan = nil
}

func (w *sim) tick() {
	for _, r := range w.runners {
		if r.plan != nil && !r.frozen && w.now.Sub(r.plan.ticked) > time.Second {
			r.plan.tick(w.now)
			w.collect(r)
		}
	}
}

// step lets one runner do one thing.
func (w *sim) step(r *simRunner) {
	switch {
	case r.plan == nil:
		if w.now.After(r.joinAt) {
			w.start(r)
		}
		return
	case r.frozen:
		w.standStill(r)
		return
	}
	if r.plan.mark != "" && !r.linked && w.now.After(r.noticeAt) {
		r.plan.part()
	}
	if r.plan.mark == "" && w.now.After(r.joinAt) {
		w.tell("%s has a link", r.name)
		from := r.plan.from(w.now)
		if r.next = max(from, w.first); from == 0 {
			r.fresh = w.now
		}
		r.plan.spool = r.spool
		r.linked, r.paused, r.held, r.out = true, false, map[uint64]simHold{}, nil
		r.plan.join(w.now)
	}
	for range 1 + w.IntN(4) {
		switch w.IntN(4) {
		case 0:
			end := int64(len(w.stream))
			if !r.linked {
				end = r.end
			}
			if r.plan.mark != "" && r.next < end {
				current := r.plan.current
				r.plan.read(w.stream[r.next].LedgerRecord, r.next, w.now)
				if r.next++; !current && r.plan.current {
					w.compare(r)
				}
			}
		case 1:
			if !r.linked {
				r.out = nil
			}
			if len(r.out) > 0 {
				o := r.out[0]
				r.out = r.out[1:]
				w.carryOut(r, o)
			}
		case 2:
			w.take(r)
		case 3:
			w.work(r)
		}
		w.collect(r)
	}
	if r.plan != nil && r.plan.stopped && r.plan.idle() {
		w.tell("%s has stopped", r.name)
		w.kill(r)
		r.joinAt = w.now.Add(w.within(time.Minute))
	}
}

// standStill is a process that is stopped: its link goes after a while, its processes at their fence.
func (w *sim) standStill(r *simRunner) {
	if r.linked && w.now.Sub(r.plan.ticked) > 20*time.Second {
		w.cut(r)
	}
	if w.now.After(r.killedAt) {
		for j, u := range r.runs {
			if !u.gone {
				u.gone = true
				w.leaves(j)
			}
		}
	}
	if w.now.After(r.noticeAt) {
		w.tell("%s goes on", r.name)
		r.frozen = false
		if !r.linked {
			r.noticeAt = w.now.Add(w.within(simNotice))
			r.joinAt = r.noticeAt.Add(w.within(5 * time.Second))
			if w.IntN(3) == 0 {
				r.joinAt = r.noticeAt.Add(w.within(10 * time.Minute))
			}
		}
	}
}

// collect takes the orders of a runner; those to its own runs are carried out at once.
func (w *sim) collect(r *simRunner) {
	for _, o := range r.plan.orders {
		switch o.verb {
		case begin:
			t := w.tasks[o.job.task.Task]
			w.tell("%s begins %s, attempt %d %s", r.name, t.task.Task, o.job.attempt, o.job.dead)
			if o.job.dead == "" && o.job.attempt >= wire.DeadAttempt {
				w.fail("%s runs %s, which is dead", r.name, t.task.Task)
			}
			if t.told && !t.again && o.job.dead == "" && !o.job.canceled {
				w.fail("%s runs %s, whose client was told that it is canceled", r.name, t.task.Task)
			}
			if o.job.dead == "" {
				t.tries++
				t.executing++
			}
			if t.executing > 1 || t.executing > 0 && o.job.dead != "" {
				w.fail("%s runs or ends %s, which others run: %d in all", r.name, t.task.Task, t.executing)
			}
			length := w.within(20 * time.Second)
			if w.IntN(4) == 0 {
				length = w.within(15 * time.Minute)
			}
			if w.long && w.IntN(4) == 0 {
				length = 6*time.Hour + w.within(12*time.Hour)
			}
			if o.job.canceled || o.job.dead != "" {
				length = 0
			}
			r.runs[o.job] = &simRun{endAt: w.now.Add(length)}
		case cancel:
			if u := r.runs[o.job]; !u.ending {
				u.endAt = w.now.Add(min(u.endAt.Sub(w.now), w.within(10*time.Second)))
			}
		case abandon:
			w.tell("%s gives up %s: %v", r.name, o.job.task.Task, o.cause)
			u := r.runs[o.job]
			u.ending, u.endAt = true, w.now.Add(w.within(10*time.Second))
		default:
			if r.plan.mark != "" {
				r.out = append(r.out, o)
			}
		}
	}
	r.plan.orders = nil
}

// carryOut does at the broker what a runner asks.
func (w *sim) carryOut(r *simRunner, o order) {
	switch o.verb {
	case write:
		w.tell("%s writes %s %s %d", r.name, o.record.Op, o.record.Task, o.record.Attempt)
		w.append(o.record)
	case settle:
		delete(r.held, o.hold.tag)
	case requeue:
		w.giveBack(r.held[o.hold.tag])
		delete(r.held, o.hold.tag)
	case probe:
		returned := true
		for _, other := range w.runners {
			if other.name == o.runner && other.linked {
				returned = false
			}
		}
		r.plan.probed(o.runner, returned, w.now)
	}
}

// take gives a runner a delivery, or pauses those.
func (w *sim) take(r *simRunner) {
	if !r.linked || !r.plan.current {
		return
	}
	if len(w.dead) > 0 && w.IntN(2) == 0 {
		t := w.dead[0]
		w.dead = w.dead[1:]
		r.tags++
		r.held[r.tags] = simHold{t, true}
		r.plan.deliverDead(t.task, wire.DeadDeliveryLimit, hold{tag: r.tags}, w.now)
		return
	}
	full := r.plan.full()
	if full != r.paused && w.IntN(2) == 0 {
		r.paused = full
	}
	if r.paused {
		r.plan.turnAway()
		return
	}
	holds := 0
	for _, h := range r.held {
		if !h.dead {
			holds++
		}
	}
	if len(w.ready) == 0 || holds >= r.plan.slots {
		return
	}
	t := w.ready[0]
	w.ready = w.ready[1:]
	if w.IntN(8) == 0 { // it was delivered too often
		w.tell("%s is dead", t.task.Task)
		w.dead = append(w.dead, t)
		return
	}
	t.deliveries++
	r.tags++
	r.held[r.tags] = simHold{t, false}
	r.plan.deliver(t.task, 1, hold{tag: r.tags}, w.now)
}

// work ends one of the runs whose time is over.
func (w *sim) work(r *simRunner) {
	for _, j := range slices.SortedFunc(maps.Keys(r.runs), func(a, b *job) int { return strings.Compare(string(a.run), string(b.run)) }) {
		u := r.runs[j]
		t := w.tasks[j.task.Task]
		switch {
		case u.gone: // its guard says so to its runner, which gives it up
		case w.now.Before(u.endAt), !u.ending && !(r.linked && r.plan.current): // the final event needs a link
			continue
		default:
			w.leaves(j)
		}
		stored := !u.ending && !u.gone
		if stored {
			t.finals++
			t.told = t.told || j.dead == wire.DeadCanceled
			if late := w.now.Sub(t.canceledAt); !w.died && !t.canceledAt.IsZero() && late > simEndsWithin {
				w.fail("%s ends %v after its cancel, and nothing had failed", t.task.Task, late)
			}
			w.tell("%s ends %s, attempt %d", r.name, t.task.Task, j.attempt)
		}
		delete(r.runs, j)
		r.plan.over(j, stored, w.now)
		return
	}
}

func TestEveryTaskEndsAndNoTwoRunsOverlapWhateverDies(t *testing.T) {
	if *simSeed != 0 {
		if err := simulate(*simSeed, t.Logf); err != nil {
			t.Fatal(err)
		}
		return
	}
	t.Parallel()
	for seed := range *simSeeds {
		if err := simulate(seed+1, func(string, ...any) {}); err != nil {
			t.Fatalf("seed %d: %v; -sim.seed %d tells more", seed+1, err, seed+1)
		}
	}
}
