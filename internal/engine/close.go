package engine

import (
	"errors"

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
	c.state, c.by, c.code = closing, by, code
	c.end = &ending{cause: cause, closeBy: c.s.e.now() + c.s.e.o.CloseTime}
	c.resume()
	if last == nil && c.stream && c.s.e.o.Bye != nil {
		last = c.s.e.o.Bye(code, reason)
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
		c.by, c.code, c.end = by, ws.StatusAbnormalClosure, &ending{cause: cause}
		if by == byPeer { // of a stream, which knows no close frame
			c.code = ws.StatusNoStatusRcvd
		}
	}
	c.state = gone
	c.resume()
	c.line.cut()
}

// release gives back what the connection holds when its bytes have ended. mu is held.
func (c *conn) release() {
	c.state = gone
	c.resume()
	c.s.e.count.held.Add(int64(-c.q.size()))
	c.q = nil
	c.dropIntake()
}

// leave is the end of a connection whose socket is closed.
func (c *conn) leave() {
	c.s.e.table.remove(c)
	c.s.e.count.conns.Add(-1)
	if c.stream {
		c.s.e.count.streams.Add(-1)
	}
	c.s.e.count.closes[c.by].Add(1)
	c.call("Closed", func() { c.s.e.h.Closed(c.ref, c.code, c.end.cause) })
}
