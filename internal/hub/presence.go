package hub

import (
	"context"
	"sync"
	"time"

	"github.com/wscluster/wscluster/pkg/broker"
	"github.com/wscluster/wscluster/pkg/wire"
)

// maxCensuses is how many channels may be counted at once.
const maxCensuses = 256

// census is one count of a channel's subscribers in other workers. Who asks for the same channel meanwhile shares it.
type census struct {
	channel wire.Channel
	missing map[string]bool // workers that have not answered
	hasty   bool            // it is over when all that are known have answered
	count   int
	partial bool
	done    chan struct{} // closed when count and partial are final
	late    *time.Timer
}

type censuses struct {
	mu       sync.Mutex
	asks     map[wire.RunID]*census   // guarded by mu, as the censuses are
	channels map[wire.Channel]*census // guarded by mu
}

// Presence returns how many connections of all workers are subscribed to a channel. It blocks for 300 ms at most; partial
// says that a worker did not answer until then, or that there is no broker to ask by. The error is overloaded, or
// unavailable if ctx ended first.
func (h *Hub) Presence(ctx context.Context, name wire.Channel) (subscribers int, partial bool, refused *wire.Error) {
	c, refused := h.census(name)
	if refused != nil {
		return 0, false, refused
	}
	if c != nil {
		select {
		case <-c.done:
		case <-ctx.Done():
			return 0, false, wire.Errorf(wire.CodeUnavailable, "nobody waited for the answer")
		}
		subscribers, partial = c.count, c.partial
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	return subscribers + h.core.subscribers(name), partial || c == nil, nil
}

// census finds the count of a channel that is under way, or begins one; nil where there is no broker.
func (h *Hub) census(name wire.Channel) (*census, *wire.Error) {
	h.mu.Lock()
	up, settled, workers := h.core.up, time.Since(h.core.upSince) >= newLink, h.town.servers()
	h.mu.Unlock()
	cs := &h.censuses
	cs.mu.Lock()
	defer cs.mu.Unlock()
	switch {
	case cs.channels[name] != nil:
		return cs.channels[name], nil
	case !up:
		return nil, nil
	case len(cs.channels) >= maxCensuses:
		return nil, wire.Errorf(wire.CodeOverloaded, "%d channels are being counted; try again", maxCensuses)
	}
	c := &census{channel: name, missing: map[string]bool{}, hasty: settled, done: make(chan struct{})}
	for _, w := range workers {
		c.missing[w] = true
	}
	if c.hasty && len(c.missing) == 0 {
		close(c.done)
		return c, nil
	}
	id := wire.NewRunID()
	cs.asks[id], cs.channels[name] = c, c
	c.late = time.AfterFunc(answerWithin, func() {
		cs.mu.Lock()
		defer cs.mu.Unlock()
		cs.end(id, c)
	})
	h.o.Say(broker.ToAll(), &wire.FindChannels{From: h.o.Server, Ask: id, Channels: []wire.Channel{name}, CountOnly: true})
	return c, nil
}

// end makes a count final. mu is held.
func (cs *censuses) end(id wire.RunID, c *census) {
	if cs.asks[id] == c {
		c.partial = len(c.missing) > 0
		delete(cs.asks, id)
		delete(cs.channels, c.channel)
		c.late.Stop()
		close(c.done)
	}
}

// hear takes an answer, and reports false if it answers none of these questions.
func (cs *censuses) hear(m *wire.ChannelsFound) bool {
	cs.mu.Lock()
	defer cs.mu.Unlock()
	c := cs.asks[m.Ask]
	if c == nil {
		return false
	}
	delete(c.missing, m.Name)
	for _, f := range m.Channels {
		if f.Channel == c.channel {
			c.count += f.Subscribers
		}
	}
	if c.hasty && len(c.missing) == 0 {
		cs.end(m.Ask, c)
	}
	return true
}
