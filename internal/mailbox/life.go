package mailbox

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/wscluster/wscluster/internal/session"
	"github.com/wscluster/wscluster/pkg/broker"
	"github.com/wscluster/wscluster/pkg/socketmeta"
	"github.com/wscluster/wscluster/pkg/wire"
)

// life is one ownership of one mailbox: from acquiring it to giving it up.
type life struct {
	*service
	id     uint64
	server socketmeta.ServerID
	box    broker.Mailbox
	held   atomic.Int64  // events delivered, from the mailbox and its overflow, and not settled
	size   atomic.Int64  // bytes of the messages that they came in
	jobs   atomic.Int64  // under way
	ending atomic.Bool   // it is being given up or deleted
	stop   chan struct{} // closed to give it up
	taken  chan []broker.Delivery
	wake   chan struct{} // cap 1: refs wait in settled, or a job has ended

	mu       sync.Mutex
	settled  []session.Ref // guarded by mu; at most one for each event
	unburied []unreadable  // guarded by mu; the same; by when they are tried again

	// Touched only by run.
	pins     pins
	full     bool // at a cap
	paused   bool // the deliveries are stopped
	relieved time.Time
	arrived  []session.Arrival // read and not delivered yet
	settling []session.Ref     // the last of settled: its room is used again
	tags     []uint64          // of deliveries that are settled together; the same
}

// begin makes a life, which run then lives.
func (s *service) begin(server socketmeta.ServerID, box broker.Mailbox) *life {
	l := &life{
		service: s, id: s.Mailbox.lives.Add(1), server: server, box: box,
		stop: make(chan struct{}), taken: make(chan []broker.Delivery), wake: make(chan struct{}, 1),
	}
	s.mu.Lock()
	s.lives[l.id] = l
	n := len(s.lives)
	s.mu.Unlock()
	s.o.Metrics.Owned.Set(float64(n))
	if server != s.o.Server {
		s.o.Metrics.Adopted.Inc()
		s.o.Log.Info("the mailbox of a worker that is gone is adopted", zap.String("mailbox", string(server)))
	}
	return l
}

// run takes deliveries and settles what is done with, until the life ends. An error ends the link.
func (l *life) run(ctx context.Context) error {
	if err := l.own(ctx); err != nil || ctx.Err() != nil {
		return err
	}
	l.letGo(ctx)
	return nil
}

// own returns nil when the mailbox is to be given up, or is deleted.
func (l *life) own(ctx context.Context) error {
	look := time.NewTicker(lookEvery)
	defer look.Stop()
	settle := time.NewTimer(settleWithin)
	defer settle.Stop()
	due := settle.C // nil while nothing is to be settled
	for {
		select {
		case now := <-look.C: // throttle: perhaps all that is held waits for what does not fit, and nothing comes
			l.buryAgain(now)
			l.unpin(now)
		case <-ctx.Done():
			return nil
		case <-l.stop:
			return nil
		case d, ok := <-l.box.Deliveries():
			if !ok && l.ending.Load() {
				return nil
			} else if !ok {
				return fmt.Errorf("the mailbox of %s was taken away: %w", l.server, errors.Join(l.box.Err(), broker.ErrLinkGone))
			}
			l.takeReady(d)
		case ds := <-l.taken:
			for some := range slices.Chunk(ds, maxTaken) {
				for _, d := range some {
					l.read(d, true)
				}
				l.deliver()
			}
		case <-l.wake:
			if due == nil {
				settle.Reset(settleWithin)
				due = settle.C
			}
		case <-due:
			due = nil
			if err := l.settleAll(); err != nil {
				return err
			}
		}
		if err := l.throttle(ctx); err != nil {
			return err
		}
	}
}

// letGoWithin bounds how long copies on their way hold up a mailbox that is given up. What is not
// stored by then is delivered again, and a copy that is stored all the same is a duplicate.
const letGoWithin = 3 * time.Second

