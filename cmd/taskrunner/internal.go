package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"go.uber.org/zap"

	"github.com/wscluster/wscluster/internal/operators"
	"github.com/wscluster/wscluster/pkg/broker"
)

const (
	nextFree   = "+" // behind an address: if its port is taken, the next free one
	portsTried = 100 // that such an address stands for
)

// listen listens at a host:port, perhaps with nextFree behind it.
func listen(address string) (net.Listener, error) {
	address, next := strings.CutSuffix(address, nextFree)
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	first, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return nil, fmt.Errorf("port %q must be a number up to 65535", port)
	}
	for p := first; ; p++ {
		ln, err := net.Listen("tcp", net.JoinHostPort(host, strconv.FormatUint(p, 10)))
		if !errors.Is(err, syscall.EADDRINUSE) || !next || p == first+portsTried-1 {
			return ln, err
		}
	}
}

// internal is the HTTP of operators: metrics, health and profiles. It has no authentication: its
// listener belongs on loopback or an operators' network.
type internal struct {
	name    string
	metrics *prometheus.Registry
	state   atomic.Pointer[broker.State] // nil before the first
	ending  <-chan struct{}              // closed when the runner takes no more tasks
}

// newInternal returns what operators see of a runner of that name, which takes tasks until ending
// is closed.
func newInternal(name string, ending <-chan struct{}) *internal {
	i := &internal{name: name, metrics: prometheus.NewRegistry(), ending: ending}
	i.metrics.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return i
}

// heard is told how the link to the broker is.
func (i *internal) heard(s broker.State) { i.state.Store(&s) }

// handler answers /readyz with 200 while tasks are taken, else with 404, as a worker does.
func (i *internal) handler() http.Handler {
	mux := operators.Handler(i.metrics)
	mux.HandleFunc("GET /livez", func(rw http.ResponseWriter, _ *http.Request) { i.write(rw, nil) })
	mux.HandleFunc("GET /readyz", func(rw http.ResponseWriter, _ *http.Request) { i.write(rw, i.ready()) })
	return mux
}

func (i *internal) ready() error {
	select {
	case <-i.ending:
		return errors.New("the runner ends: it takes no more tasks")
	default:
	}
	switch s := i.state.Load(); {
	case s == nil || s.Phase != broker.Up && s.Err == nil:
		return errors.New("no link to the broker yet")
	case s.Phase != broker.Up:
		return fmt.Errorf("no link to the broker: %w", s.Err)
	}
	return nil
}

func (i *internal) write(rw http.ResponseWriter, why error) {
	body := struct {
		Name    string   `json:"name"`
		Ready   bool     `json:"ready"`
		Reasons []string `json:"reasons,omitempty"`
	}{Name: i.name, Ready: why == nil}
	status := http.StatusOK
	if why != nil {
		body.Reasons, status = []string{why.Error()}, http.StatusNotFound
	}
	rw.Header().Set("Content-Type", "application/json")
	rw.Header().Set("Cache-Control", "no-store")
	rw.WriteHeader(status)
	_ = json.NewEncoder(rw).Encode(body) // the prober is gone: nobody to tell
}

// start serves operators at address until stop is called, which waits for the end; also while the
// runner ends after ctx has. It is an error if nobody can listen there; at an address with nextFree,
// which nobody has asked for by its number, only a line of the log.
func (i *internal) start(ctx context.Context, address string, log *zap.Logger) (stop func(), err error) {
	if address == "" {
		return func() {}, nil
	}
	ln, err := listen(address)
	if err != nil && strings.HasSuffix(address, nextFree) {
		log.Warn("operators are not served", zap.Error(err))
		return func() {}, nil
	} else if err != nil {
		return nil, err
	}
	log.Info("operators are served", zap.Stringer("address", ln.Addr()))
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	var serving sync.WaitGroup
	serving.Go(func() {
		if err := operators.Serve(ctx, ln, i.handler()); err != nil {
			log.Error("operators are served no more", zap.Error(err))
		}
	})
	return func() { cancel(); serving.Wait() }, nil
}
