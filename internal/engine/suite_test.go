package engine

import (
	"context"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gobwas/ws"
)

// face is what every engine offers. The tests that use eachEngine hold for all of them, over
// real sockets; those of one engine's own clock and inner parts do not use it.
type face interface {
	Serve(ctx context.Context, ln net.Listener) error
	Send(c ConnRef, f *Frame) error
	Offer(c ConnRef, f *Frame) error
	SendBatch(c ConnRef, fs []*Frame) (taken int, err error)
	Broadcast(f *Frame, cs []ConnRef, failed []Failure) []Failure
	CloseConn(c ConnRef, code ws.StatusCode, reason string, last *Frame)
	Pause(c ConnRef, on bool)
	Decide(c ConnRef, d Decision)
	Stream(w http.ResponseWriter, r *http.Request, body []byte)
	Receive(c ConnRef, p []byte) error
	Conns() int
	Stats() Stats
}

type newEngine func(h Handler, o Options) face

var engines = map[string]newEngine{"goroutine": goroutines}

func goroutines(h Handler, o Options) face {
	o.Goroutines = true
	return New(h, o)
}

func eachEngine(t *testing.T, test func(t *testing.T, build newEngine)) {
	for name, build := range engines {
		t.Run(name, func(t *testing.T) { test(t, build) })
	}
}

// hooks is a Handler made of functions; a nil one accepts, or does nothing.
type hooks struct {
	handshake func(c ConnRef, r *Request) Decision
	open      func(c ConnRef, r *Request)
	message   func(c ConnRef, op ws.OpCode, p []byte)
	writable  func(c ConnRef)
	closed    func(c ConnRef, code ws.StatusCode, cause error)
}

func (h *hooks) Handshake(c ConnRef, r *Request) Decision {
	if h.handshake == nil {
		return Decision{}
	}
	return h.handshake(c, r)
}

func (h *hooks) Open(c ConnRef, r *Request) {
	if h.open != nil {
		h.open(c, r)
	}
}

func (h *hooks) Message(c ConnRef, op ws.OpCode, p []byte) {
	if h.message != nil {
		h.message(c, op, p)
	}
}

func (h *hooks) Writable(c ConnRef) {
	if h.writable != nil {
		h.writable(c)
	}
}

func (h *hooks) Closed(c ConnRef, code ws.StatusCode, cause error) {
	if h.closed != nil {
		h.closed(c, code, cause)
	}
}

// end is one Closed call.
type end struct {
	ref   ConnRef
	code  ws.StatusCode
	cause error
}

// server is an engine that serves a loopback port for the length of a test.
type server struct {
	face
	addr   string
	opened chan ConnRef // one for each Open; room for 8,192
	ended  chan end     // one for each Closed; room for 8,192
	stop   func()       // ends Serve and waits for it
}

// start serves h. Its open and closed hooks are called before the channels hear of it. At the end of every test
// each connection that was opened must have been closed once, and nothing be held.
func start(t testing.TB, build newEngine, h *hooks, o Options) *server {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return startOn(t, ln, build, h, o)
}

func startOn(t testing.TB, ln net.Listener, build newEngine, h *hooks, o Options) *server {
	t.Helper()
	s := &server{addr: ln.Addr().String(), opened: make(chan ConnRef, 8192), ended: make(chan end, 8192)}
	var opens, closes atomic.Int64
	all := *h
	all.open = func(c ConnRef, r *Request) {
		opens.Add(1)
		h.Open(c, r)
		s.opened <- c
	}
	all.closed = func(c ConnRef, code ws.StatusCode, cause error) {
		closes.Add(1)
		defer func() { s.ended <- end{c, code, cause} }()
		h.Closed(c, code, cause)
	}
	if o.HTTP == streams {
		o.HTTP = streaming(func() face { return s.face })
	}
	s.face = build(&all, o)
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- s.Serve(ctx, ln) }()
	s.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-served; err != nil {
			t.Errorf("Serve: %v", err)
		}
		if o, c, n := opens.Load(), closes.Load(), s.Stats(); o != c || n.Conns != 0 || n.HeldBytes != 0 {
			t.Errorf("at the end %d were opened and %d closed, %d are there and %d bytes held", o, c, n.Conns, n.HeldBytes)
		}
	})
	t.Cleanup(s.stop)
	return s
}

// streams as Options.HTTP stands for streaming of the engine that is started with it.
var streams http.Handler = new(http.ServeMux)

// streaming answers every request with an event stream.
func streaming(e func() face) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		w.Header().Set("X-Extra", "of the handler")
		e().Stream(w, r, body)
	}
}

// echo answers every message with itself.
func echo(s **server) *hooks {
	return &hooks{message: func(c ConnRef, op ws.OpCode, p []byte) {
		// A client that is gone, or does not read its echo, has no claim to it.
		_ = (*s).Send(c, newFrame(op, p))
	}}
}

func startEcho(t testing.TB, build newEngine, o Options) *server {
	t.Helper()
	var s *server
	s = start(t, build, echo(&s), o)
	return s
}

// patience bounds every wait of a test for what must happen.
const patience = 20 * time.Second

func get[T any](t testing.TB, ch <-chan T, what string) T {
	t.Helper()
	select {
	case v := <-ch:
		return v
	case <-time.After(patience):
		t.Fatalf("no %s came", what)
		panic("unreachable")
	}
}
