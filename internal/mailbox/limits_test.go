package mailbox

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wscluster/wscluster/internal/session"
	"github.com/wscluster/wscluster/pkg/broker"
	"github.com/wscluster/wscluster/pkg/broker/memory"
	"github.com/wscluster/wscluster/pkg/socketmeta"
	"github.com/wscluster/wscluster/pkg/wire"
)

// The bounds of a client: beyond them its events wait in the overflow of the mailbox, and it gets them
// all the same.
func TestBeyondTheBoundsOfOneClientItsEventsWaitInTheOverflow(t *testing.T) {
	const body = len(`{"n":1}`)
	for name, test := range map[string]struct {
		o                    session.Options
		sent, memory, beyond int
	}{
		"events sent":    {session.Options{MaxSent: 3, MaxWaiting: 4}, 3, 4, 2},
		"bytes sent":     {session.Options{MaxSentBytes: 3 * body, MaxWaiting: 4}, 3, 4, 2},
		"one large sent": {session.Options{MaxSentBytes: 1, MaxWaiting: 5}, 1, 5, 3},
		"bytes waiting":  {session.Options{MaxSent: 3, MaxWaitingBytes: 4 * body}, 3, 4, 2},
	} {
		t.Run(name, func(t *testing.T) {
			inTown(t, memory.Limits{}, test.o, Options{}, oneWorker, func(w *town) {
				w.alone = true
				p := w.settler("i1-w1")
				p.mute = true
				w.publish(p, "i1-w1", 9)
				w.pass(time.Second)
				hold, _ := w.broker.Depth(broker.HoldQueue("i1-w1"))
				_, unsettled := w.broker.Depth(broker.MailboxQueue("i1-w1"))
				if frames := p.tasks["t"].frames; frames != test.sent || unsettled != test.sent+test.memory || hold != test.beyond {
					t.Errorf("%d sent, %d in memory, %d in the overflow; want %d, %d and %d", frames, unsettled-frames, hold, test.sent, test.memory, test.beyond)
				}
				p.mute = false
				w.pass(10 * time.Second)
				if n := p.has("t"); n != 9 {
					t.Errorf("the application has %d of 9 events", n)
				}
				w.settled()
			})
		})
	}
}

// One reading of an overflow takes 1,000 messages; what a worker that has died put there is more, and
// its clients need not wait for the next poll.
func TestAnOverflowOfManyReadingsIsReadToItsEnd(t *testing.T) {
	inTown(t, memory.Limits{}, session.Options{MaxWaiting: 100}, Options{}, oneWorker, func(w *town) {
		var people []*person
		for range 6 {
			p := w.settler("i1-w1")
			p.leave()
			w.publish(p, "i1-w1", 600)
			people = append(people, p)
		}
		w.pass(time.Second)
		if hold, _ := w.broker.Depth(broker.HoldQueue("i1-w1")); hold != 6*500 {
			t.Fatalf("%d events in the overflow, want %d", hold, 6*500)
		}
		w.kill("i1-w1")
		w.sessions.MaxWaiting = 1000 // all of it fits into memory now: nobody asks for the rest because he put some there
		w.start("i1-w1")
		w.pass(time.Second)
		for _, p := range people {
			w.attach(p, "i1-w1")
		}
		began := time.Now()
		for w.left() > 0 && time.Since(began) < time.Minute {
			w.pass(100 * time.Millisecond)
		}
		if took := time.Since(began); took > 10*time.Second {
			t.Errorf("it took %v until everybody had everything", took)
		}
		w.settled()
	})
}

func TestAControlMessageNamesAtMostAThousandClients(t *testing.T) {
	var p pending
	want := map[socketmeta.ClientID]bool{}
	for range 2*wire.MaxClaims + 1 {
		id := socketmeta.NewClientID()
		want[id] = true
		p.claim(id, 7, "i1-w2")
		p.add(&session.Effects{Seek: []socketmeta.ClientID{id}})
	}
	for name, ms := range map[string][]wire.ControlMessage{"moved": p.moved("i1-w1"), "seek": p.seek("i1-w1")} {
		got := map[socketmeta.ClientID]bool{}
		for _, m := range ms {
			read, err := wire.DecodeControl(m.ControlType(), wire.EncodeControl(m)) // refuses what names more
			if err != nil {
				t.Fatal(err)
			}
			switch m := read.(type) {
			case *wire.Moved:
				for _, c := range m.Clients {
					got[c.Client] = true
				}
			case *wire.Seek:
				for _, c := range m.Clients {
					got[c] = true
				}
			}
		}
		if len(ms) != 3 || len(got) != len(want) {
			t.Errorf("%s: %d messages name %d clients, want 3 that name %d", name, len(ms), len(got), len(want))
		}
	}
}

