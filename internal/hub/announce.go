package hub

import (
	"context"
	"time"

	"github.com/wscluster/wscluster/pkg/broker"
	publisher "github.com/wscluster/wscluster/pkg/channel"
	"github.com/wscluster/wscluster/pkg/wire"
)

const (
	hereEvery = 30 * time.Second
	lookEvery = time.Second // how soon a change of readiness is announced
)

// here is how this worker stands, as others are told.
func (h *Hub) here() *wire.Here {
	s := h.o.Status()
	h.mu.Lock()
	channels := h.core.busy
	h.mu.Unlock()
	return &wire.Here{
		From: h.o.Server, Ready: s.Ready, Connections: s.Connections, Sessions: s.Sessions, Channels: channels, Started: wire.Time{Time: h.started},
	}
}

// announce says that we are here: now, every hereEvery, and when we begin or cease to be ready.
func (h *Hub) announce(ctx context.Context) error {
	var said wire.Here
	var at time.Time
	look := time.NewTicker(lookEvery)
	defer look.Stop()
	for {
		if m := h.here(); at.IsZero() || m.Ready != said.Ready || time.Since(at) >= hereEvery {
			h.sayHere(broker.ToAll(), m)
			said, at = *m, time.Now()
		}
		select {
		case <-ctx.Done():
			return nil
		case <-look.C:
		}
	}
}

// sayHere says to others how this worker stands, unless it has said that it stops.
func (h *Hub) sayHere(to broker.Address, m *wire.Here) {
	h.saying.Lock()
	defer h.saying.Unlock()
	if !h.left {
		h.left = m.Gone
		h.o.Say(to, m)
	}
}

// Leave tells all that this worker stops. It says no more of itself after that.
func (h *Hub) Leave() {
	m := h.here()
	m.Ready, m.Gone = false, true
	h.sayHere(broker.ToAll(), m)
}

// listen looks at the control messages of others.
func (h *Hub) listen(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case m := <-h.heard:
			h.look(m)
		}
	}
}

func (h *Hub) look(m wire.ControlMessage) {
	now := time.Now()
	switch m := m.(type) {
	case *wire.Here:
		h.mu.Lock()
		isNew := h.town.here(m, now)
		h.mu.Unlock()
		if isNew {
			h.sayHere(broker.ToControl(broker.Worker(m.From)), h.here())
		}
	case *wire.Kinds:
		h.mu.Lock()
		h.town.kinds(m, now)
		h.mu.Unlock()
	case *wire.FindChannels:
		if m.From != h.o.Server {
			answer := h.found(m.Ask, m.Channels, m.CountOnly)
			answer.Channels = publisher.Fit(answer.Channels)
			h.o.Say(broker.ToControl(broker.Worker(m.From)), answer)
		}
	case *wire.ChannelsFound:
		if m.Name != string(h.o.Server) && !h.censuses.hear(m) {
			h.do(func(c *core) { c.hear(m, now) })
		}
	}
}
