package mailbox

import (
	"fmt"
	"slices"
	"strings"
)

// step is one thing that happens: a kind, and to whom.
type step struct{ kind, a, b int }

func (s step) String() string {
	k := &kinds[s.kind]
	switch {
	case k.b > 1:
		return fmt.Sprint(k.name, " ", s.a, " ", s.b)
	case k.a > 1:
		return fmt.Sprint(k.name, " ", s.a)
	}
	return k.name
}

// parseStep reads what String writes.
func parseStep(line string) (s step, err error) {
	var name string
	if n, err := fmt.Sscan(line, &name, &s.a, &s.b); n == 0 {
		return s, err
	}
	s.kind = slices.IndexFunc(kinds, func(k kind) bool { return k.name == name })
	if s.kind < 0 || s.a < 0 || s.b < 0 || s.a >= max(1, kinds[s.kind].a) || s.b >= max(1, kinds[s.kind].b) {
		return s, fmt.Errorf("no such step: %q", line)
	}
	return s, nil
}

func parseSteps(text string) (steps []step, err error) {
	for line := range strings.Lines(text) {
		line, _, _ = strings.Cut(strings.TrimSpace(line), "#")
		if line == "" {
			continue
		}
		s, err := parseStep(line)
		if err != nil {
			return nil, err
		}
		steps = append(steps, s)
	}
	return steps, nil
}

// kind is one kind of step. can returns what is to be done, or nil if it cannot happen now.
type kind struct {
	name   string
	a, b   int // how many values the arguments have
	weight int // of a fault, among the faults; 0: it happens by itself
	can    func(w *world, a, b int) func()
}

// kinds is all that can happen. a is a worker and b a mailbox, or as it is said.
var kinds []kind

func init() { // kinds refers to itself
	kinds = []kind{
		{"tick", 1, 1, 0, (*world).tick},
		{"heal", 1, 1, 0, (*world).healed},

		// The broker and the wires to it.
		{"store", simNodes, 1, 0, (*world).stores},     // takes a copy
		{"post", simNodes, 1, 0, (*world).posts},       // takes a control message
		{"forget", simNodes, 1, 0, (*world).forgets},   // takes an acknowledgement
		{"release", simNodes, 1, 0, (*world).releases}, // notices that a worker's link is dead

		// A worker.
		{"join", simNodes, 1, 0, (*world).joins},
		{"confirm", simNodes, 1, 0, (*world).confirms}, // hears what became of a copy
		{"answer", simNodes, 1, 0, (*world).answers},   // and of a control message
		{"hear", simNodes, 1, 0, (*world).hears},       // a control message
		{"report", simNodes, 1, 0, (*world).reports},   // its core hears how an order ended
		{"tell", simNodes, 1, 0, (*world).tells},       // its core hears what sessions want
		{"clock", simNodes, 1, 0, (*world).clocks},     // its core looks at the time
		{"sweep", simNodes, 1, 0, (*world).sweeps},     // its sessions do
		{"chore", simNodes, 1, 0, (*world).chores},     // carries out an order of the janitor's
		{"notice", simNodes, 1, 0, (*world).notices},   // that its link is dead
		{"wave", simNodes, 1, 0, (*world).waves},       // tells clients to go, and then offers its mailboxes
		{"exit", simNodes, 1, 0, (*world).exits},       // after a drain
		{"order", simNodes, simBoxes, 0, (*world).orders},
		{"take", simNodes, simBoxes, 0, (*world).takes},     // a delivery
		{"taken", simNodes, simBoxes, 0, (*world).overflow}, // one out of the overflow
		{"letgo", simNodes, simBoxes, 0, (*world).letsGo},   // closes a mailbox
		{"drop", simNodes, simBoxes, 0, (*world).drops},     // and forgets what was held of it

		// A socket of client a at worker b.
		{"recv", simClients, simNodes, 0, (*world).receives},
		{"closed", simClients, simNodes, 0, (*world).sees},
		{"writable", simClients, simNodes, 0, (*world).writable},

		// A client.
		{"read", simClients, 1, 0, (*world).reads},
		{"lost", simClients, 1, 0, (*world).loses}, // sees that its socket is gone
		{"ack", simClients, 1, 0, (*world).acknowledges},
		{"connect", simClients, simNodes, 0, (*world).connects},

		// The runner; b is the run of task a.
		{"publish", simTasks, 3, 0, (*world).publishes},
		{"batch", simBatch, 1, 0, (*world).batches},
		{"stored", 1, 1, 0, (*world).runnerStores},
		{"settled", 1, 1, 0, (*world).runnerHears},
		{"rejoin", 1, 1, 0, (*world).runnerJoins},

		// The load, and faults.
		{"submit", simClients, 2, 14, (*world).submits}, // b: a plain publisher's task
		{"crash", simNodes, 1, 6, (*world).crashes},
		{"crashforever", simNodes, 1, 2, (*world).crashesForEver},
		{"restart", simNodes, 1, 12, (*world).restarts},
		{"hang", simNodes, 1, 3, (*world).hangs},
		{"wake", simNodes, 1, 5, (*world).wakes},
		{"cut", simNodes, 1, 3, (*world).cuts},
		{"deafen", simNodes, 1, 3, (*world).deafens}, // a control message is lost
		{"stale", simNodes, 4, 2, (*world).replays},  // an old moved comes again
		{"brokerrestart", 1, 1, 1, (*world).brokerRestarts},
		{"deadfull", 1, 1, 1, (*world).deadIsFull},
		{"delete", simNodes, 1, 1, (*world).deletesByHand}, // the empty mailbox of worker a
		{"drain", simNodes, 1, 3, (*world).drains},
		{"bye", simClients, 2, 16, (*world).leaves}, // b: and what it sent last is lost
		{"away", simClients, 4, 6, (*world).goesAway},
		{"gone", simClients, 1, 1, (*world).goesForEver},
		{"reload", simClients, 1, 4, (*world).reloads},
		{"mute", simClients, 1, 3, (*world).mutes},
		{"runnercut", 1, 1, 3, (*world).runnerCut},
		{"rerun", simTasks, 3, 3, (*world).reruns}, // b: another attempt, the same, beside the old run
	}
	for k := range kinds {
		k := &kinds[k]
		for a := range k.a {
			for b := range k.b {
				s := step{slices.IndexFunc(kinds, func(o kind) bool { return o.name == k.name }), a, b}
				if s.kind != tickStep && s.kind != healStep && k.weight == 0 {
					slots = append(slots, s)
				}
			}
		}
		totalWeight += k.weight
	}
	for !prime(len(slots)) {
		slots = append(slots, slots[0])
	}
}

