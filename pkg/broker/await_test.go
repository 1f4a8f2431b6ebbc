package broker_test

import (
	"context"
	"testing"

	"github.com/wscluster/wscluster/pkg/broker"
)

// answered is a receipt whose outcome is known.
type answered struct{ done chan struct{} }

func (r answered) Done() <-chan struct{}   { return r.done }
func (r answered) Outcome() broker.Outcome { return broker.Stored }

func TestAwaitTellsAKnownOutcomeEvenIfItsContextHasEnded(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	r := answered{make(chan struct{})}
	close(r.done)
	for range 100 { // a select of two ready channels chooses at random
		if o, err := broker.Await(ctx, r); o != broker.Stored || err != nil {
			t.Fatalf("got %v, %v; want stored", o, err)
		}
	}
}
