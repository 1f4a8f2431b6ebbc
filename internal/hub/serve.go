package hub

import (
	"context"
	"fmt"
	"slices"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"github.com/wscluster/wscluster/pkg/broker"
	publisher "github.com/wscluster/wscluster/pkg/channel"
	"github.com/wscluster/wscluster/pkg/wire"
)

const (
	againAfter  = time.Second // after a call to the broker failed, and the link lives
	bindBatch   = 500         // channels of one call
	unbindBatch = 20          // the same, after which those that are to be bound come first
)

// Serve has the channels on one link, until ctx or the link ends. It is a part of a mailbox. That the broker does not
// give what is asked for is no fault of the link: it is told to the operator, and tried again.
func (h *Hub) Serve(ctx context.Context, link broker.Link) error {
	h.mu.Lock()
	h.link = link
	h.mu.Unlock()
	defer func() {
		h.mu.Lock()
		h.link = nil
		h.mu.Unlock()
	}()
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return h.announce(ctx) })
	g.Go(func() error {
		for {
			channels, err := link.OpenChannels(ctx, h.o.Server)
			if err == nil {
				err = h.on(ctx, channels)
			}
			if ctx.Err() != nil {
				return nil
			}
			select {
			case <-link.Done():
				return fmt.Errorf("the channels of %s: %w", h.o.Server, broker.ErrLinkGone)
			default:
				h.o.Log.Warn("the channels are not open; subscribers get nothing until they are", zap.Error(err))
			}
			if !sleep(ctx, againAfter) {
				return nil
			}
		}
	})
	return g.Wait()
}

// on serves until channels end.
func (h *Hub) on(ctx context.Context, channels broker.Channels) error {
	h.do(func(c *core) { c.linkUp(time.Now()) })
	defer h.do(func(c *core) { c.linkDown() })
	binding, stop := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		h.bind(binding, channels)
	}()
	defer func() { <-done }()
	defer stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case p, ok := <-channels.Posts():
			if !ok {
				return broker.ErrLinkGone
			}
			h.take(&p)
		}
	}
}

// take gives a post to all its subscribers, before the next one is taken: what comes faster than that waits in the
// broker, within its bound. A post of a channel that nobody here wants is passed over unread.
func (h *Hub) take(m *broker.Post) {
	name := wire.Channel(m.Channel)
	h.mu.Lock()
	ch := h.core.channels[name]
	wanted := ch != nil && !ch.local
	h.mu.Unlock()
	if !wanted {
		return
	}
	p, err := wire.DecodePost(m.Channel, m.Type, m.Headers, m.Body, time.Now())
	if err != nil {
		h.bad.Add(1)
		h.o.Log.Debug("a post cannot be read and is dropped", zap.String("app", m.App), zap.Error(err))
		return
	}
	h.mu.Lock()
	h.core.post(p)
	h.mu.Unlock()
	h.drain()
}

// bind carries out the core's orders. Channels that are to be bound come before those that are to be unbound.
func (h *Hub) bind(ctx context.Context, channels broker.Channels) {
	unwanted := map[wire.Channel]bool{} // and bound
	for {
		h.mu.Lock()
		orders := h.core.takeOrders()
		h.mu.Unlock()
		for len(orders) > 0 {
			n := 1
			for n < len(orders) && n < bindBatch && orders[n].verb == orders[0].verb {
				n++
			}
			if !h.carryOut(ctx, channels, orders[:n], unwanted) {
				return
			}
			orders = orders[n:]
		}
		var some []wire.Channel
		for name := range unwanted {
			if some = append(some, name); len(some) == unbindBatch {
				break
			}
		}
		if len(some) > 0 {
			if !h.call(ctx, "unbind", func() error { return channels.Unbind(ctx, some...) }) {
				return
			}
			for _, name := range some {
				delete(unwanted, name)
			}
			continue
		}
		select {
		case <-ctx.Done():
			return
		case <-h.ordered:
		}
	}
}

// carryOut does what orders of one kind ask for. False if ctx has ended.
func (h *Hub) carryOut(ctx context.Context, channels broker.Channels, orders []order, unwanted map[wire.Channel]bool) bool {
	switch orders[0].verb {
	case bind:
		names := make([]wire.Channel, len(orders))
		for i, o := range orders {
			names[i] = o.channel
			delete(unwanted, o.channel)
		}
		if !h.call(ctx, "bind", func() error { return channels.Bind(ctx, names...) }) {
			return false
		}
		h.do(func(c *core) {
			for _, o := range orders {
				c.bound(o.channel, o.opened)
			}
			c.ask(time.Now())
		})
	case unbind:
		for _, o := range orders {
			unwanted[o.channel] = true
		}
	case bindAll:
		if !h.call(ctx, "bind all", func() error { return channels.BindAll(ctx) }) {
			return false
		}
		h.do(func(c *core) {
			c.allIsBound()
			c.ask(time.Now())
		})
	case unbindAll:
		return h.call(ctx, "unbind all", func() error { return channels.UnbindAll(ctx) })
	case find:
		for _, o := range orders {
			h.o.Say(broker.ToAll(), &wire.FindChannels{From: h.o.Server, Ask: o.ask, Channels: o.channels})
			own := h.found(o.ask, o.channels, false)
			h.do(func(c *core) { c.hear(own, time.Now()) })
		}
	}
	return true
}

// call calls the broker until it succeeds. False if ctx has ended.
func (h *Hub) call(ctx context.Context, what string, f func() error) bool {
	for {
		err := f()
		if err == nil {
			return true
		}
		if ctx.Err() != nil {
			return false
		}
		h.o.Log.Warn("the broker refuses a call for the channels; it is tried again", zap.String("call", what), zap.Error(err))
		if !sleep(ctx, againAfter) {
			return false
		}
	}
}

// found is this worker's own answer to FindChannels.
func (h *Hub) found(ask wire.RunID, names []wire.Channel, countOnly bool) *wire.ChannelsFound {
	m := &wire.ChannelsFound{Ask: ask, Name: string(h.o.Server), Channels: make([]wire.FoundChannel, 0, len(names))}
	for _, name := range names {
		m.Channels = append(m.Channels, wire.FoundChannel{Channel: name})
		if !countOnly {
			m.Channels[len(m.Channels)-1].Kept = h.o.Kept(name)
		}
	}
	h.mu.Lock()
	for i := range m.Channels {
		m.Channels[i].Subscribers = h.core.subscribers(m.Channels[i].Channel)
	}
	h.mu.Unlock()
	m.Channels = publisher.Fit(slices.DeleteFunc(m.Channels, func(f wire.FoundChannel) bool { return f.Subscribers == 0 && len(f.Kept) == 0 }))
	return m
}

// sleep waits for d and reports false if ctx ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
