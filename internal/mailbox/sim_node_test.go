package mailbox

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/wscluster/wscluster/internal/engine"
	"github.com/wscluster/wscluster/internal/session"
	"github.com/wscluster/wscluster/pkg/broker"
	"github.com/wscluster/wscluster/pkg/broker/memory"
	"github.com/wscluster/wscluster/pkg/socketmeta"
	"github.com/wscluster/wscluster/pkg/wire"
)

// simNode is the place of one worker: what outlives its processes.
type simNode struct {
	world  *world
	i      int
	server socketmeta.ServerID
	skew   int64 // of its clock, ms

	proc  *simProc // nil while it is dead
	never bool     // it does not come back
	since int64    // when it died or froze
	link  *simLink // the broker's end of it, be the process dead or not
	born  int      // processes ever
	socks []*simSock
}

// simProc is one process of a worker. It does what the shell around the cores does (serve.go,
// life.go, copier.go), one step at a time.
type simProc struct {
	*simNode
	hung     bool
	touched  bool // its sessions, since they were audited
	draining bool
	offered  bool
	exitAt   int64 // the deadline of the drain

	sessions *session.Registry
	sweptAt  int64
	pending  pending

	// For one link.
	link    *simLink // nil while there is none
	core    *core
	ticked  int64
	retryAt int64
	lives   []*simLife // oldest first
	lived   uint64     // lives ever
	given   []*simLife // given up with jobs still under way
	due     [simBoxes][]order
	chores  []order
	reports []func()
}

// simLife is one ownership of one mailbox.
type simLife struct {
	id     uint64
	box    int
	taker  *memory.Taker
	buf    []broker.Delivery // given by the broker, not taken
	over   []broker.Delivery // the same of the overflow
	held   map[simPart]bool  // taken and not settled
	pins   pins
	jobs   []*session.Job // under way
	ending bool           // it takes nothing more
	until  int64          // when it is closed in any case
	closed bool

	relieved int64
}

// simPart is one event of a delivery: see session.Ref.
type simPart struct {
	tag  uint64
	part uint8
}

func (n *simNode) start() {
	n.born++
	p := &simProc{simNode: n}
	p.sessions = session.New(session.Options{
		Socket: (*simSockets)(n), Server: n.server, Window: simWindow, AckTimeout: 24 * time.Second, RefreshAfter: 15 * time.Second,
		MaxWaiting: 5, MaxWaitingBytes: 250, MaxSent: 4, MaxSentBytes: 250, NewRun: n.world.newRun,
	})
	n.proc = p
}

// clock is the time as this worker has it, ms.
func (p *simProc) clock() int64 { return p.world.now + p.skew }

func (p *simProc) time() time.Time { return time.UnixMilli(p.clock()) }

// runs returns the process of a worker if it can do something.
func (w *world) runsAt(n int) *simProc {
	if p := w.nodes[n].proc; p != nil && !p.hung {
		return p
	}
	return nil
}

func (p *simProc) lifeOf(box int) *simLife {
	for _, l := range p.lives {
		if l.box == box {
			return l
		}
	}
	return nil
}

func (p *simProc) life(id uint64) *simLife {
	for _, l := range p.lives {
		if l.id == id {
			return l
		}
	}
	return nil
}

// ready says that the worker takes new clients.
func (p *simProc) ready() bool { return p.link != nil && p.core.serves() }

// join and its end.

func (w *world) joins(n, _ int) func() {
	p := w.runsAt(n)
	if p == nil || p.link != nil || p.draining || w.now < p.retryAt {
		return nil
	}
	return func() {
		l := &simLink{}
		in, err := w.store.Join(broker.Worker(p.server), func(m broker.Message) { l.heard = append(l.heard, m) })
		if err != nil {
			p.retryAt = w.now + 1000
			return
		}
		l.inbox = in
		p.simNode.link, p.link = l, l
		p.core = newCore(p.server, simWindow)
		p.core.joined(p.clock())
		p.obey()
	}
}

