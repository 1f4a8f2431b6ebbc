package worker

import (
	"context"
	"encoding/json"
	"net"
	"net/http"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/wscluster/wscluster/internal/catalog"
	"github.com/wscluster/wscluster/internal/operators"
	"github.com/wscluster/wscluster/pkg/socketmeta"
)

// http is the plain HTTP of the traffic listener. HAProxy refuses the health paths from outside.
func (w *Worker) http(o Options) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /livez", func(rw http.ResponseWriter, _ *http.Request) { writeHealth(rw, http.StatusOK, o.Server, nil) })
	mux.HandleFunc("GET /readyz", w.readyz)
	mux.HandleFunc(pathTasks, w.listTasks)
	mux.HandleFunc(pathTask, w.showTask)
	mux.HandleFunc(pathLog, w.downloadLog)
	mux.HandleFunc(pathAsk, w.askClient)
	mux.HandleFunc("GET /v1/kinds", w.kinds)
	mux.HandleFunc(pathChannel, w.showChannel)
	mux.HandleFunc(pathEngine, w.showEngine)
	w.handleStreams(mux)
	mux.HandleFunc(pathPublish, w.publish)
	mux.HandleFunc(pathPublishAll, w.publish)
	if o.Site != nil {
		mux.Handle("/", o.Site)
	}
	return w.crossOrigin(mux)
}

// readyz answers 200 while new clients are welcome, else 404, which HAProxy takes as "no new
// clients, leave the open ones be"; a 503 had it cut them all (deploy/haproxy, TestUnhealthyWorkerIsCut).
func (w *Worker) readyz(rw http.ResponseWriter, _ *http.Request) {
	if err := w.Ready(); err != nil {
		writeHealth(rw, http.StatusNotFound, w.o.Server, err)
		return
	}
	writeHealth(rw, http.StatusOK, w.o.Server, nil)
}

// kinds answers with the kinds that runners announce, and their schemas: for a form, or for people. It
// tells no secrets: who may submit may know what. A worker that has just joined knows few or none.
func (w *Worker) kinds(rw http.ResponseWriter, _ *http.Request) {
	rw.Header().Set("Content-Type", "application/json")
	rw.Header().Set("Cache-Control", "no-store")
	_ = json.NewEncoder(rw).Encode(struct {
		Kinds []catalog.Kind `json:"kinds"`
	}{w.mailbox.Kinds()}) // the client is gone: nobody to tell
}

func writeHealth(rw http.ResponseWriter, status int, s socketmeta.ServerID, why error) {
	body := struct {
		Server  socketmeta.ServerID `json:"server_id"`
		Ready   bool                `json:"ready"`
		Reasons []string            `json:"reasons,omitempty"`
	}{Server: s, Ready: why == nil}
	if why != nil {
		body.Reasons = []string{why.Error()}
	}
	rw.Header().Set("Content-Type", "application/json")
	rw.Header().Set("Cache-Control", "no-store")
	rw.WriteHeader(status)
	_ = json.NewEncoder(rw).Encode(body) // the prober is gone: nobody to tell
}

// serveInternal serves metrics and profiles until ctx ends. It has no authentication: the
// listener belongs on loopback or an operators' network.
func (w *Worker) serveInternal(ctx context.Context, ln net.Listener) error {
	mux := operators.Handler(w.metrics)
	mux.HandleFunc("GET /readyz", w.readyz)
	return operators.Serve(ctx, ln, mux)
}

// collector reads the gauges of the sockets and sessions when it is asked.
type collector struct{ *Worker }

var (
	descConns    = prometheus.NewDesc("wscluster_connections", "Open WebSocket connections and event streams.", nil, nil)
	descStreams  = prometheus.NewDesc("wscluster_streams", "Of the open connections, those that are event streams.", nil, nil)
	descSessions = prometheus.NewDesc("wscluster_sessions", "Sessions that this worker holds, by whether the client has a socket.", []string{"state"}, nil)
	descClosed   = prometheus.NewDesc("wscluster_connections_closed_total", "Connections that have ended, by cause.", []string{"cause"}, nil)
	descReady    = prometheus.NewDesc("wscluster_ready", "1 while new clients are welcome.", nil, nil)
)

func (c collector) Describe(ch chan<- *prometheus.Desc) { prometheus.DescribeByCollect(c, ch) }

func (c collector) Collect(ch chan<- prometheus.Metric) {
	known, attached := c.sessions.Count()
	ready := 0.
	if c.Ready() == nil {
		ready = 1
	}
	sockets := c.engine.Stats()
	ch <- prometheus.MustNewConstMetric(descConns, prometheus.GaugeValue, float64(sockets.Conns))
	ch <- prometheus.MustNewConstMetric(descStreams, prometheus.GaugeValue, float64(sockets.Streams))
	for cause, n := range sockets.Closes {
		ch <- prometheus.MustNewConstMetric(descClosed, prometheus.CounterValue, float64(n), cause)
	}
	ch <- prometheus.MustNewConstMetric(descSessions, prometheus.GaugeValue, float64(attached), "attached")
	ch <- prometheus.MustNewConstMetric(descSessions, prometheus.GaugeValue, float64(known-attached), "absent")
	ch <- prometheus.MustNewConstMetric(descReady, prometheus.GaugeValue, ready)
}
