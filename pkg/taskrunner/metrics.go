package taskrunner

import (
	"strconv"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/wscluster/wscluster/pkg/broker"
	"github.com/wscluster/wscluster/pkg/wire"
)

// Metrics are what a Runner counts and shows. One belongs to one Runner.
type Metrics struct {
	// Events counts by outcome and durable (true or false). Confirmed counts an event once, when
	// the broker has said that it is stored: over the durable ones it is "published" in the balance
	// published = delivered + dead. The others count publishes: refused (the mailbox is full),
	// returned (there is no queue), republished (an event that goes out again, for whatever reason).
	Events *prometheus.CounterVec

	Seconds *prometheus.HistogramVec // of runs, by kind and outcome: succeeded, failed, retried, given_back
	Waited  *prometheus.HistogramVec // seconds from a task's submit to its first run, by kind; across two machines' clocks
	Begun   *prometheus.CounterVec   // runs, by kind and attempt: first, again

	// Dead counts the dead tasks that were taken and kept for the operator, by reason (wire.DeadReasons).
	Dead *prometheus.CounterVec

	shift atomic.Pointer[shift] // of the Run that goes on; nil before the first
}

// NewMetrics registers the metrics with r; nil registers them nowhere.
func NewMetrics(r prometheus.Registerer) *Metrics {
	f := promauto.With(r)
	m := &Metrics{
		Events: f.NewCounterVec(prometheus.CounterOpts{Name: "wscluster_runner_events_total",
			Help: "Events by what became of them: confirmed (stored by the broker, each once), and publishes that were refused (mailbox full), returned (no queue) or republished."}, []string{"outcome", "durable"}),
		Seconds: f.NewHistogramVec(prometheus.HistogramOpts{Name: "wscluster_runner_task_seconds",
			Help:    "How long runs of tasks took, until their final event was stored or they were given back.",
			Buckets: []float64{.1, .5, 1, 5, 15, 60, 300, 900, 3600, 4 * 3600}}, []string{"kind", "outcome"}),
	}
	m.Waited = f.NewHistogramVec(prometheus.HistogramOpts{Name: "wscluster_runner_task_wait_seconds",
		Help:    "How long tasks waited from their submit to their first run.",
		Buckets: []float64{.01, .05, .1, .5, 1, 5, 15, 60, 300, 900, 3600, 4 * 3600}}, []string{"kind"})
	m.Begun = f.NewCounterVec(prometheus.CounterOpts{Name: "wscluster_runner_task_runs_total",
		Help: "Runs of tasks that began: the first of each task, or another one after a runner died, gave it back or tries it again."}, []string{"kind", "attempt"})
	m.Dead = f.NewCounterVec(prometheus.CounterOpts{Name: "wscluster_runner_dead_tasks_total",
		Help: "Dead tasks whose end was seen to, and which lie in the queue kept.tasks now, by the reason why they were given up."}, []string{"reason"})
	for _, reason := range wire.DeadReasons {
		m.Dead.WithLabelValues(string(reason))
	}
	for _, outcome := range []string{"confirmed", "refused", "returned", "republished"} { // a rate needs the zero
		m.Events.WithLabelValues(outcome, "true")
		m.Events.WithLabelValues(outcome, "false")
	}
	if r != nil {
		r.MustRegister(gauges{m})
	}
	return m
}

// settled counts the outcome of one publish.
func (m *Metrics) settled(o broker.Outcome, durable bool) {
	name, ok := map[broker.Outcome]string{broker.Stored: "confirmed", broker.Refused: "refused", broker.Returned: "returned"}[o]
	if ok {
		m.Events.WithLabelValues(name, strconv.FormatBool(durable)).Inc()
	}
}

// begun counts a run of a kind of this runner's.
func (m *Metrics) begun(j *job, now time.Time) {
	if j.attempt > 1 {
		m.Begun.WithLabelValues(j.task.Kind, "again").Inc()
		return
	}
	m.Begun.WithLabelValues(j.task.Kind, "first").Inc()
	m.Waited.WithLabelValues(j.task.Kind).Observe(max(0, now.Sub(j.task.Submitted.Time).Seconds()))
}

func (m *Metrics) republished(n int) { m.Events.WithLabelValues("republished", "true").Add(float64(n)) }

// gauges reads how things are when it is asked.
type gauges struct{ *Metrics }

var (
	descTasks   = prometheus.NewDesc("wscluster_runner_tasks", "Tasks that run now.", []string{"kind"}, nil)
	descOutbox  = prometheus.NewDesc("wscluster_runner_outbox_events", "Events that the broker has not stored yet, in memory and on disk.", nil, nil)
	descPosts   = prometheus.NewDesc("wscluster_runner_posts_total", "Posts to channels by what became of them: stored, returned (nobody was subscribed), refused by the broker, republished, or full (the queue had no room).", []string{"outcome"}, nil)
	descQueued  = prometheus.NewDesc("wscluster_runner_posts_queued", "Posts to channels that the broker has not answered for.", nil, nil)
	descSpilled = prometheus.NewDesc("wscluster_runner_spilled_bytes", "Bytes of the spool on disk.", nil, nil)
)

func (g gauges) Describe(ch chan<- *prometheus.Desc) {
	ch <- descTasks
	ch <- descOutbox
	ch <- descSpilled
	ch <- descPosts
	ch <- descQueued
}

func (g gauges) Collect(ch chan<- prometheus.Metric) {
	s := g.shift.Load()
	if s == nil {
		return
	}
	tasks, events := s.load()
	for kind, n := range tasks {
		ch <- prometheus.MustNewConstMetric(descTasks, prometheus.GaugeValue, float64(n), kind)
	}
	ch <- prometheus.MustNewConstMetric(descOutbox, prometheus.GaugeValue, float64(events))
	posts := s.posts.Stats()
	for outcome, n := range posts.ByOutcome() {
		ch <- prometheus.MustNewConstMetric(descPosts, prometheus.CounterValue, float64(n), outcome)
	}
	ch <- prometheus.MustNewConstMetric(descQueued, prometheus.GaugeValue, float64(posts.Queued))
	ch <- prometheus.MustNewConstMetric(descSpilled, prometheus.GaugeValue, float64(s.spool.bytes()))
}
