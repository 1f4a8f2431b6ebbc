package engine

import (
	"errors"

	"github.com/gobwas/ws"
)

// readSize is how much one read takes from a socket, in bytes.
const readSize = 16 << 10

// intake is what a connection has of what its peer sent, while there is something.
type intake struct {
	parser parser
	held   int    // bytes of the parser that are counted as held
	rest   []byte // what a pause has left to be fed
	thrown int    // bytes that a stream's peer has sent
}

func (s *service) newIntake() intake {
	return intake{parser: parser{maxMessage: s.e.o.MessageBytes, maxFragments: s.e.o.Fragments}}
}

// dropIntake forgets it, and what it holds.
func (c *conn) dropIntake() {
	if c.in != nil {
		c.s.e.count.held.Add(int64(-c.in.held))
		c.in = nil
	}
}

// arrived says that the peer sent n bytes.
func (c *conn) arrived(n int) {
	c.heard.Store(int64(c.s.e.now()))
	c.s.e.count.bytesIn.Add(uint64(n))
}

// maxEvents is how many frames are handled in one feed: 16 KiB of the smallest ones are 2,700, each of which may be
// answered by a write.
const maxEvents = 64

// feed handles what arrived, in maxEvents frames at most. rest is what they, or a pause, have left of it, to be fed
// again, after the pause; more is false when nothing more is to be read, and the state is then closing or gone.
func (c *conn) feed(b []byte) (rest []byte, more bool) {
	p := &c.in.parser
	whole, taken := p.whole, p.taken
	rest, more = c.events(b)
	c.s.e.count.framesIn.Add(p.taken - taken)
	switch {
	case !p.busy():
		c.begun.Store(0)
	case c.begun.Load() == 0 || p.whole != whole:
		c.begun.Store(int64(c.s.e.now()))
	}
	grown := p.held() - c.in.held
	if grown != 0 && !c.s.e.hold(grown) {
		c.mu.Lock()
		c.shut(byOverload, codeTryAgainLater, "", ErrOverloaded, nil)
		c.mu.Unlock()
		return nil, false
	}
	c.in.held += grown
	return rest, more
}

func (c *conn) events(b []byte) (rest []byte, more bool) {
	for range maxEvents {
		c.mu.Lock()
		st, paused := c.state, c.paused
		c.mu.Unlock()
		switch {
		case st == gone:
			return nil, false
		case paused:
			return b, true
		}
		ev, n := c.in.parser.next(b)
		b = b[n:]
		switch ev.kind {
		case evNone:
			return nil, true
		case evMessage:
			if st == open {
				c.call("Message", func() { c.s.e.h.Message(c.ref, ev.op, ev.payload) })
			}
		case evPing:
			c.pong(ev.payload)
		case evClose:
			c.mu.Lock()
			c.shut(byPeer, ev.code, "", nil, nil)
			c.mu.Unlock()
			return nil, false
		case evViolation:
			by := byProtocol
			if errors.Is(ev.err, ErrTooLarge) {
				by = bySize
			}
			c.mu.Lock()
			c.shut(by, ev.code, ev.err.Error(), ev.err, nil)
			c.mu.Unlock()
			return nil, false
		}
	}
	return b, true
}

func (c *conn) pong(payload []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.state != open {
		return
	}
	f := newFrame(ws.OpPong, payload).wire
	if c.q.empty() {
		c.put(f)
		return
	}
	before := c.q.bytes
	c.q.pushPong(f)
	c.s.e.count.held.Add(int64(c.q.bytes - before))
	c.counted(f)
}
