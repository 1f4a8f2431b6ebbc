// Package session is what a worker remembers of a client between its sockets: which socket has
// the session now, or which other worker; the client's tasks and how far it is in each; and the
// events that it has not acknowledged.
//
// The rules are in core, which is pure: core.go for a client that is here, away.go for one that is
// not. Around it, Registry finds sessions by client and by connection, and Session locks. A session
// sends under its own lock: Socket.Send never blocks and never calls back, and decided under the
// lock but sent outside it, two deliverers swapped frames in 25 of 200 runs of a prototype. What is
// to be done with the broker is returned to the caller, the mailbox, as Effects, and done outside.
package session

import (
	"cmp"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/wscluster/wscluster/internal/engine"
	"github.com/wscluster/wscluster/pkg/socketmeta"
	"github.com/wscluster/wscluster/pkg/wire"
)

// Socket is what sessions send by. No method blocks or calls back. *engine.Engine is one.
type Socket interface {
	Send(engine.ConnRef, *engine.Frame) error
	SendBatch(c engine.ConnRef, fs []*engine.Frame) (taken int, err error)
	CloseConn(c engine.ConnRef, code engine.StatusCode, reason string, last *engine.Frame)
}

// Options of a registry. Socket and Server must be set.
type Options struct {
	Socket          Socket
	Server          socketmeta.ServerID
	Window          time.Duration     // how long an absent client may come back; 0 means 10 min
	AckTimeout      time.Duration     // a socket whose client acknowledges nothing for so long is closed; 0 means 60 s
	RefreshAfter    time.Duration     // an event held for so long is published again, so that no delivery is old; 0 means 5 min
	MaxSent         int               // events that are with a socket and not acknowledged: its send window; 0 means 256
	MaxSentBytes    int               // their bytes, but one event always passes; 0 means 256 KiB
	MaxWaiting      int               // events that wait for one client in memory, beside those sent; 0 means 1,000
	MaxWaitingBytes int               // their bytes; 0 means 2 MiB
	NewRun          func() wire.RunID // names the run of events that have no numbers; nil means wire.NewRunID
}

// Registry holds the sessions of one worker. All methods are safe for concurrent use, and none blocks.
type Registry struct {
	options Options

	mu       sync.RWMutex
	byClient map[socketmeta.ClientID]*Session // guarded by mu
	byConn   map[engine.ConnRef]*Session      // guarded by mu
	swept    time.Time                        // guarded by mu; when Sweep was called last

	sweeping sync.Mutex
	sweep    []*Session // guarded by sweeping; for one Sweep, and its room for the next
}

// New returns an empty registry.
func New(o Options) *Registry {
	o.Window = cmp.Or(o.Window, 10*time.Minute)
	o.AckTimeout = cmp.Or(o.AckTimeout, time.Minute)
	o.RefreshAfter = cmp.Or(o.RefreshAfter, 5*time.Minute)
	o.MaxSent = cmp.Or(o.MaxSent, 256)
	o.MaxSentBytes = cmp.Or(o.MaxSentBytes, 256<<10)
	o.MaxWaiting = cmp.Or(o.MaxWaiting, 1000)
	o.MaxWaitingBytes = cmp.Or(o.MaxWaitingBytes, 2<<20)
	if o.NewRun == nil {
		o.NewRun = wire.NewRunID
	}
	return &Registry{options: o, byClient: make(map[socketmeta.ClientID]*Session), byConn: make(map[engine.ConnRef]*Session)}
}

// Claim is what a hello presents, after the worker has verified it.
type Claim struct {
	Client    socketmeta.ClientID
	Subject   string
	Epoch     socketmeta.Epoch    // of the token; 0 for a new session
	Server    socketmeta.ServerID // of the token; "" for a new session
	IssuedAt  time.Time           // of the token; zero for a new session
	Positions []wire.Position
}

// Welcome is what a hello is answered with.
type Welcome struct {
	Epoch  socketmeta.Epoch
	States []wire.TaskStatus
}