func (w *world) notices(n, _ int) func() {
	p := w.runsAt(n)
	if p == nil || p.link == nil || p.link.up() {
		return nil
	}
	return func() {
		p.link.sever()
		p.leave()
		p.retryAt = w.now
	}
}

// leave is what becomes of a process whose link has ended.
func (p *simProc) leave() {
	lives := append(p.lives, p.given...)
	p.link, p.core, p.lives, p.given, p.chores, p.reports = nil, nil, nil, nil, nil, nil
	p.due = [simBoxes][]order{}
	for _, l := range lives {
		for _, j := range l.jobs {
			p.apply(p.sessions.Done(j, session.Lost, p.time()))
		}
		l.jobs = nil
	}
	p.sessions.Forget(0, p.time())
	p.touched = true
}

// obey takes the core's orders.
func (p *simProc) obey() {
	for _, o := range p.core.takeOrders() {
		switch o.verb {
		case say:
			p.say(o.to, o.message, nil)
		case probe:
			p.say(o.to, o.message, func(out broker.Outcome) {
				if out == broker.Returned {
					p.core.returned(o.server)
				}
			})
		case lockJanitor, listServers, register:
			p.chores = append(p.chores, o)
		default:
			p.due[boxOf(o.server)] = append(p.due[boxOf(o.server)], o)
		}
	}
}

func (p *simProc) say(to broker.Address, m wire.ControlMessage, done func(broker.Outcome)) {
	p.world.saw("said " + m.ControlType())
	p.world.note("%s says %s %+v to %s %s", p.server, m.ControlType(), m, to.Exchange, to.Key)
	if _, ok := m.(*wire.Moved); ok {
		p.world.moved = append(p.world.moved, m)
	}
	p.link.talk = append(p.link.talk, &simPublish{to: to, m: control(m), done: done})
}

// with runs f on the core, and obeys it.
func (p *simProc) with(f func(c *core)) {
	f(p.core)
	p.obey()
}

func (p *simProc) report(f func()) { p.reports = append(p.reports, f) }

func (w *world) reports(n, _ int) func() {
	p := w.runsAt(n)
	if p == nil || len(p.reports) == 0 {
		return nil
	}
	return func() {
		f := p.reports[0]
		p.reports = p.reports[1:]
		f()
		p.obey()
	}
}

func (w *world) clocks(n, _ int) func() {
	p := w.runsAt(n)
	if p == nil || p.link == nil || p.ticked == w.now {
		return nil
	}
	return func() {
		p.ticked = w.now
		p.with(func(c *core) {
			c.tick(p.clock(), func(life uint64) int {
				if l := p.life(life); l != nil {
					return len(l.held)
				}
				return 0
			})
		})
		p.unpin()
		p.throttle()
	}
}

func (w *world) sweeps(n, _ int) func() {
	p := w.runsAt(n)
	if p == nil || w.now-p.sweptAt < simSweepEvery {
		return nil
	}
	return func() {
		p.sweptAt = w.now
		p.apply(p.sessions.Sweep(p.time(), renewed))
	}
}

func (w *world) chores(n, _ int) func() {
	p := w.runsAt(n)
	if p == nil || !p.link.up() || len(p.chores) == 0 {
		return nil
	}
	return func() {
		o := p.chores[0]
		p.chores = p.chores[1:]
		switch o.verb {
		case lockJanitor:
			err := p.link.inbox.Lock(broker.LockJanitor)
			p.report(func() { p.core.locked(err == nil, p.clock()) })
		case register:
			w.store.Register(p.server)
			p.report(func() { p.core.registered(true, p.clock()) })
		case listServers:
			servers := w.store.Servers()
			p.report(func() { p.core.listed(servers, p.clock()) })
		}
	}
}

func (w *world) orders(n, x int) func() {
	p := w.runsAt(n)
	if p == nil || !p.link.up() || len(p.due[x]) == 0 {
		return nil
	}
	return func() {
		o := p.due[x][0]
		p.due[x] = p.due[x][1:]
		p.carryOut(o)
	}
}

