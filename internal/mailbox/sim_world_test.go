package mailbox

import (
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/wscluster/wscluster/pkg/broker"
	"github.com/wscluster/wscluster/pkg/broker/memory"
	"github.com/wscluster/wscluster/pkg/socketmeta"
	"github.com/wscluster/wscluster/pkg/wire"
)

// The simulator drives the product's own rules, the cores of this package and package session,
// through schedules that a seed chooses: workers that crash, hang and drain, links that are cut with
// what was on them, clients that move, reload, stay away or say nothing, a runner that publishes
// twice, a broker whose queues are full. One step is one thing that happens to one part; between two
// steps everything is where it could be found by a fault. There is no goroutine, clock or socket.
//
// What the rules are held to is in sim_check_test.go; what can happen is the table in
// sim_step_test.go. The caps are a few events and the window is 40 s, so that everything that has a
// bound meets it.

// The sizes of the world.
const (
	simNodes   = 4
	simEpoch   = 1_700_000_000_000
	simClients = 3
	simTasks   = 8
	simParked  = simNodes // the box of the parked mailbox
	simBoxes   = simNodes + 1

	simWindow     = 40 * time.Second
	simTokenLife  = 3 * simWindow
	simPrefetch   = 12
	simQueue      = 9  // messages that a mailbox takes
	simHold       = 8  // messages that an overflow takes
	simBatch      = 5  // events in one message
	simSocket     = 6  // frames that a socket takes
	simHops       = 60 // more is taken for a loop
	simLag        = 3  // seconds that may pass while there is something to do
	simHang       = 25 // seconds after which a frozen worker wakes by itself
	simDown       = 10 // and a dead one is started again
	simQuiet      = 14 * 40
	simHealSteps  = 40_000
	simSweepEvery = 2000 // ms
	simLetGo      = 1000 // ms
)

// world is everything there is.
type world struct {
	rng    *rand.Rand // chooses what comes next; nil where steps are given
	now    int64      // ms
	lag    int        // seconds since there was nothing to do
	store  *memory.Store
	nodes  [simNodes]*simNode
	people [simClients]*simClient
	tasks  []*simTask
	runner *simLink
	dead   map[eventKey]wire.GapReason
	full   bool // the dead queue takes nothing
	moved  []wire.ControlMessage
	conns  uint64 // sockets ever
	runs   int    // runs ever
	plain  int    // runs of plain events ever
	ids    int    // clients ever

	quiet bool // no more faults
	err   string
	log   []step
	seen  map[string]int // how often what happened
	tell  func(string)   // nil but for who follows one schedule
}

// eventKey names one event of the runner's.
type eventKey struct {
	task wire.TaskID
	att  int
	run  wire.RunID
	seq  int64
}

func keyOf(e *wire.Event) eventKey { return eventKey{e.Task, e.Attempt, e.Run, e.Seq} }

func (k eventKey) String() string {
	return fmt.Sprintf("%s/%d/%s/%d", k.task, k.att, k.run[max(0, len(k.run)-3):], k.seq)
}

func newWorld(rng *rand.Rand) *world {
	w := &world{
		rng: rng, now: simEpoch,
		store: memory.NewStore(memory.Limits{QueueMessages: simQueue, HoldMessages: simHold}),
		dead:  map[eventKey]wire.GapReason{}, seen: map[string]int{},
	}
	for i := range w.nodes {
		w.nodes[i] = &simNode{world: w, i: i, server: serverOf(i), skew: [...]int64{0, 7000, -7000, 15000}[i]}
		w.nodes[i].start()
	}
	for i := range w.people {
		w.people[i] = &simClient{world: w, i: i, seen: w.now}
	}
	w.runner = &simLink{}
	return w
}

func serverOf(box int) socketmeta.ServerID {
	if box == simParked {
		return broker.ParkedServer
	}
	return socketmeta.ServerID("i1-w" + string(rune('1'+box)))
}

func boxOf(s socketmeta.ServerID) int {
	if s == broker.ParkedServer {
		return simParked
	}
	return int(s[len(s)-1] - '1')
}

// fail notes the first thing that went wrong.
func (w *world) fail(format string, args ...any) {
	if w.err == "" {
		w.err = fmt.Sprintf(format, args...)
	}
}

func (w *world) saw(what string) { w.seen[what]++ }

// note tells who replays one schedule what happens inside of a step.
func (w *world) note(format string, args ...any) {
	if w.tell != nil {
		w.tell(fmt.Sprintf("%6d s    "+format, append([]any{(w.now - simEpoch) / 1000}, args...)...))
	}
}

func (w *world) newClientID() (id socketmeta.ClientID) {
	w.ids++
	id[6], id[8], id[15] = 0x70, 0x80, byte(w.ids)
	return id
}

// newRun names runs in the order in which they are asked for.
func (w *world) newRun() wire.RunID {
	w.runs++
	return wire.RunID(fmt.Sprintf("018f6d9a-30aa-7b11-9c22-%012x", w.runs))
}

// chaos takes n steps, some of which are faults.
func (w *world) chaos(n int) {
	for i := 0; i < n && w.err == ""; i++ {
		switch d := w.rng.IntN(1000); {
		case d < 100:
			w.exec(w.anyFault())
		case d < 300:
			w.exec(step{tickStep, 0, 0})
		case d < 303:
			w.calm(time.Duration(w.rng.Int64N(int64(2 * simWindow))))
		default:
			w.one()
		}
	}
}

// calm lets so much time pass without a fault.
func (w *world) calm(d time.Duration) {
	until, most := w.now+d.Milliseconds(), len(w.log)+simHealSteps
	for w.now < until && w.err == "" {
		if w.one(); len(w.log) > most {
			w.fail("livelock: %d steps without a fault do not bring %v to pass", simHealSteps, d)
		}
	}
}

// one takes a step of what goes on by itself, or lets time pass if nothing does.
func (w *world) one() {
	at, stride := 0, 1
	if w.rng != nil { // any stride visits every slot, for their number is prime
		at, stride = w.rng.IntN(len(slots)), 1+w.rng.IntN(len(slots)-1)
	}
	for range slots {
		if at = (at + stride) % len(slots); w.exec(slots[at]) {
			return
		}
	}
	w.exec(step{tickStep, 0, 0})
}

// idle reports whether only time can bring something on.
func (w *world) idle() bool {
	for _, s := range slots {
		if w.enabled(s) != nil {
			return false
		}
	}
	return true
}

// heal ends all faults and lets everybody do their part, in an order that the seed chooses, or in one
// that is always the same if the world has none; then nothing may be left, and the promise must hold.
func (w *world) heal() {
	w.exec(step{healStep, 0, 0})
	end, most := w.now+simQuiet*1000, len(w.log)+simHealSteps
	for w.err == "" && w.now < end && !(w.drained() && w.idle()) {
		if w.one(); len(w.log) > most {
			w.fail("livelock: %d steps after the last fault there is still something to do", simHealSteps)
		}
	}
	w.seen["seconds"] += int((w.now - simEpoch) / 1000)
	if w.err == "" {
		w.judge()
	}
}
