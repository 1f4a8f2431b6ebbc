package mailbox

import (
	"cmp"
	"encoding/json"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/wscluster/wscluster/internal/engine"
	"github.com/wscluster/wscluster/internal/session"
	"github.com/wscluster/wscluster/pkg/socketmeta"
	"github.com/wscluster/wscluster/pkg/wire"
)

// simSock is a socket between a client and one process of a worker. Each end sees its own end of it.
type simSock struct {
	ref   engine.ConnRef
	c     *simClient
	node  *simNode
	born  int // which process of the node
	cOpen bool
	sOpen bool
	over  bool // the worker's sessions know that it has ended

	toC []toClient
	toS []toServer

	// The worker's.
	hello   *session.Claim // a resume that is not confirmed
	epoch   socketmeta.Epoch
	blocked bool // a frame had no room

	// The client's.
	welcomed bool
	since    int // quiet seconds that it has been there
}

type toServer struct {
	token     *simToken // of a hello; nil for a new session
	hello     bool
	confirm   socketmeta.Epoch
	positions []wire.Position // of a hello or an ack
	submit    wire.TaskID
}

type toClient struct {
	token   *simToken // of a welcome, or a fresh one
	welcome bool
	resumed bool
	states  []wire.TaskStatus
	payload []byte // of any other frame
}

// simToken is a resume token that nobody can forge.
type simToken struct {
	client socketmeta.ClientID
	server socketmeta.ServerID
	epoch  socketmeta.Epoch
	issued int64 // ms, by the clock of its issuer
}

// simClient is one client and its application.
type simClient struct {
	world *world
	i     int
	id    socketmeta.ClientID // zero until a worker gave it one
	token *simToken
	sock  *simSock
	tasks []*simTask // of id
	owed  map[wire.TaskID]wire.Position

	left     bool // for ever
	backAt   int64
	muteTill int64
	seen     int64 // when it was last there for long enough to be served
	late     int64 // when it last came back after a window or more
}

// simSockets is how the sessions of a worker send: see session.Socket.
type simSockets simNode

func (s *simSockets) find(c engine.ConnRef) *simSock {
	for _, k := range s.socks {
		if k.ref == c {
			return k
		}
	}
	return nil
}

func (s *simSockets) Send(c engine.ConnRef, f *engine.Frame) error {
	k := s.find(c)
	switch {
	case k == nil || !k.sOpen:
		return engine.ErrGone
	case len(k.toC) >= simSocket:
		k.blocked = true
		s.world.saw("socket full")
		return engine.ErrQueueFull
	}
	p := f.Payload()
	if p[0] != 'R' {
		k.toC = append(k.toC, toClient{payload: p})
		return nil
	}
	epoch, _ := strconv.ParseInt(string(p[1:]), 10, 64)
	k.toC = append(k.toC, toClient{token: &simToken{k.c.id, s.server, socketmeta.Epoch(epoch), s.proc.clock()}})
	return nil
}

func (s *simSockets) SendBatch(c engine.ConnRef, fs []*engine.Frame) (int, error) {
	return sendEach(s, c, fs)
}

func (s *simSockets) CloseConn(c engine.ConnRef, code engine.StatusCode, reason string, _ *engine.Frame) {
	k := s.find(c)
	if k == nil || !k.sOpen {
		return
	}
	k.sOpen = false
	s.world.saw("closed " + strconv.Itoa(int(code)))
	if code == wire.CloseReplaced && k.cOpen {
		s.world.fail("client %d is told for good that another has its session: %s", k.c.i, reason)
	}
}

// The worker's end.

func (w *world) sockAt(c, n int, want func(k *simSock) bool) (*simProc, *simSock) {
	p := w.runsAt(n)
	if p == nil {
		return nil, nil
	}
	for _, k := range p.socks {
		if k.c.i == c && k.born == p.born && want(k) {
			return p, k
		}
	}
	return nil, nil
}

