package mailbox

import (
	"fmt"
	"maps"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wscluster/wscluster/internal/session"
	"github.com/wscluster/wscluster/pkg/broker"
	"github.com/wscluster/wscluster/pkg/broker/memory"
	"github.com/wscluster/wscluster/pkg/socketmeta"
	"github.com/wscluster/wscluster/pkg/wire"
)

var oneWorker, twoWorkers = []socketmeta.ServerID{"i1-w1"}, []socketmeta.ServerID{"i1-w1", "i1-w2"}

// smallCaps are 80 events for one client in memory, and 100 in the overflow of a mailbox.
var (
	smallCaps = session.Options{MaxWaiting: 80, Window: time.Minute}
	smallHold = memory.Limits{HoldMessages: 100}
)

func TestFault16AClientOverItsCapsIsToldWhatItLostAndNobodyElseLosesAnything(t *testing.T) {
	inTown(t, smallHold, smallCaps, Options{}, oneWorker, func(w *town) {
		flooded, away, here := w.settler("i1-w1"), w.settler("i1-w1"), w.settler("i1-w1")
		flooded.leave()
		away.leave()
		w.publish(away, "i1-w1", 5)
		for range 10 {
			w.publish(flooded, "i1-w1", 50)
			w.publish(here, "i1-w1", 1)
			w.pass(time.Second)
		}
		if n := here.has("t"); n != 10 {
			t.Errorf("the client that is here has %d events of 10", n)
		}
		w.attach(flooded, "i1-w1")
		w.attach(away, "i1-w1")
		w.pass(10 * time.Second)
		if n := flooded.lost("t"); n < 320 || n > 370 { // gaps wait in memory too
			t.Errorf("%d of 500 events were given up, want those beyond 80 in memory and 100 in the overflow, and not many more", n)
		}
		if s := flooded.tasks["t"]; slices.Contains(slices.Collect(maps.Values(s.missing)), wire.GapExpired) || s.missing[500] != "" {
			t.Errorf("missing are %v; want reason caps, and the last event kept", s.missing)
		}
		w.settled()
	})
}

// The gap of a plain event takes the place of any number of them: what is given up makes room.
func TestFault16AFloodOfPlainEventsLeavesFewGaps(t *testing.T) {
	inTown(t, smallHold, smallCaps, Options{}, oneWorker, func(w *town) {
		p := w.settler("i1-w1")
		p.leave()
		for i := range 1000 {
			m := broker.Message{Type: "step", Correlation: "t", Body: fmt.Appendf(nil, `{"client_id":%q,"n":%d}`, p.id, i)}
			if _, err := w.runner.Publish(w.Context(), broker.ToMailbox("i1-w1"), m); err != nil {
				t.Fatal(err)
			}
			w.pass(10 * time.Millisecond)
		}
		w.pass(5 * time.Second)
		if n := w.left(); n > 80+100+10 {
			t.Errorf("%d events and gaps are held of 1,000, want 80 in memory, 100 in the overflow and few gaps", n)
		}
		p.story("t")
		w.attach(p, "i1-w1")
		w.pass(10 * time.Second)
		if n, dead := p.has("t"), len(w.broker.Messages(broker.QueueDeadEvents)); n+dead < 1000 || n < 100 {
			t.Errorf("the application has %d and %d are dead, of 1,000", n, dead)
		}
		if n := p.lost("t"); n == 0 || w.left() != 0 {
			t.Errorf("the application knows of %d missing, and %d messages are left", n, w.left())
		}
	})
}

// An eviction is three steps. The worker dies after the first one, or after the second.
func TestFault16AWorkerThatDiesWhileItEvictsLosesNothing(t *testing.T) {
	for name, fate := range map[string]memory.Fate{
		"between the dead copy and the gap":         memory.Swallow,
		"between the gap and the acknowledgement":   memory.Hang,
		"when the confirm of the gap is on its way": memory.Mislead,
	} {
		t.Run(name, func(t *testing.T) {
			inTown(t, smallHold, smallCaps, Options{}, twoWorkers, func(w *town) {
				p := w.settler("i1-w1")
				p.leave()
				var gap atomic.Bool
				w.broker.OnPublish(func(x memory.Publish) memory.Verdict {
					if x.Message.Type == string(wire.EventGap) && x.From == broker.Worker("i1-w1") && gap.CompareAndSwap(false, true) {
						return memory.Verdict{Fate: fate}
					}
					return memory.Verdict{}
				})
				w.publish(p, "i1-w1", 150)
				for range 100 {
					w.publish(p, "i1-w1", 1)
					w.pass(50 * time.Millisecond)
					if gap.Load() {
						break
					}
				}
				if !gap.Load() || len(w.broker.Messages(broker.QueueDeadEvents)) == 0 {
					t.Fatal("nothing was evicted")
				}
				w.kill("i1-w1")
				w.publish(p, "i1-w1", 5)
				w.attach(p, "i1-w2")
				w.pass(10 * time.Second)
				if n := p.has("t") + p.lost("t"); n < 180 {
					t.Errorf("the client knows of %d events", n)
				}
				w.settled()
			})
		})
	}
}

