package mailbox

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"github.com/wscluster/wscluster/internal/session"
	"github.com/wscluster/wscluster/pkg/broker"
	"github.com/wscluster/wscluster/pkg/socketmeta"
	"github.com/wscluster/wscluster/pkg/wire"
)

// tickEvery is how often the clerk looks at the time.
const tickEvery = 50 * time.Millisecond

// service is what runs on one link.
type service struct {
	*Mailbox
	link    broker.Link
	reports chan func() // to be run by the clerk: outcomes of orders, and what others ask of it
	stopped <-chan struct{}
	spoken  chan order // to be published by speak
	copier  copier

	// Touched only by the clerk.
	core       *core
	handedOver chan struct{} // closed, if somebody waits, when others have all mailboxes

	mu    sync.Mutex
	lives map[uint64]*life // guarded by mu
}

// serve does all that a worker does on one link.
func (m *Mailbox) serve(ctx context.Context, link broker.Link) error {
	g, ctx := errgroup.WithContext(ctx)
	s := &service{
		Mailbox: m, link: link, core: newCore(m.o.Server, m.o.Window),
		reports: make(chan func(), 64), stopped: ctx.Done(), spoken: make(chan order, maxSpoken),
		copier: newCopier(link), lives: make(map[uint64]*life),
	}
	m.setService(s)
	g.Go(func() error { return s.clerk(ctx, g) })
	g.Go(func() error { return s.speak(ctx) })
	g.Go(func() error { return s.copier.publish(ctx) })
	g.Go(func() error { return s.copier.await(ctx) })
	g.Go(func() error { return m.publish(ctx, link) })
	for _, part := range m.o.Parts {
		g.Go(func() error { return part(ctx, link) })
	}
	err := g.Wait()

	m.setService(nil)
	m.setOpen(false)
	s.copier.abandon()
	dropped := m.o.Sessions.Forget(0, time.Now())
	m.bytes.Store(0)
	m.o.Metrics.gone()
	m.o.Log.Info("the mailboxes are given up; what was held will be delivered again",
		zap.Int("held", dropped), zap.Error(err))
	return err
}

func (m *Mailbox) setService(s *service) {
	m.mu.Lock()
	m.service = s
	m.mu.Unlock()
}

// report has the clerk run f; false if it has stopped.
func (s *service) report(f func()) bool {
	select {
	case s.reports <- f:
		return true
	case <-s.stopped:
		return false
	}
}

// clerk owns the core: it hears what others say, looks at the time, and has orders carried out.
func (s *service) clerk(ctx context.Context, g *errgroup.Group) error {
	tick := time.NewTicker(tickEvery)
	defer tick.Stop()
	s.core.joined(time.Now().UnixMilli())
	s.say(order{verb: say, to: broker.ToAll(), message: &wire.AskKinds{From: s.o.Server}})
	for {
		for _, o := range s.core.takeOrders() {
			s.carryOut(ctx, g, o)
		}
		if s.handedOver != nil && s.core.handedOver() {
			close(s.handedOver)
			s.handedOver = nil
		}
		select {
		case <-ctx.Done():
			return nil
		case m, ok := <-s.link.Inbox():
			if !ok {
				return fmt.Errorf("the inbox of %s: %w", s.o.Server, broker.ErrLinkGone)
			}
			s.hear(m)
		case f := <-s.reports:
			f()
		case <-s.nudge:
			s.tell()
		case now := <-tick.C:
			s.core.tick(now.UnixMilli(), s.live)
		}
	}
}

