package engine

import (
	"errors"
	"io"
	"net"
	"sync"
	"syscall"

	"github.com/gobwas/ws"
	"golang.org/x/sys/unix"
)

// readSize is how much one read takes from a socket, in bytes. An idle connection holds no
// buffer: one is taken when bytes are there.
const readSize = 16 << 10

var readBuffers = sync.Pool{New: func() any { return new([readSize]byte) }}

// read reads until the peer has closed, the connection failed or the peer broke the rules.
// Afterwards the state is closing or gone.
func (c *conn) read() {
	early := c.intro.early
	c.intro = nil
	if len(early) > 0 && !c.feed(early) {
		return
	}
	early = nil
	in := newInput(c.nc, c.raw)
	for {
		buf, n, err := in.read()
		if n > 0 {
			c.heard.Store(int64(c.e.now()))
			more := c.feed(buf[:n])
			readBuffers.Put(buf)
			if !more {
				return
			}
		}
		if err != nil {
			c.lose(err)
			return
		}
	}
}

// feed handles what arrived and returns false when nothing more is to be read.
func (c *conn) feed(b []byte) bool {
	c.e.count.bytesIn.Add(uint64(len(b)))
	whole, taken := c.in.whole, c.in.taken
	more := c.events(b)
	c.e.count.framesIn.Add(c.in.taken - taken)
	switch {
	case !c.in.busy():
		c.begun.Store(0)
	case c.begun.Load() == 0 || c.in.whole != whole:
		c.begun.Store(int64(c.e.now()))
	}
	grown := c.in.held() - c.held
	if grown != 0 && !c.e.hold(grown) {
		c.mu.Lock()
		c.shut(byOverload, codeTryAgainLater, "", ErrOverloaded, nil)
		c.mu.Unlock()
		return false
	}
	c.held += grown
	return more
}

func (c *conn) events(b []byte) bool {
	for {
		st := c.passGate()
		if st == gone {
			return false
		}
		ev, n := c.in.next(b)
		b = b[n:]
		switch ev.kind {
		case evNone:
			return true
		case evMessage:
			if st == open {
				c.call("Message", func() { c.e.h.Message(c.ref, ev.op, ev.payload) })
			}
		case evPing:
			c.pong(ev.payload)
		case evClose:
			c.mu.Lock()
			c.shut(byPeer, ev.code, "", nil, nil)
			c.mu.Unlock()
			return false
		case evViolation:
			by := byProtocol
			if errors.Is(ev.err, ErrTooLarge) {
				by = bySize
			}
			c.mu.Lock()
			c.shut(by, ev.code, ev.err.Error(), ev.err, nil)
			c.mu.Unlock()
			return false
		}
	}
}

func (c *conn) pong(payload []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.state != open {
		return
	}
	f := newFrame(ws.OpPong, payload).wire
	if c.written == nil && c.q.empty() {
		c.put(f)
		return
	}
	before := c.q.bytes
	c.q.pushPong(f)
	c.e.count.held.Add(int64(c.q.bytes - before))
	c.counted(f)
}

// input reads from a socket into pooled buffers. A connection without a descriptor keeps one
// while it waits.
type input struct {
	nc     net.Conn
	raw    syscall.RawConn
	readFn func(fd uintptr) bool
	buf    *[readSize]byte
	n      int
	err    error
}

func newInput(nc net.Conn, raw syscall.RawConn) *input {
	in := &input{nc: nc, raw: raw}
	in.readFn = in.ready
	return in
}

// read waits for bytes. The caller gives buf back to the pool if n > 0.
func (in *input) read() (buf *[readSize]byte, n int, err error) {
	if in.raw == nil {
		buf = readBuffers.Get().(*[readSize]byte)
		n, err = in.nc.Read(buf[:])
		if n == 0 {
			readBuffers.Put(buf)
		}
		return buf, n, err
	}
	in.buf, in.n, in.err = nil, 0, nil
	if err := in.raw.Read(in.readFn); err != nil {
		return nil, 0, err
	}
	buf, in.buf = in.buf, nil
	return buf, in.n, in.err
}

// ready reads once without blocking and returns false to be called again when bytes are there.
func (in *input) ready(fd uintptr) bool {
	buf := readBuffers.Get().(*[readSize]byte)
	for {
		n, err := unix.Read(int(fd), buf[:])
		switch {
		case err == unix.EINTR:
			continue
		case n > 0:
			in.buf, in.n = buf, n
			return true
		}
		readBuffers.Put(buf)
		switch {
		case err == unix.EAGAIN:
			return false
		case err == nil:
			err = io.EOF
		}
		in.err = err
		return true
	}
}
