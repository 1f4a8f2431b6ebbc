// Package mailbox carries events from the mailboxes that a worker owns to the sessions of its
// clients, and settles each with the broker only after the client's application has it, or after
// a copy is stored elsewhere. It also takes submits the other way. The worker attaches,
// acknowledges and submits only through it.
//
// Which mailboxes the worker owns is decided by core (core.go, janitor.go), what becomes of each
// event by package session; both are pure. Around them, for the life of one broker link, a service
// runs: the clerk owns the core and hears the control messages; each owned mailbox has one
// goroutine that takes its deliveries and settles them (life.go); copies are published and awaited
// by the copier, submits by publish. A fault of any of them ends the link: what was held is
// dropped, and the broker delivers it again in the next.
package mailbox

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"github.com/wscluster/wscluster/internal/engine"
	"github.com/wscluster/wscluster/internal/session"
	"github.com/wscluster/wscluster/pkg/broker"
	"github.com/wscluster/wscluster/pkg/socketmeta"
	"github.com/wscluster/wscluster/pkg/wire"
)

// Options of a mailbox.
type Options struct {
	Server   socketmeta.ServerID
	Broker   broker.Broker
	Sessions *session.Registry
	Renew    session.Renew // makes the frame that gives a client a fresh token
	Log      *zap.Logger   // nil logs nothing
	Metrics  *Metrics      // nil counts for nobody

	// Parts run on each link beside the mailbox's own, until ctx or the link ends. An error of one ends the link.
	Parts []func(ctx context.Context, link broker.Link) error
	// Hear is given the control messages that are no business of the mailbox, and Kinds, Moved and Owner. It must not block; nil for nobody.
	Hear func(wire.ControlMessage)
	// Attached is told of each client that was attached here; one that moved here from another worker is announced to all. It
	// must not block; nil for nobody.
	Attached func(c socketmeta.ClientID, moved bool)

	// Accepted is told of each task that the broker has stored, once its client was. It must not block; nil for nobody.
	Accepted func(*wire.Task)

	Window       time.Duration // the resume window, as the sessions have it; 0 means 10 min
	MaxHeld      int           // unacknowledged events of one mailbox, and what is under way in batches when they are reached; also its messages; 0 means 20,000; at most 65,535
	MaxHeldBytes int           // bytes of the messages of all mailboxes that have such events, and what is under way when they are reached; 0 means 256 MiB
	MaxSubmits   int           // submits on their way to the broker; 0 means 1,024
	SubmitWithin time.Duration // how long the broker may take to answer one; 0 means 10 s
	SweepEvery   time.Duration // 0 means 2 s
	BrokerGrace  time.Duration // the broker may be away for so long before clients are told; 0 means 30 s
	MoveOver     time.Duration // over how long they are then sent to other workers; 0 means that they stay
}

// Mailbox is what one worker has of the broker. It may be used by many goroutines.
type Mailbox struct {
	o       Options
	submits chan submission
	nudge   chan struct{} // cap 1: pending has something
	lives   atomic.Uint64 // ownerships so far
	bytes   atomic.Int64  // held, over all owned mailboxes
	kinds   offered

	mu      sync.Mutex
	state   broker.State // guarded by mu
	open    bool         // guarded by mu; the own mailbox is owned
	capped  string       // guarded by mu; why no deliveries are taken now, or ""
	service *service     // guarded by mu; nil while there is no link
	pending pending      // guarded by mu

	asks     map[wire.RunID]chan wire.ControlMessage // guarded by mu; questions to runners and workers that wait for answers, by their name
	doubtful []submission                            // guarded by mu; published, and nobody knows whether they are stored
}

// New returns a mailbox that does nothing before Run.
func New(o Options) *Mailbox {
	o.Log = cmp.Or(o.Log, zap.NewNop())
	if o.Metrics == nil {
		o.Metrics = NewMetrics(nil)
	}
	o.Window = cmp.Or(o.Window, 10*time.Minute)
	o.MaxHeld = cmp.Or(o.MaxHeld, 20_000)
	o.MaxHeldBytes = cmp.Or(o.MaxHeldBytes, 256<<20)
	o.MaxSubmits = cmp.Or(o.MaxSubmits, 1024)
	o.SubmitWithin = cmp.Or(o.SubmitWithin, 10*time.Second)
	o.SweepEvery = cmp.Or(o.SweepEvery, 2*time.Second)
	o.BrokerGrace = cmp.Or(o.BrokerGrace, 30*time.Second)
	return &Mailbox{o: o, submits: make(chan submission, o.MaxSubmits), nudge: make(chan struct{}, 1), kinds: newOffered(o.Log)}
}

// Run serves the worker's mailboxes until ctx ends, through any number of lives of the broker. It
// returns soon after ctx with everything that it started gone.
func (m *Mailbox) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return m.sweep(ctx) })
	g.Go(func() error {
		return broker.Keep(ctx, m.o.Broker, broker.Worker(m.o.Server), broker.KeepOptions{
			Log: m.o.Log, OnState: m.setState,
		}, m.serve)
	})
	return g.Wait()
}

// Attach gives a client's session to a connection: see session.Registry.Attach. A session that
// comes from another worker is claimed from all of them.
func (m *Mailbox) Attach(conn engine.ConnRef, epoch socketmeta.Epoch, c session.Claim) bool {
	fx, ok := m.o.Sessions.Attach(conn, epoch, c, time.Now())
	if ok && c.Server != "" && c.Server != m.o.Server {
		m.note(func(p *pending) { p.claim(c.Client, epoch, c.Server) })
	}
	m.apply(fx)
	if ok && m.o.Attached != nil {
		m.o.Attached(c.Client, c.Server != "" && c.Server != m.o.Server)
	}
	return ok
}

