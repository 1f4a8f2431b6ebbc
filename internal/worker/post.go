package worker

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/wscluster/wscluster/internal/engine"
	"github.com/wscluster/wscluster/internal/session"
	"github.com/wscluster/wscluster/pkg/broker"
	"github.com/wscluster/wscluster/pkg/socketmeta"
	"github.com/wscluster/wscluster/pkg/wire"
)

const (
	maxPosts    = 1024            // bodies of client messages, 64 KiB each at most, in memory at once
	maxForwards = 1024            // messages from other workers that wait to be handed on
	maxReplies  = 256             // of those, the ones that wait for the broker's answer
	bodyWithin  = 5 * time.Second // for a body to arrive
	replyWithin = 5 * time.Second // for the broker's answer to a submit or a cancel
)

// posts is what a worker has of messages that came by HTTP, here or to another worker.
type posts struct {
	bodies   chan struct{} // one in it for each body
	forwards chan *wire.Forward
}

func newPosts() posts {
	return posts{bodies: make(chan struct{}, maxPosts), forwards: make(chan *wire.Forward, maxForwards)}
}

// readBody reads the body of a request: within bodyWithin, and at most wire.MaxClientFrame bytes of it. The
// caller calls done when it needs it no more. It answers the request itself if there is none to use.
func (w *Worker) readBody(rw http.ResponseWriter, r *http.Request) (body []byte, done func(), ok bool) {
	select {
	case w.posts.bodies <- struct{}{}:
	default:
		problem(rw, wire.Errorf(wire.CodeOverloaded, "%d messages are being taken; try again", maxPosts))
		return nil, nil, false
	}
	done = func() { <-w.posts.bodies }
	control := http.NewResponseController(rw)
	_ = control.SetReadDeadline(time.Now().Add(bodyWithin)) // a connection that cannot is not one of ours
	body, err := io.ReadAll(http.MaxBytesReader(rw, r.Body, wire.MaxClientFrame))
	_ = control.SetReadDeadline(time.Time{})
	if err == nil {
		return body, done, true
	}
	done()
	rw.Header().Set("Connection", "close") // the rest of it will not be read
	if _, large := errors.AsType[*http.MaxBytesError](err); large {
		problem(rw, wire.Errorf(wire.CodeFrameTooLarge, "the body may have %d bytes", wire.MaxClientFrame))
	} else {
		problem(rw, wire.Errorf(wire.CodeBadFrame, "the body did not arrive within %v", bodyWithin))
	}
	return nil, nil, false
}

// readMessage is readBody for one client message.
func (w *Worker) readMessage(rw http.ResponseWriter, r *http.Request) (m wire.ClientMessage, frame []byte, done func(), ok bool) {
	if frame, done, ok = w.readBody(rw, r); !ok {
		return nil, nil, nil, false
	}
	m, refused := wire.DecodeClient(frame)
	if refused != nil {
		done()
		problem(rw, &refused.Error)
		return nil, nil, nil, false
	}
	return m, frame, done, true
}

// postMessage takes one message of a client, as its socket would, at any worker: 202 says that it was
// handed to the session's connection, by which the answers come. The connection must have the epoch of the
// request's token: an old page cannot speak for a session that was taken over.
func (w *Worker) postMessage(rw http.ResponseWriter, r *http.Request) {
	t, ok := w.token(rw, r)
	if !ok {
		return
	}
	m, frame, done, ok := w.readMessage(rw, r)
	if !ok {
		return
	}
	defer done()
	if _, hello := m.(*wire.Hello); hello {
		problem(rw, wire.Errorf(wire.CodeUnexpected, "a hello opens a connection: POST it to %s", eventsPath))
		return
	}
	err := error(nil)
	if t.Server == w.o.Server {
		err = w.surface.hand(t.Meta, frame)
	} else {
		_, err = w.mailbox.Forward(r.Context(), t.Server, wire.Forward{Client: t.Client, Epoch: t.Epoch, Frame: frame})
	}
	if err != nil {
		problem(rw, err)
		return
	}
	rw.Header().Set("Cache-Control", "no-store")
	rw.WriteHeader(http.StatusAccepted)
}

// errNotAttached says that a session is not here, or was taken over.
var errNotAttached = wire.Errorf(wire.CodeNotAttached, "the session has no connection that this token belongs to; connect again")

// hand gives a message to the connection that has the session in its epoch, or waits for its confirm. Its
// error is errNotAttached.
func (s *surface) hand(at socketmeta.Meta, frame []byte) error {
	_, c := s.holder(at.Client, at.Epoch)
	if s.engine.Receive(c, frame) != nil {
		return errNotAttached
	}
	return nil
}

// holder is the session that a client has in an epoch, and its connection: with no session it waits for its
// confirm. Both are empty if there is nothing of that epoch here.
func (s *surface) holder(client socketmeta.ClientID, epoch socketmeta.Epoch) (*session.Session, engine.ConnRef) {
	newcomer := s.newcomers.at(wire.Claim{Client: client, Epoch: epoch})
	have, c := s.sessions.Holder(client, epoch)
	if have == nil {
		return nil, newcomer
	}
	return have, c
}

// hear takes what other workers and runners say. It does not block.
func (w *Worker) hear(m wire.ControlMessage) {
	w.hub.Hear(m)
	w.asks.Hear(m)
	switch m := m.(type) {
	case *wire.Forward:
		select {
		case w.posts.forwards <- m:
		default:
			w.forwarded(m, nil, wire.Errorf(wire.CodeOverloaded, "%d messages wait at the worker of this session; try again", maxForwards))
		}
	}
}

// takeForwards hands on what came to other workers, in the order in which it came, until ctx ends.
func (w *Worker) takeForwards(ctx context.Context, _ broker.Link) error {
	var waiting sync.WaitGroup
	defer waiting.Wait()
	slots := make(chan struct{}, maxReplies)
	for {
		select {
		case <-ctx.Done():
			return nil
		case f := <-w.posts.forwards:
			if !f.Reply {
				w.forwarded(f, nil, w.surface.hand(socketmeta.Meta{Client: f.Client, Epoch: f.Epoch}, f.Frame))
				continue
			}
			select {
			case slots <- struct{}{}:
				waiting.Go(func() {
					defer func() { <-slots }()
					reply, err := w.requested(ctx, f)
					w.forwarded(f, reply, err)
				})
			default:
				w.forwarded(f, nil, wire.Errorf(wire.CodeOverloaded, "%d requests wait for the broker; try again", maxReplies))
			}
		}
	}
}

// requested does what f asks for, and returns the frame that answers it.
func (w *Worker) requested(ctx context.Context, f *wire.Forward) (json.RawMessage, error) {
	m, refused := wire.DecodeClient(f.Frame)
	if refused != nil {
		return nil, &refused.Error
	}
	reply, err := w.request(ctx, f.Client, f.Epoch, m)
	if err != nil {
		return nil, err
	}
	return wire.EncodeServer(reply), nil
}

// forwarded answers f.
func (w *Worker) forwarded(f *wire.Forward, reply json.RawMessage, err error) {
	a := &wire.Forwarded{Ask: f.Ask, Reply: reply}
	if err != nil {
		e, ok := errors.AsType[*wire.Error](err)
		if !ok {
			e = wire.Errorf(wire.CodeInternal, "%v", err)
		}
		a.Error = e
	}
	w.mailbox.Say(broker.ToControl(broker.Worker(f.From)), a)
}
