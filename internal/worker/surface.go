package worker

import (
	"errors"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/wscluster/wscluster/internal/engine"
	"github.com/wscluster/wscluster/internal/session"
	"github.com/wscluster/wscluster/pkg/socketmeta"
	"github.com/wscluster/wscluster/pkg/wire"
)

// socketPath is where clients open their sockets.
const socketPath = "/v1/ws"

// tokenHeader may carry the resume ticket of a client that can set headers.
const tokenHeader = "X-Socket-Meta"

// maxBadFrames is how many frames that cannot be read a socket may send before it is closed.
const maxBadFrames = 10

var errDraining = errors.New("this worker is stopping")

// surface is what the engine calls: it turns handshakes and messages into calls of the sessions
// and the mailbox. A connection is new until it has a session, which its first message or a
// second of silence gives it.
type surface struct {
	*Worker

	mu  sync.Mutex
	new map[engine.ConnRef]*newcomer // guarded by mu; connections without a session yet
	bad map[engine.ConnRef]int       // guarded by mu; unreadable frames of those that sent any
}

// newcomer is a connection that has no session yet. Its lock is held while it gets one, so that
// the end of the connection comes before that or after it.
type newcomer struct {
	mu      sync.Mutex
	silence *time.Timer // set once; gives it a new session
	over    bool        // guarded by mu; it has a session, or is gone
}

var _ engine.Handler = (*surface)(nil)

func newSurface(w *Worker) *surface {
	return &surface{Worker: w, new: make(map[engine.ConnRef]*newcomer), bad: make(map[engine.ConnRef]int)}
}

// Handshake lets in who asks for the right path and subprotocol from an allowed origin, while
// the worker is ready. A 503 sends the client to another worker within the same request.
func (s *surface) Handshake(_ engine.ConnRef, r *engine.Request) engine.Decision {
	path, _, _ := strings.Cut(r.Target, "?")
	if path != socketPath {
		return engine.Decision{Status: http.StatusNotFound, Reason: "no WebSocket lives here; it is " + socketPath}
	}
	if !s.o.Origins.Allow(r.Header, r.Host) {
		return engine.Decision{Status: http.StatusForbidden, Reason: "pages of this origin may not connect; the operator's key origins lists those that may"}
	}
	if s.Ready() != nil { // why is for operators: /readyz and the log say it
		return engine.Decision{Status: http.StatusServiceUnavailable, Reason: "this worker takes no new clients now; try again", Header: http.Header{"Retry-After": {"1"}}}
	}
	if slices.Contains(r.Protos, wire.Subprotocol) {
		return engine.Decision{Proto: wire.Subprotocol}
	}
	if len(r.Protos) > 0 {
		return engine.Decision{Status: http.StatusBadRequest, Reason: "the subprotocol must be " + wire.Subprotocol}
	}
	return engine.Decision{}
}

// Open waits for a hello, unless the handshake brought a token. Who offers the subprotocol knows of
// hello and is waited for five times as long: on a slow network a late one would cost the session.
func (s *surface) Open(c engine.ConnRef, r *engine.Request) {
	token := r.Header.Get(tokenHeader)
	within := s.o.HelloWithin
	if slices.Contains(r.Protos, wire.Subprotocol) {
		within *= 5
	}
	s.mu.Lock() // welcome takes it too, and so comes after this
	s.new[c] = &newcomer{silence: time.AfterFunc(within, func() { s.welcome(c, &wire.Hello{}) })}
	s.mu.Unlock()
	if token != "" {
		s.welcome(c, &wire.Hello{Token: token})
	}
}

// welcome gives a new connection its session. It reports false if c is not new.
func (s *surface) welcome(c engine.ConnRef, h *wire.Hello) bool {
	s.mu.Lock()
	n := s.new[c]
	s.mu.Unlock()
	if n == nil || !n.end() {
		return false
	}
	defer n.mu.Unlock()
	defer s.forget(c)
	claim, reason := s.claim(h)
	s.mailbox.Attach(c, claim, func(w session.Welcome) *engine.Frame {
		m := s.meta(socketmeta.Meta{Client: claim.Client, Server: s.o.Server, Epoch: w.Epoch}, claim.Subject)
		m.Resumed, m.Reason, m.Tasks = !claim.IssuedAt.IsZero(), reason, w.States
		return engine.NewText(wire.EncodeServer(m))
	})
	return true
}