func (w *world) receives(c, n int) func() {
	p, k := w.sockAt(c, n, func(k *simSock) bool { return k.sOpen && len(k.toS) > 0 })
	if k == nil {
		return nil
	}
	return func() {
		f := k.toS[0]
		k.toS = k.toS[1:]
		p.receive(k, f)
	}
}

func (p *simProc) receive(k *simSock, f toServer) {
	switch {
	case f.hello:
		p.welcome(k, f)
		return
	case f.confirm != 0:
		if k.hello != nil && f.confirm == k.epoch {
			p.attach(k, *k.hello)
			k.hello = nil
		}
		return
	}
	s := p.sessions.Find(k.ref)
	switch {
	case s == nil:
	case f.submit != "":
		p.submit(k, s, f)
	default:
		p.apply(s.Ack(f.positions, p.time()))
	}
}

func (p *simProc) welcome(k *simSock, f toServer) {
	c := session.Claim{Client: p.world.newClientID(), Positions: f.positions}
	resumed := f.token != nil && p.clock() < f.token.issued+simTokenLife.Milliseconds()
	if resumed {
		c.Client, c.Epoch, c.Server, c.IssuedAt = f.token.client, f.token.epoch, f.token.server, time.UnixMilli(f.token.issued)
	}
	m := p.sessions.Welcome(c, p.time())
	k.epoch = m.Epoch
	k.toC = append(k.toC, toClient{
		welcome: true, resumed: resumed, states: m.States,
		token: &simToken{c.Client, p.server, m.Epoch, p.clock()},
	})
	if resumed {
		k.hello = &c
		return
	}
	p.attach(k, c)
}

func (p *simProc) attach(k *simSock, c session.Claim) {
	fx, ok := p.sessions.Attach(k.ref, k.epoch, c, p.time())
	if ok && c.Server != "" && c.Server != p.server {
		p.world.saw("moved to another worker")
		p.pending.claim(c.Client, k.epoch, c.Server)
	}
	p.apply(fx)
}

// sees is the worker noticing the end of a socket.
func (w *world) sees(c, n int) func() {
	p, k := w.sockAt(c, n, func(k *simSock) bool { return !k.over && (!k.sOpen || !k.cOpen && len(k.toS) == 0) })
	if k == nil {
		return nil
	}
	return func() {
		k.sOpen, k.over = false, true
		p.tidy()
		p.apply(p.sessions.Detach(k.ref, p.time()))
	}
}

func (n *simNode) tidy() {
	n.socks = slices.DeleteFunc(n.socks, func(k *simSock) bool { return k.over && !k.cOpen })
}

func (w *world) writable(c, n int) func() {
	p, k := w.sockAt(c, n, func(k *simSock) bool { return k.sOpen && k.blocked && len(k.toC) < simSocket/2 })
	if k == nil {
		return nil
	}
	return func() {
		k.blocked = false
		if s := p.sessions.Find(k.ref); s != nil {
			p.apply(s.Writable(p.time()))
		}
	}
}

// The client.

func (w *world) connects(c, n int) func() {
	p := w.people[c]
	proc := w.nodes[n].proc
	if p.sock != nil || p.left || w.now < p.backAt || proc == nil || !proc.ready() {
		return nil
	}
	return func() {
		w.conns++
		p.sock = &simSock{ref: engine.ConnRef(w.conns), c: p, node: proc.simNode, born: proc.born, cOpen: true, sOpen: true}
		hello := toServer{hello: true, token: p.token}
		for _, t := range p.tasks {
			if !t.over {
				hello.positions = append(hello.positions, t.had)
			}
		}
		p.sock.toS = append(p.sock.toS, hello)
		proc.socks = append(proc.socks, p.sock)
	}
}

func (w *world) reads(c, _ int) func() {
	p := w.people[c]
	if p.sock == nil || len(p.sock.toC) == 0 {
		return nil
	}
	return func() {
		f := p.sock.toC[0]
		p.sock.toC = p.sock.toC[1:]
		p.read(f)
	}
}

