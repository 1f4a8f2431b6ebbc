package engine

import (
	"errors"
	"time"

	"github.com/gobwas/ws"
	"golang.org/x/sys/unix"
)

// shut begins an orderly close: last and the close frame go behind what is queued, beyond its
// limits if need be; a stream has no close frame, and Options.Bye in place of a last that is nil. The
// first reason counts; on a connection that is not open it does nothing. mu is held.
func (c *conn) shut(by closeCause, code ws.StatusCode, reason string, cause error, last *Frame) {
	if c.state != open {
		return
	}
	c.state, c.by, c.code, c.cause = closing, by, code, cause
	c.closeBy = c.e.now() + c.e.o.CloseTime
	c.openGate()
	if last == nil && c.stream && c.e.o.Bye != nil {
		last = c.e.o.Bye(code, reason)
	}
	if last != nil {
		c.write(c.encode(last))
	}
	if c.stream {
		c.endStream()
		return
	}
	c.write(newClose(code, reason).wire)
}

// drop ends a connection without further ado: reads and writes return at once. If it was open
// the given reason counts and the code is 1006; if it was closing that close's. mu is held.
func (c *conn) drop(by closeCause, cause error) {
	if c.state == gone {
		return
	}
	if c.stream && errors.Is(cause, unix.ETIMEDOUT) {
		by, cause = bySilence, ErrPeerSilent
	}
	if c.state == open {
		c.by, c.code, c.cause = by, ws.StatusAbnormalClosure, cause
		if by == byPeer { // of a stream, which knows no close frame
			c.code = ws.StatusNoStatusRcvd
		}
	}
	c.state = gone
	c.cut = true
	c.openGate()
	// A socket on which no deadline can be set has failed already.
	_ = c.nc.SetDeadline(time.Unix(1, 0))
}

// lose is drop for the reader.
func (c *conn) lose(err error) {
	c.mu.Lock()
	c.drop(byLoss, err)
	c.mu.Unlock()
}

// finish ends what read left: it lets the queue go out, tells the peer that nothing more comes,
// waits for its end and closes the socket. Until the state is gone the sweep sees to it that
// this takes no longer than CloseTime.
func (c *conn) finish() {
	c.mu.Lock()
	written := c.written
	c.mu.Unlock()
	if written != nil {
		<-written
	}
	c.linger()

	c.mu.Lock()
	c.state = gone
	c.openGate()
	c.e.count.held.Add(int64(-c.q.bytes - c.held))
	c.q, c.in = queue{}, parser{}
	c.mu.Unlock()

	_ = c.nc.Close() // nothing is left to lose
	c.e.table.remove(c)
	c.e.count.conns.Add(-1)
	if c.stream {
		c.e.count.streams.Add(-1)
	}
	c.e.count.closes[c.by].Add(1)
	c.call("Closed", func() { c.e.h.Closed(c.ref, c.code, c.cause) })
}

// linger half-closes and reads to the end, so that bytes of the peer that nobody read do not
// reset the connection and take the close frame with them.
func (c *conn) linger() {
	c.mu.Lock()
	cut := c.cut
	c.mu.Unlock()
	half, ok := c.nc.(interface{ CloseWrite() error })
	if cut || !ok || half.CloseWrite() != nil {
		return
	}
	in := newInput(c.nc, c.raw)
	for {
		buf, n, err := in.read()
		if n > 0 {
			readBuffers.Put(buf)
		}
		if err != nil {
			return
		}
	}
}
