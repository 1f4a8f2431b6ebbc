// Package worker is one WebSocket worker: the assembly of the socket engine, the sessions and the
// mailbox, and the HTTP surface around them. It never imports a broker driver: cmd chooses one.
package worker

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"go.uber.org/zap"

	"github.com/wscluster/wscluster/internal/ask"
	"github.com/wscluster/wscluster/internal/auth"
	"github.com/wscluster/wscluster/internal/engine"
	"github.com/wscluster/wscluster/internal/hub"
	"github.com/wscluster/wscluster/internal/lifecycle"
	"github.com/wscluster/wscluster/internal/mailbox"
	"github.com/wscluster/wscluster/internal/session"
	"github.com/wscluster/wscluster/pkg/broker"
	"github.com/wscluster/wscluster/pkg/channel"
	"github.com/wscluster/wscluster/pkg/socketmeta"
	"github.com/wscluster/wscluster/pkg/wire"
)

// Options of a worker. Server, Broker, Keys and RouteKeys must be set.
type Options struct {
	Server    socketmeta.ServerID
	Broker    broker.Broker
	Keys      socketmeta.Keys // sign and verify tokens; the same on every worker
	RouteKeys socketmeta.Keys // sign route tickets; HAProxy has them too
	Origins   auth.Origins
	Grants    auth.Grants  // who may subscribe to which channels, and publish; the zero value allows nobody
	Site      http.Handler // what the traffic listener serves beside the worker's own paths; nil for nothing
	Log       *zap.Logger  // nil logs nothing

	ResumeWindow time.Duration // how long an absent client may come back; 0 means 10 min
	DrainWindow  time.Duration // over how long a stopping worker spreads its clients' return; 0 means 30 s
	RefreshAfter time.Duration // an event held for so long is published again, before the broker's consumer_timeout; 0 means 5 min
	BrokerGrace  time.Duration // the broker may be away for so long before clients are told; 0 means 30 s
	HelloWithin  time.Duration // a client that says nothing for so long, or five times it with the subprotocol, gets a new session; 0 means 1 s
	MoveClients  bool          // once the broker grace is over, clients are sent to other workers, in waves over the drain window
	MaxHeld      int           // events held for clients; 0 means 20,000
	MaxHeldBytes int           // their bytes; 0 means 256 MiB

	Engine engine.Options // limits of the sockets; HTTP, Bye and Log are set by the worker
}

// Worker is one worker. Make it with New and Run it once.
type Worker struct {
	o        Options
	log      *zap.Logger
	metrics  *prometheus.Registry
	engine   *engine.Engine
	sessions *session.Registry
	mailbox  *mailbox.Mailbox
	hub      *hub.Hub
	surface  *surface
	asks     *ask.Desk
	asked    *prometheus.CounterVec // requests to clients, by outcome
	posts    posts
	routes   routes
	draining atomic.Bool

	publisher *channel.Publisher
}

// New assembles a worker. It starts nothing.
func New(o Options) (*Worker, error) {
	o.Log = cmp.Or(o.Log, zap.NewNop())
	o.ResumeWindow = cmp.Or(o.ResumeWindow, 10*time.Minute)
	o.DrainWindow = cmp.Or(o.DrainWindow, 30*time.Second)
	o.HelloWithin = cmp.Or(o.HelloWithin, time.Second)
	o.Engine.PingEvery = cmp.Or(o.Engine.PingEvery, 15*time.Second)
	o.Engine.Bye = byeFrame
	w := &Worker{posts: newPosts(), log: o.Log.With(zap.String("server_id", string(o.Server))), metrics: prometheus.NewRegistry()}
	w.surface = newSurface(w)
	o.Engine.HTTP, o.Engine.Log = w.http(o), w.log
	w.o = o
	if err := o.Engine.Validate(); err != nil {
		return nil, fmt.Errorf("the socket engine: %w", err)
	}
	w.engine = engine.New(w.surface, o.Engine)
	w.sessions = session.New(session.Options{Socket: w.engine, Server: o.Server, Window: o.ResumeWindow, RefreshAfter: o.RefreshAfter})
	w.hub = newHub(w)
	var err error
	if w.publisher, err = channel.New(channel.Options{Name: string(o.Server)}); err != nil {
		return nil, err
	}
	w.asks, w.asked = newAsks(w)
	w.mailbox = mailbox.New(mailbox.Options{
		Accepted: w.publishQueued,
		Server:   o.Server, Broker: o.Broker, Sessions: w.sessions, Renew: w.renew, Log: w.log,
		Metrics: mailbox.NewMetrics(w.metrics), Window: o.ResumeWindow, MaxHeld: o.MaxHeld, MaxHeldBytes: o.MaxHeldBytes, BrokerGrace: o.BrokerGrace, MoveOver: moveOver(&o),
		Parts:    []func(context.Context, broker.Link) error{w.hub.Serve, w.publisher.Serve, w.takeForwards, w.asks.Part},
		Hear:     w.hear,
		Attached: w.asks.Attached,
	})
	w.metrics.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), collector{w}, w.hub, published{w.publisher})
	return w, nil
}

// Run serves clients on traffic and operators on internal (nil for none) until ctx ends, then
// drains (drain.go): new clients are refused, open ones are sent elsewhere in waves over the drain
// window, and the mailboxes go to other workers. It closes both listeners.
func (w *Worker) Run(ctx context.Context, traffic, internal net.Listener) error {
	parts := []lifecycle.Part{{Name: "mailbox", Run: w.mailbox.Run}, {Name: "channels", Run: w.hub.Run}}
	if internal != nil {
		parts = append(parts, lifecycle.Part{Name: "internal listener", Run: func(ctx context.Context) error { return w.serveInternal(ctx, internal) }})
	}
	parts = append(parts, lifecycle.Part{Name: "sockets", StopWithin: w.stopWithin(), Run: func(ctx context.Context) error { return w.serveSockets(ctx, traffic) }})
	return lifecycle.Run(ctx, parts...)
}

// Ready returns nil while new clients are welcome, else why not.
func (w *Worker) Ready() error {
	if w.draining.Load() {
		return errDraining
	}
	return w.mailbox.Ready()
}

// renew makes the frame that gives a client a fresh token on a live socket.
func (w *Worker) renew(c socketmeta.ClientID, e socketmeta.Epoch, subject string) *engine.Frame {
	m := w.meta(socketmeta.Meta{Client: c, Server: w.o.Server, Epoch: e}, subject)
	m.Resumed = true
	return engine.NewText(wire.EncodeServer(m))
}

// moveOver is over how long clients are sent to other workers when the broker stays away.
func moveOver(o *Options) time.Duration {
	if o.MoveClients {
		return o.DrainWindow
	}
	return 0
}