func (c *simClient) read(f toClient) {
	if f.token != nil {
		if f.token.client != c.id { // a new session: the old one is lost to this client
			c.id, c.tasks = f.token.client, nil
		}
		c.token = f.token
		c.owed = nil
	}
	if f.welcome {
		c.sock.welcomed = true
		if f.resumed {
			c.sock.toS = append(c.sock.toS, toServer{confirm: f.token.epoch})
		}
		for _, s := range f.states {
			if t := c.world.task(s.Task); t != nil && s.State != wire.TaskRunning && !t.over {
				c.world.saw("told that a task is " + string(s.State))
				t.over, t.buf = true, nil
			}
		}
	}
	if f.payload == nil {
		return
	}
	m, err := wire.DecodeServer(f.payload)
	if err != nil {
		c.world.fail("a frame cannot be read: %v", err)
		return
	}
	if e, ok := m.(*wire.Event); ok {
		c.event(e)
	}
}

// loses is the client noticing the end of its socket, or that a frozen worker does not answer.
func (w *world) loses(c, _ int) func() {
	k := w.people[c].sock
	if k == nil || len(k.toC) > 0 || k.sOpen && !(k.node.proc != nil && k.node.proc.hung) {
		return nil
	}
	return func() {
		p := w.people[c]
		if !k.welcomed { // it backs off
			p.backAt = w.now + 1000
		}
		p.disconnect(false)
	}
}

func (c *simClient) disconnect(lose bool) {
	k := c.sock
	if k == nil {
		return
	}
	c.sock = nil
	k.cOpen, k.toC = false, nil
	if lose {
		k.toS = nil
	}
	k.node.tidy()
}

func (w *world) acknowledges(c, _ int) func() {
	p := w.people[c]
	if p.sock == nil || !p.sock.welcomed || len(p.owed) == 0 || w.now < p.muteTill {
		return nil
	}
	return func() {
		var ps []wire.Position
		for _, id := range slices.Sorted(maps.Keys(p.owed)) {
			ps = append(ps, p.owed[id])
		}
		p.owed = nil
		p.sock.toS = append(p.sock.toS, toServer{positions: ps})
	}
}

// event is what a client does with an event: see pkg/wsclient, order.go and inbox.go.
func (c *simClient) event(e *wire.Event) {
	t := c.world.task(e.Task)
	c.world.note("client %d gets %s %v prev %d %s", c.i, e.Type, keyOf(e), e.Prev, e.Body)
	switch {
	case t == nil || t.client != c.id:
		c.world.fail("an event of task %s reached client %d, who never asked for it", e.Task, c.i)
		return
	case !e.Durable:
		return // it never waits, and nothing waits for it
	case t.over:
		c.owe(later(t.had, e.Position()))
		return
	}
	switch order := compareRuns(e.Position(), t.cur); {
	case order < 0: // it wants nothing of that run, even if it has nothing yet of the later one
		c.owe(later(t.had, wire.Position{Task: t.id, Attempt: t.cur.Attempt, Run: t.cur.Run, Next: 1}))
		return
	case order > 0:
		t.cur, t.buf = wire.Position{Task: t.id, Attempt: e.Attempt, Run: e.Run}, nil
	}
	t.cur.Next = max(t.cur.Next, 1)
	if e.Seq < t.cur.Next {
		c.world.saw("duplicate on the wire")
		c.owe(t.had)
		return
	}
	inLate := func(a, b *wire.Event) int {
		return cmp.Or(cmp.Compare(a.Seq, b.Seq), cmp.Compare(gapLast(a), gapLast(b)), cmp.Compare(b.Prev, a.Prev))
	}
	at, found := slices.BinarySearchFunc(t.buf, e, inLate)
	if !found {
		t.buf = slices.Insert(t.buf, at, e)
	}
	for i := 0; i < len(t.buf); i++ {
		x := t.buf[i]
		if x.Prev >= t.cur.Next {
			continue
		}
		t.buf, i = t.buf[i+1:], -1
		if x.Seq >= t.cur.Next {
			c.apply(t, x)
		}
	}
	if len(t.buf) > 0 {
		c.world.saw("waits at the client")
	}
}