// carryOut does one order of the core's.
func (p *simProc) carryOut(o order) {
	l := p.lifeOf(boxOf(o.server))
	switch o.verb {
	case openOwn, adopt:
		p.acquire(o)
		return
	case release:
		if l != nil {
			l.ending, l.until = true, p.world.now+simLetGo
		}
		return
	}
	if l == nil || l.closed {
		return // given up meanwhile
	}
	switch o.verb {
	case takeHeld:
		ds, left := l.taker.TakeHeld(o.max)
		l.over = append(l.over, ds...)
		p.report(func() { p.core.took(o.server, len(ds), left, p.clock()) })
	case unbind:
		err := l.taker.Unbind()
		p.report(func() { p.core.unboundNow(o.server, err == nil, p.clock()) })
	case deleteBox:
		err := l.taker.Delete()
		if err == nil {
			p.world.saw("mailbox retired")
			l.ending = true
		}
		p.report(func() { p.core.deleted(o.server, err == nil, p.clock()) })
	}
}

// acquire opens the own mailbox or adopts another.
func (p *simProc) acquire(o order) {
	open := p.world.store.Adopt
	if o.verb == openOwn {
		open = p.world.store.Own
	}
	p.lived++
	l := &simLife{id: p.lived, box: boxOf(o.server), held: map[simPart]bool{}, relieved: p.clock() - 1001}
	var err error
	l.taker, err = open(p.link.inbox, o.server, simPrefetch, func(d broker.Delivery) { l.buf = append(l.buf, d) })
	how := gotIt
	switch {
	case err == nil:
		p.lives = append(p.lives, l)
		if o.verb != openOwn {
			p.world.saw("adopted")
		}
	case errors.Is(err, broker.ErrRefused):
		how = isOwned
	case errors.Is(err, broker.ErrNoMailbox):
		how = isMissing
	default:
		panic(err)
	}
	p.report(func() { p.core.opened(o.server, how, l.id, p.clock()) })
}

// takes and overflow give a delivery to its session.

func (w *world) takes(n, x int) func() {
	p, l := w.taking(n, x)
	if l == nil || len(l.buf) == 0 {
		return nil
	}
	return func() {
		d := l.buf[0]
		l.buf = l.buf[1:]
		p.take(l, d, false)
	}
}

func (w *world) overflow(n, x int) func() {
	p, l := w.taking(n, x)
	if l == nil || len(l.over) == 0 {
		return nil
	}
	return func() {
		d := l.over[0]
		l.over = l.over[1:]
		w.saw("taken out of an overflow")
		p.take(l, d, true)
	}
}

func (w *world) taking(n, x int) (*simProc, *simLife) {
	p := w.runsAt(n)
	if p == nil {
		return nil, nil
	}
	l := p.lifeOf(x)
	if l == nil || l.ending {
		return nil, nil
	}
	return p, l
}

func (p *simProc) take(l *simLife, d broker.Delivery, overflow bool) {
	ref := session.Ref{Mailbox: serverOf(l.box), Life: l.id, Tag: d.Tag, Bytes: len(d.Body), Overflow: overflow}
	events, err := wire.DecodeEvents(d.Type, d.Correlation, d.Headers, d.Body)
	if err != nil {
		p.world.fail("a message cannot be read: %v", err)
		return
	}
	if d.Type == wire.BatchType {
		var clients []socketmeta.ClientID
		for _, e := range events {
			clients = append(clients, e.Client)
		}
		l.pins.take(d.Tag, clients, p.clock())
		p.world.saw("batch taken")
	}
	for i := range events {
		if d.Type == wire.BatchType {
			ref.Part = part(i)
		}
		l.held[simPart{ref.Tag, ref.Part}] = true
	}
	var fx session.Effects
	for i := range events {
		e := &events[i]
		if e.Hops > simHops {
			p.world.fail("%v has been passed on %d times", keyOf(e), e.Hops)
		}
		if d.Type == wire.BatchType {
			ref.Part = part(i)
		}
		p.world.note("%s takes %s %v %s %v", p.server, e.Type, keyOf(e), e.Body, ref)
		fx.Add(p.sessions.Deliver(e, ref, len(l.held) >= simPrefetch/4*3, p.time()))
	}
	p.apply(fx)
	p.throttle()
}

