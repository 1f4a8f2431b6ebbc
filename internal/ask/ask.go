// Package ask puts questions of backends to clients, wherever in the cluster they are, and brings the answers
// back to the worker that was asked. It owns the questions that are open at one worker, and the answers that it keeps for
// who asks again; HTTP and sockets are the worker's.
//
// Nothing is polled: a client that comes back is announced (core.go). Nothing is stored either: a worker that dies takes its
// open questions along, and who asked asks another one under the same key, which the client answers without
// doing it twice. The rules are in core, which is pure; Desk locks, and does what core orders.
package ask

import (
	"context"
	"encoding/json"
	"sync"
	"time"

	"github.com/wscluster/wscluster/pkg/broker"
	"github.com/wscluster/wscluster/pkg/socketmeta"
	"github.com/wscluster/wscluster/pkg/wire"
)

// MaxWithin is how long a question may be open.
const MaxWithin = 5 * time.Minute

// Question is what a backend asks of a client. It must be one that wire.AskClient takes.
type Question struct {
	Client socketmeta.ClientID
	Key    string // two questions with one client and one key are one
	Name   string
	Body   json.RawMessage // nil for none
	Within time.Duration   // more than 0, at most MaxWithin
}

// Answer is a client's: Body, or Error, a text for people.
type Answer struct {
	Body  json.RawMessage
	Error string
}

func (a *Answer) size() int { return len(a.Body) + len(a.Error) }

// Options of a desk. All must be set; none of the functions may block.
type Options struct {
	Server socketmeta.ServerID
	Say    func(broker.Address, wire.ControlMessage)          // may lose it
	Send   func(socketmeta.ClientID, wire.ServerMessage) bool // to the client's connection here; false if it has none, or no room
	Where  func([]socketmeta.ClientID) []wire.Claim           // those that are attached here
}

// Desk is where one worker asks clients. It may be used by many goroutines, and has none of its own.
type Desk struct {
	o Options

	mu      sync.Mutex
	core    *core                   // guarded by mu
	waiting map[wire.RunID]*outcome // guarded by mu
	timer   *time.Timer             // guarded by mu; nil before the first question
	closed  bool                    // guarded by mu
}

// outcome is what a question came to.
type outcome struct {
	done   chan struct{} // closed when the rest may be read
	answer *Answer
	err    *wire.Error
}

// New returns a desk without questions.
func New(o Options) *Desk {
	return &Desk{o: o, core: newCore(o.Server), waiting: map[wire.RunID]*outcome{}}
}

// Ask asks a client and waits for its answer, for q.Within at most, through any number of its connections to any
// workers and through the loss of this worker's broker. One with the client and the key of an earlier question, which
// is open or was answered in the last 10 minutes (and among the last 1,000, and 16 MiB), gets that one's answer. When ctx ends the
// question stays open for who asks again, and the error is ctx's. Else it is a *wire.Error: no_answer, conflict (the key was
// used for something else), overloaded, or unavailable because the worker stops.
func (d *Desk) Ask(ctx context.Context, q Question) (*Answer, error) {
	var answer *Answer
	var refused *wire.Error
	var w *outcome
	var asked wire.RunID
	d.do(func(c *core, now time.Time) {
		if d.closed {
			refused = errClosed
			return
		}
		if answer, asked, refused = c.asked(q, wire.NewRunID(), now); answer != nil || refused != nil {
			return
		}
		if w = d.waiting[asked]; w == nil {
			w = &outcome{done: make(chan struct{})}
			d.waiting[asked] = w
		}
	})
	switch {
	case refused != nil:
		return nil, refused
	case answer != nil:
		return answer, nil
	}
	late := time.NewTimer(q.Within) // sooner than the question's end, perhaps, where it is one of others
	defer late.Stop()
	select {
	case <-w.done:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	case <-late.C:
		return nil, d.unanswered(asked)
	}
	if w.err != nil {
		return nil, w.err
	}
	return w.answer, nil
}

var errClosed = wire.Errorf(wire.CodeUnavailable, "this worker stops; ask another one, under the same key")