// Detach notes that a connection is gone.
func (m *Mailbox) Detach(conn engine.ConnRef) { m.apply(m.o.Sessions.Detach(conn, time.Now())) }

// Ack notes what a client's application has.
func (m *Mailbox) Ack(s *session.Session, positions []wire.Position) {
	m.apply(s.Ack(positions, time.Now()))
}

// Writable goes on sending to a client whose socket had no room.
func (m *Mailbox) Writable(s *session.Session) { m.apply(s.Writable(time.Now())) }

// Drain takes no more mailboxes from now on. HandOver follows.
func (m *Mailbox) Drain() { m.request(func(s *service) { s.core.drain() }) }

// HandOver offers the owned mailboxes to the other workers, gives them up, and waits until others
// have them, or ctx ends: then they will be adopted as those of a dead worker are. It returns at
// once where there is no link. Drain comes before it.
func (m *Mailbox) HandOver(ctx context.Context) error {
	m.mu.Lock()
	s := m.service
	m.mu.Unlock()
	done := make(chan struct{})
	if s == nil || !s.report(func() {
		s.core.offerAll()
		s.handedOver = done
	}) {
		return nil
	}
	select {
	case <-done:
		return nil
	case <-s.stopped:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("hand over the mailboxes: no worker has taken them yet: %w", context.Cause(ctx))
	}
}

// request has the clerk run f, soon. False if there is no link.
func (m *Mailbox) request(f func(*service)) bool {
	m.mu.Lock()
	s := m.service
	m.mu.Unlock()
	return s != nil && s.report(func() { f(s) })
}

// apply sees to what sessions want. It never blocks.
func (m *Mailbox) apply(fx session.Effects) {
	m.o.Metrics.count(&fx)
	if len(fx.Settle)+len(fx.Jobs) > 0 {
		m.mu.Lock()
		s := m.service
		m.mu.Unlock()
		if s != nil {
			s.settle(fx.Settle)
		}
		for _, j := range fx.Jobs {
			if s == nil || !s.run(j) {
				m.apply(m.o.Sessions.Done(j, session.Lost, time.Now()))
			}
		}
	}
	if len(fx.Seek)+len(fx.Overflow) > 0 {
		m.note(func(p *pending) { p.add(&fx) })
	}
}

// Ready returns nil while the own mailbox is owned and takes deliveries, else why not.
func (m *Mailbox) Ready() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case m.state.Phase == broker.Locked:
		return fmt.Errorf("another process with the server ID %s is alive: %w", m.o.Server, m.state.Err)
	case m.state.Phase != broker.Up && m.state.Err != nil:
		return fmt.Errorf("the broker is away: %w", m.state.Err)
	case m.state.Phase != broker.Up:
		return errors.New("the broker is not joined yet")
	case !m.open:
		return fmt.Errorf("the mailbox %s is not owned yet", broker.MailboxQueue(m.o.Server))
	case m.capped != "":
		return errors.New(m.capped)
	}
	return nil
}

// Linked reports whether there is a link to the broker.
func (m *Mailbox) Linked() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.state.Phase == broker.Up
}

func (m *Mailbox) setState(s broker.State) {
	m.mu.Lock()
	m.state = s
	m.mu.Unlock()
}

func (m *Mailbox) setOpen(open bool) {
	m.mu.Lock()
	m.open, m.capped = open, ""
	m.mu.Unlock()
}

func (m *Mailbox) setCapped(why string) {
	m.mu.Lock()
	m.capped = why
	m.mu.Unlock()
}

// sweep does what time asks for.
func (m *Mailbox) sweep(ctx context.Context) error {
	tick := time.NewTicker(m.o.SweepEvery)
	defer tick.Stop()
	told, each := false, 0
	for {
		select {
		case <-ctx.Done():
			return nil
		case now := <-tick.C:
			m.apply(m.o.Sessions.Sweep(now, m.o.Renew))
			m.refuseDoubtful(now)
			if !m.owned() {
				m.refuseWaiting() // taken just before the link ended: there is nobody to publish them
			}
			away := m.away(now)
			if away && !told {
				m.o.Sessions.Tell(engine.NewText(wire.EncodeServer(&wire.Refused{Error: *wire.Errorf(wire.CodeUnavailable,
					"this worker has not reached its broker for %v; nothing is lost, and events come when it is back", m.o.BrokerGrace)})))
			}
			if away && !told && m.o.MoveOver > 0 {
				each = m.wave()
			}
			if told = away; away && each > 0 {
				m.o.Sessions.Bye(each, wire.CloseNoBroker, "this worker has lost its broker", m.o.SweepEvery)
			}
		}
	}
}

// wave is how many sockets to close with each sweep, so that all are closed after MoveOver: other
// workers may have the broker that this one has not.
func (m *Mailbox) wave() int {
	_, attached := m.o.Sessions.Count()
	return attached/max(1, int(m.o.MoveOver/m.o.SweepEvery)) + 1
}

func (m *Mailbox) owned() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.open
}

// away reports whether the broker has been away for longer than the grace.
func (m *Mailbox) away(now time.Time) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.state.Phase != broker.Up && !m.state.Since.IsZero() && now.Sub(m.state.Since) > m.o.BrokerGrace
}
