// Package operators is the door of a process for those who run it: metrics, profiles, and what the process adds. It has no
// authentication: it belongs on loopback or an operators' network.
package operators

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/pprof"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

const (
	headerWithin = 5 * time.Second // a request's headers, else its connection is closed
	stopWithin   = 2 * time.Second // answers under way when the end comes, else they are cut off
)

// Handler serves /metrics and net/http/pprof's /debug/pprof/. The caller may add to it before it is used.
func Handler(metrics prometheus.Gatherer) *http.ServeMux {
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(metrics, promhttp.HandlerOpts{}))
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	return mux
}

// Serve answers on ln until ctx ends, and returns when it has closed ln and all connections: nil after ctx, else why it
// ended.
func Serve(ctx context.Context, ln net.Listener, h http.Handler) error {
	srv := &http.Server{Handler: h, ReadHeaderTimeout: headerWithin}
	stopped := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(stopped)
		bound, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopWithin)
		defer cancel()
		if srv.Shutdown(bound) != nil {
			srv.Close() // a profile that is still being taken
		}
	})
	err := srv.Serve(ln)
	if !stop() {
		<-stopped // Serve returns as Shutdown begins, not as it ends
	}
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}
