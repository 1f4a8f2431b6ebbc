package mailbox

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wscluster/wscluster/internal/engine"
	"github.com/wscluster/wscluster/internal/session"
	"github.com/wscluster/wscluster/pkg/broker"
	"github.com/wscluster/wscluster/pkg/broker/memory"
	"github.com/wscluster/wscluster/pkg/socketmeta"
	"github.com/wscluster/wscluster/pkg/wire"
)

// The fault tests (fault_*_test.go) are those of docs/FAULTS.md that need no real process. Each is
// named after its number there.

// town is workers on one broker in memory, a publisher, and people: clients that go from one worker
// to another, and whose applications remember all that they were told. It lives in a bubble.
type town struct {
	*testing.T
	broker   *memory.Broker
	sessions session.Options // of every worker
	mailbox  Options         // of every worker
	workers  map[socketmeta.ServerID]*citizen
	servers  []socketmeta.ServerID // all that ever were
	runner   broker.Link
	alone    bool // it publishes no batches: for tests that count messages
	people   []*person
	conns    engine.ConnRef
	ages     ages
}

// citizen is one worker of the town. It is the socket of its sessions.
type citizen struct {
	*Mailbox
	id    socketmeta.ServerID
	ends  func()
	alive atomic.Bool
	onAck atomic.Pointer[func() error] // called before each acknowledgement to the broker

	mu    sync.Mutex
	rooms map[engine.ConnRef]*person // guarded by mu
}

// person is one client and its application.
type person struct {
	id    socketmeta.ClientID
	claim session.Claim // what its token says
	at    *citizen      // nil while it is away
	conn  engine.ConnRef
	mute  bool // it acknowledges nothing

	mu     sync.Mutex
	tasks  map[wire.TaskID]*story // guarded by mu
	closed []int                  // guarded by mu; the codes with which it was closed
	owes   bool                   // guarded by mu; it has something to acknowledge
}

// story is one task of a person.
type story struct {
	epoch     socketmeta.Epoch // in which it was submitted
	published int64            // seqs 1 to published were stored
	position  wire.Position
	had       []int64                  // as the application got them
	missing   map[int64]wire.GapReason // what it was told that it will not have
	late      map[int64]*wire.Event    // too early, by twice the seq, one more for a gap; lost with the page
	frames    int                      // on the wire
}

func inTown(t *testing.T, l memory.Limits, s session.Options, m Options, ids []socketmeta.ServerID, test func(w *town)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := &town{T: t, broker: memory.New(memory.Options{Limits: l}), sessions: s, mailbox: m, workers: map[socketmeta.ServerID]*citizen{}}
		w.join()
		for _, id := range ids {
			w.start(id)
		}
		defer func() { // also after a Fatal, which would else be hidden by a bubble that does not end
			for _, c := range w.workers {
				c.ends()
			}
			_ = w.runner.Close(context.Background())
		}()
		w.pass(time.Second)
		test(w)
	})
}

func (w *town) join() {
	w.Helper()
	var err error
	if w.runner, err = w.broker.Join(w.Context(), broker.Runner("town")); err != nil {
		w.Fatal(err)
	}
}

// mortal is the broker of one worker, which the dead do not reach.
type mortal struct {
	*memory.Broker
	c    *citizen
	ages *ages
}

func (b mortal) Join(ctx context.Context, id broker.Identity) (broker.Link, error) {
	if !b.c.alive.Load() {
		return nil, errors.New("this worker is dead")
	}
	l, err := b.Broker.Join(ctx, id)
	return mortalLink{l, b}, err
}

type mortalLink struct {
	broker.Link
	b mortal
}

func (l mortalLink) OpenMailbox(ctx context.Context, s socketmeta.ServerID, prefetch int) (broker.Mailbox, error) {
	return l.watch(prefetch)(l.Link.OpenMailbox(ctx, s, prefetch))
}

func (l mortalLink) AdoptMailbox(ctx context.Context, s socketmeta.ServerID, prefetch int) (broker.Mailbox, error) {
	return l.watch(prefetch)(l.Link.AdoptMailbox(ctx, s, prefetch))
}

// watch notes when each delivery came, and when it was settled.
func (l mortalLink) watch(prefetch int) func(broker.Mailbox, error) (broker.Mailbox, error) {
	return func(box broker.Mailbox, err error) (broker.Mailbox, error) {
		if err != nil {
			return nil, err
		}
		m := &mortalMailbox{Mailbox: box, b: l.b, out: make(chan broker.Delivery, prefetch), since: map[uint64]time.Time{}}
		go func() {
			for d := range box.Deliveries() {
				m.came(d)
				m.out <- d // the broker gives no more than prefetch
			}
			close(m.out)
		}()
		return m, nil
	}
}

