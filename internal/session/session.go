package session

import (
	"errors"
	"sync"
	"time"

	"github.com/wscluster/wscluster/internal/engine"
	"github.com/wscluster/wscluster/pkg/socketmeta"
	"github.com/wscluster/wscluster/pkg/wire"
)

// Session is one client as its worker knows it. It outlives its sockets. All methods are safe
// for concurrent use, and none blocks.
type Session struct {
	Client   socketmeta.ClientID // set once
	registry *Registry           // set once

	mu      sync.Mutex
	core    core      // guarded by mu
	subject string    // guarded by mu; who the client said to be
	renewed time.Time // guarded by mu; when its token was last signed
	expired bool      // guarded by mu; no longer in the registry
}

// Ack notes what the client's application has, sends what now has room, and returns what may be
// settled with the broker.
func (s *Session) Ack(positions []wire.Position, now time.Time) []Ref {
	s.mu.Lock()
	defer s.mu.Unlock()
	settle := s.core.ack(positions, now)
	s.flush(now)
	return settle
}

// Writable goes on sending after the socket's queue was full.
func (s *Session) Writable(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.flush(now)
}

// Owner is who a task of this session belongs to; it goes into the task, never from a message body.
type Owner struct {
	Epoch   socketmeta.Epoch
	Subject string
}

// Submit notes that the client asks for a task. If publish is true, the caller publishes the
// task for owner and then calls Submitted. Otherwise the answer has been sent, or will be when
// the task's earlier submit is answered.
func (s *Session) Submit(m *wire.Submit) (owner Owner, publish bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch s.core.submit(m) {
	case claimNew:
		return Owner{s.core.epoch, s.subject}, true
	case claimAccepted:
		s.send(&wire.Accepted{ID: m.ID, Task: m.Task})
	case claimConflict:
		s.send(&wire.Refused{ID: m.ID, Task: m.Task, Error: *wire.Errorf(wire.CodeConflict,
			"task %s was submitted before with another kind or other params; choose a new task ID", m.Task)})
	case claimTooMany:
		s.send(&wire.Refused{ID: m.ID, Task: m.Task, Error: *wire.Errorf(wire.CodeTooManyTasks,
			"%d tasks of this session have not ended; wait for one", wire.MaxOpenTasks)})
	}
	return Owner{}, false
}

// Submitted answers a submit that was published: accepted if refusal is nil. The answer goes to
// the socket that the client has now; if it has none, it will ask again.
func (s *Session) Submitted(task wire.TaskID, refusal *wire.Error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	reply := s.core.submitted(task, refusal == nil)
	if refusal != nil {
		s.send(&wire.Refused{ID: reply, Task: task, Error: *refusal})
		return
	}
	s.send(&wire.Accepted{ID: reply, Task: task})
}

// send sends a reply to the client's socket, if it has one. A client whose queue has no room
// would wait for ever: it is closed, comes back and asks again. Guarded by mu.
func (s *Session) send(m wire.ServerMessage) {
	if s.core.conn != 0 && errors.Is(s.registry.options.Socket.Send(s.core.conn, frame(m)), engine.ErrQueueFull) {
		s.close(wire.CloseSlow, "the socket's queue is full")
	}
}

// close closes the client's socket with a word of why. Guarded by mu.
func (s *Session) close(code engine.StatusCode, reason string) {
	s.registry.options.Socket.CloseConn(s.core.conn, code, reason, frame(&wire.Bye{Code: int(code), Reason: reason}))
}

// flush sends what the window has room for. Guarded by mu.
func (s *Session) flush(now time.Time) {
	for {
		e, t := s.core.next(now)
		if e == nil {
			return
		}
		if err := s.registry.options.Socket.Send(s.core.conn, eventFrame(e)); err != nil {
			s.core.unsend(t) // full: Writable comes back; gone: so does the client
			return
		}
	}
}

func (s *Session) sweep(now time.Time, renew Renew) {
	s.mu.Lock()
	defer s.mu.Unlock()
	o := &s.registry.options
	switch {
	case s.core.conn == 0:
		if now.Sub(s.core.since) > o.Window && s.core.held == 0 {
			s.expired = true
			s.registry.mu.Lock()
			delete(s.registry.byClient, s.Client)
			s.registry.mu.Unlock()
		}
	case s.core.sent > 0 && now.Sub(s.core.stalled) > o.AckTimeout:
		s.close(wire.CloseSlow, "nothing was acknowledged for too long")
	case now.Sub(s.renewed) > o.Window/2:
		s.renewed = now
		_ = o.Socket.Send(s.core.conn, renew(s.Client, s.core.epoch, s.subject))
	}
}

func frame(m wire.ServerMessage) *engine.Frame { return engine.NewText(wire.EncodeServer(m)) }

func eventFrame(e *wire.Event) *engine.Frame {
	const head = 320 // bytes of an event frame without its body, roughly
	return engine.NewText(wire.AppendEventFrame(make([]byte, 0, head+len(e.Body)), e))
}
