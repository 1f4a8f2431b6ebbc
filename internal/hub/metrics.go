package hub

import "github.com/prometheus/client_golang/prometheus"

var (
	descSubscriptions = prometheus.NewDesc("wscluster_channel_subscriptions", "Subscriptions of this worker's connections to channels.", nil, nil)
	descChannels      = prometheus.NewDesc("wscluster_channels_bound", "Channels that this worker gets the posts of: those with a subscriber, and those that had one within the last 30 s.", nil, nil)
	descWaiting       = prometheus.NewDesc("wscluster_channel_posts_waiting", "Posts that came and are not given to all their subscribers yet. More wait in the broker, in the queue channels.<server ID>.", nil, nil)
	descPosts         = prometheus.NewDesc("wscluster_channel_posts_total", "Posts of channels that this worker has subscribers of.", nil, nil)
	descSent          = prometheus.NewDesc("wscluster_channel_messages_total", "Posts given to subscribers: each post once for each of them.", nil, nil)
	descDropped       = prometheus.NewDesc("wscluster_channel_dropped_total", "Posts that were not given on, by reason: slow (once for each subscriber that did not keep up), lost (holes in the counters of publishers: they never came to this worker), bad (they cannot be read).", []string{"reason"}, nil)
)

var _ prometheus.Collector = (*Hub)(nil)

// Describe is for prometheus.
func (h *Hub) Describe(ch chan<- *prometheus.Desc) { prometheus.DescribeByCollect(h, ch) }

// Collect reads the figures.
func (h *Hub) Collect(ch chan<- prometheus.Metric) {
	h.mu.Lock()
	n, subs, channels, waiting := h.core.count, h.core.subs, len(h.core.channels), len(h.core.queue)-h.core.head
	h.mu.Unlock()
	gauge := func(d *prometheus.Desc, v int) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, float64(v))
	}
	counter := func(d *prometheus.Desc, v int64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
	}
	gauge(descSubscriptions, subs)
	gauge(descChannels, channels)
	gauge(descWaiting, waiting)
	counter(descPosts, n.posts)
	counter(descSent, n.sent)
	counter(descDropped, n.slow, "slow")
	counter(descDropped, n.lost, "lost")
	counter(descDropped, h.bad.Load(), "bad")
}
