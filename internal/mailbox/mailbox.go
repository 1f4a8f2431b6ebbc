// Package mailbox carries events from a worker's mailbox in the broker to the sessions of its
// clients, and settles each with the broker only after the client's application has it. It also
// takes submits the other way. The worker attaches, acknowledges and submits only through it.
//
// Who runs what: Run's goroutine owns the deliveries and the settlements of one life of the
// mailbox; a second one publishes, and a third awaits the answers. A fault of any of them ends
// that life: what was held is dropped, and the broker delivers it again in the next.
package mailbox

import (
	"context"
	"errors"
	"fmt"
	"sync"
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

	MaxHeld      int           // unacknowledged events; 0 means 20,000; at most 65,535
	MaxHeldBytes int           // their bytes, and what is under way when they are reached; 0 means 256 MiB
	MaxSubmits   int           // submits on their way to the broker; 0 means 1,024
	SubmitWithin time.Duration // how long the broker may take to answer one; 0 means 10 s
	SweepEvery   time.Duration // 0 means 2 s
	BrokerGrace  time.Duration // the broker may be away for so long before clients are told; 0 means 30 s
}

// Mailbox is the mailbox of one worker. It may be used by many goroutines.
type Mailbox struct {
	o       Options
	submits chan submission
	settle  chan struct{} // cap 1: refs wait in settled

	mu      sync.Mutex
	settled []session.Ref // guarded by mu; at most one for each delivery
	state   broker.State  // guarded by mu
	capped  string        // guarded by mu; why no deliveries are taken now, or ""
	open    bool          // guarded by mu; the mailbox is owned
}

// New returns a mailbox that does nothing before Run.
func New(o Options) *Mailbox {
	if o.Log == nil {
		o.Log = zap.NewNop()
	}
	if o.Metrics == nil {
		o.Metrics = NewMetrics(nil)
	}
	o.MaxHeld = orDefault(o.MaxHeld, 20_000)
	o.MaxHeldBytes = orDefault(o.MaxHeldBytes, 256<<20)
	o.MaxSubmits = orDefault(o.MaxSubmits, 1024)
	o.SubmitWithin = orDefault(o.SubmitWithin, 10*time.Second)
	o.SweepEvery = orDefault(o.SweepEvery, 2*time.Second)
	o.BrokerGrace = orDefault(o.BrokerGrace, 30*time.Second)
	return &Mailbox{o: o, submits: make(chan submission, o.MaxSubmits), settle: make(chan struct{}, 1)}
}

func orDefault[T int | time.Duration](v, d T) T {
	if v == 0 {
		return d
	}
	return v
}

// Run serves the mailbox until ctx ends, through any number of lives of the broker. It returns
// soon after ctx with everything that it started gone.
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

// Attach gives a client's session to a connection: see session.Registry.Attach.
func (m *Mailbox) Attach(conn engine.ConnRef, c session.Claim, welcome func(session.Welcome) *engine.Frame) {
	m.done(m.o.Sessions.Attach(conn, c, time.Now(), welcome))
}

// Ack notes what a client's application has.
func (m *Mailbox) Ack(s *session.Session, positions []wire.Position) {
	m.done(s.Ack(positions, time.Now()))
}

// done hands refs to the goroutine that settles. It never blocks.
func (m *Mailbox) done(refs []session.Ref) {
	if len(refs) == 0 {
		return
	}
	m.mu.Lock()
	m.settled = append(m.settled, refs...)
	m.mu.Unlock()
	select {
	case m.settle <- struct{}{}:
	default:
	}
}

// Ready returns nil while the mailbox is owned and takes deliveries, else why not.
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

func (m *Mailbox) setState(s broker.State) {
	m.mu.Lock()
	m.state = s
	m.mu.Unlock()
}

// sweep does what time asks for.
func (m *Mailbox) sweep(ctx context.Context) error {
	tick := time.NewTicker(m.o.SweepEvery)
	defer tick.Stop()
	told := false
	for {
		select {
		case <-ctx.Done():
			return nil
		case now := <-tick.C:
			m.o.Sessions.Sweep(now, m.o.Renew)
			if !m.owned() {
				m.refuseWaiting() // taken just before the link ended: there is nobody to publish them
			}
			away := m.away(now)
			if away && !told {
				m.o.Sessions.Tell(engine.NewText(wire.EncodeServer(&wire.Refused{Error: *wire.Errorf(wire.CodeUnavailable,
					"this worker has not reached its broker for %v; nothing is lost, and events come when it is back", m.o.BrokerGrace)})))
			}
			told = away
		}
	}
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