const (
	tickStep = 0
	healStep = 1
)

var (
	slots       []step // everything that may happen by itself; their number is prime
	totalWeight int
)

func prime(n int) bool {
	for d := 2; d*d <= n; d++ {
		if n%d == 0 {
			return false
		}
	}
	return true
}

func (w *world) anyFault() step {
	at := w.rng.IntN(totalWeight)
	for i := range kinds {
		if at -= kinds[i].weight; at < 0 {
			return step{i, w.rng.IntN(kinds[i].a), w.rng.IntN(kinds[i].b)}
		}
	}
	panic("the weights do not add up")
}

func (w *world) enabled(s step) func() { return kinds[s.kind].can(w, s.a, s.b) }

// exec takes a step if it can be taken.
func (w *world) exec(s step) bool {
	do := w.enabled(s)
	if do == nil {
		return false
	}
	w.log = append(w.log, s)
	if w.tell != nil {
		w.tell(s.String())
	}
	do()
	w.audit()
	return true
}

// tick lets a second pass, unless too much of what is to be done waits.
func (w *world) tick(int, int) func() {
	idle := w.idle()
	if !idle && w.lag >= simLag {
		return nil
	}
	return func() {
		w.now += 1000
		w.lag++
		if idle {
			w.lag = 0
		}
		for _, n := range w.nodes {
			switch p := n.proc; {
			case p == nil && !n.never && w.now-n.since > simDown*1000:
				n.start()
			case p != nil && p.hung && w.now-n.since > simHang*1000:
				p.hung = false
			}
		}
		for _, c := range w.people {
			c.look(idle)
		}
	}
}

// healed ends all faults.
func (w *world) healed(int, int) func() {
	return func() {
		w.quiet, w.full = true, false
		for _, n := range w.nodes {
			if n.proc == nil && !n.never {
				n.start()
			} else if n.proc != nil {
				n.proc.hung = false
			}
		}
		for _, c := range w.people {
			c.backAt, c.muteTill = 0, 0
		}
	}
}