func TestFault16AWorkerThatDiesInTheMiddleOfAcknowledgingWhatItEvictedLosesNothing(t *testing.T) {
	for acks := range 10 {
		inTown(t, smallHold, smallCaps, Options{}, twoWorkers, func(w *town) {
			p := w.settler("i1-w1")
			p.leave()
			w.publish(p, "i1-w1", 180)
			w.pass(5 * time.Second)
			n := acks
			die := func() error {
				if n--; n < 0 {
					return broker.ErrLinkGone
				}
				return nil
			}
			c := w.workers["i1-w1"]
			w.broker.OnPublish(func(x memory.Publish) memory.Verdict {
				if x.Message.Type == string(wire.EventGap) {
					c.onAck.Store(&die)
				}
				return memory.Verdict{}
			})
			w.publish(p, "i1-w1", 1)
			w.broker.OnPublish(nil)
			w.kill("i1-w1")
			w.attach(p, "i1-w2")
			w.pass(10 * time.Second)
			w.settled()
			t.Logf("died after %d acknowledgements: %d were told missing", acks, p.lost("t"))
		})
	}
}

func TestFault16AWorkerThatDiesAfterItEvictedLosesNothing(t *testing.T) {
	inTown(t, smallHold, smallCaps, Options{}, twoWorkers, func(w *town) {
		p := w.settler("i1-w1")
		p.leave()
		w.publish(p, "i1-w1", 300)
		w.pass(5 * time.Second)
		evicted := len(w.dead())
		w.kill("i1-w1")
		w.attach(p, "i1-w2")
		w.pass(10 * time.Second)
		if p.lost("t") < evicted || evicted == 0 {
			t.Errorf("%d were evicted, and the client was told of %d", evicted, p.lost("t"))
		}
		w.settled()
	})
}

func TestFault17WhatIsNotFetchedWithinTheWindowExpiresAndTheClientIsTold(t *testing.T) {
	inTown(t, memory.Limits{}, smallCaps, Options{}, twoWorkers, func(w *town) {
		late, intime := w.settler("i1-w1"), w.settler("i1-w1")
		w.publish(late, "i1-w1", 3)
		w.publish(intime, "i1-w1", 3)
		w.pass(time.Second)
		late.leave()
		intime.leave()
		w.publish(late, "i1-w1", 4)
		w.publish(intime, "i1-w1", 4)
		w.pass(50 * time.Second)
		w.attach(intime, "i1-w2")
		w.pass(70 * time.Second) // two minutes: more than a window and a half
		if got := slices.Compact(slices.Sorted(maps.Values(w.dead()))); len(w.dead()) != 4 || !slices.Equal(got, []string{"expired"}) {
			t.Errorf("the dead are %v, want the four events of the client that is late", w.dead())
		}
		for name, back := range map[string]socketmeta.ServerID{"where it was": "i1-w1", "elsewhere": "i1-w2"} {
			states := w.welcome(late, back, time.Now()).States
			if len(states) != 1 || states[0].State != wire.TaskRunning { // its gap is on its way
				t.Errorf("%s it is told %v, want %s", name, states, wire.TaskRunning)
			}
		}
		w.attach(late, "i1-w2")
		w.pass(10 * time.Second)
		if n, lost := late.has("t"), late.lost("t"); n != 3 || lost != 4 {
			t.Errorf("the application has %d and knows of %d missing, want 3 and 4", n, lost)
		}
		if n := intime.has("t"); n != 7 {
			t.Errorf("the client that came in time has %d of 7", n)
		}
		w.settled()
	})
}

func TestFault17TheWindowIsKeptByWhoeverHasTheMailboxOfADeadWorker(t *testing.T) {
	inTown(t, memory.Limits{}, smallCaps, Options{}, twoWorkers, func(w *town) {
		p := w.settler("i1-w1")
		w.publish(p, "i1-w1", 3)
		w.kill("i1-w1")
		w.publish(p, "i1-w1", 2)
		w.pass(2 * time.Minute) // the janitor's first round, and a window
		if n := len(w.dead()); n != 5 {
			t.Errorf("%d events are dead, want 5", n)
		}
		w.attach(p, "i1-w2")
		w.pass(10 * time.Second)
		if n, lost := p.has("t"), p.lost("t"); n != 3 || lost != 2 {
			t.Errorf("the application has %d and knows of %d missing, want 3 and 2: it had what it could not acknowledge", n, lost)
		}
		w.settled()
		w.pass(3 * time.Minute)
		if w.broker.Messages(broker.MailboxQueue("i1-w1")) != nil {
			t.Error("the mailbox is not retired")
		}
		synctest.Wait()
	})
}
