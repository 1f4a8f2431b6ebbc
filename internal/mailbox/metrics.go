package mailbox

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// Metrics are what a mailbox counts.
type Metrics struct {
	Events    *prometheus.CounterVec // by outcome: held, passed, delivered, bad_body
	Submits   *prometheus.CounterVec // by outcome: accepted, or the code of the refusal
	Held      prometheus.Gauge
	HeldBytes prometheus.Gauge
}

// NewMetrics registers the metrics with r; nil registers them nowhere.
func NewMetrics(r prometheus.Registerer) *Metrics {
	f := promauto.With(r)
	return &Metrics{
		Events: f.NewCounterVec(prometheus.CounterOpts{Name: "wscluster_mailbox_events_total",
			Help: "Events taken from the mailbox: held for their client, passed on at once, delivered (acknowledged by the client), or bad_body."}, []string{"outcome"}),
		Submits: f.NewCounterVec(prometheus.CounterOpts{Name: "wscluster_submits_total",
			Help: "Submitted tasks: accepted, or the code of the refusal."}, []string{"outcome"}),
		Held: f.NewGauge(prometheus.GaugeOpts{Name: "wscluster_mailbox_held_events",
			Help: "Events delivered by the broker and not yet acknowledged."}),
		HeldBytes: f.NewGauge(prometheus.GaugeOpts{Name: "wscluster_mailbox_held_bytes",
			Help: "Bytes of the held events."}),
	}
}