// unpin lets go of the batches that are kept for events which wait.
func (p *simProc) unpin() {
	for _, l := range p.lives {
		if waiting, sent := pinnedSince(p.time(), len(l.held) >= simPrefetch/4*3); !l.ending {
			fx := p.sessions.Unpin(l.pins.since(waiting.UnixMilli()), waiting, sent)
			if len(fx.Jobs) > 0 {
				p.world.saw("unpinned")
			}
			p.apply(fx)
			p.checkPins(l, waiting.UnixMilli())
		}
	}
}

// checkPins: no batch that came at that time or before is kept, but for copies that are under way and by clients that are here.
func (p *simProc) checkPins(l *simLife, at int64) {
	for tag, b := range l.pins.batches {
		for i := range b.clients {
			k := simPart{tag, part(i)}
			flies := slices.ContainsFunc(l.jobs, func(j *session.Job) bool {
				return slices.ContainsFunc(j.Refs, func(r session.Ref) bool { return simPart{r.Tag, r.Part} == k })
			})
			if l.held[k] != (b.left&(1<<i) != 0) {
				p.world.fail("event %d of batch %d of %s: held %t, and the pins do not say so", i, tag, serverOf(l.box), l.held[k])
			}
			if b.at <= at && l.held[k] && !flies && len(p.sessions.Attached(b.clients[i:i+1])) == 0 {
				p.world.fail("batch %d of %s is kept for its event %d, which waits", tag, serverOf(l.box), i)
			}
		}
	}
}

// throttle makes room when much is held.
func (p *simProc) throttle() {
	for _, l := range p.lives {
		if !l.ending && len(l.held) >= simPrefetch/4*3 && p.clock()-l.relieved >= 1000 {
			l.relieved = p.clock()
			p.world.saw("relieved")
			p.apply(p.sessions.Relieve(p.time()))
		}
	}
}

// apply sees to what sessions want.
func (p *simProc) apply(fx session.Effects) {
	p.touched = true
	// Sessions are asked in no certain order: take it out.
	slices.SortFunc(fx.Settle, func(a, b session.Ref) int { return cmp.Or(cmp.Compare(a.Life, b.Life), cmp.Compare(a.Tag, b.Tag)) })
	slices.SortStableFunc(fx.Jobs, func(a, b *session.Job) int { return bytes.Compare(a.Client[:], b.Client[:]) })
	if len(fx.Settle) > 0 {
		p.world.note("%s settles %v", p.server, fx.Settle)
	}
	p.settle(fx.Settle)
	for _, j := range fx.Jobs {
		if !p.run(j) {
			p.apply(p.sessions.Done(j, session.Lost, p.time()))
		}
	}
	p.pending.add(&fx)
}

func (p *simProc) settle(refs []session.Ref) {
	for _, r := range refs {
		l := p.life(r.Life)
		if l == nil {
			continue
		}
		k := simPart{r.Tag, r.Part}
		if !l.held[k] {
			p.world.fail("delivery %v of %s is settled, and it is not held", k, r.Mailbox)
		}
		delete(l.held, k)
		if l.pins.settle(r) {
			p.link.acks = append(p.link.acks, simAck{l.taker, r.Tag})
		}
	}
}

// run begins a job; false if there is nobody to do it.
func (p *simProc) run(j *session.Job) bool {
	l := p.life(j.Life())
	if l == nil {
		return false
	}
	p.world.saw("job " + j.Purpose.String() + " " + string(j.Reason))
	p.world.note("%s: %s of %v %v", p.server, j.Purpose, nameOf(j), j.Refs)
	l.jobs = append(l.jobs, j)
	p.copyStep(l, j, 0)
	return true
}

func nameOf(j *session.Job) string {
	e := &j.Steps[len(j.Steps)-1][0].Event
	return fmt.Sprintf("%v %s", keyOf(e), e.Body)
}

