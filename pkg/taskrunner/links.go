package taskrunner

import (
	"sync"

	"github.com/wscluster/wscluster/pkg/broker"
)

// links tells the runs which link to the broker there is now.
type links struct {
	mu      sync.Mutex
	link    broker.Link   // nil while there is none
	changed chan struct{} // closed and replaced when link changes
}

func newLinks() *links { return &links{changed: make(chan struct{})} }

// now returns the link, nil if there is none, and a channel that is closed when that changes.
func (l *links) now() (broker.Link, <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.link, l.changed
}

func (l *links) set(link broker.Link) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.link = link
	close(l.changed)
	l.changed = make(chan struct{})
}
