// Package session is what a worker remembers of a client between its sockets: which socket has
// the session now, the client's tasks and how far it is in each, and the events that it has not
// acknowledged.
//
// The rules are in core, which is pure. Around it, Registry finds sessions by client and by
// connection, and Session locks. A session sends under its own lock: Socket.Send never blocks
// and never calls back, and decided under the lock but sent outside it, two deliverers swapped
// frames in 25 of 200 runs of a prototype. What is to be settled with the broker is returned to the
// caller, the mailbox, and done outside.
package session

import (
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/wscluster/wscluster/internal/engine"
	"github.com/wscluster/wscluster/pkg/socketmeta"
	"github.com/wscluster/wscluster/pkg/wire"
)

// Socket is what sessions send by. Neither method blocks or calls back. *engine.Engine is one.
type Socket interface {
	Send(engine.ConnRef, *engine.Frame) error
	CloseConn(c engine.ConnRef, code engine.StatusCode, reason string, last *engine.Frame)
}

// Options of a registry.
type Options struct {
	Socket     Socket
	Window     time.Duration // how long an absent client may come back; 0 means 10 min
	AckTimeout time.Duration // a socket whose client acknowledges nothing for so long is closed; 0 means 60 s
}

// Registry holds the sessions of one worker. All methods are safe for concurrent use, and none blocks.
type Registry struct {
	options Options

	mu       sync.RWMutex
	byClient map[socketmeta.ClientID]*Session // guarded by mu
	byConn   map[engine.ConnRef]*Session      // guarded by mu
}

// New returns an empty registry.
func New(o Options) *Registry {
	if o.Window == 0 {
		o.Window = 10 * time.Minute
	}
	if o.AckTimeout == 0 {
		o.AckTimeout = time.Minute
	}
	return &Registry{options: o, byClient: make(map[socketmeta.ClientID]*Session), byConn: make(map[engine.ConnRef]*Session)}
}

// Claim is what a hello presents, after the worker has verified it.
type Claim struct {
	Client    socketmeta.ClientID
	Subject   string
	Epoch     socketmeta.Epoch // of the token; 0 for a new session
	IssuedAt  time.Time        // of the token; zero for a new session
	Positions []wire.Position
}

// Welcome is what a session decided on a claim, given to the function that makes the first frame.
type Welcome struct {
	Epoch  socketmeta.Epoch
	States []wire.TaskStatus
}

// Attach gives the client's session to conn and closes the socket that had it before with
// wire.CloseReplaced. The first frame that conn gets is what welcome returns; it is called under
// the session's lock and must not block. All that is held and not covered by the claim's
// positions follows. The refs are to be settled.
//
// A token of any age resumes if it verifies: its epoch may be low because the last welcome was
// lost on the way. The epoch given out is higher than every one before it.
func (r *Registry) Attach(conn engine.ConnRef, c Claim, now time.Time, welcome func(Welcome) *engine.Frame) []Ref {
	s := r.lock(c.Client, now)
	defer s.mu.Unlock()
	r.mu.Lock()
	r.byConn[conn] = s
	r.mu.Unlock()
	epoch := max(s.core.epoch, c.Epoch).Next(now.UnixMilli())
	// A token is renewed every half window, so that a client which came back in time shows one
	// that is at most one and a half windows old.
	absent := now.Sub(c.IssuedAt) > r.options.Window+r.options.Window/2
	a := s.core.attach(conn, epoch, now, c.Positions, absent)
	s.subject, s.renewed = c.Subject, now
	if a.old != 0 && a.old != conn {
		r.options.Socket.CloseConn(a.old, wire.CloseReplaced, "replaced by a newer socket",
			frame(&wire.Bye{Code: wire.CloseReplaced, Reason: "replaced by a newer socket"}))
	}
	_ = r.options.Socket.Send(conn, welcome(Welcome{epoch, a.states})) // gone already: Detach will follow
	s.flush(now)
	return a.settle
}

