package mailbox

import (
	"slices"

	"github.com/wscluster/wscluster/pkg/broker"
	"github.com/wscluster/wscluster/pkg/broker/memory"
	"github.com/wscluster/wscluster/pkg/wire"
)

// simLink is a connection to the broker: the wires to it and from it, each in order. What is on them
// when it is cut is lost. The two ends notice that at different times.
type simLink struct {
	inbox  *memory.Inbox // nil for the runner
	copies []*simPublish // on their way to the broker
	talk   []*simPublish // control messages, on a way of their own
	acks   []simAck

	outcomes []answered // on their way back: of copies
	answers  []answered // and of talk
	heard    []broker.Message

	cut      bool // nothing passes any more
	released bool // the broker has noticed
}

type simPublish struct {
	to   broker.Address
	m    broker.Message
	done func(broker.Outcome) // may be nil
	dead wire.GapReason       // why, on the way to the dead events

	events []*wire.Event // of the runner's
}

type answered struct {
	*simPublish
	outcome broker.Outcome
}

type simAck struct {
	taker *memory.Taker
	tag   uint64
}

func (l *simLink) up() bool { return l != nil && !l.cut && !l.released }

// break_ loses what is on the wires.
func (l *simLink) sever() {
	l.cut = true
	l.copies, l.talk, l.acks = nil, nil, nil
	l.outcomes, l.answers, l.heard = nil, nil, nil
}

// put is the broker taking a publish.
func (w *world) put(p *simPublish) broker.Outcome {
	if p.to != broker.ToDeadEvents() {
		return w.store.Publish(p.to, p.m)
	}
	if w.full {
		w.saw("dead queue full")
		return broker.Refused
	}
	w.buried(p)
	return broker.Stored
}

func (w *world) stores(n, _ int) func() {
	l := w.nodes[n].link
	if !l.up() || len(l.copies) == 0 {
		return nil
	}
	return func() {
		p := l.copies[0]
		l.copies = l.copies[1:]
		l.outcomes = append(l.outcomes, answered{p, w.put(p)})
	}
}

func (w *world) posts(n, _ int) func() {
	l := w.nodes[n].link
	if !l.up() || len(l.talk) == 0 {
		return nil
	}
	return func() {
		p := l.talk[0]
		l.talk = l.talk[1:]
		l.answers = append(l.answers, answered{p, w.store.Publish(p.to, p.m)})
	}
}

func (w *world) forgets(n, _ int) func() {
	l := w.nodes[n].link
	if !l.up() || len(l.acks) == 0 {
		return nil
	}
	return func() {
		l.acks[0].taker.Settle(l.acks[0].tag, false)
		l.acks = l.acks[1:]
	}
}

// releases: a cut, a death or a silence of two seconds is noticed by the broker.
func (w *world) releases(n, _ int) func() {
	node := w.nodes[n]
	l, p := node.link, node.proc
	dead := l != nil && (p == nil || p.link != l || p.hung && w.now-node.since > 2000)
	if l == nil || l.released || !l.cut && !dead {
		return nil
	}
	return func() { w.release(node) }
}

// release is the broker's end of a link.
func (w *world) release(n *simNode) {
	n.link.sever()
	n.link.released = true
	w.store.Leave(n.link.inbox)
	n.link = nil
}

func (w *world) cuts(n, _ int) func() {
	l := w.nodes[n].link
	if !l.up() {
		return nil
	}
	return l.sever
}

func (w *world) brokerRestarts(int, int) func() {
	return func() {
		for _, n := range w.nodes {
			if n.link != nil {
				w.release(n)
			}
		}
		w.runner.sever()
		w.store.ForgetTransient()
	}
}

func (w *world) deadIsFull(int, int) func() {
	return func() { w.full = !w.full }
}

func (w *world) deafens(n, _ int) func() {
	l := w.nodes[n].link
	if l == nil || len(l.heard) == 0 {
		return nil
	}
	return func() { l.heard = l.heard[1:] }
}

// replays an old claim: message b from the end.
func (w *world) replays(n, b int) func() {
	l := w.nodes[n].link
	if !l.up() || len(w.moved) <= b {
		return nil
	}
	return func() { l.heard = append(l.heard, control(w.moved[len(w.moved)-1-b])) }
}

// deletesByHand is an operator who deletes a mailbox that has nothing in it. That ends the link of
// its owner; what its worker holds of a link ends too, for the port gives no other way to it.
func (w *world) deletesByHand(n, _ int) func() {
	s := serverOf(n)
	if ms := w.store.Messages(broker.MailboxQueue(s)); ms == nil || len(ms) > 0 || len(w.store.Messages(broker.HoldQueue(s))) > 0 {
		return nil
	}
	return func() {
		for _, other := range w.nodes {
			if other.link != nil && (other.i == n || other.proc != nil && other.proc.lifeOf(n) != nil) {
				w.release(other)
			}
		}
		in, err := w.store.Join(broker.Runner("operator"), func(broker.Message) {})
		if err != nil {
			panic(err)
		}
		if t, err := w.store.Adopt(in, s, 1, func(broker.Delivery) {}); err == nil && t.Unbind() == nil && t.Delete() == nil {
			w.saw("mailbox deleted by hand")
		}
		w.store.Leave(in)
	}
}

func control(m wire.ControlMessage) broker.Message {
	return broker.Message{Type: m.ControlType(), Body: wire.EncodeControl(m), Transient: true}
}

func eventMessage(e *wire.Event) broker.Message {
	return broker.Message{Type: string(e.Type), Correlation: string(e.Task), Headers: e.Headers(), Body: e.Body, Transient: !e.Durable}
}

// drained reports whether no queue holds anything and the runner has nothing left to say.
func (w *world) drained() bool {
	for x := range simBoxes {
		for _, name := range []string{broker.MailboxQueue(serverOf(x)), broker.HoldQueue(serverOf(x))} {
			if ready, held := w.store.Depth(name); ready+held > 0 {
				return false
			}
		}
	}
	return !slices.ContainsFunc(w.tasks, func(t *simTask) bool {
		return slices.ContainsFunc(t.runs, func(r *simRun) bool { return !r.stopped && r.confirmed < len(r.events) })
	})
}
