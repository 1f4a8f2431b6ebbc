package chaos

import (
	"context"
	"errors"
	"time"
)

// mendWithin bounds what it takes to mend one fault: a start, mostly, on a machine that has more to do.
const mendWithin = time.Minute

// errBusy says that a target was still being mended when it was to be struck again.
var errBusy = errors.New("its target has not yet recovered")

// strike makes a fault happen, calls struck at the moment that it does, and mends it after its
// time, or as soon as ctx ends. It returns when all is mended.
func (s *site) strike(ctx context.Context, f Fault, struck func()) error {
	hits := rules[f.Kind].hits
	if hits == clients {
		struck()
		s.fleet.strike(ctx, f)
		return nil
	}
	at := place{hits, f.Target}
	if !s.take(at) {
		return errBusy
	}
	defer s.give(at)
	mending, cancel := context.WithTimeout(context.WithoutCancel(ctx), f.For+mendWithin)
	defer cancel()
	then := func(err error) error { // waits out the fault
		if err == nil {
			struck()
			wait(ctx, f.For)
		}
		return err
	}
	switch hits {
	case workers:
		return s.strikeWorker(mending, f, then)
	case runners:
		return strikeMember(mending, f.Kind, s.cluster.Runners[f.Target], then)
	case publishers:
		return s.strikePublisher(f, then)
	default:
		return s.strikeNode(mending, f, then)
	}
}

// take reports whether a target is whole, and reserves it.
func (s *site) take(p place) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.busy[p] {
		return false
	}
	s.busy[p] = true
	return true
}

func (s *site) give(p place) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.busy, p)
}
