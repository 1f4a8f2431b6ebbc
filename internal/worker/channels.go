package worker

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/wscluster/wscluster/internal/engine"
	"github.com/wscluster/wscluster/internal/hub"
	"github.com/wscluster/wscluster/pkg/broker"
	"github.com/wscluster/wscluster/pkg/wire"
)

// This file is the surface of channels: subscriptions of sockets, who is subscribed, how the cluster stands, and
// the updates of one workflow as a socket of their own.

const (
	pathChannel = "GET /v1/channels/{channel}"
	pathEngine  = "GET /v1/engine"

	updatesPrefix, updatesSuffix = "/api/workflows/", "/updates" // around the task's ID
)

// tryAgainLater closes a socket that this worker has no room for (RFC 6455's registry).
const tryAgainLater engine.StatusCode = 1013

// maxCounts is how many presence messages of one socket may wait for their answers.
const maxCounts = 4

func newHub(w *Worker) *hub.Hub {
	return hub.New(hub.Options{
		Server: w.o.Server, Socket: w.engine, Log: w.log,
		Kept: func(c wire.Channel) []wire.Post { return w.publisher.Kept(c) },
		Say:  func(to broker.Address, m wire.ControlMessage) { w.mailbox.Say(to, m) },
		Status: func() hub.Status {
			known, _ := w.sessions.Count()
			return hub.Status{Ready: w.Ready() == nil, Connections: w.engine.Conns(), Sessions: known}
		},
	})
}

// maySubscribe returns why the bearer of a grant, which may be "", may not subscribe to c.
func (w *Worker) maySubscribe(grant string, c wire.Channel) *wire.Error {
	err := w.o.Grants.AllowSubscribe(grant, c, time.Now())
	if err == nil {
		return nil
	}
	refused, ok := errors.AsType[*wire.Error](err)
	if !ok {
		refused = wire.Errorf(wire.CodeInternal, "%v", err)
	}
	return refused
}

// subscribe answers a client's subscribe.
func (s *surface) subscribe(c engine.ConnRef, m *wire.Subscribe) {
	refused := s.maySubscribe(m.Grant, m.Channel)
	if refused == nil {
		refused = s.hub.Subscribe(c, m)
	}
	if refused != nil {
		s.reply(c, &wire.Refused{ID: m.ID, Error: *refused})
	}
}

// presence answers a client's presence, some time later.
func (s *surface) presence(c engine.ConnRef, m *wire.AskPresence) {
	if refused := s.maySubscribe(m.Grant, m.Channel); refused != nil {
		s.reply(c, &wire.Refused{ID: m.ID, Error: *refused})
		return
	}
	s.mu.Lock()
	n := s.counts[c]
	if n < maxCounts {
		s.counts[c]++
	}
	s.mu.Unlock()
	if n >= maxCounts {
		s.reply(c, &wire.Refused{ID: m.ID, Error: *wire.Errorf(wire.CodeOverloaded, "%d presence messages of this socket wait for answers; await one", maxCounts)})
		return
	}
	s.reading.Go(func() {
		n, partial, refused := s.hub.Presence(context.Background(), m.Channel)
		s.mu.Lock()
		if s.counts[c]--; s.counts[c] == 0 {
			delete(s.counts, c)
		}
		s.mu.Unlock()
		if refused != nil {
			s.reply(c, &wire.Refused{ID: m.ID, Error: *refused})
			return
		}
		s.reply(c, &wire.Presence{ID: m.ID, Channel: m.Channel, Subscribers: n, Partial: partial})
	})
}

// showChannel answers with how many are subscribed to a channel, in all workers.
func (w *Worker) showChannel(rw http.ResponseWriter, r *http.Request) {
	name, err := wire.ParseChannel(r.PathValue("channel"))
	if err != nil {
		problem(rw, wire.Errorf(wire.CodeBadFrame, "%v", err))
		return
	}
	if refused := w.maySubscribe(bearer(r.Header), name); refused != nil {
		problem(rw, refused)
		return
	}
	n, partial, refused := w.hub.Presence(r.Context(), name)
	if refused != nil {
		problem(rw, refused)
		return
	}
	writeJSON(rw, struct {
		Channel     wire.Channel `json:"channel"`
		Subscribers int          `json:"subscribers"`
		Partial     bool         `json:"partial"`
	}{name, n, partial})
}