// copyStep publishes the copies of one step of a job, and the next one when all are stored.
func (p *simProc) copyStep(l *simLife, j *session.Job, n int) {
	for n < len(j.Steps) && len(j.Steps[n]) == 0 {
		n++
	}
	left, end := len(j.Steps[n]), session.Stored
	for i := range j.Steps[n] {
		c := &j.Steps[n][i]
		p.link.copies = append(p.link.copies, &simPublish{to: c.To, m: eventMessage(&c.Event), dead: j.Reason, done: func(out broker.Outcome) {
			if out != broker.Stored {
				end = session.Refused
			}
			switch left--; {
			case left > 0:
			case end == session.Stored && n+1 < len(j.Steps):
				p.copyStep(l, j, n+1)
			default:
				p.ended(l, j, end)
			}
		}})
	}
}

func (p *simProc) ended(l *simLife, j *session.Job, end session.End) {
	p.world.note("%s: %s of %v ended %d", p.server, j.Purpose, nameOf(j), end)
	if end == session.Refused {
		p.world.saw("job refused " + j.Purpose.String())
	}
	fx := p.sessions.Done(j, end, p.time())
	l.jobs = slices.DeleteFunc(l.jobs, func(o *session.Job) bool { return o == j })
	if end == session.Stored {
		p.settle(j.Refs)
	}
	p.apply(fx)
}

func (w *world) confirms(n, _ int) func() {
	p := w.runsAt(n)
	if p == nil || p.link == nil || len(p.link.outcomes) == 0 {
		return nil
	}
	return func() {
		a := p.link.outcomes[0]
		p.link.outcomes = p.link.outcomes[1:]
		a.done(a.outcome)
		p.throttle()
	}
}

func (w *world) answers(n, _ int) func() {
	p := w.runsAt(n)
	if p == nil || p.link == nil || len(p.link.answers) == 0 {
		return nil
	}
	return func() {
		a := p.link.answers[0]
		p.link.answers = p.link.answers[1:]
		if a.done != nil {
			a.done(a.outcome)
			p.obey()
		}
	}
}

// hears takes one control message.
func (w *world) hears(n, _ int) func() {
	p := w.runsAt(n)
	if p == nil || p.link == nil || len(p.link.heard) == 0 {
		return nil
	}
	return func() {
		raw := p.link.heard[0]
		p.link.heard = p.link.heard[1:]
		m, err := wire.DecodeControl(raw.Type, raw.Body)
		if err != nil {
			w.fail("a control message cannot be read: %v", err)
			return
		}
		switch m := m.(type) {
		case *wire.Moved:
			if m.From != p.server {
				p.apply(p.sessions.Moved(m.From, m.Clients, p.time()))
			}
		case *wire.Seek:
			if m.From != p.server {
				for _, c := range claim(p.server, p.sessions.Attached(m.Clients)) {
					w.saw("seek answered")
					p.say(broker.ToControl(broker.Worker(m.From)), c, nil)
				}
			}
		default:
			p.with(func(c *core) { c.heard(m, p.clock()) })
		}
	}
}

// tells says what sessions want to be said.
func (w *world) tells(n, _ int) func() {
	p := w.runsAt(n)
	if p == nil || p.link == nil || len(p.pending.claims)+len(p.pending.seeks)+len(p.pending.overflow) == 0 {
		return nil
	}
	return func() {
		told := p.pending
		p.pending = pending{}
		for _, m := range append(told.moved(p.server), told.seek(p.server)...) {
			switch m := m.(type) { // in no certain order
			case *wire.Moved:
				slices.SortFunc(m.Clients, func(a, b wire.Claim) int { return bytes.Compare(a.Client[:], b.Client[:]) })
			case *wire.Seek:
				slices.SortFunc(m.Clients, func(a, b socketmeta.ClientID) int { return bytes.Compare(a[:], b[:]) })
			}
			p.say(broker.ToAll(), m, nil)
		}
		p.with(func(c *core) {
			for _, s := range slices.Sorted(maps.Keys(told.from)) {
				c.suspect(s, p.clock())
			}
			for life := range told.overflow {
				c.wantOverflow(life)
			}
		})
	}
}