// letGo gives the mailbox up: copies on their way are awaited, the rest goes back to the broker.
func (l *life) letGo(ctx context.Context) {
	deadline := time.NewTimer(letGoWithin)
	defer deadline.Stop()
	for waiting := true; waiting && l.jobs.Load() > 0; {
		select {
		case <-l.wake:
			_ = l.settleAll() // an error comes from the link, which ends by itself
		case <-deadline.C:
			waiting = false
		case <-ctx.Done():
			return
		}
	}
	_ = l.settleAll()
	closing, cancel := context.WithTimeout(ctx, letGoWithin)
	defer cancel()
	if err := l.box.Close(closing); err != nil {
		l.o.Log.Warn("a mailbox is given up slowly", zap.String("mailbox", string(l.server)), zap.Error(err))
	}
	l.service.mu.Lock()
	delete(l.lives, l.id)
	n := len(l.lives)
	l.service.mu.Unlock()
	dropped := l.o.Sessions.Forget(l.id, time.Now())
	l.count(-l.held.Load(), -l.size.Load())
	l.o.Metrics.Owned.Set(float64(n))
	l.o.Log.Info("a mailbox is given up", zap.String("mailbox", string(l.server)), zap.Int("held", dropped))
	if l.server == l.o.Server {
		l.setOpen(false)
	}
	l.report(func() { l.core.released(l.server) })
}

// overflow hands deliveries of the overflow to run.
func (l *life) overflow(ctx context.Context, ds []broker.Delivery) {
	if len(ds) == 0 {
		return
	}
	select {
	case l.taken <- ds:
	case <-l.stop:
	case <-ctx.Done():
	}
}

// fault is what becomes of an error of the mailbox: it ends the link, unless the mailbox is being
// given up anyway.
func (l *life) fault(what string, err error) error {
	if err == nil || l.ending.Load() {
		return nil
	}
	return fmt.Errorf("%s the mailbox of %s: %w", what, l.server, err)
}

// What is taken from a mailbox at once.
const (
	maxTaken      = 64        // events, and the rest of one batch
	maxTakenBytes = 256 << 10 // bytes, but that of one event
)

// takeReady takes d and what is there behind it, so that what goes to one client goes together.
func (l *life) takeReady(d broker.Delivery) {
	l.read(d, false)
	for n, bytes := 1, len(d.Body); max(n, len(l.arrived)) < maxTaken && bytes < maxTakenBytes; n++ {
		select {
		case d, ok := <-l.box.Deliveries():
			if !ok { // who reads it next finds out why
				l.deliver()
				return
			}
			bytes += len(d.Body)
			l.read(d, false)
		default:
			l.deliver()
			return
		}
	}
	l.deliver()
}

// deliver passes what was read to the sessions.
func (l *life) deliver() {
	if len(l.arrived) == 0 {
		return
	}
	l.o.Metrics.taken.Add(float64(len(l.arrived)))
	l.apply(l.o.Sessions.DeliverAll(l.arrived, l.tight(), time.Now()))
	clear(l.arrived)
	l.arrived = l.arrived[:0]
}

// read makes an event of one delivery, for deliver; one that cannot be read goes to the dead events.
func (l *life) read(d broker.Delivery, overflow bool) {
	ref := session.Ref{Mailbox: l.server, Life: l.id, Tag: d.Tag, Bytes: len(d.Body), Overflow: overflow}
	if d.Type == wire.BatchType {
		l.readBatch(d, ref)
		return
	}
	l.count(1, int64(ref.Bytes))
	e, err := wire.DecodeEvent(d.Type, d.Correlation, d.Headers, d.Body)
	if err != nil {
		l.refuse(d, ref, err)
		return
	}
	l.arrived = append(l.arrived, session.Arrival{Event: e, Ref: ref})
}

// readBatch does so with all events of a batch.
func (l *life) readBatch(d broker.Delivery, ref session.Ref) {
	batch, err := wire.DecodeBatch(d.Body)
	if err != nil {
		l.count(1, int64(ref.Bytes))
		l.refuse(d, ref, err)
		return
	}
	clients := make([]socketmeta.ClientID, len(batch))
	for i := range batch {
		clients[i] = batch[i].Event.Client
	}
	l.pins.take(d.Tag, clients, time.Now().UnixMilli())
	l.count(int64(len(batch)), int64(ref.Bytes))
	for i := range batch {
		ref.Part = part(i)
		if err := batch[i].Err; err != nil {
			alone := d
			alone.Body = batch[i].Alone
			l.refuse(alone, ref, err)
			continue
		}
		l.arrived = append(l.arrived, session.Arrival{Event: batch[i].Event, Ref: ref})
	}
}

// refuse sees to what cannot be read.
func (l *life) refuse(d broker.Delivery, ref session.Ref, why error) {
	l.o.Log.Warn("an event cannot be read and goes to the queue "+broker.QueueDeadEvents,
		zap.String("app", d.App), zap.String("message_id", d.ID), zap.Error(why))
	l.bury(unreadable{Delivery: d, ref: ref})
}

