package haproxy_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"testing"

	"github.com/wscluster/wscluster/internal/engine"
)

// tells is a worker's engine that says in X-Remote whom it sees.
type tells struct{}

func (tells) Handshake(_ engine.ConnRef, r *engine.Request) engine.Decision {
	return engine.Decision{Header: http.Header{"X-Remote": {r.Remote.String()}}}
}
func (tells) Open(engine.ConnRef, *engine.Request)             {}
func (tells) Message(engine.ConnRef, engine.OpCode, []byte)    {}
func (tells) Writable(engine.ConnRef)                          {}
func (tells) Closed(engine.ConnRef, engine.StatusCode, error)  {}
func (tells) ServeHTTP(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.RemoteAddr) }

// A worker on a unix socket is told the client's address by the PROXY protocol, for sockets and for requests, and health checks speak it too.
func TestAWorkerOnAUnixSocketSeesTheClient(t *testing.T) {
	both(t, func(t *testing.T, config string) {
		path := filepath.Join(t.TempDir(), "s")
		ln, err := net.Listen("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		e := engine.New(tells{}, engine.Options{HTTP: tells{}, ProxyProtocol: true})
		ctx, cancel := context.WithCancel(context.Background())
		served := make(chan error, 1)
		go func() { served <- e.Serve(ctx, ln) }()
		t.Cleanup(func() {
			cancel()
			if err := <-served; err != nil {
				t.Error(err)
			}
		})
		c := start(t, config, map[string]string{"I1_W1": "unix@" + path, "SEND_PROXY": "1"}, "i1-w1")
		for i := range 3 { // each has its own, on connections that HAProxy may use again
			from := address(i)
			a := open(t, request{addr: c.Addr, from: from})
			if got, err := netip.ParseAddrPort(a.header.Get("X-Remote")); err != nil || got.Addr().String() != from {
				t.Errorf("a socket from %s: the worker sees %q", from, a.header.Get("X-Remote"))
			}
			b, err := request{addr: c.Addr, from: from, path: "/v1/tasks"}.do()
			if err != nil {
				t.Fatal(err)
			}
			body := make([]byte, len(from))
			if _, err := io.ReadFull(b.read, body); err != nil || string(body) != from {
				t.Errorf("a request from %s: the worker sees %q, %v", from, body, err)
			}
			_ = b.conn.Close()
		}
	})
}
