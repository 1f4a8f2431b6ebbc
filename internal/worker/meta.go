package worker

import (
	"sync"
	"time"

	"go.uber.org/zap"

	"github.com/wscluster/wscluster/pkg/socketmeta"
	"github.com/wscluster/wscluster/pkg/wire"
)

// tokenWindows is how many resume windows a token lives: it is renewed every half one, and an
// expired session is still named as such, not as a stranger, for a while.
const tokenWindows = 3

// meta makes the socket meta of a session with freshly signed tickets.
func (w *Worker) meta(m socketmeta.Meta, subject string) *wire.SocketMeta {
	now := time.Now()
	expires := now.Add(tokenWindows * w.o.ResumeWindow)
	token, err := w.o.Keys.SignToken(socketmeta.Token{Meta: m, Subject: subject, IssuedAt: now, Expires: expires})
	if err != nil {
		w.log.Error("a token could not be signed; the client will not be able to resume", zap.Error(err))
	}
	return &wire.SocketMeta{
		Client: m.Client, Server: m.Server, Epoch: m.Epoch, Token: token, Route: w.route(now),
		HeartbeatMS: w.o.Engine.PingEvery.Milliseconds(), ResumeWindowMS: w.o.ResumeWindow.Milliseconds(),
	}
}

// routes is the route ticket that is given out: it names no client, so that one is enough for all who come within a second.
type routes struct {
	mu     sync.Mutex
	ticket string    // guarded by mu
	until  time.Time // guarded by mu
}

// route returns a route ticket that lives as long as a token, but for a second.
func (w *Worker) route(now time.Time) string {
	r := &w.routes
	r.mu.Lock()
	defer r.mu.Unlock()
	if now.Before(r.until) {
		return r.ticket
	}
	var err error
	r.ticket, err = w.o.RouteKeys.SignRoute(socketmeta.Route{Server: w.o.Server, Expires: now.Add(tokenWindows * w.o.ResumeWindow)})
	if err != nil {
		w.log.Error("a route ticket could not be signed; the client may reach another worker", zap.Error(err))
		return ""
	}
	r.until = now.Add(time.Second)
	return r.ticket
}