type mortalMailbox struct {
	broker.Mailbox
	b   mortal
	out chan broker.Delivery

	mu    sync.Mutex
	since map[uint64]time.Time // guarded by mu; of what is not settled, by tag
}

func (m *mortalMailbox) Deliveries() <-chan broker.Delivery { return m.out }

func (m *mortalMailbox) TakeHeld(ctx context.Context, max int) ([]broker.Delivery, int, error) {
	ds, left, err := m.Mailbox.TakeHeld(ctx, max)
	for _, d := range ds {
		m.came(d)
	}
	return ds, left, err
}

func (m *mortalMailbox) came(d broker.Delivery) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.since[d.Tag] = time.Now()
}

func (m *mortalMailbox) Ack(tags ...uint64) error {
	if f := m.b.c.onAck.Load(); f != nil {
		if err := (*f)(); err != nil {
			return err
		}
	}
	m.mu.Lock()
	for _, tag := range tags {
		m.b.ages.note(time.Since(m.since[tag]))
		delete(m.since, tag)
	}
	m.mu.Unlock()
	return m.Mailbox.Ack(tags...)
}

// ages is for how long a delivery was unsettled, at most, of those that were settled.
type ages struct{ atomic.Int64 }

func (a *ages) note(d time.Duration) {
	for {
		if most := a.Load(); int64(d) <= most || a.CompareAndSwap(most, int64(d)) {
			return
		}
	}
}

// start starts a worker; it is there a moment later.
func (w *town) start(id socketmeta.ServerID) *citizen {
	c := &citizen{id: id, rooms: map[engine.ConnRef]*person{}}
	c.alive.Store(true)
	so, mo := w.sessions, w.mailbox
	so.Socket, so.Server = c, id
	mo.Server, mo.Broker, mo.Sessions, mo.Window = id, mortal{w.broker, c, &w.ages}, session.New(so), so.Window
	mo.Renew = func(socketmeta.ClientID, socketmeta.Epoch, string) *engine.Frame {
		return engine.NewText(wire.EncodeServer(&wire.Pong{}))
	}
	c.Mailbox = New(mo)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	c.ends = func() {
		cancel()
		if err := <-done; err != nil && !errors.Is(err, broker.ErrLinkGone) {
			w.Errorf("%s: %v", id, err)
		}
	}
	w.workers[id] = c
	if !slices.Contains(w.servers, id) {
		w.servers = append(w.servers, id)
	}
	return c
}

// kill takes a worker away at once, as kill -9 does: its link, its sockets and all that it knew.
func (w *town) kill(id socketmeta.ServerID) {
	c := w.workers[id]
	c.alive.Store(false)
	w.broker.Cut(broker.Worker(id))
	c.mu.Lock()
	clear(c.rooms)
	c.mu.Unlock()
	for _, p := range w.people {
		if p.at == c {
			p.lose()
		}
	}
	c.ends()
	delete(w.workers, id)
}

func (c *citizen) room(conn engine.ConnRef) *person {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.rooms[conn]
}

func (c *citizen) Send(conn engine.ConnRef, f *engine.Frame) error {
	p := c.room(conn)
	if p == nil {
		return engine.ErrGone
	}
	m, err := wire.DecodeServer(f.Payload())
	if err != nil {
		panic(err)
	}
	if e, ok := m.(*wire.Event); ok {
		p.hear(e)
	}
	return nil
}

func (c *citizen) SendBatch(conn engine.ConnRef, fs []*engine.Frame) (int, error) {
	return sendEach(c, conn, fs)
}

func (c *citizen) CloseConn(conn engine.ConnRef, code engine.StatusCode, _ string, _ *engine.Frame) {
	if p := c.room(conn); p != nil {
		p.mu.Lock()
		p.closed = append(p.closed, int(code))
		p.mu.Unlock()
		c.mu.Lock()
		delete(c.rooms, conn)
		c.mu.Unlock()
		go c.Detach(conn) // as the engine does, later
	}
}

// settler makes a person that is attached to a worker, with a token of its own.
func (w *town) settler(id socketmeta.ServerID) *person {
	w.Helper()
	p := &person{id: socketmeta.NewClientID(), tasks: map[wire.TaskID]*story{}}
	w.people = append(w.people, p)
	w.attach(p, id)
	return p
}

