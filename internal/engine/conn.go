package engine

import (
	"fmt"
	"runtime/debug"
	"sync"
	"sync/atomic"
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

// conn is one connection: its state, times and queue, and the Handler's calls for it. How its bytes move is
// its line's part. One goroutine at a time reads for it, its own or a loop; that one alone closes the socket.
// Everybody else cuts. An idle one should be small: what is rare lies behind pointers.
type conn struct {
	// Set once, before anybody else sees it; line, when the handshake was accepted at the latest.
	s    *service
	ref  ConnRef
	line line

	calls sync.Mutex // held during each Handler call

	in *intake // owned by who reads; nil: nothing is left of what came

	heard atomic.Int64 // engine time of the last byte from the peer
	begun atomic.Int64 // engine time at which the unfinished message began, 0: none

	mu       sync.Mutex // guards what follows; held for no longer than a non-blocking write
	stream   bool       // an event stream: nothing is read from it but its end. Set once, like the first
	state    state
	paused   bool
	full     bool // Writable is owed once the queue is low
	starved  bool // a frame was refused because of HeldBytes
	by       closeCause
	code     ws.StatusCode
	pinged   time.Duration // engine time of the ping that waits for an answer, 0: none
	lastPing time.Duration // engine time of the last ping, answered or not; of a stream: of whatever was written last
	q        *queue        // nil: nothing waits
	intro    *intro        // until Open
	end      *ending       // closing or gone
}

// ending is how a connection ends.
type ending struct {
	cause   error
	closeBy time.Duration // closing: cut at this engine time
}

// intro is what the first moments of a connection need and the rest must not keep. It is owned by who leads the
// handshake, but for decision and tell, which mu guards.
type intro struct {
	req   *Request
	early []byte // what came behind the header
	hello []byte // the response

	decision *Decision // of Decide
	tell     func()    // called with mu held when there is a decision; nil: nobody waits
}

// line moves the bytes of one connection. Its methods are called with the connection's mu held; none
// blocks or calls the Handler.
type line interface {
	// try writes at once what the socket takes of b, with nothing queued before it; 0 if it must be queued.
	try(b []byte) (n int, err error)
	// flush sees to it that what is queued goes out and that an owed Writable is told.
	flush()
	// halve tells the peer that nothing more comes, when all of it is out. Where one side cannot be ended
	// alone, both are.
	halve()
	// turn says that paused has changed.
	turn()
	// unread reports whether the peer has sent what was not read yet.
	unread() bool
	// cut says that the state is gone: reads and writes end at once, and finish follows.
	cut()
}

// open makes the connection one that frames may be sent to, within its first Handler call: so
// that no other call comes before it. It returns what came behind the header.
func (c *conn) open() (early []byte) {
	in := c.intro
	c.call("Open", func() {
		c.mu.Lock()
		c.state, c.intro = open, nil
		c.heard.Store(int64(c.s.e.now()))
		c.put(in.hello) // not counted: no frame
		c.mu.Unlock()
		c.s.e.h.Open(c.ref, in.req)
	})
	return in.early
}

// call runs one Handler call. A panic in it ends the connection, not the process.
func (c *conn) call(name string, f func()) {
	c.calls.Lock()
	defer c.calls.Unlock()
	defer func() {
		if p := recover(); p != nil {
			c.s.e.panicked(name, p)
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
	case on && !c.paused && c.state == open:
		c.paused = true
		c.line.turn()
	case !on && c.paused:
		now := c.s.e.now()
		c.heard.Store(int64(now))
		if c.begun.Load() != 0 {
			c.begun.Store(int64(now))
		}
		c.resume()
	}
}

// resume ends a pause. mu is held.
func (c *conn) resume() {
	if c.paused {
		c.paused = false
		c.line.turn()
	}
}