// Under an alarm nothing can be said. Whoever wants to is not held up, and what is dropped is said again.
func TestControlMessagesBeyondTheBoundAreDroppedAndHoldUpNobody(t *testing.T) {
	inTown(t, memory.Limits{}, session.Options{}, Options{}, twoWorkers, func(w *town) {
		first := w.settler("i1-w1")
		w.publish(first, "i1-w1", 3)
		w.pass(time.Second)
		w.broker.Block(true)
		waiting := make(chan int, 1)
		w.workers["i1-w1"].request(func(s *service) {
			for range maxSpoken + 1000 {
				s.say(order{verb: say, to: broker.ToAll(), message: &wire.Probe{From: "i1-w1"}})
			}
			waiting <- len(s.spoken)
		})
		select {
		case n := <-waiting:
			if n != maxSpoken {
				t.Errorf("%d messages wait, want %d", n, maxSpoken)
			}
		case <-time.After(time.Minute):
			t.Fatal("the clerk is held up")
		}
		w.attach(first, "i1-w2") // its moved cannot be said either
		w.pass(10 * time.Second)
		w.broker.Block(false)
		w.publish(first, "i1-w1", 3)
		w.pass(10 * time.Second)
		if n := first.has("t"); n != 6 {
			t.Errorf("the application has %d of 6 events", n)
		}
		w.settled()
	})
}

// Other workers may have the broker that this one has lost.
func TestClientsAreSentElsewhereInWavesWhenTheBrokerStaysAway(t *testing.T) {
	const clients = 40
	o := Options{BrokerGrace: 10 * time.Second, MoveOver: 10 * time.Second, SweepEvery: time.Second}
	inTown(t, memory.Limits{}, session.Options{}, o, twoWorkers, func(w *town) {
		for range clients {
			w.settler("i1-w1")
		}
		w.publish(w.people[0], "i1-w1", 3)
		closed := func() (n int) {
			for _, p := range w.people {
				if codes := p.codes(); slices.Equal(codes, []int{wire.CloseNoBroker}) {
					n++
				} else if len(codes) != 0 {
					t.Fatalf("closed with %v", codes)
				}
			}
			return n
		}
		w.workers["i1-w1"].alive.Store(false) // its broker does not take it back
		w.broker.Cut(broker.Worker("i1-w1"))
		w.pass(10 * time.Second)
		if n := closed(); n != 0 {
			t.Errorf("%d were closed within the grace", n)
		}
		last := 0
		for range 12 {
			w.pass(time.Second)
			n := closed()
			if n-last > 3*clients/10 {
				t.Errorf("%d of %d were closed in one second", n-last, clients)
			}
			last = n
		}
		if last != clients {
			t.Errorf("%d of %d were closed with 4100", last, clients)
		}
		for _, p := range w.people {
			w.attach(p, "i1-w2")
		}
		w.pass(10 * time.Second)
		synctest.Wait()
		if n := w.people[0].has("t"); n != 3 {
			t.Errorf("elsewhere, the application has %d of 3 events", n)
		}
		w.workers["i1-w1"].alive.Store(true)
		w.pass(10 * time.Second)
		w.settled()
	})
}

// A delivery that stayed would end the mailbox's link one day: the broker lets none wait for ever.
func TestWhatCannotBeReadIsBuriedWhenTheDeadTakeItAgain(t *testing.T) {
	inTown(t, memory.Limits{}, session.Options{}, Options{}, oneWorker, func(w *town) {
		w.broker.OnPublish(func(p memory.Publish) memory.Verdict {
			if p.To == broker.ToDeadEvents() {
				return memory.Verdict{Fate: memory.Refuse}
			}
			return memory.Verdict{}
		})
		bad := broker.Message{Type: "result", Body: []byte("no JSON")}
		if _, err := w.runner.Publish(w.Context(), broker.ToMailbox("i1-w1"), bad); err != nil {
			t.Fatal(err)
		}
		w.pass(time.Minute)
		if _, held := w.broker.Depth(broker.MailboxQueue("i1-w1")); held != 1 {
			t.Errorf("%d deliveries are held while the dead take nothing, want the bad one", held)
		}
		w.broker.OnPublish(nil)
		w.pass(buryEvery + lookEvery)
		if dead := w.broker.Messages(broker.QueueDeadEvents); len(dead) != 1 || w.left() != 0 {
			t.Errorf("%d dead and %d left, want it with the dead", len(dead), w.left())
		}
	})
}
