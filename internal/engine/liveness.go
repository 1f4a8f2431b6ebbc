package engine

import (
	"time"

	"github.com/gobwas/ws"
)

// pingFrame has no payload: any byte from the peer is an answer.
var pingFrame = newFrame(ws.OpPing, nil)

// tick looks at every time limit of the connection. The sweep calls it; it does not block.
func (c *conn) tick(now time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	o := &c.s.e.o
	switch c.state {
	case shaking, gone: // the handshake has its own timer, a connection that is gone needs none
		return
	case closing:
		if now >= c.end.closeBy {
			c.drop(c.by, c.end.cause)
		}
		return
	}
	switch begun := time.Duration(c.begun.Load()); {
	case c.s.stopping():
		c.shut(byShutdown, ws.StatusGoingAway, "", ErrShutdown, nil)
	case !c.q.empty() && now-c.q.progress >= o.StallTime:
		c.drop(byStall, ErrStalled)
	case !c.paused && begun != 0 && now-begun >= o.MessageTime:
		c.shut(bySlowness, ws.StatusPolicyViolation, ErrSlowFrame.Error(), ErrSlowFrame, nil)
	case c.stream:
		c.checkStream(now)
	default:
		c.checkLife(now)
	}
	if c.starved {
		c.starved, c.full = false, true
		c.line.flush()
	}
}

// maxLate is how many times PongTime a peer is given whose answer waits to be read: this process is late then, not the peer.
const maxLate = 12

// checkLife pings a peer that has been silent and cuts off one that did not answer. mu is held.
func (c *conn) checkLife(now time.Duration) {
	o := &c.s.e.o
	heard := time.Duration(c.heard.Load())
	if heard >= c.pinged {
		c.pinged = 0
	}
	switch {
	case c.pinged != 0 && !c.paused:
		if late := now - c.pinged; late >= maxLate*o.PongTime || late >= o.PongTime && !c.line.unread() {
			c.drop(bySilence, ErrPeerSilent)
		}
	case c.q.empty() && now-max(heard, c.lastPing) >= o.PingEvery: // else a ping would only wait
		c.lastPing = now
		if !c.paused {
			c.pinged = now
		}
		c.write(pingFrame.wire)
	}
}
