// Package memory is the broker inside one process: what `make run` runs on, and what tests use to
// make a broker misbehave on demand (faults.go). It keeps every promise of package broker, for the
// life of a Broker: nothing is written to disk.
//
// It is a pure Store under one mutex, with links and consumers as a thin shell around it. A
// simulator drives the Store alone. An idle broker has no goroutine.
package memory

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"

	"github.com/wscluster/wscluster/pkg/broker"
)

// Options bounds a Broker. The zero value is a good default.
type Options struct {
	Limits // of each queue

	// Window bounds the unanswered publishes of one link; beyond it Publish blocks.
	Window int // 0 means 4,096

	// Inbox bounds the unread control messages of one link; beyond it new ones are dropped.
	Inbox int // 0 means 1,024
}

// Broker is one broker in memory; every process that is to meet the others there joins the same
// one. It holds its queues, each within the bounds of Options, until it is garbage.
type Broker struct {
	window, inbox int // set once

	mu         sync.Mutex
	store      *Store
	links      []*link // alive, oldest first
	generation uint64
	dropped    uint64        // control messages that met a full inbox
	down       bool          // Join fails
	unblocked  chan struct{} // closed when publishes flow again; nil while they do
	onPublish  func(Publish) Verdict
	recorded   chan struct{} // closed by the next record of the ledger; nil while nobody waits for one
}

var _ broker.Broker = (*Broker)(nil)

// New returns an empty broker. It needs no Close: it is garbage when its links have ended.
func New(o Options) *Broker {
	return &Broker{
		window: cmp.Or(o.Window, 4096),
		inbox:  cmp.Or(o.Inbox, 1024),
		store:  NewStore(o.Limits),
	}
}

// Join takes id's lock. It never blocks.
func (b *Broker) Join(ctx context.Context, id broker.Identity) (broker.Link, error) {
	if ctx.Err() != nil {
		return nil, fmt.Errorf("join as %v: %w", id, context.Cause(ctx))
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.down {
		return nil, fmt.Errorf("join as %v: %w", id, errDown)
	}
	l := newLink(b, id)
	var err error
	if l.in, err = b.store.Join(id, l.post); err != nil {
		return nil, err
	}
	b.generation++
	l.generation = b.generation
	b.links = append(b.links, l)
	return l, nil
}

// Messages returns what lies in the queue of that name, as Store.Messages does.
func (b *Broker) Messages(queue string) []broker.Message {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.store.Messages(queue)
}

// Depth counts the messages that wait in a queue and those that its takers hold unsettled.
func (b *Broker) Depth(queue string) (ready, unsettled int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.store.Depth(queue)
}

// Dropped counts the control messages that were dropped because an inbox was full.
func (b *Broker) Dropped() uint64 {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.dropped
}

// end ends links at one moment, for a reason (nil: they were closed): their locks are free, their
// consumers closed, their unanswered publishes Unknown, and what they had not settled goes to
// others. b.mu is held.
func (b *Broker) end(reason error, links ...*link) {
	links = slices.Clone(links) // they may be b.links itself
	b.links = slices.DeleteFunc(b.links, func(l *link) bool { return slices.Contains(links, l) })
	var ins []*Inbox
	for _, l := range links {
		ins = append(ins, l.in)
	}
	b.store.Leave(ins...)
	for _, l := range links {
		l.end(reason)
	}
}