// attach brings p to a worker with all that its application has.
func (w *town) attach(p *person, id socketmeta.ServerID) session.Welcome {
	w.Helper()
	welcome := w.welcome(p, id, time.Now())
	w.confirm(p, id, welcome)
	return welcome
}

// welcome is a worker's answer to p's hello, by that worker's clock.
func (w *town) welcome(p *person, id socketmeta.ServerID, now time.Time) session.Welcome {
	p.leave()
	return w.workers[id].o.Sessions.Welcome(p.shows(), now)
}

// confirm is p having got the welcome.
func (w *town) confirm(p *person, id socketmeta.ServerID, welcome session.Welcome) {
	w.Helper()
	c, claim := w.workers[id], p.shows()
	w.conns++
	c.mu.Lock()
	c.rooms[w.conns] = p
	c.mu.Unlock()
	p.at, p.conn = c, w.conns
	if !c.Attach(p.conn, welcome.Epoch, claim) {
		w.Fatalf("%s did not take the client in epoch %d", id, welcome.Epoch)
	}
	p.claim = session.Claim{Epoch: welcome.Epoch, Server: id, IssuedAt: time.Now()}
	synctest.Wait()
}

func (p *person) shows() session.Claim {
	p.mu.Lock()
	defer p.mu.Unlock()
	c := p.claim
	c.Client = p.id
	for _, s := range p.tasks {
		c.Positions = append(c.Positions, s.position)
	}
	return c
}

// leave ends p's socket as its client does, and what only waited at it is gone.
func (p *person) leave() {
	if p.at == nil {
		return
	}
	c, conn := p.at, p.conn
	c.mu.Lock()
	delete(c.rooms, conn)
	c.mu.Unlock()
	p.lose()
	c.Detach(conn)
}

// lose is a socket that is gone.
func (p *person) lose() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.at, p.owes = nil, false
	for _, s := range p.tasks {
		clear(s.late)
	}
}

// hear is an event on the wire.
func (p *person) hear(e *wire.Event) {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.tasks[e.Task]
	if s == nil {
		return // another test's client would have lost it: the positions say so
	}
	s.frames++
	p.owes = true
	at := wire.Position{Task: e.Task, Attempt: e.Attempt, Run: e.Run, Next: 1}
	switch {
	case at.Attempt < s.position.Attempt || at.Attempt == s.position.Attempt && at.Run < s.position.Run:
		return
	case at.Attempt > s.position.Attempt || at.Run > s.position.Run:
		s.position = at
		clear(s.late)
	}
	key := 2 * e.Seq
	if e.Type == wire.EventGap {
		key++
	}
	s.late[key] = e
	for again := true; again; {
		again = false
		for _, key := range slices.Sorted(maps.Keys(s.late)) {
			e := s.late[key]
			if e.Seq >= s.position.Next && e.Prev >= s.position.Next {
				continue
			}
			delete(s.late, key)
			again = again || e.Seq >= s.position.Next
			s.give(e)
		}
	}
}

// give gives the application an event that is next in order, or passes over one that it has had.
func (s *story) give(e *wire.Event) {
	from := e.Seq
	var gap wire.Gap
	if e.Type == wire.EventGap {
		if err := json.Unmarshal(e.Body, &gap); err != nil {
			panic(err)
		}
		from = gap.FromSeq
	}
	for seq := max(from, s.position.Next); seq <= e.Seq; seq++ {
		if e.Type == wire.EventGap {
			s.missing[seq] = gap.Reason
		} else {
			s.had = append(s.had, seq)
		}
	}
	s.position.Next = max(s.position.Next, e.Seq+1)
}

// pass lets time pass while everybody acknowledges what they have.
func (w *town) pass(d time.Duration) {
	for until := time.Now().Add(d); ; time.Sleep(min(20*time.Millisecond, time.Until(until))) {
		synctest.Wait()
		for _, p := range w.people {
			p.acknowledge()
		}
		if !time.Now().Before(until) {
			synctest.Wait()
			return
		}
	}
}

func (p *person) acknowledge() {
	if p.at == nil || p.mute {
		return
	}
	p.mu.Lock()
	owes := p.owes
	p.owes = false
	p.mu.Unlock()
	if s := p.at.o.Sessions.Find(p.conn); s != nil && owes {
		p.at.Ack(s, p.shows().Positions)
	}
}

// codes are the close codes that p has seen.
func (p *person) codes() []int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.closed)
}

// story returns p's task of that name, making it.
func (p *person) story(task wire.TaskID) *story {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.tasks[task]
	if s == nil {
		s = &story{epoch: p.claim.Epoch, position: wire.Position{Task: task}, missing: map[int64]wire.GapReason{}, late: map[int64]*wire.Event{}}
		p.tasks[task] = s
	}
	return s
}

