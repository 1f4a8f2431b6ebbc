package mailbox

import (
	"context"
	"sync"
	"time"

	"github.com/wscluster/wscluster/pkg/broker"
	"github.com/wscluster/wscluster/pkg/wire"
)

const (
	aheadFor    = time.Second           // what the broker said last is told for so long
	aheadWithin = 50 * time.Millisecond // an answer to a client waits no longer for it
)

// queues tells how many tasks are ahead of one of a kind and priority, roughly: for the position in the answers to submits. One
// belongs to one link. It is for one goroutine, but for what it starts.
type queues struct {
	link  broker.Link
	known map[string]*depth // by queue, of tasks that were stored: at most two for each kind with runners
	asked sync.WaitGroup
}

// depth is what is ahead of who joins one queue.
type depth struct {
	at     time.Time     // when it was asked last
	answer chan struct{} // closed when waits and known are there
	waits  int
	known  bool
}

func newQueues(link broker.Link) *queues {
	return &queues{link: link, known: map[string]*depth{}}
}

// ahead returns how many tasks were waiting before the one that was just stored; nil if the broker does
// not say in time.
func (q *queues) ahead(ctx context.Context, t *wire.Task) *int {
	kind, priority := t.Kind, t.Priority
	queue := broker.TasksQueue(kind, priority)
	d := q.known[queue]
	if d == nil || time.Since(d.at) > aheadFor {
		d = &depth{at: time.Now(), answer: make(chan struct{})}
		q.known[queue] = d
		q.asked.Go(func() {
			defer close(d.answer)
			waits, err := q.link.Waiting(ctx, kind, priority)
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