// Detach notes that conn is gone. What its client has not acknowledged stays held.
func (r *Registry) Detach(conn engine.ConnRef, now time.Time) {
	r.mu.Lock()
	s := r.byConn[conn]
	delete(r.byConn, conn)
	r.mu.Unlock()
	if s != nil {
		s.mu.Lock()
		s.core.detach(conn, now)
		s.mu.Unlock()
	}
}

// Find returns the session that conn has, or nil: it was never attached, or is gone.
func (r *Registry) Find(conn engine.ConnRef) *Session {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.byConn[conn]
}

// Deliver takes an event from the mailbox: it is sent now, held until its client comes or has
// room, or dropped because the client has it. Held events are settled later, by an Ack; settle
// says that this one is done with now.
//
// A transient event makes no session: else a flood of them to made-up clients would fill memory.
func (r *Registry) Deliver(e *wire.Event, ref Ref, now time.Time) (settle bool) {
	if !e.Durable && !r.knows(e.Client) {
		return true
	}
	s := r.lock(e.Client, now)
	defer s.mu.Unlock()
	switch s.core.deliver(e, ref, wire.NewRunID) {
	case hold:
		s.flush(now)
		return false
	case pass:
		_ = r.options.Socket.Send(s.core.conn, eventFrame(e)) // no room or gone: the next progress is as good
	}
	return true
}

// lock returns the client's session, locked, making one of an absent client if there is none.
// Lock order: a session's lock before the registry's.
func (r *Registry) lock(id socketmeta.ClientID, now time.Time) *Session {
	for {
		r.mu.RLock()
		s := r.byClient[id]
		r.mu.RUnlock()
		if s == nil {
			r.mu.Lock()
			if s = r.byClient[id]; s == nil {
				s = &Session{Client: id, registry: r, core: core{since: now}}
				r.byClient[id] = s
			}
			r.mu.Unlock()
		}
		s.mu.Lock()
		if !s.expired {
			return s
		}
		s.mu.Unlock() // swept since it was found: look again
	}
}

func (r *Registry) knows(id socketmeta.ClientID) bool {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.byClient[id] != nil
}

// Forget drops every event that came in the given life of the mailbox or an earlier one: the
// broker delivers them again in the next. It returns how many were held.
func (r *Registry) Forget(generation uint64) (dropped int) {
	for _, s := range r.all() {
		s.mu.Lock()
		dropped += s.core.forget(generation)
		s.mu.Unlock()
	}
	return dropped
}

// Renew makes the frame that gives a client a fresh token.
type Renew func(c socketmeta.ClientID, e socketmeta.Epoch, subject string) *engine.Frame

// Sweep does what time asks for; call it every few seconds. Clients that acknowledge nothing are
// closed with wire.CloseSlow, tokens are renewed every half window, and a client that is away for
// longer than the window and for whom nothing is held is forgotten. It takes a time in
// proportion to the number of sessions.
func (r *Registry) Sweep(now time.Time, renew Renew) {
	for _, s := range r.all() {
		s.sweep(now, renew)
	}
}

// Tell sends f to every attached client.
func (r *Registry) Tell(f *engine.Frame) {
	for conn := range r.conns() {
		_ = r.options.Socket.Send(conn, f)
	}
}

// Bye closes every attached client's socket. Each is told to come back after a time of its own
// out of [0, spread), so that they do not all come at once.
func (r *Registry) Bye(code engine.StatusCode, reason string, spread time.Duration) {
	for conn := range r.conns() {
		after := time.Duration(0)
		if spread > 0 {
			after = rand.N(spread)
		}
		r.options.Socket.CloseConn(conn, code, reason,
			frame(&wire.Bye{Code: int(code), Reason: reason, RetryAfterMS: after.Milliseconds()}))
	}
}

// Count returns how many clients are known, and how many of them have a socket.
func (r *Registry) Count() (known, attached int) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return len(r.byClient), len(r.byConn)
}

func (r *Registry) all() []*Session {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return slices.Collect(maps.Values(r.byClient))
}

func (r *Registry) conns() map[engine.ConnRef]*Session {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return maps.Clone(r.byConn)
}
