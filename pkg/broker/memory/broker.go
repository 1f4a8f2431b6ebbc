// Package memory is the broker inside one process: what `make run` runs on, and what tests use to
// make a broker misbehave on demand (faults.go). It keeps every promise of package broker, for the
// life of a Broker: nothing is written to disk.
//
// It is a pure store of queues (store.go, queue.go) under one mutex, with links and consumers as a
// thin shell around it. An idle broker has no goroutine.
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
	// QueueMessages and QueueBytes bound what waits in one mailbox, task queue or dead queue, by
	// number and by bytes of bodies; beyond either a publish to it is Refused. As in RabbitMQ,
	// what its takers hold unsettled does not count: it is bounded by their prefetch.
	QueueMessages int // 0 means 200,000
	QueueBytes    int // 0 means 64 MiB

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
	store      *store
	links      []*link // alive, oldest first
	generation uint64
	dropped    uint64        // control messages that met a full inbox
	down       bool          // Join fails
	unblocked  chan struct{} // closed when publishes flow again; nil while they do
	onPublish  func(Publish) Verdict
}

var _ broker.Broker = (*Broker)(nil)

// New returns an empty broker. It needs no Close: it is garbage when its links have ended.
func New(o Options) *Broker {
	return &Broker{
		window: cmp.Or(o.Window, 4096),
		inbox:  cmp.Or(o.Inbox, 1024),
		store:  newStore(limit{cmp.Or(o.QueueMessages, 200_000), cmp.Or(o.QueueBytes, 64<<20)}),
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
	if !b.store.join(&l.in) {
		return nil, fmt.Errorf("join as %v: %w", id, broker.ErrLocked)
	}
	b.generation++
	l.generation = b.generation
	b.links = append(b.links, l)
	return l, nil
}

// Messages returns what lies in the queue of that name (broker.MailboxQueue, TasksQueue, QueueParked,
// QueueDeadEvents, QueueDeadTasks): first what its takers hold unsettled, then what waits, each in
// order. It is nil for a queue that does not exist.
func (b *Broker) Messages(queue string) []broker.Message {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.store.messages(queue)
}

// Depth counts the messages that wait in a queue and those that its takers hold unsettled.
func (b *Broker) Depth(queue string) (ready, unsettled int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if q := b.store.queues[queue]; q != nil {
		return len(q.ready), q.held
	}
	return 0, 0
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
	var ins []*inbox
	var takers []*taker
	for _, l := range links {
		ins = append(ins, &l.in)
		takers = append(takers, l.takers()...)
	}
	b.store.leave(ins, takers)
	for _, l := range links {
		l.end(reason)
	}
}
