package mailbox

import (
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wscluster/wscluster/internal/session"
	"github.com/wscluster/wscluster/pkg/broker"
	"github.com/wscluster/wscluster/pkg/broker/memory"
	"github.com/wscluster/wscluster/pkg/socketmeta"
	"github.com/wscluster/wscluster/pkg/wire"
)

var threeWorkers = []socketmeta.ServerID{"i1-w1", "i1-w2", "i1-w3"}

// overheard is what crossed the broker.
type overheard struct {
	mu      sync.Mutex
	moved   []memory.Publish
	copies  int // of events, by workers
	mostHop int
}

func (w *town) overhear() *overheard {
	o := &overheard{}
	w.broker.OnPublish(func(x memory.Publish) memory.Verdict {
		o.mu.Lock()
		defer o.mu.Unlock()
		switch {
		case x.Message.Type == "moved":
			o.moved = append(o.moved, x)
		case x.To.Exchange == broker.ExchangeUtils && x.From != broker.Runner("town"):
			o.copies++
			e, err := wire.DecodeEvent(x.Message.Type, x.Message.Correlation, x.Message.Headers, x.Message.Body)
			if err != nil {
				w.Error(err)
			}
			o.mostHop = max(o.mostHop, e.Hops)
		}
		return memory.Verdict{}
	})
	return o
}

func TestFault21AClientThatHopsAThousandTimesHasEverythingOnceAndNothingLoops(t *testing.T) {
	const hops = 1000
	inTown(t, memory.Limits{}, session.Options{Window: time.Minute}, Options{}, threeWorkers, func(w *town) {
		p := w.settler("i1-w1")
		heard := w.overhear()
		for i := range hops {
			w.publish(p, "i1-w1", 1) // the task was submitted at the first worker, and nothing ever again
			w.attach(p, threeWorkers[(i+1)%3])
			w.publish(p, "i1-w1", 1)
			w.pass(time.Duration(i%5) * 10 * time.Millisecond)
		}
		w.pass(10 * time.Second)
		if n := p.has("t"); n != 2*hops {
			t.Errorf("the application has %d of %d events", n, 2*hops)
		}
		w.settled()
		if heard.mostHop > 10 || heard.copies > 3*2*hops {
			t.Errorf("%d events were passed on %d times, one of them %d times: that is a loop", 2*hops, heard.copies, heard.mostHop)
		}
		for id, c := range w.workers {
			if known, _ := c.o.Sessions.Count(); known > 1 {
				t.Errorf("%s has %d records of one client", id, known)
			}
		}
		t.Logf("%d events in %d hops: %d passed on, one at most %d times, %d times moved", 2*hops, hops, heard.copies, heard.mostHop, len(heard.moved))
		p.leave()
		time.Sleep(3 * time.Minute)
		synctest.Wait()
		for id, c := range w.workers {
			if known, _ := c.o.Sessions.Count(); known != 0 {
				t.Errorf("%s still has a record of a client that left three windows ago", id)
			}
		}
	})
}

func TestFault22AStaleMovedThatIsReplayedIsIgnored(t *testing.T) {
	inTown(t, memory.Limits{}, session.Options{Window: time.Minute}, Options{}, threeWorkers, func(w *town) {
		p := w.settler("i1-w1")
		heard := w.overhear()
		for _, id := range []socketmeta.ServerID{"i1-w2", "i1-w3", "i1-w1", "i1-w2"} {
			w.publish(p, "i1-w1", 2)
			w.attach(p, id)
			w.pass(100 * time.Millisecond)
		}
		w.broker.OnPublish(nil)
		if len(heard.moved) < 4 {
			t.Fatalf("%d claims were heard, want one for each move", len(heard.moved))
		}
		stale := heard.moved[:len(heard.moved)-1] // all but the one that holds
		for range 3 {
			for _, x := range slices.Backward(stale) {
				for _, to := range []broker.Address{broker.ToAll(), broker.ToControl(broker.Worker("i1-w2"))} {
					if _, err := w.runner.Publish(w.Context(), to, x.Message); err != nil {
						t.Fatal(err)
					}
				}
			}
			w.publish(p, "i1-w1", 2)
			w.publish(p, "i1-w2", 2)
			w.pass(100 * time.Millisecond)
		}
		if codes := p.codes(); len(codes) != 0 {
			t.Errorf("the client's sockets were closed with %v", codes)
		}
		w.pass(time.Second)
		if n := p.has("t"); n != 20 {
			t.Errorf("the application has %d events, want all 20 where it is", n)
		}
		w.settled()
	})
}

// An acknowledgement that comes after the link was lost names deliveries of a life that is over. In
// the next one the same tags stand for other deliveries.
func TestFault28SettlingWhatAnEarlierLinkDeliveredDoesNothing(t *testing.T) {
	inTown(t, memory.Limits{}, session.Options{}, Options{}, oneWorker, func(w *town) {
		w.alone = true
		p := w.settler("i1-w1")
		p.mute = true
		w.publish(p, "i1-w1", 3)
		c := w.workers["i1-w1"]
		var late []session.Ref
		for tag := uint64(1); tag <= 3; tag++ {
			late = append(late, session.Ref{Mailbox: "i1-w1", Life: c.lives.Load(), Tag: tag})
		}
		w.broker.Cut(broker.Worker("i1-w1"))
		w.pass(time.Second)
		if _, unsettled := w.broker.Depth(broker.MailboxQueue("i1-w1")); unsettled != 3 {
			t.Fatalf("%d events are with the worker again, want 3", unsettled)
		}
		c.apply(session.Effects{Settle: late})
		w.pass(time.Second)
		if n := w.left(); n != 3 {
			t.Errorf("%d events are left in the mailbox, want the 3 that nobody has acknowledged", n)
		}
		p.mute = false
		w.attach(p, "i1-w1")
		w.pass(time.Second)
		w.settled()
	})
}

