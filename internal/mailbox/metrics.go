package mailbox

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/wscluster/wscluster/internal/session"
)

// Metrics are what a mailbox counts.
type Metrics struct {
	Events    *prometheus.CounterVec // by outcome
	Dead      *prometheus.CounterVec // by reason
	Submits   *prometheus.CounterVec // by outcome: accepted, or the code of the refusal
	Held      prometheus.Gauge
	HeldBytes prometheus.Gauge
	Owned     prometheus.Gauge
	Adopted   prometheus.Counter

	taken prometheus.Counter // of Events
}

// NewMetrics registers the metrics with r; nil registers them nowhere.
func NewMetrics(r prometheus.Registerer) *Metrics {
	f := promauto.With(r)
	m := &Metrics{
		Events: f.NewCounterVec(prometheus.CounterOpts{Name: "wscluster_mailbox_events_total",
			Help: "Events of mailboxes: taken from the broker; delivered (acknowledged by the client); duplicate (the client had it); dropped (transient, for an absent client); forward, hold, refresh (copied to the client's worker, to the overflow, to the mailbox again)."}, []string{"outcome"}),
		Dead: f.NewCounterVec(prometheus.CounterOpts{Name: "wscluster_events_dead_total",
			Help: "Events given up and kept in the queue dead.events, by reason: expired, caps, bad_body."}, []string{"reason"}),
		Submits: f.NewCounterVec(prometheus.CounterOpts{Name: "wscluster_submits_total",
			Help: "Submitted tasks: accepted, or the code of the refusal."}, []string{"outcome"}),
		Held: f.NewGauge(prometheus.GaugeOpts{Name: "wscluster_mailbox_held_events",
			Help: "Events delivered by the broker and not yet acknowledged."}),
		HeldBytes: f.NewGauge(prometheus.GaugeOpts{Name: "wscluster_mailbox_held_bytes",
			Help: "Bytes of the held events."}),
		Owned: f.NewGauge(prometheus.GaugeOpts{Name: "wscluster_mailboxes_owned",
			Help: "Mailboxes that this worker owns: its own and adopted ones."}),
		Adopted: f.NewCounter(prometheus.CounterOpts{Name: "wscluster_mailboxes_adopted_total",
			Help: "Mailboxes of other workers taken over."}),
	}
	m.taken = m.Events.WithLabelValues("taken")
	return m
}

// count counts what sessions have done.
func (m *Metrics) count(fx *session.Effects) {
	add := func(outcome string, n int) {
		if n > 0 {
			m.Events.WithLabelValues(outcome).Add(float64(n))
		}
	}
	add("delivered", fx.Delivered)
	add("duplicate", fx.Duplicates)
	add("dropped", fx.Dropped)
}

// copied counts a job whose copies are stored.
func (m *Metrics) copied(j *session.Job) {
	n := float64(len(j.Refs))
	if j.Purpose == session.Evict {
		m.Dead.WithLabelValues(string(j.Reason)).Add(n)
		return
	}
	m.Events.WithLabelValues(j.Purpose.String()).Add(n)
}

// gone notes that nothing is held any more.
func (m *Metrics) gone() {
	m.Held.Set(0)
	m.HeldBytes.Set(0)
	m.Owned.Set(0)
}
