package amqp

import (
	"net"
	"sync"
	"time"
)

// socket is the TCP connection under an AMQP connection. The library writes each publish on its own; in a burst of them
// Write returns at once, and what comes while a send is under way goes with the next: a few system calls, not thousands
// (ADR 27).
//
// Sends give up after a timeout. AMQP is a stream: then the socket is closed, and every Write and Read returns why.
type socket struct {
	net.Conn
	timeout time.Duration // for one send

	mu      sync.Mutex
	moved   sync.Cond // on mu: a send has ended
	unsent  []byte    // guarded by mu
	spare   []byte    // guarded by mu: room for unsent, while the rest is sent
	sent    time.Time // guarded by mu: when the last send ended
	sending bool      // guarded by mu
	closing bool      // guarded by mu
	failed  error     // guarded by mu: the first send that failed
}

const (
	maxUnsent   = 64 << 10               // bytes: more waits, unless it is alone; as much again may be on its way
	burst       = 100 * time.Microsecond // a write that comes sooner after a send is sent by a goroutine, else by its caller
	closeWithin = time.Second
)

func newSocket(c net.Conn, timeout time.Duration) *socket {
	s := &socket{Conn: c, timeout: timeout}
	s.moved.L = &s.mu
	return s
}

// Write keeps nothing of p, and blocks while too much is unsent. It may be called by any goroutine.
func (s *socket) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.failed == nil && len(s.unsent) > 0 && len(s.unsent)+len(p) > maxUnsent {
		s.moved.Wait()
	}
	switch {
	case s.failed != nil:
		return 0, s.failed
	case s.closing:
		return 0, net.ErrClosed
	}
	s.unsent = append(s.unsent, p...)
	switch {
	case s.sending:
	case time.Since(s.sent) < burst:
		s.sending = true
		go func() {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.send()
		}()
	default:
		s.sending = true
		s.send()
	}
	if s.failed != nil {
		return 0, s.failed
	}
	return len(p), nil
}

// send sends until nothing is unsent. It is called with mu held, and lets go of it meanwhile.
func (s *socket) send() {
	for len(s.unsent) > 0 && s.failed == nil {
		p := s.unsent
		s.unsent = s.spare[:0]
		var err error
		if !s.closing { // else Close has set its own
			err = s.SetWriteDeadline(time.Now().Add(s.timeout))
		}
		s.mu.Unlock()
		if err == nil {
			_, err = s.Conn.Write(p)
		}
		s.mu.Lock()
		s.spare, s.sent = p, time.Now()
		if s.failed = err; err != nil {
			s.cut() // has Read return
		}
		s.moved.Broadcast()
	}
	s.sending = false
	s.moved.Broadcast()
}

// Read returns why a send failed, if one did.
func (s *socket) Read(p []byte) (int, error) {
	n, err := s.Conn.Read(p)
	if err != nil {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.failed != nil {
			err = s.failed
		}
	}
	return n, err
}

// Close sends what is unsent, for at most closeWithin.
func (s *socket) Close() error {
	s.mu.Lock()
	s.closing = true
	_ = s.SetWriteDeadline(time.Now().Add(closeWithin)) // it fails only on a socket that is closed
	for s.sending {
		s.moved.Wait()
	}
	s.mu.Unlock()
	return s.Conn.Close()
}

// cut closes the socket as it is.
func (s *socket) cut() { _ = s.Conn.Close() }
