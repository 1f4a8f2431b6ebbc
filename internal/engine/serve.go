package engine

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"

	"go.uber.org/zap"
)

// Serve accepts from ln until ctx ends and returns nil then, or until ln fails and returns that
// error. WebSocket upgrades on any path go to the Handler, other requests to Options.HTTP, which may turn
// them into event streams.
// Several listeners may be served at once. ln is closed in any case.
//
// In the end every socket of ln that is not closing yet is closed with 1001, and requests in
// flight have as long as the sockets: after CloseTime their contexts end and their sockets are
// closed. Serve returns with every goroutine gone that it started, after CloseTime and the time
// that Handler calls and HTTP handlers take to return. A handler of long answers should
// therefore watch for the shutdown itself.
func (e *Engine) Serve(ctx context.Context, ln net.Listener) error {
	if err := e.o.Validate(); err != nil {
		_ = ln.Close()
		return err
	}
	s := &service{e: e, stop: make(chan struct{})}
	if !e.o.Goroutines {
		s.loops = &loops{s: s}
	}
	requests, endRequests := context.WithCancel(context.WithoutCancel(ctx))
	defer endRequests()
	srv := &http.Server{
		Handler:           s,
		ReadHeaderTimeout: e.o.HandshakeTime,
		IdleTimeout:       idleTime,
		MaxHeaderBytes:    e.o.HeaderBytes - 4<<10, // net/http adds 4 KiB
		ConnState:         s.connState,
		BaseContext:       func(net.Listener) context.Context { return context.WithValue(requests, serviceKey{}, s) },
		ErrorLog:          zap.NewStdLog(e.o.Log),
	}

	inner := s.loops.listen(ln)
	if inner == nil {
		inner = &door{Listener: ln, e: e}
	}
	swept, sweeps := make(chan struct{}), sync.WaitGroup{}
	sweeps.Go(func() { s.sweep(swept) })
	failed := make(chan error, 1)
	go func() { failed <- srv.Serve(inner) }()

	var err error
	accepting := true
	select {
	case <-ctx.Done():
	case err = <-failed:
		accepting = false
		err = fmt.Errorf("engine: accept on %v: %w", ln.Addr(), err)
	}
	close(s.stop)
	s.tick()

	grace, cancel := context.WithTimeout(requests, e.o.CloseTime)
	defer cancel()
	if srv.Shutdown(grace) != nil {
		endRequests()
		_ = srv.Close() // the sockets are lost either way
	}
	if accepting {
		<-failed
	}
	s.plain.Wait()
	s.conns.Wait()
	s.loops.stop()
	close(swept)
	sweeps.Wait()
	return err
}

// serviceKey is the key of the *service in the contexts of its requests.
type serviceKey struct{}

// idleTime is how long a plain HTTP connection may be idle between requests.
const idleTime = 75 * time.Second

// service is what one Serve owns.
type service struct {
	e     *Engine
	loops *loops         // nil with Options.Goroutines
	stop  chan struct{}  // closed when the service ends
	plain sync.WaitGroup // sockets that net/http owns
	conns sync.WaitGroup // connections, their goroutines, and handshakes
}

func (s *service) stopping() bool {
	select {
	case <-s.stop:
		return true
	default:
		return false
	}
}

// sweep is the one timer of all connections of the service.
func (s *service) sweep(end <-chan struct{}) {
	t := time.NewTicker(s.e.o.sweep)
	defer t.Stop()
	for {
		select {
		case <-end:
			return
		case <-t.C:
			s.tick()
		}
	}
}

func (s *service) tick() {
	now := s.e.now()
	for c := range s.e.table.all() {
		if c.s == s {
			c.tick(now)
		}
	}
	s.loops.tick()
}

// connState counts the sockets that net/http owns.
func (s *service) connState(nc net.Conn, st http.ConnState) {
	switch st {
	case http.StateNew:
		if h, ok := nc.(*handed); !ok || !h.counted {
			s.enter()
		}
	case http.StateHijacked, http.StateClosed:
		s.exit()
	}
}

// enter counts a socket that is no connection yet, and exit one that is none any more.
func (s *service) enter() {
	s.plain.Add(1)
	s.e.count.plain.Add(1)
}

func (s *service) exit() {
	s.e.count.plain.Add(-1)
	s.plain.Done()
}

// door is a listener that answers 503 itself once MaxPlain sockets are inside: quickly and
// without a goroutine, so that a balancer takes the client elsewhere.
type door struct {
	net.Listener
	e *Engine
}

func (d *door) Accept() (net.Conn, error) {
	for {
		nc, err := d.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if d.e.count.plain.Load() < int64(d.e.o.MaxPlain) {
			if d.e.o.ProxyProtocol {
				nc = &proxied{handed: handed{Conn: nc}, e: d.e}
			}
			return nc, nil
		}
		d.e.count.refused.Add(1)
		// A new socket's send buffer takes this at once; if it does not, the client sees a close.
		_ = nc.SetWriteDeadline(time.Now().Add(time.Millisecond))
		_, _ = nc.Write(noRoom)
		_ = nc.Close()
	}
}

// noRoom is the answer to a socket that cannot be taken.
var noRoom = []byte("HTTP/1.1 503 Service Unavailable\r\nConnection: close\r\nContent-Length: 0\r\nRetry-After: 1\r\n\r\n")
