package engine

import (
	"net"
	"syscall"
	"time"
)

// threads is the line of a connection with a goroutine of its own, which reads; a second one lives only
// while frames wait because the peer does not take them. The reader owns the socket: it alone closes it,
// because net.Conn.Close waits for reads and writes to return. Others cut it by a deadline in the past, at
// which both return at once.
type threads struct {
	c     *conn
	nc    net.Conn
	raw   syscall.RawConn       // nil if nc has no descriptor (net.Pipe, TLS)
	tryFn func(fd uintptr) bool // method value of attempt

	intake intake // c.in

	// Guarded by c.mu.
	ended   bool          // deadlines are in the past
	written chan struct{} // closed when the writer goroutine ends; nil: there is none
	gate    chan struct{} // closed to end a pause; nil: not paused
	trial   trial
}

// trial carries one direct write through RawConn.Write, which takes only a function.
type trial struct {
	b   []byte
	n   int
	err error
}

// startThreads gives c its reader. raw is nil if nc has no descriptor.
func startThreads(c *conn, nc net.Conn, raw syscall.RawConn) {
	t := &threads{c: c, nc: nc, raw: raw}
	t.tryFn = t.attempt
	t.intake = c.s.newIntake()
	c.line, c.in = t, &t.intake
	c.s.conns.Go(t.run)
}

// run is the reader goroutine, from the accepted handshake to Closed.
func (t *threads) run() {
	if early := t.c.open(); t.c.stream {
		t.intake.thrown = len(early)
		t.readStream()
	} else if len(early) == 0 || t.feed(early) {
		t.read()
	}
	t.finish()
}

// read reads until the peer has closed, the connection failed or the peer broke the rules.
// Afterwards the state is closing or gone.
func (t *threads) read() {
	in := newInput(t.nc, t.raw)
	for {
		buf, n, err := in.read()
		if n > 0 {
			more := t.feed(buf[:n])
			readBuffers.Put(buf)
			if !more {
				return
			}
		}
		if err != nil {
			t.c.mu.Lock()
			t.c.drop(byLoss, err)
			t.c.mu.Unlock()
			return
		}
	}
}

// feed handles what arrived, waiting while the connection is paused.
func (t *threads) feed(b []byte) (more bool) {
	t.c.arrived(len(b))
	for {
		if b, more = t.c.feed(b); len(b) == 0 || !more {
			return more
		}
		t.passGate()
	}
}

// readStream reads until the peer has ended the stream, or it failed. Afterwards the state is closing
// or gone.
func (t *threads) readStream() {
	in := newInput(t.nc, t.raw)
	for {
		buf, n, err := in.read()
		if n > 0 {
			readBuffers.Put(buf)
		}
		if !t.c.scrap(n, err) {
			return
		}
	}
}

func (t *threads) turn() {
	if t.c.paused {
		t.gate = make(chan struct{})
		return
	}
	close(t.gate)
	t.gate = nil
}

func (t *threads) unread() (some bool) {
	if t.raw != nil {
		_ = t.raw.Control(func(fd uintptr) { some = unreadOn(int(fd)) })
	}
	return some
}

// passGate waits while the connection is paused.
func (t *threads) passGate() {
	for {
		t.c.mu.Lock()
		gate := t.gate
		t.c.mu.Unlock()
		if gate == nil {
			return
		}
		<-gate
	}
}

func (t *threads) cut() {
	t.ended = true
	// A socket on which no deadline can be set has failed already.
	_ = t.nc.SetDeadline(time.Unix(1, 0))
}

func (t *threads) halve() {
	if t.written != nil { // it comes back here at its end
		return
	}
	half, ok := t.nc.(interface{ CloseWrite() error })
	if !ok || half.CloseWrite() != nil {
		t.c.drop(t.c.by, t.c.end.cause)
	}
}

// finish ends what read left: it lets the queue go out, tells the peer that nothing more comes,
// waits for its end and closes the socket. Until the state is gone the sweep sees to it that
// this takes no longer than CloseTime.
func (t *threads) finish() {
	t.c.mu.Lock()
	written := t.written
	t.c.mu.Unlock()
	if written != nil {
		<-written
	}
	t.linger()
	t.c.mu.Lock()
	t.c.release()
	t.c.mu.Unlock()
	_ = t.nc.Close() // nothing is left to lose
	t.c.leave()
}

// linger half-closes and reads to the end, so that bytes of the peer that nobody read do not
// reset the connection and take the close frame with them.
func (t *threads) linger() {
	t.c.mu.Lock()
	ended := t.ended
	t.c.mu.Unlock()
	half, ok := t.nc.(interface{ CloseWrite() error })
	if ended || !ok || half.CloseWrite() != nil {
		return
	}
	in := newInput(t.nc, t.raw)
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
