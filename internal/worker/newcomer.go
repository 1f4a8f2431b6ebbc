package worker

import (
	"errors"
	"sync"
	"time"

	"github.com/wscluster/wscluster/internal/engine"
	"github.com/wscluster/wscluster/internal/session"
	"github.com/wscluster/wscluster/pkg/socketmeta"
	"github.com/wscluster/wscluster/pkg/wire"
)

// newcomer is a connection that has no session yet: it has said nothing, or it is to resume one
// and has not confirmed the welcome. Its lock is held while it gets on, so that the end of the
// connection comes before that or after it.
type newcomer struct {
	mu    sync.Mutex
	timer *time.Timer    // guarded by mu; ends the silence
	claim *session.Claim // guarded by mu; what is to be resumed, once it was welcomed
	place wire.Claim     // guarded by mu; the client and the epoch that it was welcomed to
	over  bool           // guarded by mu; it has a session, or is gone
}

// newcomers are those of one worker.
type newcomers struct {
	mu      sync.Mutex
	byConn  map[engine.ConnRef]*newcomer  // guarded by mu
	byPlace map[wire.Claim]engine.ConnRef // guarded by mu; of those that were welcomed
}

func newNewcomers() newcomers {
	return newcomers{byConn: make(map[engine.ConnRef]*newcomer), byPlace: make(map[wire.Claim]engine.ConnRef)}
}

// add makes c a newcomer, and calls silent if it says nothing for so long.
func (ns *newcomers) add(c engine.ConnRef, within time.Duration, silent func()) {
	ns.mu.Lock() // silent finds it, and so comes after this
	defer ns.mu.Unlock()
	ns.byConn[c] = &newcomer{timer: time.AfterFunc(within, silent)}
}

// lock returns c's newcomer, locked, or nil.
func (ns *newcomers) lock(c engine.ConnRef) *newcomer {
	ns.mu.Lock()
	n := ns.byConn[c]
	ns.mu.Unlock()
	if n == nil {
		return nil
	}
	n.mu.Lock()
	if n.over {
		n.mu.Unlock()
		return nil
	}
	return n
}

// end takes c, whose newcomer the caller has locked, out of the newcomers.
func (ns *newcomers) end(c engine.ConnRef, n *newcomer) {
	n.over = true
	n.timer.Stop()
	ns.mu.Lock()
	delete(ns.byConn, c)
	if ns.byPlace[n.place] == c {
		delete(ns.byPlace, n.place)
	}
	ns.mu.Unlock()
}

// placed notes that c, whose newcomer the caller has locked, is about to be welcomed to a place: from
// then on its client may speak by other ways too.
func (ns *newcomers) placed(c engine.ConnRef, n *newcomer, at wire.Claim) {
	n.place = at
	ns.mu.Lock()
	ns.byPlace[at] = c
	ns.mu.Unlock()
}

// at returns the newcomer that was welcomed to a place, or 0. It waits for a welcome under way: who is
// not a newcomer any more then has the session.
func (ns *newcomers) at(place wire.Claim) engine.ConnRef {
	ns.mu.Lock()
	c := ns.byPlace[place]
	ns.mu.Unlock()
	if n := ns.lock(c); n != nil {
		n.mu.Unlock()
		return c
	}
	return 0
}

// gone notes that c is gone, whatever it was.
func (ns *newcomers) gone(c engine.ConnRef) {
	if n := ns.lock(c); n != nil {
		ns.end(c, n)
		n.mu.Unlock()
	}
}

// welcome answers c's hello. A new session is attached at once; one that is resumed only when the
// client confirms that the answer has reached it. It reports false if c has been welcomed before.
func (s *surface) welcome(c engine.ConnRef, h *wire.Hello) bool {
	n := s.newcomers.lock(c)
	if n == nil {
		return false
	}
	defer n.mu.Unlock()
	if n.claim != nil {
		return false
	}
	claim, reason := s.claim(h)
	w := s.sessions.Welcome(claim, time.Now())
	m := s.meta(socketmeta.Meta{Client: claim.Client, Server: s.o.Server, Epoch: w.Epoch}, claim.Subject)
	m.Resumed, m.Reason, m.Tasks = claim.Server != "", reason, w.States
	if !m.Resumed {
		s.mailbox.Attach(c, w.Epoch, claim) // who has heard of the session may speak for it, and is told of a drain
		s.reply(c, m)
		s.newcomers.end(c, n)
		return true
	}
	s.newcomers.placed(c, n, wire.Claim{Client: claim.Client, Epoch: w.Epoch})
	s.reply(c, m)
	n.claim = &claim
	n.timer.Stop()
	n.timer = time.AfterFunc(s.confirmWithin(), func() { s.unconfirmed(c) })
	return true
}

// confirmWithin is how long a client that resumes may take to confirm.
func (s *surface) confirmWithin() time.Duration { return 5 * s.o.HelloWithin }

// confirm attaches c to the session that it was welcomed to. It reports false if there is none.
func (s *surface) confirm(c engine.ConnRef, epoch socketmeta.Epoch) bool {
	n := s.newcomers.lock(c)
	if n == nil {
		return false
	}
	defer n.mu.Unlock()
	if n.claim == nil || n.place.Epoch != epoch {
		return false
	}
	s.mailbox.Attach(c, epoch, *n.claim)
	s.newcomers.end(c, n)
	return true
}

// unconfirmed closes c, which has heard its welcome, or not, and says nothing.
func (s *surface) unconfirmed(c engine.ConnRef) {
	n := s.newcomers.lock(c)
	if n == nil {
		return
	}
	s.newcomers.end(c, n)
	n.mu.Unlock()
	const reason = "the socket_meta of the resumed session was not confirmed in time"
	s.engine.CloseConn(c, wire.CloseUnconfirmed, reason, engine.NewText(wire.EncodeServer(&wire.Bye{Code: wire.CloseUnconfirmed, Reason: reason})))
}

// claim turns a hello into what the sessions take: the session that its token names, or a new
// one and the reason why.
func (s *surface) claim(h *wire.Hello) (c session.Claim, reason string) {
	if h.Token != "" {
		t, err := s.o.Keys.VerifyToken(h.Token, time.Now())
		if err == nil {
			return session.Claim{Client: t.Client, Subject: t.Subject, Epoch: t.Epoch, Server: t.Server, IssuedAt: t.IssuedAt, Positions: h.Tasks}, ""
		}
		reason = reasonOf(err)
	}
	return session.Claim{Client: socketmeta.NewClientID(), Positions: h.Tasks}, reason
}

func reasonOf(err error) string {
	for _, known := range []error{socketmeta.ErrExpired, socketmeta.ErrForged} {
		if errors.Is(err, known) {
			return known.Error()
		}
	}
	return socketmeta.ErrMalformed.Error()
}
