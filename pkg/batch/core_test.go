package batch

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/wscluster/wscluster/pkg/broker"
	"github.com/wscluster/wscluster/pkg/socketmeta"
	"github.com/wscluster/wscluster/pkg/wire"
)

var seeds = flag.Uint64("batch.seeds", 300, "how many schedules to simulate")

const run wire.RunID = "018f6d9a-30aa-7b11-9c22-abcdefabcdef"

func event(seq int64, bytes int) *wire.Event {
	return &wire.Event{Task: "t", Attempt: 1, Run: run, Seq: seq, Prev: seq - 1, Type: wire.EventLog, Durable: true, Body: []byte(strings.Repeat("x", bytes))}
}

// teller is a run that publishes its events in order, many at once, and goes back to the first one that is not stored.
type teller struct {
	to     socketmeta.ServerID
	events []*wire.Event
	stored int // events[:stored] are
	flying []*message
	got    []int64 // what its mailbox has, copies and all
}

// world is a core, tellers, and a broker that does what it likes.
type world struct {
	*testing.T
	core    core
	now     time.Time
	tellers []*teller
	of      map[*wire.Event]*teller
	last    map[socketmeta.ServerID][]*wire.Event // offered and not sent, in order
	sent    []*message                            // with the broker
	seen    map[string]int
}

func (w *world) offer(t *teller) {
	e := t.events[t.stored+len(t.flying)]
	idle := w.core.lines[t.to] == nil
	m := w.core.offer(t.to, e, "", w.now)
	t.flying = append(t.flying, m)
	w.last[t.to] = append(w.last[t.to], e)
	if idle && !m.closed {
		w.Fatal("an event waits though nothing is under way")
	}
}

// send gives the broker what is ready.
func (w *world) send() {
	ready := w.core.ready
	w.core.ready = nil
	for _, m := range ready {
		to := m.line.to
		if !m.closed || len(m.events) == 0 || len(m.events) > len(w.last[to]) || !slices.Equal(m.events, w.last[to][:len(m.events)]) {
			w.Fatalf("%d events leave for %s, and they are not those that were offered first", len(m.events), to)
		}
		w.last[to] = w.last[to][len(m.events):]
		if len(m.events) > 1 {
			w.seen["batch"]++
			if _, err := wire.DecodeBatch(wire.EncodeBatch(m.events)); err != nil {
				w.Fatalf("what leaves is no batch: %v", err)
			}
		}
		if len(m.events) == wire.MaxBatch {
			w.seen["full"]++
		}
		if w.now.Sub(m.begun) > maxWait {
			w.Fatalf("an event has waited for %v", w.now.Sub(m.begun))
		}
		w.sent = append(w.sent, m)
	}
	for _, l := range w.core.lines {
		if l.open != nil && w.now.Sub(l.open.begun) >= maxWait {
			w.Fatalf("an event waits for %v", w.now.Sub(l.open.begun))
		}
		if l.open != nil && l.flying == 0 {
			w.Fatal("an event waits for nothing")
		}
	}
}

// answer has the broker answer one message of those that are first at their mailboxes.
func (w *world) answer(i int, o broker.Outcome, kept bool) {
	m := w.sent[i]
	if slices.IndexFunc(w.sent, func(o *message) bool { return o.line == m.line }) != i {
		return // one before it is not answered
	}
	w.sent = slices.Delete(w.sent, i, i+1)
	if kept {
		for _, e := range m.events {
			t := w.of[e]
			t.got = append(t.got, e.Seq)
		}
	}
	m.resolve(o)
	w.core.answered(m)
	for _, t := range w.tellers {
		for len(t.flying) > 0 && t.flying[0].Outcome() != broker.Pending {
			if t.flying[0].Outcome() != broker.Stored {
				w.seen["went back "+t.flying[0].Outcome().String()]++
				t.flying = nil
				break
			}
			t.flying = t.flying[1:]
			t.stored++
		}
	}
}

