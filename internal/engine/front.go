package engine

import (
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"syscall"
	"time"

	"go.uber.org/zap"
)

// ServeHTTP takes every request of the service.
func (s *service) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if bad := checkLimits(r, countFields(r), &s.e.o); bad != nil {
		s.refuse(w, bad)
		return
	}
	if !isUpgrade(r) {
		s.e.o.HTTP.ServeHTTP(w, r)
		return
	}
	s.conns.Add(1) // before the socket leaves plain, so that Serve misses nobody
	defer s.conns.Done()
	if bad := s.upgrade(w, r); bad != nil {
		s.refuse(w, bad)
	}
}

// upgrade turns a handshake into a connection or returns the refusal.
func (s *service) upgrade(w http.ResponseWriter, r *http.Request) *refusal {
	key, protos, bad := checkUpgrade(r)
	if bad != nil {
		return bad
	}
	c, bad := s.newConn(&intro{req: newRequest(r)})
	if bad != nil {
		return bad
	}
	c.intro.req.Protos = protos
	d, bad := c.await(r)
	if bad == nil {
		c.intro.hello = acceptResponse(key, d.Proto, d.Header)
		bad = c.takeOver(w)
	}
	if bad != nil {
		s.e.table.remove(c)
	}
	return bad
}

func newRequest(r *http.Request) *Request {
	req := &Request{Target: r.URL.RequestURI(), Host: r.Host, Header: r.Header}
	req.Remote, _ = netip.ParseAddrPort(r.RemoteAddr) // not an address: a pipe or a unix socket
	return req
}

// newConn makes a connection that has its place and its reference, or returns the refusal.
func (s *service) newConn(in *intro) (*conn, *refusal) {
	if s.stopping() {
		return nil, busy("the server is shutting down")
	}
	c := s.loops.newConn()
	c.s, c.stream, c.intro = s, in.req.Stream, in
	if !s.e.table.add(c, s.e.o.MaxConns) {
		return nil, busy(fmt.Sprintf("the server has its %d connections", s.e.o.MaxConns))
	}
	return c, nil
}

// ask gets the Handler's decision. It returns false if there is none yet; then tell is called when there is,
// by Decide, and must not block.
func (c *conn) ask(tell func()) (d Decision, decided bool) {
	d = Decision{Status: http.StatusInternalServerError, Reason: "the server failed"} // if it panics
	c.call("Handshake", func() { d = c.s.e.h.Handshake(c.ref, c.intro.req) })
	if !d.Later {
		return d, true
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.intro.decision != nil {
		return *c.intro.decision, true
	}
	c.intro.tell = tell
	return d, false
}

// decide is Engine.Decide.
func (c *conn) decide(d Decision) {
	c.mu.Lock()
	defer c.mu.Unlock()
	in := c.intro
	if in == nil || in.decision != nil { // decided already
		return
	}
	in.decision = &d
	if in.tell != nil {
		in.tell()
	}
}

// await gets the Handler's decision, waiting for one that comes later.
func (c *conn) await(r *http.Request) (Decision, *refusal) {
	told := make(chan struct{})
	d, decided := c.ask(func() { close(told) })
	if !decided {
		t := time.NewTimer(c.s.e.o.HandshakeTime)
		defer t.Stop()
		select {
		case <-told:
			d, _ = c.decision()
		case <-t.C:
			return d, busy("the server did not decide in time")
		case <-c.s.stop:
			return d, busy("the server is shutting down")
		case <-r.Context().Done():
			return d, busy("the client gave up")
		}
	}
	return d, c.judge(&d)
}

// decision is what Decide was given, if it was.
func (c *conn) decision() (d Decision, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.intro.decision == nil {
		return d, false
	}
	return *c.intro.decision, true
}

// judge returns the refusal that a decision is, or nil.
func (c *conn) judge(d *Decision) *refusal {
	if d.Status >= 300 && d.Status <= 599 && !d.Later {
		return &refusal{status: d.Status, reason: d.Reason, header: d.Header}
	}
	if d.Status != 0 || d.Later || d.Proto != "" && !slices.Contains(c.intro.req.Protos, d.Proto) {
		c.s.e.o.Log.Error("the socket handler gave an impossible decision; refusing its client",
			zap.Int("status", d.Status), zap.Bool("later", d.Later), zap.String("proto", d.Proto))
		return &refusal{status: http.StatusInternalServerError, reason: "the server failed"}
	}
	return nil
}

// takeOver takes the socket from net/http, with its buffers left behind, and gives it a line.
func (c *conn) takeOver(w http.ResponseWriter) *refusal {
	nc, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return &refusal{status: http.StatusInternalServerError, reason: "the connection cannot be taken over"}
	}
	if n := rw.Reader.Buffered(); n > 0 {
		early, _ := rw.Reader.Peek(n) // what is buffered can be peeked
		c.intro.early = slices.Clone(early)
	}
	if h, ok := nc.(interface{ bare() (net.Conn, []byte) }); ok {
		var early []byte
		nc, early = h.bare()
		c.intro.early = append(c.intro.early, early...)
	}
	if tcp, ok := nc.(interface{ SetWriteBuffer(int) error }); ok {
		_ = tcp.SetWriteBuffer(c.s.e.o.SendBuffer) // a failed socket shows when it is written to
	}
	var raw syscall.RawConn
	if sc, ok := nc.(syscall.Conn); ok {
		if raw, err = sc.SyscallConn(); err != nil {
			raw = nil
		}
	}
	if c.stream && raw != nil {
		setUserTimeout(raw, c.s.e.o.PongTime)
	}
	c.admitted()
	if raw == nil || !c.s.loops.take(c, nc, raw) {
		startThreads(c, nc, raw)
	}
	return nil
}

// admitted counts a connection that was accepted.
func (c *conn) admitted() {
	c.s.e.count.conns.Add(1)
	c.s.e.count.opened.Add(1)
	if c.stream {
		c.s.e.count.streams.Add(1)
	}
}

// busy refuses for now: a balancer takes the client elsewhere, a client comes back.
func busy(reason string) *refusal {
	return &refusal{status: http.StatusServiceUnavailable, reason: reason, header: http.Header{"Retry-After": {"1"}}}
}

// refuse answers by net/http.
func (s *service) refuse(w http.ResponseWriter, bad *refusal) {
	s.e.count.refused.Add(1)
	maps.Copy(w.Header(), bad.header)
	w.Header().Set("Content-Type", problemType)
	w.WriteHeader(bad.status)
	_, _ = w.Write(bad.body()) // the client sees a short body if this fails
}