func gapLast(e *wire.Event) int {
	if e.Type == wire.EventGap {
		return 1
	}
	return 0
}

// apply gives the application the next event.
func (c *simClient) apply(t *simTask, e *wire.Event) {
	first := t.cur.Next
	t.cur.Next = e.Seq + 1
	t.had = t.cur
	t.over = e.Last
	if e.Type == wire.EventGap {
		var g wire.Gap
		if err := json.Unmarshal(e.Body, &g); err != nil {
			c.world.fail("a gap cannot be read: %v", err)
		}
		t.told(c.world, e, max(first, g.FromSeq))
	} else {
		t.got(c.world, e)
	}
	c.owe(t.had)
	if t.over {
		t.buf = nil
	}
}

func (c *simClient) owe(p wire.Position) {
	if c.owed == nil {
		c.owed = map[wire.TaskID]wire.Position{}
	}
	c.owed[p.Task] = later(c.owed[p.Task], p)
}

func compareRuns(a, b wire.Position) int {
	return cmp.Or(cmp.Compare(a.Attempt, b.Attempt), cmp.Compare(a.Run, b.Run))
}

func later(a, b wire.Position) wire.Position {
	if cmp.Or(compareRuns(a, b), cmp.Compare(a.Next, b.Next)) > 0 {
		return a
	}
	return b
}

// The load and the faults of clients.

func (w *world) submits(c, b int) func() {
	p := w.people[c]
	if w.quiet || p.sock == nil || !p.sock.welcomed || len(w.tasks) >= simTasks {
		return nil
	}
	return func() {
		t := &simTask{n: len(w.tasks), id: wire.TaskID("t" + strconv.Itoa(len(w.tasks))), client: p.id, owner: p, plain: b == 1 && w.plain < 2}
		t.had.Task, t.cur.Task = t.id, t.id
		if t.plain {
			w.plain++
		}
		w.tasks = append(w.tasks, t)
		p.tasks = append(p.tasks, t)
		p.sock.toS = append(p.sock.toS, toServer{submit: t.id})
	}
}

func (w *world) leaves(c, b int) func() {
	p := w.people[c]
	if w.quiet || p.sock == nil {
		return nil
	}
	return func() { p.disconnect(b == 1) }
}

func (w *world) goesAway(c, b int) func() {
	p := w.people[c]
	if w.quiet || p.sock == nil {
		return nil
	}
	return func() {
		p.disconnect(true)
		p.backAt = w.now + [...]int64{5, 20, 35, simWindow.Milliseconds()/1000 + 25}[b]*1000
	}
}

func (w *world) goesForEver(c, _ int) func() {
	p := w.people[c]
	if w.quiet || p.left || c == 0 {
		return nil
	}
	return func() {
		p.disconnect(true)
		p.left = true
	}
}

func (w *world) reloads(c, _ int) func() {
	p := w.people[c]
	if w.quiet || p.left {
		return nil
	}
	return func() {
		p.disconnect(true)
		p.owed = nil
		for _, t := range p.tasks {
			t.buf, t.cur = nil, t.had
		}
	}
}

func (w *world) mutes(c, _ int) func() {
	if w.quiet {
		return nil
	}
	return func() { w.people[c].muteTill = w.now + 30_000 }
}

// look notes, each second, whether the client is being served: it was there for 5 quiet seconds.
func (c *simClient) look(idle bool) {
	k := c.sock
	if k == nil {
		return
	}
	p := k.node.proc
	switch {
	case !k.welcomed || !k.sOpen || k.hello != nil || p == nil || p.hung || !p.link.up() || !p.ready():
		k.since = 0
	case idle:
		if k.since++; k.since > 4 {
			if c.world.now-c.seen >= simWindow.Milliseconds() {
				c.late = c.world.now
			}
			c.seen = c.world.now
		}
	}
}
