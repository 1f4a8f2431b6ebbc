package taskrunner

import (
	"slices"
	"testing"

	"github.com/wscluster/wscluster/pkg/broker"
	"github.com/wscluster/wscluster/pkg/wire"
	"pgregory.net/rapid"
)

// A broker that loses, refuses and mislays what it likes, and a file that is full when it likes,
// still end up with every durable event stored, in order once copies are left out, and nothing is
// forgotten before that. Memory stays within its bound.
func TestOutboxStoresAllInOrderWhateverBrokerAndDiskDo(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := &outboxModel{outbox: outbox{limit: rapid.IntRange(1, 8).Draw(t, "limit") * eventOverhead}}
		t.Repeat(map[string]func(*rapid.T){
			"tell": func(t *rapid.T) {
				if m.room() {
					m.tell(rapid.IntRange(0, 3*eventOverhead).Draw(t, "bytes"), rapid.IntRange(0, 9).Draw(t, "kind") > 0)
				}
			},
			"publish": func(t *rapid.T) {
				fate := rapid.SampledFrom([]broker.Outcome{broker.Stored, broker.Stored, broker.Refused, broker.Returned, broker.Unknown}).Draw(t, "fate")
				m.publish(fate, fate == broker.Stored || fate == broker.Unknown && rapid.Bool().Draw(t, "kept"))
			},
			"settle":        func(*rapid.T) { m.settleOldest() },
			"lose the link": func(*rapid.T) { m.lose() },
			"begin to write": func(*rapid.T) {
				before := m.room()
				if events := m.spill(); events != nil {
					m.batch = slices.Clone(events)
					if before {
						t.Fatalf("%d events go to the file, and there was room", len(events))
					}
				}
			},
			"end the write": func(t *rapid.T) {
				if m.writing > 0 {
					m.endWrite(rapid.Bool().Draw(t, "full"))
				}
			},
			"read back":      func(*rapid.T) { m.readBack() },
			"there is space": func(*rapid.T) { m.full = false },
			"":               m.check,
		})
		for !m.empty() { // nothing is stuck: the broker alone gets everything out
			if m.writing > 0 {
				m.endWrite(true)
			}
			m.readBack()
			for m.publish(broker.Stored, true) {
			}
			if !m.settleOldest() {
				t.Fatalf("stuck with %d events", m.len())
			}
		}
		if got := received(m.stored, m.durable); !slices.Equal(got, m.durable) {
			t.Fatalf("a receiver has %v, want %v", got, m.durable)
		}
	})
}

// outboxModel is an outbox with what is around it.
type outboxModel struct {
	outbox
	last    int64         // the seq of the youngest event
	durable []int64       // seqs of all durable events
	flying  []flown       // as the sender holds receipts
	batch   []*wire.Event // on its way to the file
	file    []*wire.Event
	stored  []int64 // as the broker has them, copies and all
}

type flown struct {
	event   *wire.Event
	outcome broker.Outcome
}

func (m *outboxModel) tell(bytes int, durable bool) {
	m.last++
	if durable {
		m.durable = append(m.durable, m.last)
	}
	m.add(&wire.Event{Seq: m.last, Durable: durable, Body: make([]byte, bytes)})
}

func (m *outboxModel) publish(fate broker.Outcome, kept bool) bool {
	e := m.next()
	if e == nil {
		return false
	}
	if kept {
		m.stored = append(m.stored, e.Seq)
	}
	m.flying = append(m.flying, flown{e, fate})
	return true
}

func (m *outboxModel) settleOldest() bool {
	if len(m.flying) == 0 {
		return false
	}
	if !m.settle(m.flying[0].outcome) {
		m.lose()
		return true
	}
	m.flying = m.flying[1:]
	return true
}

func (m *outboxModel) lose() {
	m.flying = nil
	m.rewind()
}

func (m *outboxModel) endWrite(full bool) {
	if full {
		m.refused()
	} else {
		m.file = append(m.file, m.batch...)
		m.wrote()
	}
	m.batch = nil
}

// readBack reads as spoolFile.take does.
func (m *outboxModel) readBack() {
	n := 0
	for cost, size := 0, m.wanted(); cost < size && n < len(m.file); n++ {
		cost += len(m.file[n].Body) + eventOverhead
	}
	m.loaded(m.file[:n])
	m.file = m.file[n:]
}

func (m *outboxModel) check(t *rapid.T) {
	const largest = 4 * eventOverhead
	for name, q := range map[string]queue{"head": m.head, "tail": m.tail} {
		size := 0
		for _, e := range q.events {
			size += len(e.Body) + eventOverhead
		}
		if size != q.bytes || size >= m.limit/2+largest {
			t.Fatalf("the %s counts %d bytes for %d, and half of the limit is %d", name, q.bytes, size, m.limit/2)
		}
	}
	if m.sent != len(m.flying) || m.spilled != len(m.file) {
		t.Fatalf("%d events in flight, %d receipts; %d spilled, %d in the file", m.sent, len(m.flying), m.spilled, len(m.file))
	}
	var kept []int64
	for _, e := range slices.Concat(m.head.events, m.file, m.tail.events) {
		if e.Durable {
			kept = append(kept, e.Seq)
		}
	}
	gone := len(m.durable) - len(kept)
	if gone < 0 || !slices.Equal(kept, m.durable[gone:]) {
		t.Fatalf("of %v there are kept %v", m.durable, kept)
	}
	if got := received(m.stored, m.durable); len(got) < gone {
		t.Fatalf("a receiver has %v, and only %v are kept", got, kept)
	}
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