// showEngine answers with what the channel engine tells.
func (w *Worker) showEngine(rw http.ResponseWriter, r *http.Request) {
	if refused := w.maySubscribe(bearer(r.Header), wire.ChannelEngine); refused != nil {
		problem(rw, refused)
		return
	}
	writeJSON(rw, w.hub.Engine(r.Context()))
}

// updates are the sockets that follow one workflow each. They have no session: what they send is passed over.
type updates struct {
	mu     sync.RWMutex
	byConn map[engine.ConnRef]bool // guarded by mu; true once it was told to go elsewhere
}

// workflowOf reads the task's ID in a path of updates; false if it is another path.
func workflowOf(target string) (wire.TaskID, bool) {
	path, _, _ := strings.Cut(target, "?")
	id, ok := strings.CutPrefix(path, updatesPrefix)
	if !ok {
		return "", false
	}
	if id, ok = strings.CutSuffix(id, updatesSuffix); !ok {
		return "", false
	}
	task, err := wire.ParseTaskID(id)
	return task, err == nil
}

// streamUpdates is the same as an event stream.
func (w *Worker) streamUpdates(rw http.ResponseWriter, r *http.Request) {
	task, ok := workflowOf(r.URL.Path)
	if !ok {
		problem(rw, wire.Errorf(wire.CodeBadFrame, "the path must have the ID of a task"))
		return
	}
	if refused := w.maySubscribe(bearer(r.Header), wire.WorkflowChannel(task)); refused != nil {
		problem(rw, refused)
		return
	}
	w.stream(rw, r, nil)
}

// admit decides over a socket that follows a workflow. It takes any subprotocol: who speaks none of ours gets JSON all the same.
func (s *surface) admit(task wire.TaskID, r *engine.Request) engine.Decision {
	if refused := s.maySubscribe(bearer(r.Header), wire.WorkflowChannel(task)); refused != nil {
		return engine.Decision{Status: statusOf(refused.Code), Reason: refused.Message}
	}
	d := engine.Decision{}
	if len(r.Protos) > 0 {
		d.Proto = r.Protos[0]
	}
	return d
}

// follow makes c a socket that follows a workflow, if it asked for that.
func (s *surface) follow(c engine.ConnRef, r *engine.Request) bool {
	task, ok := workflowOf(r.Target)
	if !ok {
		return false
	}
	s.updates.mu.Lock()
	s.updates.byConn[c] = false
	s.updates.mu.Unlock()
	if refused := s.hub.Follow(c, wire.WorkflowChannel(task)); refused != nil {
		s.engine.CloseConn(c, tryAgainLater, refused.Message, nil)
	}
	return true
}

func (u *updates) has(c engine.ConnRef) bool {
	u.mu.RLock()
	defer u.mu.RUnlock()
	_, ok := u.byConn[c]
	return ok
}

func (u *updates) gone(c engine.ConnRef) {
	u.mu.Lock()
	defer u.mu.Unlock()
	delete(u.byConn, c)
}

// bye closes at most n of them that were not told yet, and returns how many are left.
func (u *updates) bye(e *engine.Engine, n int, code engine.StatusCode, reason string) (left int) {
	var tell []engine.ConnRef
	u.mu.Lock()
	for c, told := range u.byConn {
		switch {
		case told:
		case len(tell) < n:
			u.byConn[c] = true
			tell = append(tell, c)
		default:
			left++
		}
	}
	u.mu.Unlock()
	for _, c := range tell {
		e.CloseConn(c, code, reason, nil)
	}
	return left
}

func (u *updates) count() int {
	u.mu.RLock()
	defer u.mu.RUnlock()
	return len(u.byConn)
}
