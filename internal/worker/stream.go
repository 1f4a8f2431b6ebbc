package worker

import (
	"net/http"

	"github.com/wscluster/wscluster/internal/engine"
	"github.com/wscluster/wscluster/pkg/wire"
)

// This file is life without WebSocket: the server's messages come as an event stream, and the client's
// go by POST (post.go, rest.go). A stream is a connection like a socket's, with the same sessions, the
// same welcome and the same confirm.

const eventsPath = "/v1/events"

func (w *Worker) handleStreams(mux *http.ServeMux) {
	mux.HandleFunc("GET "+eventsPath, w.events)
	mux.HandleFunc("POST "+eventsPath, w.events)
	mux.HandleFunc("GET "+updatesPrefix+"{id}"+updatesSuffix, w.streamUpdates)
	mux.HandleFunc("POST /v1/messages", w.postMessage)
	mux.HandleFunc("POST /v1/tasks", w.postTask)
	mux.HandleFunc("DELETE /v1/tasks/{id}", w.deleteTask)
}

// events opens an event stream while the worker is ready: new, or of the session whose token the hello
// has, which is the body of a POST, or else the header. A 503 sends the client to another worker within the
// same request, as for a socket.
func (w *Worker) events(rw http.ResponseWriter, r *http.Request) {
	var body []byte
	if r.Method == http.MethodPost {
		m, frame, done, ok := w.readMessage(rw, r)
		if !ok {
			return
		}
		defer done()
		if _, ok := m.(*wire.Hello); !ok {
			problem(rw, wire.Errorf(wire.CodeUnexpected, "the body must be a hello"))
			return
		}
		body = frame
	}
	w.stream(rw, r, body)
}

// stream answers a request with an event stream, while the worker is ready. body is its hello, if it has one.
func (w *Worker) stream(rw http.ResponseWriter, r *http.Request, body []byte) {
	if w.Ready() != nil { // why is for operators: /readyz and the log say it
		problem(rw, wire.Errorf(wire.CodeUnavailable, "this worker takes no new clients now; try again"))
		return
	}
	w.engine.Stream(rw, r, body)
}

// openStream welcomes a stream, whose hello has come with its request.
func (s *surface) openStream(c engine.ConnRef, r *engine.Request) {
	hello := &wire.Hello{}
	if m, _ := wire.DecodeClient(r.Body); m != nil {
		hello = m.(*wire.Hello) // events has seen to that
	}
	if hello.Token == "" {
		hello.Token = r.Header.Get(tokenHeader)
	}
	s.newcomers.add(c, s.confirmWithin(), func() { s.unconfirmed(c) })
	s.welcome(c, hello)
}

// byeFrame tells a stream of a close that only the engine knows of.
func byeFrame(code engine.StatusCode, reason string) *engine.Frame {
	return engine.NewText(wire.EncodeServer(&wire.Bye{Code: int(code), Reason: reason}))
}