// TestEveryScheduleKeepsOrderAndLosesNothing: whatever is offered, answered, refused or lost, and when.
func TestEveryScheduleKeepsOrderAndLosesNothing(t *testing.T) {
	seen, steps := map[string]int{}, 0
	for seed := range *seeds {
		rng := rand.New(rand.NewPCG(seed, 7))
		w := &world{T: t, now: time.Unix(0, 0), of: map[*wire.Event]*teller{}, last: map[socketmeta.ServerID][]*wire.Event{}, seen: seen}
		large := rng.IntN(4) == 0
		for i := range 1 + rng.IntN(5) {
			tell := &teller{to: socketmeta.ServerID(fmt.Sprintf("i1-w%d", 1+i%(1+rng.IntN(3))))}
			for seq := range int64(20 + rng.IntN(100)) {
				size := rng.IntN(300)
				if large {
					size = []int{10, 2000, 20_000, 65_300 + rng.IntN(200), 100_000}[rng.IntN(5)]
				}
				e := event(seq+1, size)
				e.Client[0] = byte(i)
				tell.events = append(tell.events, e)
				w.of[e] = tell
			}
			w.tellers = append(w.tellers, tell)
		}
		faults, burst := rng.IntN(2)*3, 1+rng.IntN(2)*60
		for n := 0; ; n++ {
			left := slices.ContainsFunc(w.tellers, func(t *teller) bool { return t.stored < len(t.events) })
			if !left {
				break
			}
			if n > 200_000 {
				t.Fatalf("seed %d: it never ends", seed)
			}
			steps++
			tell := w.tellers[rng.IntN(len(w.tellers))]
			switch d := rng.IntN(12); {
			case d < 7:
				for range 1 + rng.IntN(burst) {
					if tell.stored+len(tell.flying) < len(tell.events) && len(tell.flying) < 64 && len(w.sent) < 40 { // a run that went back waits a while
						w.offer(tell)
					}
				}
			case d < 8:
				w.now = w.now.Add(time.Duration(rng.IntN(400)) * time.Microsecond)
				if due, ok := w.core.due(); ok && due.Before(w.now) {
					w.now = due
				}
				w.core.tick(w.now)
			case len(w.sent) > 0:
				o, kept := broker.Stored, true
				if rng.IntN(40) < faults {
					o = []broker.Outcome{broker.Returned, broker.Refused, broker.Unknown}[rng.IntN(3)]
					kept = o == broker.Unknown && rng.IntN(2) == 0
				}
				w.answer(rng.IntN(len(w.sent)), o, kept)
			default:
				w.core.tick(w.now)
			}
			w.send()
		}
		for len(w.sent) > 0 { // copies under way
			w.answer(0, broker.Stored, true)
			w.send()
		}
		if due, waits := w.core.due(); waits || len(w.core.lines) > 0 {
			t.Fatalf("seed %d: %d lines are left when all is answered, due %v", seed, len(w.core.lines), due)
		}
		for i, tell := range w.tellers {
			next := int64(1) // a receiver without a buffer takes what is next, and nothing else
			for _, seq := range tell.got {
				if seq > next && faults == 0 {
					t.Fatalf("seed %d: event %d of run %d came where %d was to", seed, seq, i, next)
				}
				if seq == next {
					next++
				}
			}
			if int(next) <= len(tell.events) {
				t.Fatalf("seed %d: event %d of run %d never came", seed, next, i)
			}
		}
	}
	t.Logf("%d schedules, %d steps: %v", *seeds, steps, seen)
	for _, what := range []string{"batch", "full", "went back returned", "went back refused", "went back unknown"} {
		if seen[what] == 0 {
			t.Errorf("no schedule had: %s", what)
		}
	}
}

func TestWhenNothingIsUnderWayAnEventIsSentAtOnce(t *testing.T) {
	var c core
	now := time.Unix(0, 0)
	first := c.offer("i1-w1", event(1, 10), "", now)
	second := c.offer("i1-w1", event(2, 10), "", now)
	third := c.offer("i1-w1", event(3, 10), "", now)
	other := c.offer("i1-w2", event(1, 10), "", now)
	if !first.closed || second.closed || second != third || !other.closed {
		t.Errorf("sent: %t, %t, %t, the other mailbox's %t", first.closed, second.closed, third.closed, other.closed)
	}
	c.answered(first)
	if !second.closed || len(second.events) != 2 {
		t.Error("what waited for the answer was not sent with it")
	}
}

func TestAnEventWaitsNoLongerThanAMillisecond(t *testing.T) {
	var c core
	now := time.Unix(0, 0)
	c.offer("i1-w1", event(1, 10), "", now)
	m := c.offer("i1-w1", event(2, 10), "", now.Add(300*time.Microsecond))
	if due, ok := c.due(); !ok || due != now.Add(1300*time.Microsecond) {
		t.Errorf("due at %v (%t)", due, ok)
	}
	c.tick(now.Add(1299 * time.Microsecond))
	if m.closed {
		t.Error("it was sent too early")
	}
	c.tick(now.Add(1300 * time.Microsecond))
	if !m.closed {
		t.Error("it was not sent in time")
	}
	if _, ok := c.due(); ok {
		t.Error("something is due still")
	}
}

func TestABatchIsSentWhenItIsFull(t *testing.T) {
	for name, test := range map[string]struct{ bytes, fit int }{
		"events":   {10, wire.MaxBatch},
		"bytes":    {2000, (wire.MaxBatchBytes - batchHead) / wire.BatchedSize(event(64, 2000))},
		"too long": {wire.MaxBatchBytes, 1},
	} {
		var c core
		now := time.Unix(0, 0)
		c.offer("i1-w1", event(1, 10), "", now)
		c.ready = nil
		seq := int64(63)
		for len(c.ready) == 0 {
			seq++
			c.offer("i1-w1", event(seq, test.bytes), "", now)
		}
		if n := len(c.ready[0].events); n != test.fit {
			t.Errorf("%s: %d events left at once, want %d", name, n, test.fit)
		}
	}
}

func TestAnEventWithoutNumbersGoesAlone(t *testing.T) {
	var c core
	now := time.Unix(0, 0)
	c.offer("i1-w1", event(1, 10), "", now)
	before := c.offer("i1-w1", event(2, 10), "", now)
	plain := event(1, 10)
	plain.Seq, plain.Prev = 0, 0
	m := c.offer("i1-w1", plain, "", now)
	if !before.closed || !m.closed || len(m.events) != 1 {
		t.Errorf("sent: %t and %t, with %d events", before.closed, m.closed, len(m.events))
	}
}
