package peers

import (
	"context"
	"errors"
	"net"
	"net/http"
	"sync"
	"sync/atomic"

	coder "github.com/coder/websocket"
	"github.com/gobwas/ws"
	gorilla "github.com/gorilla/websocket"

	"github.com/wscluster/wscluster/internal/engine"
)

// counts are a server's connections so far.
type counts struct{ opened, ended atomic.Int64 }

// servers serve a listener until ctx ends. Each accepts every upgrade, reads until its client is gone, as a server of
// messages has to, and counts both. All have their defaults.
var servers = map[string]func(ctx context.Context, ln net.Listener, n *counts) error{
	"bare":       serveBare,
	"engine":     serveEngine(engine.Options{}),
	"goroutines": serveEngine(engine.Options{Goroutines: true}),
	"gobwas":     serveGobwas,
	"gorilla": serveHTTP(func(w http.ResponseWriter, r *http.Request, n *counts) {
		up := gorilla.Upgrader{}
		c, err := up.Upgrade(w, r, nil)
		if err != nil {
			return
		}
		defer c.Close()
		n.opened.Add(1)
		for err == nil {
			_, _, err = c.ReadMessage()
		}
	}),
	"coder": serveHTTP(func(w http.ResponseWriter, r *http.Request, n *counts) {
		c, err := coder.Accept(w, r, nil)
		if err != nil {
			return
		}
		defer c.CloseNow()
		n.opened.Add(1)
		for err == nil {
			_, _, err = c.Read(r.Context())
		}
	}),
}

type handler struct{ *counts }

func (handler) Handshake(engine.ConnRef, *engine.Request) engine.Decision { return engine.Decision{} }
func (h handler) Open(engine.ConnRef, *engine.Request)                    { h.opened.Add(1) }
func (handler) Message(engine.ConnRef, engine.OpCode, []byte)             {}
func (handler) Writable(engine.ConnRef)                                   {}
func (h handler) Closed(engine.ConnRef, engine.StatusCode, error)         { h.ended.Add(1) }

func serveEngine(o engine.Options) func(context.Context, net.Listener, *counts) error {
	return func(ctx context.Context, ln net.Listener, n *counts) error {
		return engine.New(handler{n}, o).Serve(ctx, ln)
	}
}

// serveGobwas is a goroutine for each socket, and the codec directly on it.
func serveGobwas(ctx context.Context, ln net.Listener, n *counts) error {
	defer context.AfterFunc(ctx, func() { _ = ln.Close() })()
	var all sync.WaitGroup
	defer all.Wait()
	for {
		nc, err := ln.Accept()
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return err
		}
		all.Go(func() {
			defer n.ended.Add(1)
			defer nc.Close()
			if _, err := ws.Upgrade(nc); err != nil {
				return
			}
			n.opened.Add(1)
			for err := error(nil); err == nil; {
				_, err = ws.ReadFrame(nc)
			}
		})
	}
}

func serveHTTP(serve func(w http.ResponseWriter, r *http.Request, n *counts)) func(context.Context, net.Listener, *counts) error {
	return func(ctx context.Context, ln net.Listener, n *counts) error {
		srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			defer n.ended.Add(1)
			serve(w, r, n)
		})}
		defer context.AfterFunc(ctx, func() { _ = srv.Close() })()
		if err := srv.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
			return err
		}
		return nil
	}
}
