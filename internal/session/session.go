package session

import (
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/wscluster/wscluster/internal/engine"
	"github.com/wscluster/wscluster/pkg/socketmeta"
	"github.com/wscluster/wscluster/pkg/wire"
)

// Session is one client as its worker knows it. It outlives its sockets. All methods are safe
// for concurrent use, and none blocks.
type Session struct {
	mu      sync.Mutex
	core    core   // guarded by mu, but for what is set once
	subject string // guarded by mu; who the client said to be
	renewed uint32 // guarded by mu; when its token was last signed: Unix milliseconds, which wrap after 49 days
	expired bool   // guarded by mu; no longer in the registry
	told    bool   // guarded by mu; its socket was sent a bye
}

// renewAfter is how old a token may be, in milliseconds: half a window, or 24 days, which renewed can tell.
func renewAfter(window time.Duration) int32 {
	return int32(min(window/2, 24*24*time.Hour).Milliseconds())
}

// Client is whose session it is.
func (s *Session) Client() socketmeta.ClientID { return s.core.client }

// Reply takes the answer to one request that did not come by the client's socket: Accepted, Canceling or
// Refused. It must have room for one; nil stands for the socket.
type Reply chan<- wire.ServerMessage

// Ack notes what the client's application has, and sends what now has room.
func (s *Session) Ack(positions []wire.Position, now time.Time) (fx Effects) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.core.ack(positions, now.UnixMilli(), &fx)
	s.flush(now, &fx)
	return fx
}

// Writable goes on sending after the socket's queue was full.
func (s *Session) Writable(now time.Time) (fx Effects) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.flush(now, &fx)
	return fx
}

// Owner is who a task of this session belongs to; it goes into the task, never from a message body.
type Owner struct {
	Epoch   socketmeta.Epoch
	Subject string
}

// Submit notes that the client asks for a task. If publish is true, the caller publishes the
// task for owner and then calls Submitted. Otherwise the answer has been sent, or will be when
// the task's earlier submit is answered.
func (s *Session) Submit(m *wire.Submit, to Reply) (owner Owner, publish bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	claim := s.core.submit(m, to == nil)
	if to != nil && (claim == claimNew || claim == claimPending) {
		if s.core.waiting == nil {
			s.core.waiting = make(map[wire.TaskID][]Reply)
		}
		s.core.waiting[m.Task] = append(s.core.waiting[m.Task], to)
	}
	switch claim {
	case claimNew:
		return Owner{s.core.epoch, s.subject}, true
	case claimAccepted:
		s.answer(to, &wire.Accepted{ID: m.ID, Task: m.Task})
	case claimConflict:
		s.answer(to, &wire.Refused{ID: m.ID, Task: m.Task, Error: *wire.Errorf(wire.CodeConflict,
			"task %s was submitted before with another kind or other params; choose a new task ID", m.Task)})
	case claimTooMany:
		s.answer(to, &wire.Refused{ID: m.ID, Task: m.Task, Error: *wire.Errorf(wire.CodeTooManyTasks,
			"%d tasks of this session have not ended; wait for one", wire.MaxOpenTasks)})
	}
	return Owner{}, false
}

// Submitted answers a submit that was published: accepted if refusal is nil, with ahead tasks before it
// in its queue, if that is known. The answer goes to the socket that the client has now; if it has none,
// it will ask again.
func (s *Session) Submitted(task wire.TaskID, ahead *int, refusal *wire.Error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	asked, id := s.core.submitted(task, refusal == nil)
	answer := func(id string) wire.ServerMessage {
		if refusal != nil {
			return &wire.Refused{ID: id, Task: task, Error: *refusal}
		}
		return &wire.Accepted{ID: id, Task: task, Position: ahead}
	}
	if w := s.core.work; w != nil {
		for _, to := range w.waiting[task] {
			s.answer(to, answer(""))
		}
		delete(w.waiting, task)
	}
	if asked {
		s.send(answer(id))
	}
}

// Cancel notes that the client wants one of its tasks to end. If publish is true, the caller publishes
// that for owner and then calls Canceled. Otherwise it has been refused: the task is not this session's, or over.
func (s *Session) Cancel(m *wire.Cancel, to Reply) (owner Owner, publish bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if t := s.core.task(m.Task); t != nil && t.state != stateFinished {
		return Owner{s.core.epoch, s.subject}, true
	}
	s.answer(to, &wire.Refused{ID: m.ID, Task: m.Task, Error: *wire.Errorf(wire.CodeUnknownTask,
		"this session has no task %s that has not ended", m.Task)})
	return Owner{}, false
}

// Canceled answers a cancel that was published; with refusal nil it will reach the task.
func (s *Session) Canceled(m *wire.Cancel, to Reply, refusal *wire.Error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if refusal != nil {
		s.answer(to, &wire.Refused{ID: m.ID, Task: m.Task, Error: *refusal})
		return
	}
	s.answer(to, &wire.Canceling{ID: m.ID, Task: m.Task})
}

