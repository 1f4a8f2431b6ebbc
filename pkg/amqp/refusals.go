package amqp

import (
	"sync"
	"time"

	"github.com/wscluster/wscluster/pkg/broker"
)

// A queue that refuses every publish for stuckAfter is tried over a new link, once in stuckAgain.
//
// A channel of RabbitMQ 3.10 that publishes to a quorum queue for the first time asks the node that it
// believes to lead the queue. If that node has just died, it refuses this publish and every later one until the
// node is back, although the queue has another leader long since (docs/adr/0016). A full queue looks the
// same; for that one a new link every ten minutes is no harm.
const (
	stuckAfter = 2 * time.Second
	stuckAgain = 10 * time.Minute
)

// refusals tells queues that refuse everything from those that refuse now and then. It is for all links of
// a process, and safe for concurrent use.
type refusals struct {
	mu    sync.Mutex
	since map[broker.Address]time.Time // guarded by mu; of the present link: the first refusal after which nothing was stored
	tried map[broker.Address]time.Time // guarded by mu; when a new link was asked for last
}

// joined forgets what another link was refused.
func (r *refusals) joined() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.since = nil
}

// judged notes the outcome of a publish and reports whether it is time for a new link.
func (r *refusals) judged(to broker.Address, o broker.Outcome, now time.Time) (stuck bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if o != broker.Refused {
		delete(r.since, to)
		return false
	}
	since, known := r.since[to]
	switch {
	case !known:
		if r.since == nil {
			r.since = map[broker.Address]time.Time{}
		}
		r.since[to] = now
		return false
	case now.Sub(since) < stuckAfter:
		return false
	}
	if tried, ever := r.tried[to]; ever && now.Sub(tried) < stuckAgain {
		return false
	}
	if r.tried == nil {
		r.tried = map[broker.Address]time.Time{}
	}
	r.tried[to] = now
	return true
}