// How long a batch is kept for an event that waits for its client, and, where much is held, for one that is with the
// client's socket; lookEvery may pass before that is seen. Else it is kept for that one until it is acknowledged, or the
// socket is closed: published again it would be sent again, with all that was sent after it.
const (
	pinFor     = time.Second
	pinSentFor = 5 * time.Second
)

// unpin lets go of the batches that are kept for events which wait.
func (l *life) unpin(now time.Time) {
	waiting, sent := pinnedSince(now, l.tight())
	if clients := l.pins.since(waiting.UnixMilli()); len(clients) > 0 {
		l.apply(l.o.Sessions.Unpin(clients, waiting, sent))
	}
}

// pinnedSince is since when an event that waits, or that was sent, keeps its batch for too long.
func pinnedSince(now time.Time, tight bool) (waiting, sent time.Time) {
	if tight {
		sent = now.Add(-pinSentFor)
	}
	return now.Add(-pinFor), sent
}

// settleWithin is how long what is done with waits for more, so that one frame to the broker settles a run of
// deliveries; it was measured in ADR 26.
const settleWithin = 5 * time.Millisecond

// settle hands refs to run. It never blocks.
func (l *life) settle(refs []session.Ref) {
	if len(refs) == 0 {
		return
	}
	l.mu.Lock()
	first := len(l.settled) == 0
	l.settled = append(l.settled, refs...)
	l.mu.Unlock()
	if first {
		l.poke()
	}
}

func (l *life) poke() {
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// settleAll acknowledges to the broker what is done with.
func (l *life) settleAll() error {
	l.mu.Lock()
	refs := l.settled
	l.settled, l.settling = l.settling[:0], refs
	l.mu.Unlock()
	if len(refs) == 0 {
		return nil
	}
	if cap(refs) > 4*maxTaken {
		l.settling = nil
		defer func() { l.tags = nil }()
	}
	bytes := 0
	defer func() { l.count(-int64(len(refs)), -int64(bytes)) }()
	l.tags = l.tags[:0]
	for _, r := range refs {
		if l.pins.settle(r) {
			bytes += r.Bytes
			l.tags = append(l.tags, r.Tag)
		}
	}
	if len(l.tags) == 0 {
		return nil
	}
	return l.fault("settle deliveries of", l.box.Ack(l.tags...))
}

func (l *life) count(events, bytes int64) {
	l.held.Add(events)
	l.size.Add(bytes)
	l.Mailbox.bytes.Add(bytes)
	l.o.Metrics.Held.Add(float64(events))
	l.o.Metrics.HeldBytes.Add(float64(bytes))
}

// tight reports whether so much is held that what cannot be sent at once goes into the overflow.
func (l *life) tight() bool {
	return l.held.Load() >= int64(l.o.MaxHeld)/4*3 || l.Mailbox.bytes.Load() >= int64(l.o.MaxHeldBytes)/4*3
}

// lookEvery is how often room is made, where much is held.
const lookEvery = time.Second

// throttle makes room when much is held: the clients' waiting events go into the overflow. At the
// cap it says that the worker is full, and at that of bytes it stops the deliveries; at that of events too
// if there are batches among them (else it is the broker's prefetch, which counts messages). Below three
// quarters all goes on.
func (l *life) throttle(ctx context.Context) error {
	if l.tight() && time.Since(l.relieved) >= lookEvery {
		l.relieved = time.Now()
		l.apply(l.o.Sessions.Relieve(l.relieved))
	}
	held, bytes := l.held.Load(), l.Mailbox.bytes.Load()
	switch {
	case !l.full && (held >= int64(l.o.MaxHeld) || bytes >= int64(l.o.MaxHeldBytes)):
		l.full = true
		why := fmt.Sprintf("%d events (%d bytes in all) wait for their clients, at the cap of %d events or %d bytes: no more are taken from the mailbox of %s until some are acknowledged or put into its overflow",
			held, bytes, l.o.MaxHeld, l.o.MaxHeldBytes, l.server)
		if l.server == l.o.Server {
			l.setCapped(why)
		}
		l.o.Log.Warn(why)
		if bytes >= int64(l.o.MaxHeldBytes) || len(l.pins.batches) > 0 {
			l.paused = true
			return l.fault("pause", l.box.Pause(ctx))
		}
	case l.full && !l.tight():
		l.full = false
		if l.server == l.o.Server {
			l.setCapped("")
		}
		l.o.Log.Info("the mailbox takes events again", zap.String("mailbox", string(l.server)), zap.Int64("held", held), zap.Int64("bytes", bytes))
		if l.paused {
			l.paused = false
			return l.fault("resume", l.box.Resume(ctx))
		}
	}
	return nil
}
