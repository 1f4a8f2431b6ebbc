package taskrunner

import (
	"sync"

	"github.com/wscluster/wscluster/pkg/batch"
	"github.com/wscluster/wscluster/pkg/broker"
)

// links tells the runs which link to the broker there is now.
type links struct {
	mu      sync.Mutex
	way     *way          // nil while there is none
	changed chan struct{} // closed and replaced when it changes
}

// way is a link, and what brings events over it.
type way struct {
	link   broker.Link
	events *batch.Publisher
}

func newLinks() *links { return &links{changed: make(chan struct{})} }

// now returns the way, nil if there is none, and a channel that is closed when that changes.
func (l *links) now() (*way, <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.way, l.changed
}

func (l *links) set(w *way) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.way = w
	close(l.changed)
	l.changed = make(chan struct{})
}
