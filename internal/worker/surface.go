package worker

import (
	"errors"
	"net/http"
	"slices"
	"strings"
	"sync"

	"github.com/wscluster/wscluster/internal/engine"
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
// and the mailbox. A connection is a newcomer until it has a session, which its first message or a
// second of silence gives it (newcomer.go).
type surface struct {
	*Worker
	newcomers newcomers

	updates updates

	reading sync.WaitGroup // of log_reads and presence

	mu    sync.Mutex
	bad   map[engine.ConnRef]int // guarded by mu; unreadable frames of those that sent any
	reads map[engine.ConnRef]int // guarded by mu; log_reads that wait for their answers

	counts map[engine.ConnRef]int // guarded by mu; presence messages that wait for their answers
}

var _ engine.Handler = (*surface)(nil)

func newSurface(w *Worker) *surface {
	return &surface{Worker: w, newcomers: newNewcomers(), bad: make(map[engine.ConnRef]int), reads: make(map[engine.ConnRef]int),
		counts: make(map[engine.ConnRef]int), updates: updates{byConn: make(map[engine.ConnRef]bool)}}
}

// Handshake lets in who asks for the right path and subprotocol from an allowed origin, while
// the worker is ready. A 503 sends the client to another worker within the same request.
func (s *surface) Handshake(_ engine.ConnRef, r *engine.Request) engine.Decision {
	path, _, _ := strings.Cut(r.Target, "?")
	task, follows := workflowOf(r.Target)
	if path != socketPath && !follows {
		return engine.Decision{Status: http.StatusNotFound, Reason: "no WebSocket lives here; it is " + socketPath}
	}
	if !s.o.Origins.Allow(r.Header, r.Host) {
		return engine.Decision{Status: http.StatusForbidden, Reason: "pages of this origin may not connect; the operator's key origins lists those that may"}
	}
	if s.Ready() != nil { // why is for operators: /readyz and the log say it
		return engine.Decision{Status: http.StatusServiceUnavailable, Reason: "this worker takes no new clients now; try again", Header: http.Header{"Retry-After": {"1"}}}
	}
	if follows {
		return s.admit(task, r)
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
	if s.follow(c, r) {
		return
	}
	if r.Stream {
		s.openStream(c, r)
		return
	}
	token := r.Header.Get(tokenHeader)
	within := s.o.HelloWithin
	if slices.Contains(r.Protos, wire.Subprotocol) {
		within *= 5
	}
	s.newcomers.add(c, within, func() { s.welcome(c, &wire.Hello{}) })
	if token != "" {
		s.welcome(c, &wire.Hello{Token: token})
	}
}

// Message handles one frame of a client.
func (s *surface) Message(c engine.ConnRef, op engine.OpCode, p []byte) {
	if s.updates.has(c) {
		return
	}
	if op != engine.OpText {
		s.refuse(c, &wire.Refused{Error: *wire.Errorf(wire.CodeBadFrame, "frames must be text, and hold one JSON object")})
		return
	}
	m, refused := wire.DecodeClient(p)
	if refused != nil {
		s.refuse(c, refused)
		return
	}
	switch m := m.(type) {
	case *wire.Hello:
		if !s.welcome(c, m) {
			s.unexpected(c, &wire.Refused{}, "hello must be the first message of a socket, and come within %v", 5*s.o.HelloWithin)
		}
		return
	case *wire.Confirm:
		if !s.confirm(c, m.Epoch) {
			s.unexpected(c, &wire.Refused{}, "confirm answers the socket_meta of a resumed session, once and with its epoch")
		}
		return
	case *wire.Ping:
		s.welcome(c, &wire.Hello{})
		s.reply(c, &wire.Pong{ID: m.ID})
		return
	}
	s.welcome(c, &wire.Hello{}) // a first message other than hello asks for a new session
	switch m := m.(type) {      // these need no session
	case *wire.Subscribe:
		s.subscribe(c, m)
		return
	case *wire.Unsubscribe:
		s.hub.Unsubscribe(c, m)
		return
	case *wire.AskPresence:
		s.presence(c, m)
		return
	}
	have := s.sessions.Find(c)
	switch m := m.(type) {
	case *wire.Submit:
		if have == nil {
			s.unexpected(c, &wire.Refused{ID: m.ID, Task: m.Task}, "a resumed session must be confirmed first")
			return
		}
		s.mailbox.Submit(have, m)
	case *wire.Cancel:
		if have == nil {
			s.unexpected(c, &wire.Refused{ID: m.ID, Task: m.Task}, "a resumed session must be confirmed first")
			return
		}
		s.mailbox.Cancel(have, m)
	case *wire.LogRead:
		if have == nil {
			s.unexpected(c, &wire.Refused{ID: m.ID, Task: m.Task}, "a resumed session must be confirmed first")
			return
		}
		s.readLog(c, have.Client(), m)
	case *wire.Reply:
		if have == nil {
			s.unexpected(c, &wire.Refused{ID: m.ID}, "a resumed session must be confirmed first")
			return
		}
		if err := s.asks.Reply(have.Client(), m); err != nil {
			s.refuse(c, &wire.Refused{ID: m.ID, Error: *err})
		}
	case *wire.Ack:
		if have == nil {
			s.unexpected(c, &wire.Refused{}, "a resumed session must be confirmed first")
			return
		}
		s.mailbox.Ack(have, m.Tasks)
	}
}

// unexpected refuses a message that comes at the wrong time.
func (s *surface) unexpected(c engine.ConnRef, r *wire.Refused, format string, args ...any) {
	r.Error = *wire.Errorf(wire.CodeUnexpected, format, args...)
	s.refuse(c, r)
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
	s.hub.Writable(c)
	if have := s.sessions.Find(c); have != nil {
		s.mailbox.Writable(have)
	}
}

// Closed forgets the connection; the session stays for the resume window.
func (s *surface) Closed(c engine.ConnRef, _ engine.StatusCode, _ error) {
	s.newcomers.gone(c)
	s.hub.Gone(c)
	s.updates.gone(c)
	s.mu.Lock()
	delete(s.bad, c)
	s.mu.Unlock()
	s.mailbox.Detach(c)
}
