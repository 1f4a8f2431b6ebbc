package engine

import (
	"time"

	"github.com/gobwas/ws"
)

// Engine serves WebSockets and event streams. Who moves their bytes and calls the Handler is chosen by
// Options.Goroutines: a goroutine for each connection (threads), or a few loops for all of them (polled). Its
// methods may be called from any goroutine, and, but for Serve and Receive, from within Handler calls; none
// but these two blocks.
type Engine struct {
	h     Handler
	o     Options // with defaults
	began time.Time
	table table
	count counters
}

// New makes an engine that serves nothing yet.
func New(h Handler, o Options) *Engine {
	return &Engine{h: h, o: o.withDefaults(), began: time.Now().Add(-1)} // engine time 0 means never
}

// Send writes f to c, or queues it behind what waits there. nil says no more than that: the peer
// may never get it. ErrGone: the connection is closed, closing or not open yet. ErrQueueFull: f
// would exceed the queue of c or the bytes held by the engine; nothing of f was taken, and
// Writable will follow, unless f alone is longer than the whole queue may be. Frames of one
// connection go out in the order of the calls.
func (e *Engine) Send(c ConnRef, f *Frame) error {
	k := e.table.get(c)
	if k == nil {
		return ErrGone
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.send(f)
}

// Offer is Send for what may be left out, so that what must arrive keeps its room: it takes nothing and
// answers ErrQueueFull also while more than half of the queue of c is in use, in bytes or in frames, or
// frames wait for c and more than half of the bytes that the engine may hold are held. Writable follows each
// of these answers.
func (e *Engine) Offer(c ConnRef, f *Frame) error {
	k := e.table.get(c)
	if k == nil {
		return ErrGone
	}
	return k.offer(f)
}

// CloseConn closes c: what is queued goes out first, then last if it is not nil, then the close
// frame; reason is cut to 123 bytes. A stream has no close frame, and Options.Bye if last is nil. The peer has Options.CloseTime to take them and to answer.
// Nothing that it sends meanwhile reaches the Handler but Closed. A code that may not stand on
// the wire sends a close frame without one. On a connection that is closing or gone it does
// nothing.
func (e *Engine) CloseConn(c ConnRef, code ws.StatusCode, reason string, last *Frame) {
	if k := e.table.get(c); k != nil {
		k.mu.Lock()
		k.shut(byLocal, code, reason, nil, last)
		k.mu.Unlock()
	}
}

// Pause(c, true) stops reading from the peer, Pause(c, false) goes on. When it is called from
// within Message no further Message follows until it is undone; called from elsewhere, one may
// be under way. At most 16 KiB more are taken from the socket, and what the peer sends beyond
// fills the kernel's buffers and then stops it.
//
// While a connection is paused it is pinged as ever but not judged by its silence or by
// MessageTime; a peer that died is noticed when a ping fails to be written, or after the pause,
// which gives it the full times anew. Frames are sent, and ErrStalled holds, as ever. It does nothing to
// a stream.
func (e *Engine) Pause(c ConnRef, on bool) {
	if k := e.table.get(c); k != nil {
		k.pause(on)
	}
}

// Decide answers a handshake for which the Handler said Later. It may come before Handshake has
// returned. The first decision counts; one that comes after Options.HandshakeTime, or for a
// connection that is gone, does nothing.
func (e *Engine) Decide(c ConnRef, d Decision) {
	if k := e.table.get(c); k != nil {
		k.decide(d)
	}
}

// Receive gives the Handler a text message that the client of c sent by another way, as by a request
// of its own: it is serial with the other calls for c, and made in the caller's goroutine. nil: Message
// has returned. ErrGone: c is closed, closing or not open yet. It waits for a Handler call under way,
// and must not be called from within one.
func (e *Engine) Receive(c ConnRef, p []byte) error {
	k := e.table.get(c)
	if k == nil {
		return ErrGone
	}
	err := ErrGone
	k.call("Message", func() {
		k.mu.Lock()
		if k.state == open {
			err = nil
		}
		k.mu.Unlock()
		if err == nil {
			e.h.Message(c, OpText, p)
		}
	})
	return err
}

// now is the engine's clock.
func (e *Engine) now() time.Duration { return time.Since(e.began) }

// hold adds n bytes to what the engine holds, or returns false if it may not hold them. A
// negative n always succeeds.
func (e *Engine) hold(n int) bool {
	if e.count.held.Add(int64(n)) > int64(e.o.HeldBytes) && n > 0 {
		e.count.held.Add(int64(-n))
		return false
	}
	return true
}