// hear takes one control message.
func (s *service) hear(m broker.Message) {
	c, err := wire.DecodeControl(m.Type, m.Body)
	switch {
	case errors.Is(err, wire.ErrUnknownType):
		return // of a newer version
	case err != nil:
		s.o.Log.Warn("a control message cannot be read and is dropped", zap.String("app", m.App), zap.Error(err))
		return
	}
	switch c := c.(type) {
	case *wire.Moved:
		if c.From != s.o.Server {
			s.apply(s.o.Sessions.Moved(c.From, c.Clients, time.Now()))
			s.pass(c)
		}
	case *wire.Seek:
		if c.From != s.o.Server {
			for _, m := range claim(s.o.Server, s.o.Sessions.Attached(c.Clients)) {
				s.say(order{verb: say, to: broker.ToControl(broker.Worker(c.From)), message: m})
			}
		}
	case *wire.RunsFound:
		s.answered(c.Ask, c)
	case *wire.LogChunk:
		s.answered(c.Ask, c)
	case *wire.Forwarded:
		s.answered(c.Ask, c)
	case *wire.Kinds:
		s.kinds.hear(c)
		s.pass(c)
	case *wire.AskKinds, *wire.FindRuns, *wire.ReadLog: // for runners
	case *wire.Here, *wire.FindChannels, *wire.ChannelsFound, *wire.Forward, *wire.AskClient, *wire.Reached, *wire.ClientReplied:
		s.pass(c)
	default:
		s.core.heard(c, time.Now().UnixMilli())
		if _, ok := c.(*wire.Owner); ok {
			s.pass(c)
		}
	}
}

// pass gives on what others care for.
func (s *service) pass(c wire.ControlMessage) {
	if s.o.Hear != nil {
		s.o.Hear(c)
	}
}

// Say publishes a control message, or drops it: where the worker has no broker now, and beyond maxSpoken that
// wait. It never blocks.
func (m *Mailbox) Say(to broker.Address, c wire.ControlMessage) {
	m.mu.Lock()
	s := m.service
	m.mu.Unlock()
	if s != nil {
		s.say(order{verb: say, to: to, message: c})
	}
}

// tell says what sessions want to be said.
func (s *service) tell() {
	p := s.takePending()
	for _, m := range append(p.moved(s.o.Server), p.seek(s.o.Server)...) {
		s.say(order{verb: say, to: broker.ToAll(), message: m})
	}
	for from := range p.from {
		s.core.suspect(from, time.Now().UnixMilli())
	}
	for life := range p.overflow {
		s.core.wantOverflow(life)
	}
}

// live counts what was delivered in a life and is not settled.
func (s *service) live(id uint64) int {
	if l := s.life(id); l != nil {
		return int(l.held.Load())
	}
	return 0
}

func (s *service) life(id uint64) *life {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.lives[id]
}

// carryOut begins to do what the core orders. It does not block.
func (s *service) carryOut(ctx context.Context, g *errgroup.Group, o order) {
	now := func() int64 { return time.Now().UnixMilli() }
	l := s.lifeOf(o.server)
	switch o.verb {
	case say, probe:
		s.say(o)
	case openOwn, adopt:
		g.Go(func() error { return s.acquire(ctx, g, o) })
	case release:
		l.ending.Store(true)
		close(l.stop)
	case takeHeld:
		g.Go(func() error {
			ds, left, err := l.box.TakeHeld(ctx, o.max)
			if err != nil {
				return l.fault("read the overflow of", err)
			}
			l.overflow(ctx, ds)
			s.report(func() { s.core.took(o.server, len(ds), left, now()) })
			return nil
		})
	case unbind:
		g.Go(func() error {
			err := l.box.Unbind(ctx)
			if err != nil && !errors.Is(err, broker.ErrLocked) {
				return l.fault("unbind", err)
			}
			s.report(func() { s.core.unboundNow(o.server, err == nil, now()) })
			return nil
		})
	case deleteBox:
		g.Go(func() error {
			l.ending.Store(true)
			err := l.box.Delete(ctx)
			switch {
			case err == nil:
				s.o.Log.Info("a mailbox that nobody came back for is retired", zap.String("mailbox", string(o.server)))
			case errors.Is(err, broker.ErrNotEmpty):
				l.ending.Store(false)
			default:
				return fmt.Errorf("delete the mailbox of %s: %w", o.server, err)
			}
			s.report(func() { s.core.deleted(o.server, err == nil, now()) })
			return nil
		})
	case lockJanitor:
		g.Go(func() error {
			_, err := s.link.Lock(ctx, broker.LockJanitor) // until the link ends
			s.report(func() { s.core.locked(err == nil, now()) })
			return nil
		})
	case register:
		g.Go(func() error {
			err := s.link.Register(ctx, o.server)
			if err != nil {
				s.o.Log.Warn("this worker is not in the register yet; should it die for good now, only its clients will find its mailbox", zap.Error(err))
			}
			s.report(func() {
				s.core.registered(err == nil, now())
				s.setOpen(s.core.serves())
			})
			return nil
		})
	case listServers:
		g.Go(func() error {
			servers, err := s.link.Servers(ctx)
			if err != nil {
				s.o.Log.Warn("the register of servers cannot be read; dead mailboxes may wait", zap.Error(err))
				return nil
			}
			s.report(func() { s.core.listed(servers, now()) })
			return nil
		})
	}
}