func (d *Desk) unanswered(ask wire.RunID) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	q := d.core.open[ask]
	return noAnswer(q != nil && q.reached)
}

// Reply takes the reply of a client that is attached here to a question of whichever worker. The error is for the client.
func (d *Desk) Reply(client socketmeta.ClientID, m *wire.Reply) (refused *wire.Error) {
	d.do(func(c *core, now time.Time) { refused = c.reply(client, m, now) })
	return refused
}

// Hear takes what other workers say. It does not block.
func (d *Desk) Hear(m wire.ControlMessage) {
	switch m.(type) {
	case *wire.AskClient, *wire.Reached, *wire.ClientReplied, *wire.Moved, *wire.Owner:
		d.do(func(c *core, now time.Time) { c.heard(m, now) })
	}
}

// Attached is told that a client has been attached here; moved says that it came from another worker, and that all workers
// are told so. It does not block.
func (d *Desk) Attached(client socketmeta.ClientID, moved bool) {
	d.do(func(c *core, now time.Time) { c.attached(client, moved, now) })
}

// Part runs on each link to the broker. It blocks until ctx ends.
func (d *Desk) Part(ctx context.Context, _ broker.Link) error {
	d.do(func(c *core, now time.Time) { c.linked(now) })
	<-ctx.Done()
	return nil
}

// Close gives up what is open, with unavailable, and refuses what is asked from now on.
func (d *Desk) Close() {
	d.do(func(c *core, _ time.Time) {
		d.closed = true
		c.giveUp(errClosed)
	})
}

// Open returns how many questions wait for their answers.
func (d *Desk) Open() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.core.open)
}

// do has the core decide under the lock, and does what it orders outside of it.
func (d *Desk) do(decide func(*core, time.Time)) {
	d.mu.Lock()
	decide(d.core, time.Now())
	orders := d.core.takeOrders()
	for _, o := range orders {
		if o.verb == resolve {
			d.resolve(o)
		}
	}
	d.setTimer()
	d.mu.Unlock()
	for _, o := range orders {
		d.carryOut(o)
	}
}

// resolve is guarded by mu.
func (d *Desk) resolve(o order) {
	if w := d.waiting[o.ask]; w != nil {
		delete(d.waiting, o.ask)
		w.answer, w.err = o.answer, o.err
		close(w.done)
	}
}

// setTimer is guarded by mu.
func (d *Desk) setTimer() {
	next := d.core.next()
	switch {
	case d.timer == nil && next.IsZero():
	case d.closed || next.IsZero():
		d.timer.Stop()
	case d.timer == nil:
		d.timer = time.AfterFunc(time.Until(next), func() {
			d.do(func(c *core, now time.Time) { c.tick(now) })
		})
	default:
		d.timer.Reset(time.Until(next))
	}
}

func (d *Desk) carryOut(o order) {
	switch o.verb {
	case deliver:
		if d.deliver(o.message) {
			d.o.Say(broker.ToControl(broker.Worker(o.message.From)), &wire.Reached{Ask: o.message.Ask, Server: d.o.Server})
		}
	case send:
		switch {
		case d.deliver(o.message):
			d.do(func(c *core, now time.Time) { c.reached(o.message.Ask, now) })
		case o.to == "":
			d.o.Say(broker.ToAll(), o.message)
		case o.to != d.o.Server:
			d.o.Say(broker.ToControl(broker.Worker(o.to)), o.message)
		}
	case say:
		d.o.Say(broker.ToControl(broker.Worker(o.to)), o.reply)
	case tellHere:
		if claims := d.o.Where([]socketmeta.ClientID{o.client}); len(claims) > 0 {
			d.o.Say(broker.ToControl(broker.Worker(o.to)), &wire.Moved{From: d.o.Server, Clients: claims})
		}
	}
}

// deliver sends a question to its client, if that has a connection here.
func (d *Desk) deliver(m *wire.AskClient) bool {
	return d.o.Send(m.Client, &wire.Request{ID: requestID(m), Key: m.Key, Name: m.Name, Body: m.Body, TimeoutMS: m.TimeoutMS})
}