// end claims a newcomer: true for the first caller alone, who then holds its lock.
func (n *newcomer) end() bool {
	n.mu.Lock()
	if n.over {
		n.mu.Unlock()
		return false
	}
	n.over = true
	n.silence.Stop()
	return true
}

// forget takes c out of the newcomers and returns it.
func (s *surface) forget(c engine.ConnRef) *newcomer {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := s.new[c]
	delete(s.new, c)
	return n
}

// claim turns a hello into what the sessions take: the session that its token names, or a new
// one and the reason why.
func (s *surface) claim(h *wire.Hello) (c session.Claim, reason string) {
	if h.Token != "" {
		t, err := s.o.Keys.VerifyToken(h.Token, time.Now())
		if err == nil {
			return session.Claim{Client: t.Client, Subject: t.Subject, Epoch: t.Epoch, IssuedAt: t.IssuedAt, Positions: h.Tasks}, ""
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

// Message handles one frame of a client.
func (s *surface) Message(c engine.ConnRef, op engine.OpCode, p []byte) {
	if op != engine.OpText {
		s.refuse(c, &wire.Refused{Error: *wire.Errorf(wire.CodeBadFrame, "frames must be text, and hold one JSON object")})
		return
	}
	m, refused := wire.DecodeClient(p)
	if refused != nil {
		s.refuse(c, refused)
		return
	}
	if hello, ok := m.(*wire.Hello); ok {
		if !s.welcome(c, hello) {
			s.refuse(c, &wire.Refused{Error: *wire.Errorf(wire.CodeUnexpected, "hello must be the first message of a socket, and come within %v", 5*s.o.HelloWithin)})
		}
		return
	}
	s.welcome(c, &wire.Hello{}) // a first message other than hello asks for a new session
	have := s.sessions.Find(c)
	if have == nil {
		return // closing
	}
	switch m := m.(type) {
	case *wire.Submit:
		s.mailbox.Submit(have, m)
	case *wire.Ack:
		s.mailbox.Ack(have, m.Tasks)
	case *wire.Ping:
		s.reply(c, &wire.Pong{ID: m.ID})
	}
}

// refuse answers a frame that cannot be used, and closes the socket after too many of them.
func (s *surface) refuse(c engine.ConnRef, r *wire.Refused) {
	s.mu.Lock()
	s.bad[c]++
	n := s.bad[c]
	s.mu.Unlock()
	if n < maxBadFrames {
		s.reply(c, r)
		return
	}
	const reason = "too many frames could not be read"
	s.engine.CloseConn(c, wire.CloseBadFrames, reason, engine.NewText(wire.EncodeServer(&wire.Bye{Code: wire.CloseBadFrames, Reason: reason})))
}

func (s *surface) reply(c engine.ConnRef, m wire.ServerMessage) {
	if errors.Is(s.engine.Send(c, engine.NewText(wire.EncodeServer(m))), engine.ErrQueueFull) {
		s.engine.CloseConn(c, wire.CloseSlow, "the socket's queue is full", nil)
	}
}

// Writable goes on sending to a client whose queue was full.
func (s *surface) Writable(c engine.ConnRef) {
	if have := s.sessions.Find(c); have != nil {
		have.Writable(time.Now())
	}
}

// Closed forgets the connection; the session stays for the resume window.
func (s *surface) Closed(c engine.ConnRef, _ engine.StatusCode, _ error) {
	if n := s.forget(c); n != nil && n.end() {
		n.mu.Unlock()
	}
	s.mu.Lock()
	delete(s.bad, c)
	s.mu.Unlock()
	s.sessions.Detach(c, time.Now())
}