// letsGo closes a mailbox that is given up: when its copies are stored, or after a while. drops is
// what the worker does then; between the two the next owner may have begun.
func (w *world) letsGo(n, x int) func() {
	p := w.runsAt(n)
	if p == nil || !p.link.up() {
		return nil
	}
	l := p.lifeOf(x)
	if l == nil || !l.ending || l.closed || len(l.jobs) > 0 && w.now < l.until {
		return nil
	}
	return func() {
		if len(l.jobs) > 0 {
			w.saw("given up with copies under way")
		}
		p.link.acks = slices.DeleteFunc(p.link.acks, func(a simAck) bool { // what was sent before the close
			return a.taker == l.taker && a.taker.Settle(a.tag, false)
		})
		l.taker.Close()
		l.closed = true
	}
}

func (w *world) drops(n, x int) func() {
	p := w.runsAt(n)
	if p == nil {
		return nil
	}
	l := p.lifeOf(x)
	if l == nil || !l.closed {
		return nil
	}
	return func() {
		p.lives = slices.DeleteFunc(p.lives, func(o *simLife) bool { return o == l })
		p.given = append(p.given, l)
		p.sessions.Forget(l.id, p.time())
		p.touched = true
		p.report(func() { p.core.released(serverOf(x)) })
	}
}

// The drain.

func (w *world) drains(n, _ int) func() {
	p := w.runsAt(n)
	if w.quiet || p == nil || p.link == nil || p.draining {
		return nil
	}
	return func() {
		p.draining, p.exitAt = true, w.now+10_000
		p.with((*core).drain)
	}
}

// waves closes one socket at a time, and then offers the mailboxes.
func (w *world) waves(n, _ int) func() {
	p := w.runsAt(n)
	if p == nil || !p.draining || p.offered {
		return nil
	}
	return func() {
		if p.sessions.Bye(1, wire.CloseServiceRestart, "drain", 0) == 0 {
			p.offered = true
			if p.link != nil {
				p.with((*core).offerAll)
			}
		}
	}
}

func (w *world) exits(n, _ int) func() {
	p := w.runsAt(n)
	if p == nil || !p.offered || p.link != nil && !p.core.handedOver() && w.now < p.exitAt {
		return nil
	}
	return func() {
		if p.link != nil && p.core.handedOver() {
			w.saw("handed over")
		}
		l := p.link
		p.end()
		if l.up() {
			w.release(p.simNode)
		}
	}
}

// end is the end of a process.
func (p *simProc) end() {
	n := p.simNode
	for _, k := range n.socks {
		k.sOpen, k.over = false, true
	}
	n.socks = slices.DeleteFunc(n.socks, func(k *simSock) bool { return k.over && !k.cOpen })
	n.proc, n.since = nil, n.world.now
}

func (w *world) crashes(n, _ int) func() {
	p := w.nodes[n].proc
	if w.quiet || p == nil {
		return nil
	}
	return p.end
}

func (w *world) crashesForEver(n, _ int) func() {
	gone := 0
	for _, o := range w.nodes {
		if o.never {
			gone++
		}
	}
	p := w.nodes[n].proc
	if w.quiet || p == nil || gone >= simNodes-2 {
		return nil
	}
	return func() {
		p.never = true
		p.end()
	}
}

func (w *world) restarts(n, _ int) func() {
	node := w.nodes[n]
	if node.proc != nil || node.never {
		return nil
	}
	return node.start
}

func (w *world) hangs(n, _ int) func() {
	p := w.runsAt(n)
	if w.quiet || p == nil {
		return nil
	}
	return func() { p.hung, p.since = true, w.now }
}

func (w *world) wakes(n, _ int) func() {
	p := w.nodes[n].proc
	if p == nil || !p.hung {
		return nil
	}
	return func() { p.hung = false }
}

// renewed is the frame that gives a client a fresh token.
func renewed(_ socketmeta.ClientID, e socketmeta.Epoch, _ string) *engine.Frame {
	return engine.NewText(strconv.AppendInt([]byte{'R'}, int64(e), 10))
}
