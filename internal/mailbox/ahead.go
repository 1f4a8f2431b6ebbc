package mailbox

import (
	"context"
	"sync"
	"time"

	"github.com/wscluster/wscluster/pkg/broker"
)

const (
	aheadFor    = time.Second           // what the broker said last is told for so long
	aheadWithin = 50 * time.Millisecond // an answer to a client waits no longer for it
)

// queues tells how many tasks of a kind wait, roughly: for the position in the answers to submits. One
// belongs to one link. It is for one goroutine, but for what it starts.
type queues struct {
	link  broker.Link
	kinds map[string]*depth // of tasks that were stored: as many as there are kinds with runners
	asked sync.WaitGroup
}

// depth is one queue.
type depth struct {
	at     time.Time     // when it was asked last
	answer chan struct{} // closed when waits and known are there
	waits  int
	known  bool
}

func newQueues(link broker.Link) *queues {
	return &queues{link: link, kinds: map[string]*depth{}}
}

// ahead returns how many tasks were waiting before the one that was just stored; nil if the broker does
// not say in time.
func (q *queues) ahead(ctx context.Context, kind string) *int {
	d := q.kinds[kind]
	if d == nil || time.Since(d.at) > aheadFor {
		d = &depth{at: time.Now(), answer: make(chan struct{})}
		q.kinds[kind] = d
		q.asked.Go(func() {
			defer close(d.answer)
			waits, err := q.link.Waiting(ctx, kind)
			d.waits, d.known = waits, err == nil
		})
	}
	late := time.NewTimer(aheadWithin)
	defer late.Stop()
	select {
	case <-d.answer:
	case <-late.C:
		return nil
	case <-ctx.Done():
		return nil
	}
	if !d.known {
		return nil
	}
	n := max(0, d.waits-1) // itself, unless a runner has it already
	return &n
}
