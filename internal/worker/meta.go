package worker

import (
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
	route, err := w.o.RouteKeys.SignRoute(socketmeta.Route{Server: m.Server, Expires: expires})
	if err != nil {
		w.log.Error("a route ticket could not be signed; the client may reach another worker", zap.Error(err))
	}
	return &wire.SocketMeta{
		Client: m.Client, Server: m.Server, Epoch: m.Epoch, Token: token, Route: route,
		HeartbeatMS: w.o.Engine.PingEvery.Milliseconds(), ResumeWindowMS: w.o.ResumeWindow.Milliseconds(),
	}
}
