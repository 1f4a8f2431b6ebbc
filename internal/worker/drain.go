package worker

import (
	"context"
	"net"
	"time"

	"go.uber.org/zap"

	"github.com/wscluster/wscluster/pkg/wire"
)

const (
	waveEvery      = 250 * time.Millisecond // between the waves in which clients are sent elsewhere
	flushWithin    = 3 * time.Second        // for the last words to the sockets
	handOverWithin = 5 * time.Second        // for another worker to take the mailboxes
)

// stopWithin bounds a drain.
func (w *Worker) stopWithin() time.Duration {
	return w.o.DrainWindow + flushWithin + handOverWithin + 5*time.Second
}

// serveSockets serves the engine until ctx ends and the worker is drained.
func (w *Worker) serveSockets(ctx context.Context, ln net.Listener) error {
	serving, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	drained := make(chan struct{})
	watching := context.AfterFunc(ctx, func() {
		defer close(drained)
		w.drain()
		stop()
	})
	err := w.engine.Serve(serving, ln)
	if !watching() {
		<-drained
	}
	w.surface.reading.Wait() // each has its deadline
	return err
}

// drain sends the clients elsewhere, in waves over the drain window, each as soon as it is told:
// so each is away only for a moment, and no second brings more of them to the other workers than
// any other. Then it hands the mailboxes over. Meanwhile the engine serves on: /readyz says 404,
// and upgrades and new event streams are answered with 503, which HAProxy turns into a try at another worker.
func (w *Worker) drain() {
	w.draining.Store(true)
	w.mailbox.Drain()
	_, attached := w.sessions.Count()
	attached += w.surface.updates.count()
	waves := max(1, int(w.o.DrainWindow/waveEvery))
	w.log.Info("this worker stops: its clients are sent elsewhere", zap.Int("clients", attached), zap.Duration("over", w.o.DrainWindow))
	tick := time.NewTicker(waveEvery)
	defer tick.Stop()
	const reason = "this worker is stopping"
	each := max(1, (attached+waves-1)/waves)
	for {
		left := w.sessions.Bye(each, wire.CloseServiceRestart, reason, waveEvery)
		if left += w.surface.updates.bye(w.engine, each, wire.CloseServiceRestart, reason); left == 0 {
			break
		}
		<-tick.C
	}
	for until := time.Now().Add(flushWithin); w.engine.Conns() > 0 && time.Now().Before(until); {
		<-tick.C
	}
	w.hub.Leave()
	w.asks.Close() // who waits asks another worker
	ctx, cancel := context.WithTimeout(context.Background(), min(handOverWithin, w.o.DrainWindow))
	defer cancel()
	if err := w.mailbox.HandOver(ctx); err != nil {
		w.log.Warn("the mailboxes stay without an owner until one adopts them; nothing is lost", zap.Error(err))
	}
}