// answer answers a request. Guarded by mu.
func (s *Session) answer(to Reply, m wire.ServerMessage) {
	if to == nil {
		s.send(m)
		return
	}
	select {
	case to <- m:
	default: // it has its answer
	}
}

// send sends a reply to the client's socket, if it has one. A client whose queue has no room
// would wait for ever: it is closed, comes back and asks again. Guarded by mu.
func (s *Session) send(m wire.ServerMessage) { s.sendFrame(frame(m)) }

// sendFrame reports whether the socket has taken f. Guarded by mu.
func (s *Session) sendFrame(f *engine.Frame) bool {
	if s.core.conn == 0 {
		return false
	}
	err := s.core.o.Socket.Send(s.core.conn, f)
	if errors.Is(err, engine.ErrQueueFull) {
		s.close(wire.CloseSlow, "the socket's queue is full")
	}
	return err == nil
}

// close closes the client's socket with a word of why. Guarded by mu.
func (s *Session) close(code engine.StatusCode, reason string) {
	s.core.o.close(s.core.conn, code, reason)
}

// flush sends what the window has room for, and keeps the rest within the caps. Guarded by mu.
func (s *Session) flush(now time.Time, fx *Effects) {
	if c := &s.core; c.conn != 0 && c.work != nil && c.held > c.sent {
		b := batches.Get().(*batch)
		s.fill(b, now)
		s.empty(b)
		batches.Put(b)
	}
	s.core.keepCaps(now.UnixMilli(), fx)
}

// batch is frames that go to one socket together. While it has durable ones, that next has handed out and that the socket may
// not take, nothing else may change the queues.
type batch struct {
	frames  []*engine.Frame
	tasks   []*task // whose events they are; nil for a transient one
	durable bool    // it has others
}

// maxBatch is how many frames go to a socket at once.
const maxBatch = 64

var batches = sync.Pool{New: func() any { return new(batch) }}

// add adds a frame to the batch, which is sent if it is full: false if the socket has not taken it. Guarded by mu.
func (s *Session) add(b *batch, f *engine.Frame, t *task) (taken bool) {
	b.frames, b.tasks = append(b.frames, f), append(b.tasks, t)
	b.durable = b.durable || t != nil
	return len(b.frames) < maxBatch || s.empty(b)
}

// fill adds what the window has room for. Guarded by mu.
func (s *Session) fill(b *batch, now time.Time) {
	for {
		e, t := s.core.next(now.UnixMilli())
		if e == nil || !s.add(b, eventFrame(e), t) {
			return
		}
	}
}

// empty sends the batch, and reports whether the socket has taken all. If it has not, it is full, and Writable comes back, or
// gone, and so does the client: what is durable counts as not sent, and what is transient is dropped, for the next progress is as
// good. Guarded by mu.
func (s *Session) empty(b *batch) bool {
	n, socket := 0, s.core.o.Socket
	switch len(b.frames) {
	case 0:
	case 1:
		if socket.Send(s.core.conn, b.frames[0]) == nil {
			n = 1
		}
	default:
		n, _ = socket.SendBatch(s.core.conn, b.frames)
	}
	all := n == len(b.frames)
	for _, t := range slices.Backward(b.tasks[n:]) {
		if t != nil {
			s.core.unsend(t)
		}
	}
	clear(b.frames)
	clear(b.tasks)
	b.frames, b.tasks, b.durable = b.frames[:0], b.tasks[:0], false
	return all
}

func (s *Session) sweep(r *Registry, now time.Time, late bool, renew Renew, fx *Effects) {
	s.mu.Lock()
	defer s.mu.Unlock()
	o, c, ms := &r.options, &s.core, now.UnixMilli()
	if late { // this process stood still: first hear what others said meanwhile
		c.hear(ms)
	}
	if c.sweep(ms, fx) {
		s.expired = true
		r.mu.Lock()
		delete(r.byClient, c.client)
		r.mu.Unlock()
	}
	switch {
	case c.conn == 0:
	case c.work != nil && c.sent > 0 && ms-c.stalled > o.AckTimeout.Milliseconds():
		s.close(wire.CloseSlow, "nothing was acknowledged for too long")
	case int32(uint32(ms)-s.renewed) > renewAfter(o.Window): // it may be signed later than now: negative
		s.renewed = uint32(ms)
		_ = o.Socket.Send(c.conn, renew(c.client, c.epoch, s.subject))
	}
}

func frame(m wire.ServerMessage) *engine.Frame { return engine.NewText(wire.EncodeServer(m)) }

func eventFrame(e *wire.Event) *engine.Frame {
	const head = 320 // bytes of an event frame without its body, roughly
	return engine.TextOf(wire.AppendEventFrame(engine.TextBuffer(head+len(e.Body)), e))
}