// The welcome is on its way, and the client never hears it: it comes again with the token that it has.
// The clocks of the workers, from which epochs are made, are an hour apart.
func TestFault33AWelcomeThatIsLostTwiceCostsNothingWhateverTheClocksSay(t *testing.T) {
	for _, path := range [][]socketmeta.ServerID{
		{"i1-w2", "i1-w2", "i1-w2"}, {"i1-w2", "i1-w3", "i1-w2"}, {"i1-w3", "i1-w2", "i1-w1"},
		{"i1-w1", "i1-w1", "i1-w2"}, {"i1-w2", "i1-w1", "i1-w3"}, {"i1-w2", "i1-w3", "i1-w1"},
	} {
		for _, fast := range append(slices.Clone(threeWorkers), "none") {
			inTown(t, memory.Limits{}, session.Options{Window: time.Minute}, Options{}, threeWorkers, func(w *town) {
				clock := func(id socketmeta.ServerID) time.Time {
					if id == fast {
						return time.Now().Add(time.Hour)
					}
					return time.Now()
				}
				p := &person{id: socketmeta.NewClientID(), tasks: map[wire.TaskID]*story{}}
				w.people = append(w.people, p)
				w.confirm(p, "i1-w1", w.welcome(p, "i1-w1", clock("i1-w1")))
				for range 3 {
					w.publish(p, "i1-w1", 2)
					for i, id := range path {
						welcome := w.welcome(p, id, clock(id))
						w.publish(p, "i1-w1", 1)
						w.pass(50 * time.Millisecond)
						if i == len(path)-1 {
							w.confirm(p, id, welcome)
						}
					}
					w.publish(p, "i1-w1", 2)
					w.pass(time.Second)
				}
				if n := p.has("t"); n != 21 {
					t.Errorf("%v with the clock of %s ahead: the application has %d of 21 events", path, fast, n)
				}
				w.settled()
			})
		}
	}
}

// Somebody deletes the mailbox: its worker's link ends, what is published meanwhile is parked, and the
// worker makes the mailbox again. (With a real queue: pkg/amqp.)
func TestFault18WhatIsParkedWhileAMailboxIsMissingIsDelivered(t *testing.T) {
	inTown(t, memory.Limits{}, session.Options{Window: time.Minute}, Options{}, twoWorkers, func(w *town) {
		p, other := w.settler("i1-w1"), w.settler("i1-w2")
		w.pass(20 * time.Second) // until there is a janitor
		w.publish(p, "i1-w1", 3)
		w.publish(other, "i1-w2", 1)
		w.pass(time.Second)
		w.broker.OnPublish(func(x memory.Publish) memory.Verdict {
			if x.To == broker.ToMailbox("i1-w1") {
				return memory.Verdict{Fate: memory.Park}
			}
			return memory.Verdict{}
		})
		w.broker.Cut(broker.Worker("i1-w1"))
		w.publish(p, "i1-w1", 3)
		w.pass(5 * time.Second)
		if err := w.workers["i1-w1"].Ready(); err != nil {
			t.Errorf("5 s after its mailbox was deleted: %v", err)
		}
		w.publish(p, "i1-w1", 1)
		w.broker.OnPublish(nil)
		w.publish(p, "i1-w1", 3)
		w.publish(other, "i1-w2", 1)
		w.pass(10 * time.Second)
		if a, b := p.has("t"), other.has("t"); a != 10 || b != 2 {
			t.Errorf("the applications have %d of 10 and %d of 2 events", a, b)
		}
		w.settled()
	})
}

// A runner's rights let it publish to control. What it makes up costs the client a socket, and nothing
// that was confirmed.
func TestFault30AForgedMovedCostsNoEvent(t *testing.T) {
	inTown(t, memory.Limits{}, session.Options{Window: time.Minute}, Options{}, twoWorkers, func(w *town) {
		p := w.settler("i1-w1")
		w.pass(20 * time.Second)
		for i, from := range []socketmeta.ServerID{"i1-w2", "i9-w9", "i1-w2"} {
			w.publish(p, "i1-w1", 2)
			forged := &wire.Moved{From: from, Clients: []wire.Claim{{Client: p.id, Epoch: socketmeta.Epoch(time.Now().Add(time.Hour).UnixMilli())}}}
			for _, m := range []wire.ControlMessage{forged, &wire.Handback{Mailbox: "i1-w1"}, &wire.Owner{From: from, Mailbox: "i1-w1"}, &wire.Offer{From: from, Mailbox: "i1-w1"}} {
				if _, err := w.runner.Publish(w.Context(), broker.ToAll(), broker.Message{Type: m.ControlType(), Body: wire.EncodeControl(m)}); err != nil {
					t.Fatal(err)
				}
			}
			w.pass(time.Second)
			w.publish(p, "i1-w1", 2)
			if codes := p.codes(); len(codes) != i+1 || codes[i] != wire.CloseMoved {
				t.Errorf("closed with %v, want 4200 each time", codes)
			}
			w.attach(p, "i1-w1")
			w.publish(p, "i1-w1", 2)
			w.pass(30 * time.Second)
		}
		if n := p.has("t"); n != 18 {
			t.Errorf("the application has %d of 18 events", n)
		}
		w.settled()
	})
}
