package hub

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/wscluster/wscluster/pkg/broker"
	"github.com/wscluster/wscluster/pkg/wire"
)

const (
	reportEvery = time.Second     // at most
	depthEvery  = 2 * time.Second // how often queues are looked at, while somebody is interested
	depthWithin = time.Second     // for all queues
)

// depths are how many tasks wait, as last looked at.
type depths struct {
	mu     sync.Mutex
	at     time.Time          // guarded by mu
	queues []wire.EngineQueue // guarded by mu
}

// Engine returns how the cluster stands, as this worker knows it. It blocks for a second at most, while the broker says
// how many tasks wait.
func (h *Hub) Engine(ctx context.Context) *wire.Engine {
	now := time.Now()
	h.mu.Lock()
	link := h.link
	h.mu.Unlock()
	e := &wire.Engine{
		Server: string(h.o.Server), Workers: []wire.EngineWorker{}, Runners: []wire.EngineRunner{}, Timestamp: wire.Time{Time: now},
		Broker: wire.EngineBroker{Connected: link != nil, Blocked: link != nil && link.Blocked()},
		Queues: h.waiting(ctx, link, now),
	}
	self := h.here()
	e.Workers = append(e.Workers, wire.EngineWorker{
		Server: string(h.o.Server), Ready: self.Ready, Connections: self.Connections, Sessions: self.Sessions,
		Channels: self.Channels, Started: self.Started, Seen: wire.Time{Time: now},
	})
	h.mu.Lock()
	h.town.fill(e)
	h.mu.Unlock()
	slices.SortFunc(e.Workers, func(a, b wire.EngineWorker) int { return strings.Compare(a.Server, b.Server) })
	return e
}

// waiting returns how many tasks of each known kind wait.
func (h *Hub) waiting(ctx context.Context, link broker.Link, now time.Time) []wire.EngineQueue {
	d := &h.depths
	d.mu.Lock()
	defer d.mu.Unlock()
	if link == nil || now.Sub(d.at) < depthEvery && d.queues != nil {
		return append([]wire.EngineQueue{}, d.queues...)
	}
	h.mu.Lock()
	kinds := h.town.offered()
	h.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, depthWithin)
	defer cancel()
	d.at, d.queues = now, []wire.EngineQueue{}
	for _, kind := range kinds {
		if n, err := link.Waiting(ctx, kind, wire.Normal); err == nil { // else it has no queue yet, or there is no time
			d.queues = append(d.queues, wire.EngineQueue{Kind: kind, Waiting: n})
		}
	}
	return append([]wire.EngineQueue{}, d.queues...)
}

// report makes the posts of the channel engine, for this worker's own subscribers: when the first one comes, and when
// something has changed.
func (h *Hub) report(ctx context.Context) error {
	t := time.NewTicker(reportEvery)
	defer t.Stop()
	var last []byte
	var seq int64
	for {
		wanted := false
		select {
		case <-ctx.Done():
			return nil
		case <-h.wanted:
			wanted = true
		case <-t.C:
		}
		h.mu.Lock()
		interested := h.core.subscribers(wire.ChannelEngine) > 0
		h.mu.Unlock()
		if !interested {
			continue
		}
		e := h.Engine(ctx)
		if now := encodeStill(e); wanted || !bytes.Equal(now, last) {
			last = now
			seq++
			h.do(func(c *core) {
				c.post(&wire.Post{
					Channel: wire.ChannelEngine, Name: "engine", Publisher: string(h.o.Server), Stream: h.stream, Seq: seq,
					Key: string(h.o.Server), Time: e.Timestamp, Body: encodeEngine(e),
				})
			})
		}
	}
}

// encodeEngine is e as the body of a post. Of a cluster that is too large for one it leaves out what comes last in
// the longest list.
func encodeEngine(e *wire.Engine) []byte {
	for {
		b, err := json.Marshal(e)
		if err != nil {
			panic(fmt.Sprintf("hub: encode the engine's state: %v", err)) // nothing in it can fail
		}
		if len(b) <= wire.MaxPost {
			return b
		}
		switch w, r, q := len(e.Workers), len(e.Runners), len(e.Queues); {
		case w >= r && w >= q:
			e.Workers = e.Workers[:w*3/4]
		case r >= q:
			e.Runners = e.Runners[:r*3/4]
		default:
			e.Queues = e.Queues[:q*3/4]
		}
	}
}

// encodeStill is e without the times that pass by themselves.
func encodeStill(e *wire.Engine) []byte {
	still := *e
	still.Timestamp = wire.Time{}
	still.Workers = slices.Clone(e.Workers)
	for i := range still.Workers {
		if still.Workers[i].Server == e.Server {
			still.Workers[i].Seen = wire.Time{}
		}
	}
	return encodeEngine(&still)
}
