package engine

import (
	"fmt"
	"net"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/gobwas/ws"
	"go.uber.org/zap"
)

type state uint8

const (
	shaking state = iota // in the handshake
	open
	closing // our close frame is the last one queued; the peer may still have to answer
	gone    // nothing is read or written any more
)

// conn is one connection. Its reader goroutine owns the socket: it alone closes it, because
// net.Conn.Close waits for reads and writes to return. Everybody else cuts: a deadline in the
// past makes both return at once.
type conn struct {
	// Set once, before anybody else sees it.
	e      *Engine
	s      *service
	nc     net.Conn
	raw    syscall.RawConn // nil if nc has no descriptor (net.Pipe, TLS)
	ref    ConnRef
	stream bool                  // an event stream: nothing is read from it but its end
	tryFn  func(fd uintptr) bool // method value of try

	calls sync.Mutex // held during each Handler call

	// Owned by the reader.
	in    parser
	intro *intro // until Open
	held  int    // bytes of in that are counted as held

	heard atomic.Int64 // engine time of the last byte from the peer
	begun atomic.Int64 // engine time at which the unfinished message began, 0: none

	mu       sync.Mutex // guards what follows; held for no longer than a non-blocking write
	state    state
	cut      bool // deadlines are in the past
	full     bool // Writable is owed once the queue is low
	room     int  // bytes that the queue must then have free, for a frame that was refused
	starved  bool // a frame was refused because of HeldBytes
	by       closeCause
	code     ws.StatusCode
	cause    error
	closeBy  time.Duration // closing: cut at this engine time
	pinged   time.Duration // engine time of the ping that waits for an answer, 0: none
	lastPing time.Duration // engine time of the last ping, answered or not; of a stream: of whatever was written last
	progress time.Duration // q not empty: engine time of the last byte that the socket took
	q        queue
	written  chan struct{} // closed when the writer goroutine ends; nil: there is none
	decided  chan Decision // cap 1; never closed; nil after the decision
	gate     chan struct{} // closed to end a pause; nil: not paused
	trial    attempt
}

// intro is what the first moments of a connection need and the rest must not keep.
type intro struct {
	req   *Request
	early []byte // what came behind the header
	hello []byte // the response
}

// run is the reader goroutine, from the accepted handshake to Closed.
func (c *conn) run() {
	c.open()
	if c.stream {
		c.readStream()
	} else {
		c.read()
	}
	c.finish()
}

// open makes the connection one that frames may be sent to, within its first Handler call: so
// that no other call comes before it.
func (c *conn) open() {
	c.call("Open", func() {
		c.mu.Lock()
		c.state = open
		c.heard.Store(int64(c.e.now()))
		c.put(c.intro.hello) // not counted: no frame
		c.mu.Unlock()
		c.e.h.Open(c.ref, c.intro.req)
	})
}

// call runs one Handler call. A panic in it ends the connection, not the process.
func (c *conn) call(name string, f func()) {
	c.calls.Lock()
	defer c.calls.Unlock()
	defer func() {
		if p := recover(); p != nil {
			c.e.panicked(name, p)
			c.mu.Lock()
			c.shut(byHandler, ws.StatusInternalServerError, "", fmt.Errorf("%w in %s: %v", ErrHandler, name, p), nil)
			c.mu.Unlock()
		}
	}()
	f()
}

func (e *Engine) panicked(call string, p any) {
	e.count.panics.Add(1)
	e.o.Log.Error("the socket handler panicked; closing its connection",
		zap.String("call", call), zap.Any("panic", p), zap.ByteString("stack", debug.Stack()))
}

func (c *conn) pause(on bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.stream:
	case on && c.gate == nil && c.state == open:
		c.gate = make(chan struct{})
	case !on && c.gate != nil:
		now := c.e.now()
		c.heard.Store(int64(now))
		if c.begun.Load() != 0 {
			c.begun.Store(int64(now))
		}
		c.openGate()
	}
}

// openGate ends a pause. mu is held.
func (c *conn) openGate() {
	if c.gate != nil {
		close(c.gate)
		c.gate = nil
	}
}

// passGate waits while the connection is paused and returns its state then.
func (c *conn) passGate() state {
	for {
		c.mu.Lock()
		gate, st := c.gate, c.state
		c.mu.Unlock()
		if gate == nil {
			return st
		}
		<-gate
	}
}
