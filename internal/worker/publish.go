package worker

import (
	"encoding/json"
	"errors"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/wscluster/wscluster/pkg/channel"
	"github.com/wscluster/wscluster/pkg/wire"
)

// This file is what a worker publishes to channels: what backends post to it over HTTP, and that tasks wait for a
// runner.

const (
	pathPublish    = "POST /v1/publish/{channel}"
	pathPublishAll = "POST /v1/publish"
)

// publish takes a post for the channel in the path, or for each ?channel=: the body is any JSON value of at most
// wire.MaxPost bytes, ?name= says what it is, and of those with one ?key= only the latest is kept. The bearer is a grant.
//
// 202 says that the post is in the worker's queue to the broker, in all channels or in none; a worker that dies just
// then takes it along. Where there is no broker, or the queue is full, it is 503, and nothing was taken.
func (w *Worker) publish(rw http.ResponseWriter, r *http.Request) {
	channels, err := channelsOf(r)
	if err == nil {
		err = w.o.Grants.AllowPublish(bearer(r.Header), channels, time.Now())
	}
	if err != nil {
		problem(rw, err)
		return
	}
	body, done, ok := w.readBody(rw, r)
	if !ok {
		return
	}
	defer done()
	if !w.mailbox.Linked() {
		err = wire.Errorf(wire.CodeUnavailable, "this worker has no broker now; try again")
	}
	if err == nil {
		err = w.publisher.Publish(channel.Message{Name: r.URL.Query().Get("name"), Key: r.URL.Query().Get("key"), Body: body}, channels...)
	}
	_, known := errors.AsType[*wire.Error](err)
	switch {
	case err == nil:
		rw.WriteHeader(http.StatusAccepted)
		return
	case errors.Is(err, channel.ErrFull):
		err = wire.Errorf(wire.CodeOverloaded, "posts come faster than the broker takes them; try again")
	case !known:
		err = wire.Errorf(wire.CodeBadFrame, "%v", err)
	}
	problem(rw, err)
}

// channelsOf reads the channels that a request names.
func channelsOf(r *http.Request) (channels []wire.Channel, err error) {
	names := r.URL.Query()["channel"]
	if name := r.PathValue("channel"); name != "" {
		names = append(names, name)
	}
	if len(names) == 0 || len(names) > channel.MaxChannels {
		return nil, wire.Errorf(wire.CodeBadFrame, "%d channels are named; 1 to %d may be, as in ?channel=a&channel=b", len(names), channel.MaxChannels)
	}
	for _, name := range names {
		c, err := wire.ParseChannel(name)
		if err != nil {
			return nil, wire.Errorf(wire.CodeBadFrame, "%v", err)
		}
		channels = append(channels, c)
	}
	return channels, nil
}

// publishQueued tells who watches a task that it waits for a runner. Its time is that of the submit: a runner that has
// it already says so with a later one.
func (w *Worker) publishQueued(t *wire.Task) {
	body, err := json.Marshal(wire.Workflow{
		WorkflowID: t.Task, Kind: t.Kind, Status: wire.WorkflowQueued, Message: "accepted; it waits for a task runner", Timestamp: t.Submitted,
	})
	if err == nil {
		err = w.publisher.Publish(channel.Message{Name: "workflow", Key: string(t.Task), Body: body, Time: t.Submitted.Time},
			wire.WorkflowChannel(t.Task), wire.ChannelWorkflows)
	}
	if err != nil && !errors.Is(err, channel.ErrFull) { // that is counted
		w.log.Error("that a task waits cannot be published", zap.String("task_id", string(t.Task)), zap.Error(err))
	}
}

// published reads the sums of a publisher when it is asked.
type published struct{ *channel.Publisher }

var (
	descPosts  = prometheus.NewDesc("wscluster_posts_total", "Posts to channels that this worker publishes, by what became of them: stored, returned (nobody was subscribed), refused by the broker, republished, or full (the queue had no room).", []string{"outcome"}, nil)
	descQueued = prometheus.NewDesc("wscluster_posts_queued", "Posts to channels that the broker has not answered for.", nil, nil)
)

func (p published) Describe(ch chan<- *prometheus.Desc) { prometheus.DescribeByCollect(p, ch) }

func (p published) Collect(ch chan<- prometheus.Metric) {
	sums := p.Stats()
	for outcome, n := range sums.ByOutcome() {
		ch <- prometheus.MustNewConstMetric(descPosts, prometheus.CounterValue, float64(n), outcome)
	}
	ch <- prometheus.MustNewConstMetric(descQueued, prometheus.GaugeValue, float64(sums.Queued))
}