// publish publishes the next n durable events of p's task "t" to the mailbox of home, and sees them
// stored, some tries later where the mailbox is full.
func (w *town) publish(p *person, home socketmeta.ServerID, n int) {
	w.Helper()
	w.publishTask(p, "t", home, n)
}

func (w *town) publishTask(p *person, task wire.TaskID, home socketmeta.ServerID, n int) {
	w.Helper()
	s := p.story(task)
	for n > 0 {
		together := 1
		if !w.alone {
			together = min(n, 1+int(s.published)%5)
		}
		for try := 0; !w.store(p, task, s, home, together); try++ {
			if try == 1000 {
				w.Fatalf("event %d is refused again and again", s.published+1)
			}
			w.pass(100 * time.Millisecond)
		}
		s.published += int64(together)
		n -= together
	}
	synctest.Wait()
}

// store publishes the next n events as one message.
func (w *town) store(p *person, task wire.TaskID, s *story, home socketmeta.ServerID, n int) bool {
	w.Helper()
	var events []*wire.Event
	for seq := s.published + 1; seq <= s.published+int64(n); seq++ {
		events = append(events, &wire.Event{Client: p.id, Task: task, Attempt: 1, Run: run, Seq: seq, Prev: seq - 1, Type: wire.EventStep, Durable: true,
			Home: home, Epoch: s.epoch, Body: fmt.Appendf(nil, `{"n":%d}`, seq)})
	}
	m := batchMessage(events)
	if n == 1 {
		m = eventMessage(events[0])
	}
	r, err := w.runner.Publish(w.Context(), broker.ToMailbox(home), m)
	if err != nil {
		w.Fatal(err)
	}
	outcome, err := broker.Await(w.Context(), r)
	if err != nil {
		w.Fatal(err)
	}
	return outcome == broker.Stored
}

// settled holds the town to the promise: every event that was stored was given to its application
// once and in order, or the application was told that it will not have it, and then it is with the
// dead; and the broker holds nothing else any more.
func (w *town) settled() {
	w.Helper()
	dead := w.dead()
	for i, p := range w.people {
		for task, s := range p.tasks {
			if !slices.IsSorted(s.had) || len(slices.Compact(slices.Clone(s.had))) != len(s.had) {
				w.Errorf("client %d, %s: its application got %v, not each once and in order", i, task, s.had)
			}
			var silent []int64
			for seq := int64(1); seq <= s.published; seq++ {
				reason, told := s.missing[seq]
				switch got := slices.Contains(s.had, seq); {
				case got && told:
					w.Errorf("client %d, %s: event %d was given and told missing", i, task, seq)
				case !got && !told:
					silent = append(silent, seq)
				case told && dead[grave{p.id, task, seq}] != string(reason):
					w.Errorf("client %d, %s: event %d is missing (%s), and the dead have it for %q", i, task, seq, reason, dead[grave{p.id, task, seq}])
				}
			}
			if silent != nil {
				w.Errorf("client %d, %s: %d of %d events, %d to %d, never came, and nobody said so", i, task, len(silent), s.published, silent[0], silent[len(silent)-1])
			}
		}
	}
	if n := w.left(); n != 0 {
		w.Errorf("%d messages are left in the mailboxes", n)
	}
}

type grave struct {
	client socketmeta.ClientID
	task   wire.TaskID
	seq    int64
}

// dead is the reason for which each dead event lies there.
func (w *town) dead() map[grave]string {
	w.Helper()
	dead := map[grave]string{}
	for _, m := range w.broker.Messages(broker.QueueDeadEvents) {
		e, err := wire.DecodeEvent(m.Type, m.Correlation, m.Headers, m.Body)
		if err != nil {
			w.Fatal(err)
		}
		dead[grave{e.Client, e.Task, e.Seq}], _ = m.Headers["reason"].(string)
	}
	return dead
}

// left counts what lies in all mailboxes and overflows.
func (w *town) left() (n int) {
	for _, s := range append(slices.Clone(w.servers), broker.ParkedServer) {
		for _, q := range []string{broker.MailboxQueue(s), broker.HoldQueue(s)} {
			ready, unsettled := w.broker.Depth(q)
			n += ready + unsettled
		}
	}
	return n
}

// lost is how many events p's application was told that it will not have.
func (p *person) lost(task wire.TaskID) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.tasks[task].missing)
}

// has is how many events p's application has.
func (p *person) has(task wire.TaskID) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.tasks[task].had)
}