// Welcome says what to answer to a hello. It gives nothing to anybody: a session that is resumed
// is attached when the client has confirmed that it heard the answer (docs/adr/0006). A token of
// any age resumes if it verifies: its epoch may be low because the last welcome was lost.
func (r *Registry) Welcome(c Claim, now time.Time) Welcome {
	// That nothing will come of a task is only told to a new session, which nobody holds anything for:
	// of one that is resumed others may hold events or a gap, or a runner may be at work still.
	fresh := c.IssuedAt.IsZero()
	w := Welcome{Epoch: c.Epoch}
	r.mu.RLock()
	s := r.byClient[c.Client]
	r.mu.RUnlock()
	if s == nil {
		w.States = new(core).states(c.Positions, fresh)
	} else {
		s.mu.Lock()
		w.Epoch, w.States = max(w.Epoch, s.core.known().epoch), s.core.states(c.Positions, fresh)
		s.mu.Unlock()
	}
	w.Epoch = w.Epoch.Next(now.UnixMilli())
	return w
}

// Attach gives the client's session to conn under epoch, which Welcome gave out, and closes the
// socket that had it before with wire.CloseReplaced. All that is held and not covered by the
// claim's positions follows. False if somebody has the session in a higher epoch by now: conn is
// closed with wire.CloseReplaced, and that is all.
func (r *Registry) Attach(conn engine.ConnRef, epoch socketmeta.Epoch, c Claim, now time.Time) (fx Effects, ok bool) {
	s := r.lock(c.Client, now)
	defer s.mu.Unlock()
	elsewhere := c.Server != "" && c.Server != r.options.Server
	old, ok := s.core.attach(conn, epoch, elsewhere, c.Positions, now.UnixMilli(), &fx)
	if !ok {
		r.options.close(conn, wire.CloseReplaced, "replaced by a newer socket")
		return fx, false
	}
	r.mu.Lock()
	r.byConn[conn] = s
	r.mu.Unlock()
	s.subject, s.renewed, s.told = c.Subject, uint32(now.UnixMilli()), false
	if old != 0 && old != conn {
		r.options.close(old, wire.CloseReplaced, "replaced by a newer socket")
	}
	s.flush(now, &fx)
	return fx, true
}

// Detach notes that conn is gone. What its client has not acknowledged stays held.
func (r *Registry) Detach(conn engine.ConnRef, now time.Time) (fx Effects) {
	r.mu.Lock()
	s := r.byConn[conn]
	delete(r.byConn, conn)
	r.mu.Unlock()
	if s != nil {
		s.mu.Lock()
		s.core.detach(conn, now.UnixMilli(), &fx)
		s.mu.Unlock()
	}
	return fx
}

// Moved notes that clients are attached to another worker. What is held for them is passed on;
// their sockets here, if they had any, are closed with wire.CloseMoved. A claim that is older than
// what is known of a client changes nothing, nor does one for a client that is not known at all.
func (r *Registry) Moved(from socketmeta.ServerID, claims []wire.Claim, now time.Time) (fx Effects) {
	for _, c := range claims {
		s := r.find(c.Client)
		if s == nil {
			continue
		}
		s.mu.Lock()
		if old := s.core.move(place{c.Epoch, from}, now.UnixMilli(), &fx); old != 0 {
			r.options.close(old, wire.CloseMoved, "the session is attached to another worker")
		}
		s.mu.Unlock()
	}
	return fx
}

// Attached returns those of the clients that have a socket here, with their epochs.
func (r *Registry) Attached(clients []socketmeta.ClientID) (claims []wire.Claim) {
	for _, id := range clients {
		s := r.find(id)
		if s == nil {
			continue
		}
		s.mu.Lock()
		if s.core.conn != 0 {
			claims = append(claims, wire.Claim{Client: id, Epoch: s.core.epoch})
		}
		s.mu.Unlock()
	}
	return claims
}

