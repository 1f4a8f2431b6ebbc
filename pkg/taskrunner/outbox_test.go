package taskrunner

import (
	"slices"
	"testing"

	"github.com/wscluster/wscluster/pkg/broker"
	"github.com/wscluster/wscluster/pkg/wire"
	"pgregory.net/rapid"
)

// A broker that loses, refuses and mislays what it likes still ends up with every durable event,
// in order once copies are left out, and nothing is forgotten before that.
func TestOutboxStoresAllInOrderWhateverTheBrokerDoes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		o := outbox{limit: 4 * eventOverhead}
		var (
			told    int64    // events added
			flying  []*flown // as the sender holds receipts
			stored  []int64  // as the broker has them, copies and all
			durable []int64
		)
		publish := func(fate broker.Outcome, kept bool) bool {
			e := o.next()
			if e == nil {
				return false
			}
			if kept {
				stored = append(stored, e.Seq)
			}
			flying = append(flying, &flown{e, fate})
			return true
		}
		settle := func() {
			if len(flying) == 0 {
				return
			}
			if o.settle(flying[0].outcome) {
				flying = flying[1:]
			} else {
				flying = nil
			}
		}
		t.Repeat(map[string]func(*rapid.T){
			"tell": func(t *rapid.T) {
				if !o.room() {
					t.Skip("full")
				}
				told++
				e := &wire.Event{Seq: told, Durable: rapid.Bool().Draw(t, "durable")}
				if e.Durable {
					durable = append(durable, told)
				}
				o.add(e)
			},
			"publish": func(t *rapid.T) {
				fate := rapid.SampledFrom([]broker.Outcome{broker.Stored, broker.Stored, broker.Refused, broker.Returned, broker.Unknown}).Draw(t, "fate")
				publish(fate, fate == broker.Stored || fate == broker.Unknown && rapid.Bool().Draw(t, "kept"))
			},
			"settle": func(*rapid.T) { settle() },
			"lose the link": func(*rapid.T) {
				flying = nil
				o.rewind()
			},
			"": func(t *rapid.T) {
				if o.bytes > o.limit || o.bytes != len(o.events)*eventOverhead {
					t.Fatalf("%d bytes for %d events, limit %d", o.bytes, len(o.events), o.limit)
				}
				if o.sent != len(flying) {
					t.Fatalf("%d events in flight, %d receipts", o.sent, len(flying))
				}
				if got, gone := received(stored, durable), len(durable)-count(o.events); len(got) < gone {
					t.Fatalf("a receiver has %v, and of %v only %d are kept", got, durable, len(durable)-gone)
				}
			},
		})
		for !o.empty() {
			for publish(broker.Stored, true) {
			}
			settle()
		}
		if got := received(stored, durable); !slices.Equal(got, durable) {
			t.Fatalf("a receiver has %v, want %v", got, durable)
		}
	})
}

type flown struct {
	event   *wire.Event
	outcome broker.Outcome
}

func count(events []*wire.Event) (durable int) {
	for _, e := range events {
		if e.Durable {
			durable++
		}
	}
	return durable
}

// received is what a receiver without any buffer takes from the mailbox: the next durable event
// in order, and nothing else.
func received(stored, durable []int64) (got []int64) {
	for _, seq := range stored {
		if len(got) < len(durable) && seq == durable[len(got)] {
			got = append(got, seq)
		}
	}
	return got
}
