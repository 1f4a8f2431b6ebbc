// Package hub is what a worker does with subscriptions to channels: it binds a channel at the broker while one of its
// clients is subscribed to it, gives each of them a snapshot of what publishers keep and then all that comes, in one
// frame for all, and tells those that do not keep up what they have missed. It also knows which workers and task runners
// there are, answers who is subscribed to what, and makes the posts of the channel engine.
//
// Channels are at-most-once. Of each publisher that counts a subscriber gets every post after its snapshot once and in
// order, or a missed that counts it; after a loss of the broker a missed with count 0 if nobody knows.
//
// The rules are in core, which is pure: core.go (subscriptions and bindings), sync.go (what publishers keep), deliver.go
// (what goes to many). Around it Hub locks, and runs: Run for as long as the worker does, Serve on each link.
package hub

import (
	"cmp"
	"context"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"github.com/wscluster/wscluster/internal/engine"
	"github.com/wscluster/wscluster/pkg/broker"
	"github.com/wscluster/wscluster/pkg/socketmeta"
	"github.com/wscluster/wscluster/pkg/wire"
)

const (
	tickEvery = 50 * time.Millisecond
	batch     = 64   // sends for which the lock is held at once: a millisecond or two
	maxHeard  = 1024 // control messages that wait to be looked at: more are dropped
)

// Options of a hub. Server, Socket, Say and Status must be set.
type Options struct {
	Server socketmeta.ServerID
	Socket Socket
	Say    func(to broker.Address, m wire.ControlMessage) // publishes it or drops it; must not block
	Status func() Status                                  // how this worker stands; must not block
	Kept   func(wire.Channel) []wire.Post                 // what this worker's own publisher keeps, the oldest first; nil for nothing
	Log    *zap.Logger                                    // nil logs nothing
}

// Status is how a worker stands.
type Status struct {
	Ready       bool
	Connections int
	Sessions    int
}

// Hub is the subscriptions of one worker. Its methods may be called from any goroutine. Those without a
// context do not block, but for a lock that is held for a millisecond or two.
type Hub struct {
	o       Options
	started time.Time
	stream  wire.RunID // of the posts of the channel engine

	ordered chan struct{} // cap 1: the core has orders
	queued  chan struct{} // cap 1: the core has something to deliver
	wanted  chan struct{} // cap 1: a post of the channel engine is wanted now
	heard   chan wire.ControlMessage
	bad     atomic.Int64 // posts that cannot be read

	mu   sync.Mutex
	core *core       // guarded by mu
	link broker.Link // guarded by mu; nil while there is none
	town town        // guarded by mu

	saying sync.Mutex // held while it is said how this worker stands
	left   bool       // guarded by saying; it was said that it stops

	censuses censuses
	depths   depths
}

// New returns a hub that does nothing before Run and Serve.
func New(o Options) *Hub {
	o.Log = cmp.Or(o.Log, zap.NewNop())
	if o.Kept == nil {
		o.Kept = func(wire.Channel) []wire.Post { return nil }
	}
	return &Hub{
		o: o, started: time.Now(), stream: wire.NewRunID(),
		ordered: make(chan struct{}, 1), queued: make(chan struct{}, 1), wanted: make(chan struct{}, 1),
		heard: make(chan wire.ControlMessage, maxHeard),
		core:  newCore(o.Socket, string(o.Server), wire.NewRunID), town: newTown(o.Server),
		censuses: censuses{asks: map[wire.RunID]*census{}, channels: map[wire.Channel]*census{}},
	}
}

// Run does what time, control messages and subscribers ask for, until ctx ends.
func (h *Hub) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return h.tick(ctx) })
	g.Go(func() error { return h.listen(ctx) })
	g.Go(func() error { return h.report(ctx) })
	g.Go(func() error {
		for {
			select {
			case <-ctx.Done():
				return nil
			case <-h.queued:
				h.drain()
			}
		}
	})
	return g.Wait()
}

// do runs f on the core, and sees to it that what it left to be done is.
func (h *Hub) do(f func(c *core)) {
	h.mu.Lock()
	f(h.core)
	orders, queued, report := len(h.core.orders) > 0, h.core.head < len(h.core.queue), h.core.report
	h.core.report = false
	h.mu.Unlock()
	if orders {
		nudge(h.ordered)
	}
	if queued {
		nudge(h.queued)
	}
	if report {
		nudge(h.wanted)
	}
}

func nudge(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

// drain delivers what waits, and lets others have the lock in between.
func (h *Hub) drain() {
	for more := true; more; {
		h.mu.Lock()
		more = h.core.deliver(batch, time.Now())
		h.mu.Unlock()
	}
}

// Subscribe adds a subscription of a connection. It is answered on the connection, with a Subscribed and the snapshot: at once, or
// after a second at most; one that has no room for them is answered once it is Writable. An error is the answer, and
// nothing was done: too_many_channels or overloaded. Whether it may is for the caller to know.
func (h *Hub) Subscribe(conn engine.ConnRef, m *wire.Subscribe) (refused *wire.Error) {
	h.do(func(c *core) { refused = c.subscribe(conn, m.Channel, m.ID, false, time.Now()) })
	return refused
}

// Follow subscribes a connection that gets the bare bodies of the posts and nothing else, and has no other
// subscription. After posts that it was too slow for it gets the snapshot again.
func (h *Hub) Follow(conn engine.ConnRef, channel wire.Channel) (refused *wire.Error) {
	h.do(func(c *core) { refused = c.subscribe(conn, channel, "", true, time.Now()) })
	return refused
}

// Unsubscribe ends a subscription and answers it with an Unsubscribed: no message of the channel comes after that.
func (h *Hub) Unsubscribe(conn engine.ConnRef, m *wire.Unsubscribe) {
	h.do(func(c *core) { c.unsubscribe(conn, m.Channel, m.ID, time.Now()) })
}

// Gone ends the subscriptions of a connection that has closed.
func (h *Hub) Gone(conn engine.ConnRef) {
	h.do(func(c *core) { c.gone(conn, time.Now()) })
}

// Writable goes on with a connection that had no room.
func (h *Hub) Writable(conn engine.ConnRef) {
	h.do(func(c *core) { c.writable(conn) })
}

// Hear takes a control message, and passes over those that are none of its business. It never blocks: beyond maxHeard that
// wait they are dropped.
func (h *Hub) Hear(m wire.ControlMessage) {
	switch m.(type) {
	case *wire.Here, *wire.Kinds, *wire.FindChannels, *wire.ChannelsFound:
		select {
		case h.heard <- m:
		default:
		}
	}
}

func (h *Hub) tick(ctx context.Context) error {
	t := time.NewTicker(tickEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case now := <-t.C:
			h.do(func(c *core) {
				if h.town.expire(now) {
					c.know(h.town.names())
				}
				c.tick(now)
			})
		}
	}
}