// Send sends f to the client, and reports whether it was handed to a socket: the client has none here, or no
// room, and then its socket is closed with wire.CloseSlow.
func (r *Registry) Send(client socketmeta.ClientID, f *engine.Frame) bool {
	s := r.find(client)
	if s == nil {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.sendFrame(f)
}

// Find returns the session that conn has, or nil: it was never attached, or is gone.
func (r *Registry) Find(conn engine.ConnRef) *Session {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.byConn[conn]
}

// Holder returns the client's session if it was last attached here, in this epoch, and its window is not
// over; nil if not. conn is 0 while the client is away.
func (r *Registry) Holder(client socketmeta.ClientID, epoch socketmeta.Epoch) (s *Session, conn engine.ConnRef) {
	s = r.find(client)
	if s == nil {
		return nil, 0
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.core.epoch != epoch || s.core.expired() || s.expired {
		return nil, 0
	}
	return s, s.core.conn
}

// Deliver takes an event from the mailbox: it is sent now, held until its client comes or has
// room, passed on to the worker that has the client, or dropped because the client has it. tight
// says that the worker holds too much: what cannot be sent at once goes into the overflow.
//
// A transient event makes no session: else a flood of them to made-up clients would fill memory.
func (r *Registry) Deliver(e *wire.Event, ref Ref, tight bool, now time.Time) (fx Effects) {
	one := [1]Arrival{{Event: *e, Ref: ref}}
	r.deliver(one[:], tight, now, &fx)
	return fx
}

// Arrival is an event from the mailbox.
type Arrival struct {
	Event wire.Event
	Ref   Ref

	done bool
}

// DeliverAll is Deliver for several events: those of one client go to its socket together, in their order. It looks at each as
// often as there are clients: give it no more than some tens.
func (r *Registry) DeliverAll(in []Arrival, tight bool, now time.Time) (fx Effects) {
	for i := range in {
		if !in[i].done {
			r.deliver(in[i:], tight, now, &fx)
		}
	}
	return fx
}

// deliver is Deliver for those of in that are of the first one's client.
func (r *Registry) deliver(in []Arrival, tight bool, now time.Time, fx *Effects) {
	client, ms := in[0].Event.Client, now.UnixMilli()
	var s *Session
	var b *batch
	held, waits := false, false // events are in queues, and may be sent
	for i := range in {
		a := &in[i]
		e := &a.Event
		if a.done || e.Client != client {
			continue
		}
		a.done = true
		if s == nil {
			if !e.Durable && r.find(client) == nil {
				fx.Settle = append(fx.Settle, a.Ref)
				fx.Dropped++
				continue
			}
			s, b = r.lock(client, now), batches.Get().(*batch)
		}
		if e.Durable && b.durable {
			s.empty(b) // the rules may change what was handed out
		}
		switch s.core.deliver(e, a.Ref, ms, fx) {
		case kept:
			held, waits = true, true
		case pass:
			if waits { // it comes after them
				s.fill(b, now)
				waits = false
			}
			s.add(b, eventFrame(e), nil)
		}
	}
	if s == nil {
		return
	}
	if waits {
		s.fill(b, now)
	}
	s.empty(b)
	batches.Put(b)
	if held {
		s.core.keepCaps(ms, fx)
		if tight {
			s.core.relieve(ms, fx)
		}
	}
	s.mu.Unlock()
}

// Done notes how a job ended.
func (r *Registry) Done(j *Job, end End, now time.Time) (fx Effects) {
	s := r.find(j.Client) // kept while a job of it is under way
	if s == nil {
		return fx
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.core.over(j, end, now.UnixMilli(), &fx)
	s.flush(now, &fx)
	return fx
}

// lock returns the client's session, locked, making one of an absent client if there is none.
// Lock order: a session's lock before the registry's.
func (r *Registry) lock(id socketmeta.ClientID, now time.Time) *Session {
	for {
		s := r.find(id)
		if s == nil {
			r.mu.Lock()
			if s = r.byClient[id]; s == nil {
				s = &Session{core: core{o: &r.options, client: id, heard: now.UnixMilli()}}
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

func (r *Registry) find(id socketmeta.ClientID) *Session {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.byClient[id]
}

// Forget drops every event that came in one life of a mailbox, or in any for 0: the broker
// delivers them again in the next. It returns how many were held.
func (r *Registry) Forget(life uint64, now time.Time) (dropped int) {
	for _, s := range r.all() {
		s.mu.Lock()
		dropped += s.core.forget(life, now.UnixMilli())
		s.mu.Unlock()
	}
	return dropped
}

// Unpin publishes again, each alone, the events of these clients that came in batches, for each of them keeps a whole
// message: those that came at the time waiting or before, and those that are with a socket and came at the time sent or
// before, for they go out once more.
func (r *Registry) Unpin(clients []socketmeta.ClientID, waiting, sent time.Time) (fx Effects) {
	for _, id := range clients {
		if s := r.find(id); s != nil {
			s.mu.Lock()
			s.core.unpin(waiting.UnixMilli(), sent.UnixMilli(), &fx)
			s.mu.Unlock()
		}
	}
	return fx
}

// Relieve puts into the overflow all that waits for clients who are away or do not keep up.
func (r *Registry) Relieve(now time.Time) (fx Effects) {
	for _, s := range r.all() {
		s.mu.Lock()
		s.core.relieve(now.UnixMilli(), &fx)
		s.mu.Unlock()
	}
	return fx
}

// Renew makes the frame that gives a client a fresh token.
type Renew func(c socketmeta.ClientID, e socketmeta.Epoch, subject string) *engine.Frame

// hung is how long no Sweep may have come before we think that this process stood still.
const hung = 15 * time.Second

// Sweep does what time asks for; call it every few seconds. Clients that acknowledge nothing are
// closed with wire.CloseSlow, tokens are renewed every half window, events held for long are
// refreshed, and those for a client that is away for longer than the window are given up. It
// takes a time in proportion to the number of sessions.
func (r *Registry) Sweep(now time.Time, renew Renew) (fx Effects) {
	r.mu.Lock()
	late := !r.swept.IsZero() && now.Sub(r.swept) > hung
	r.swept = now
	r.mu.Unlock()
	r.sweeping.Lock()
	defer r.sweeping.Unlock()
	r.sweep = r.append(r.sweep[:0])
	for _, s := range r.sweep {
		s.sweep(r, now, late, renew, &fx)
	}
	clear(r.sweep)
	return fx
}

// Tell sends f to every attached client.
func (r *Registry) Tell(f *engine.Frame) {
	for conn := range r.conns() {
		_ = r.options.Socket.Send(conn, f)
	}
}

// Bye closes at most n sockets of attached clients that were not told yet, and returns how many
// are left. Each is told to come back after a time of its own out of [0, spread), so that they do
// not all come at once.
func (r *Registry) Bye(n int, code engine.StatusCode, reason string, spread time.Duration) (left int) {
	conns := r.conns()
	for _, conn := range slices.Sorted(maps.Keys(conns)) {
		s := conns[conn]
		s.mu.Lock()
		told := s.told || s.core.conn != conn // or it has another socket, and this one is being closed
		if !told && n > 0 {
			s.told = true
		}
		s.mu.Unlock()
		switch {
		case told:
			continue
		case n == 0:
			left++
			continue
		}
		n--
		after := time.Duration(0)
		if spread > 0 {
			after = rand.N(spread)
		}
		r.options.Socket.CloseConn(conn, code, reason,
			frame(&wire.Bye{Code: int(code), Reason: reason, RetryAfterMS: after.Milliseconds()}))
	}
	return left
}

func (o *Options) close(conn engine.ConnRef, code engine.StatusCode, reason string) {
	o.Socket.CloseConn(conn, code, reason, frame(&wire.Bye{Code: int(code), Reason: reason}))
}

// Count returns how many clients are known, and how many of them have a socket.
func (r *Registry) Count() (known, attached int) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return len(r.byClient), len(r.byConn)
}

func (r *Registry) all() []*Session { return r.append(nil) }

// append appends all sessions to ss.
func (r *Registry) append(ss []*Session) []*Session {
	r.mu.RLock()
	defer r.mu.RUnlock()
	ss = slices.Grow(ss, len(r.byClient))
	for _, s := range r.byClient {
		ss = append(ss, s)
	}
	return ss
}

func (r *Registry) conns() map[engine.ConnRef]*Session {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return maps.Clone(r.byConn)
}