func (s *service) lifeOf(server socketmeta.ServerID) *life {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, l := range s.lives {
		if l.server == server {
			return l
		}
	}
	return nil
}

// acquire opens the own mailbox or adopts another one, and starts its life.
func (s *service) acquire(ctx context.Context, g *errgroup.Group, o order) error {
	open := s.link.AdoptMailbox
	if o.verb == openOwn {
		open = s.link.OpenMailbox
	}
	box, err := open(ctx, o.server, s.o.MaxHeld)
	how, id := gotIt, uint64(0)
	switch {
	case err == nil:
		l := s.begin(o.server, box)
		id = l.id
		g.Go(func() error { return l.run(ctx) })
	case errors.Is(err, broker.ErrRefused):
		how = isOwned
	case errors.Is(err, broker.ErrNoMailbox):
		how = isMissing
	case o.verb == openOwn:
		return fmt.Errorf("open the mailbox of %s: %w", o.server, err)
	default:
		how = failed
		s.o.Log.Warn("a mailbox cannot be adopted now; it is tried again", zap.String("mailbox", string(o.server)), zap.Error(err))
	}
	s.report(func() { s.core.opened(o.server, how, id, time.Now().UnixMilli()) })
	return nil
}

// maxSpoken bounds the control messages that wait to be published; beyond it they are dropped, for
// any of them may be lost.
const maxSpoken = 4096

func (s *service) say(o order) {
	select {
	case s.spoken <- o:
	default:
	}
}

// probed is a probe whose answer is awaited.
type probed struct {
	server  socketmeta.ServerID
	receipt broker.Receipt
}

// speak publishes control messages, and tells the core of the probes that come back.
func (s *service) speak(ctx context.Context) error {
	probes := make(chan probed, maxSpoken)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		for {
			select {
			case <-ctx.Done():
				return nil
			case p := <-probes:
				if outcome, _ := broker.Await(ctx, p.receipt); outcome == broker.Returned {
					s.report(func() { s.core.returned(p.server) })
				}
			}
		}
	})
	g.Go(func() error {
		for {
			select {
			case <-ctx.Done():
				return nil
			case o := <-s.spoken:
				r, err := s.link.Publish(ctx, o.to, broker.Message{
					Type: o.message.ControlType(), App: string(s.o.Server), Transient: true, Time: time.Now(),
					Body: wire.EncodeControl(o.message),
				})
				if err != nil {
					return fmt.Errorf("say %s: %w", o.message.ControlType(), err)
				}
				if o.verb == probe {
					select {
					case probes <- probed{o.server, r}:
					case <-ctx.Done():
					}
				}
			}
		}
	})
	return g.Wait()
}

// settle acknowledges to the broker what is done with. Refs of lives that are over are passed
// over: what they name was delivered again.
func (s *service) settle(refs []session.Ref) {
	for len(refs) > 0 {
		n := 1
		for n < len(refs) && refs[n].Life == refs[0].Life {
			n++
		}
		if l := s.life(refs[0].Life); l != nil {
			l.settle(refs[:n])
		}
		refs = refs[n:]
	}
}
