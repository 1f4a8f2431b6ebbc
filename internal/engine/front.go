package engine

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/netip"
	"slices"
	"syscall"
	"time"

	"go.uber.org/zap"
)

// ServeHTTP takes every request of the service.
func (s *service) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if bad := checkLimits(r, &s.e.o); bad != nil {
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
	if s.stopping() {
		return busy("the server is shutting down")
	}
	c := &conn{e: s.e, s: s}
	c.decided = make(chan Decision, 1)
	if !s.e.table.add(c, s.e.o.MaxConns) {
		return busy(fmt.Sprintf("the server has its %d connections", s.e.o.MaxConns))
	}
	req := newRequest(r)
	req.Protos = protos
	d, bad := c.ask(r, req)
	if bad == nil {
		bad = c.takeOver(w, &intro{req: req, hello: acceptResponse(key, d.Proto, d.Header)})
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

// ask gets the Handler's decision, waiting for one that comes later.
func (c *conn) ask(r *http.Request, req *Request) (Decision, *refusal) {
	decided := c.decided
	defer func() {
		c.mu.Lock()
		c.decided = nil
		c.mu.Unlock()
	}()
	d := Decision{Status: http.StatusInternalServerError, Reason: "the server failed"} // if it panics
	c.call("Handshake", func() { d = c.e.h.Handshake(c.ref, req) })
	if d.Later {
		t := time.NewTimer(c.e.o.HandshakeTime)
		defer t.Stop()
		select {
		case d = <-decided:
		case <-t.C:
			return d, busy("the server did not decide in time")
		case <-c.s.stop:
			return d, busy("the server is shutting down")
		case <-r.Context().Done():
			return d, busy("the client gave up")
		}
	}
	if d.Status != 0 && !d.Later && d.Status >= 300 && d.Status <= 599 {
		return d, &refusal{status: d.Status, reason: d.Reason, header: d.Header}
	}
	if d.Status != 0 || d.Later || d.Proto != "" && !slices.Contains(req.Protos, d.Proto) {
		c.e.o.Log.Error("the socket handler gave an impossible decision; refusing its client",
			zap.Int("status", d.Status), zap.Bool("later", d.Later), zap.String("proto", d.Proto))
		return d, &refusal{status: http.StatusInternalServerError, reason: "the server failed"}
	}
	return d, nil
}

// takeOver takes the socket from net/http, with its buffers left behind, and gives it a line.
func (c *conn) takeOver(w http.ResponseWriter, in *intro) *refusal {
	nc, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return &refusal{status: http.StatusInternalServerError, reason: "the connection cannot be taken over"}
	}
	if n := rw.Reader.Buffered(); n > 0 {
		early, _ := rw.Reader.Peek(n) // what is buffered can be peeked
		in.early = slices.Clone(early)
	}
	if tcp, ok := nc.(interface{ SetWriteBuffer(int) error }); ok {
		_ = tcp.SetWriteBuffer(c.e.o.SendBuffer) // a failed socket shows when it is written to
	}
	var raw syscall.RawConn
	if sc, ok := nc.(syscall.Conn); ok {
		if raw, err = sc.SyscallConn(); err != nil {
			raw = nil
		}
	}
	if c.stream && raw != nil {
		setUserTimeout(raw, c.e.o.PongTime)
	}
	c.intro = in
	c.e.count.conns.Add(1)
	c.e.count.opened.Add(1)
	if c.stream {
		c.e.count.streams.Add(1)
	}
	if raw == nil || !c.s.loops.take(c, nc, raw) {
		startThreads(c, nc, raw)
	}
	return nil
}

// busy refuses for now: a balancer takes the client elsewhere, a client comes back.
func busy(reason string) *refusal {
	return &refusal{status: http.StatusServiceUnavailable, reason: reason, header: http.Header{"Retry-After": {"1"}}}
}

// refuse answers with problem+json (RFC 9457).
func (s *service) refuse(w http.ResponseWriter, bad *refusal) {
	s.e.count.refused.Add(1)
	maps.Copy(w.Header(), bad.header)
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(bad.status)
	// The client sees a short body if this fails.
	_ = json.NewEncoder(w).Encode(struct {
		Title  string `json:"title"`
		Status int    `json:"status"`
		Detail string `json:"detail,omitempty"`
	}{http.StatusText(bad.status), bad.status, bad.reason})
}
