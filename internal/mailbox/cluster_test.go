package mailbox

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wscluster/wscluster/internal/engine"
	"github.com/wscluster/wscluster/internal/session"
	"github.com/wscluster/wscluster/pkg/broker"
	"github.com/wscluster/wscluster/pkg/broker/memory"
	"github.com/wscluster/wscluster/pkg/socketmeta"
	"github.com/wscluster/wscluster/pkg/wire"
)

// house is several workers on one broker in memory, and one client that goes from one to another.
type house struct {
	t       *testing.T
	broker  *memory.Broker
	workers map[socketmeta.ServerID]*tenant
	client  socketmeta.ClientID
	token   session.Claim // what the client would show
	conns   engine.ConnRef
}

// tenant is one worker of the house.
type tenant struct {
	*Mailbox
	sockets *sockets
	kill    func() // returns when nothing of it runs
}

func inHouse(t *testing.T, o memory.Options, ids []socketmeta.ServerID, test func(h *house)) {
	synctest.Test(t, func(t *testing.T) {
		h := &house{t: t, broker: memory.New(o), workers: map[socketmeta.ServerID]*tenant{}, client: socketmeta.NewClientID()}
		for _, id := range ids {
			h.start(id)
		}
		test(h)
		for _, w := range h.workers {
			w.kill()
		}
	})
}

func (h *house) start(id socketmeta.ServerID) *tenant {
	s := &sockets{sent: map[engine.ConnRef][]string{}}
	ctx, cancel := context.WithCancel(context.Background())
	w := &tenant{sockets: s, Mailbox: New(Options{
		Server: id, Broker: h.broker, Sessions: session.New(session.Options{Socket: s, Server: id, MaxWaiting: 10}),
		Renew: func(socketmeta.ClientID, socketmeta.Epoch, string) *engine.Frame {
			return engine.NewText(wire.EncodeServer(&wire.Pong{}))
		},
	})}
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx) }()
	w.kill = func() {
		cancel()
		if err := <-done; err != nil {
			h.t.Errorf("%s: %v", id, err)
		}
		delete(h.workers, id)
	}
	h.workers[id] = w
	h.settle()
	return w
}

// settle lets a second pass: longer than anything here takes but the windows.
func (h *house) settle() {
	time.Sleep(time.Second)
	synctest.Wait()
}

// attach brings the client to a worker, at its positions, and returns its connection.
func (h *house) attach(id socketmeta.ServerID, positions ...wire.Position) engine.ConnRef {
	h.t.Helper()
	h.conns++
	w := h.workers[id]
	claim := h.token
	claim.Client, claim.Positions = h.client, positions
	welcome := w.o.Sessions.Welcome(claim, time.Now())
	if !w.Attach(h.conns, welcome.Epoch, claim) {
		h.t.Fatalf("the client was not attached to %s", id)
	}
	h.token = session.Claim{Epoch: welcome.Epoch, Server: id, IssuedAt: time.Now()}
	synctest.Wait()
	return h.conns
}

// publish publishes durable events of the client to the mailbox of a worker.
func (h *house) publish(home socketmeta.ServerID, from, to int64) {
	h.t.Helper()
	link, err := h.broker.Join(h.t.Context(), broker.Runner("r1"))
	if err != nil {
		h.t.Fatal(err)
	}
	defer link.Close(context.Background())
	for seq := from; seq <= to; seq++ {
		e := wire.Event{Client: h.client, Task: "t", Attempt: 1, Run: run, Seq: seq, Prev: seq - 1, Type: wire.EventStep, Durable: true, Home: home, Epoch: 1}
		m := broker.Message{Type: string(e.Type), Correlation: "t", Headers: e.Headers(), Body: []byte("{}")}
		if _, err := link.Publish(h.t.Context(), broker.ToMailbox(home), m); err != nil {
			h.t.Fatal(err)
		}
	}
	synctest.Wait()
}

// left counts what lies in all mailboxes and overflows.
func (h *house) left(ids ...socketmeta.ServerID) (n int) {
	for _, id := range append(ids, broker.ParkedServer) {
		for _, q := range []string{broker.MailboxQueue(id), broker.HoldQueue(id)} {
			ready, unsettled := h.broker.Depth(q)
			n += ready + unsettled
		}
	}
	return n
}

func (h *house) ack(id socketmeta.ServerID, conn engine.ConnRef, next int64) {
	h.t.Helper()
	s := h.workers[id].o.Sessions.Find(conn)
	if s == nil {
		h.t.Fatalf("connection %d has no session at %s", conn, id)
	}
	h.workers[id].Ack(s, []wire.Position{at(next)})
	synctest.Wait()
}

func events(from, to int64) (out []string) {
	for seq := from; seq <= to; seq++ {
		out = append(out, fmt.Sprint("event ", seq))
	}
	return out
}

func TestAClientThatMovesIsSentWhatItsFirstWorkerHolds(t *testing.T) {
	inHouse(t, memory.Options{}, []socketmeta.ServerID{"i1-w1", "i1-w2"}, func(h *house) {
		first := h.attach("i1-w1")
		h.publish("i1-w1", 1, 3)
		h.ack("i1-w1", first, 2)
		second := h.attach("i1-w2", at(2))
		h.settle()
		if got := h.workers["i1-w1"].sockets.since(first, 3); !slices.Contains(got, "close 4200") {
			t.Errorf("the first socket got %v, want it closed: the client is elsewhere", got)
		}
		h.publish("i1-w1", 4, 5) // its task's home stays where it was submitted
		if got := h.workers["i1-w2"].sockets.since(second, 0); !slices.Equal(got, events(2, 5)) {
			t.Errorf("at the second worker: %v, want events 2 to 5", got)
		}
		h.ack("i1-w2", second, 6)
		h.settle()
		if n := h.left("i1-w1", "i1-w2"); n != 0 {
			t.Errorf("%d messages are left", n)
		}
	})
}

func TestADeadWorkersMailboxIsAdoptedByTheWorkerThatItsClientComesTo(t *testing.T) {
	inHouse(t, memory.Options{}, []socketmeta.ServerID{"i1-w1", "i1-w2", "i1-w3"}, func(h *house) {
		h.attach("i1-w1")
		h.publish("i1-w1", 1, 3)
		h.workers["i1-w1"].kill()
		h.publish("i1-w1", 4, 6)
		began := time.Now()
		conn := h.attach("i1-w2", at(2))
		for len(h.workers["i1-w2"].sockets.since(conn, 0)) < 5 && time.Since(began) < time.Minute {
			time.Sleep(10 * time.Millisecond)
			synctest.Wait()
		}
		if got := h.workers["i1-w2"].sockets.since(conn, 0); !slices.Equal(got, events(2, 6)) || time.Since(began) > time.Second {
			t.Errorf("after %v: %v, want events 2 to 6 within a second", time.Since(began), got)
		}
		h.ack("i1-w2", conn, 7)
		h.settle()
		if n := h.left("i1-w1"); n != 0 {
			t.Errorf("%d messages are left", n)
		}
	})
}

func TestAReturningWorkerGetsItsMailboxBack(t *testing.T) {
	inHouse(t, memory.Options{}, []socketmeta.ServerID{"i1-w1", "i1-w2"}, func(h *house) {
		h.attach("i1-w1")
		h.publish("i1-w1", 1, 2)
		h.workers["i1-w1"].kill()
		conn := h.attach("i1-w2", at(1))
		h.settle()
		if got := h.workers["i1-w2"].sockets.since(conn, 0); !slices.Equal(got, events(1, 2)) {
			t.Fatalf("adopted: %v, want events 1 and 2", got)
		}
		h.start("i1-w1")
		if err := h.workers["i1-w1"].Ready(); err != nil {
			t.Fatalf("a second after its return: %v", err)
		}
		h.publish("i1-w1", 3, 4)
		h.settle()
		got := h.workers["i1-w2"].sockets.since(conn, 2)
		for _, want := range events(3, 4) {
			if !slices.Contains(got, want) {
				t.Errorf("after the hand-back: %v, want %s among it", got, want)
			}
		}
		h.ack("i1-w2", conn, 5)
		h.settle()
		if n := h.left("i1-w1", "i1-w2"); n != 0 {
			t.Errorf("%d messages are left", n)
		}
	})
}

func TestWhatNoMailboxTakesIsParkedAndFindsItsClient(t *testing.T) {
	inHouse(t, memory.Options{}, []socketmeta.ServerID{"i1-w1", "i1-w2"}, func(h *house) {
		conn := h.attach("i1-w2")
		h.publish("i9-w9", 1, 3) // a server that never was
		time.Sleep(30 * time.Second)
		if got := h.workers["i1-w2"].sockets.since(conn, 0); !slices.Equal(got, events(1, 3)) {
			t.Errorf("got %v, want the parked events", got)
		}
	})
}

func TestTheMailboxOfAWorkerThatNeverReturnsIsRetired(t *testing.T) {
	inHouse(t, memory.Options{}, []socketmeta.ServerID{"i1-w1", "i1-w2"}, func(h *house) {
		h.attach("i1-w1")
		h.publish("i1-w1", 1, 2)
		h.workers["i1-w1"].kill()
		conn := h.attach("i1-w2", at(1))
		h.settle()
		h.ack("i1-w2", conn, 3)
		time.Sleep(15 * time.Minute)
		if h.broker.Messages(broker.MailboxQueue("i1-w1")) != nil {
			t.Error("the mailbox is still there")
		}
		h.publish("i1-w1", 3, 4)
		time.Sleep(10 * time.Second)
		if got := h.workers["i1-w2"].sockets.since(conn, 2); !slices.Contains(got, "event 3") || !slices.Contains(got, "event 4") {
			t.Errorf("after the mailbox was retired: %v, want what was published since", got)
		}
	})
}

func TestAStoppingWorkerHandsItsMailboxOver(t *testing.T) {
	inHouse(t, memory.Options{}, []socketmeta.ServerID{"i1-w1", "i1-w2"}, func(h *house) {
		first := h.attach("i1-w1")
		h.publish("i1-w1", 1, 2)
		h.workers["i1-w1"].Drain()
		h.workers["i1-w1"].Detach(first)
		h.settle()
		began := time.Now()
		ctx, cancel := context.WithTimeout(h.t.Context(), 5*time.Second)
		defer cancel()
		if err := h.workers["i1-w1"].HandOver(ctx); err != nil || time.Since(began) > time.Second {
			t.Errorf("after %v: %v; want it taken within a second", time.Since(began), err)
		}
		h.workers["i1-w1"].kill()
		conn := h.attach("i1-w2", at(1))
		h.settle()
		if got := h.workers["i1-w2"].sockets.since(conn, 0); !slices.Equal(got, events(1, 2)) {
			t.Errorf("at the worker that took it: %v, want events 1 and 2", got)
		}
	})
}

func TestWhatIsBeyondTheCapsWaitsInTheOverflow(t *testing.T) {
	inHouse(t, memory.Options{}, []socketmeta.ServerID{"i1-w1"}, func(h *house) {
		conn := h.attach("i1-w1")
		h.workers["i1-w1"].Detach(conn)
		h.publish("i1-w1", 1, 100)
		h.settle()
		if ready, _ := h.broker.Depth(broker.HoldQueue("i1-w1")); ready != 90 {
			t.Errorf("%d events in the overflow, want 90 beside the 10 of the cap", ready)
		}
		conn = h.attach("i1-w1", at(1))
		for next := int64(5); next <= 101; next++ {
			h.settle()
			h.ack("i1-w1", conn, min(next, h.furthest("i1-w1", conn)+1))
		}
		if got := h.furthest("i1-w1", conn); got != 100 {
			t.Errorf("events 1 to %d without a hole were sent, want 100", got)
		}
		h.ack("i1-w1", conn, 101)
		h.settle()
		if n := h.left("i1-w1"); n != 0 {
			t.Errorf("%d messages are left", n)
		}
	})
}

// furthest is the last event up to which conn was sent all.
func (h *house) furthest(id socketmeta.ServerID, conn engine.ConnRef) (n int64) {
	got := h.workers[id].sockets.since(conn, 0)
	for slices.Contains(got, fmt.Sprint("event ", n+1)) {
		n++
	}
	return n
}

func TestAFullOverflowGivesUpTheOldestAndTellsTheClient(t *testing.T) {
	inHouse(t, memory.Options{Limits: memory.Limits{HoldMessages: 20}}, []socketmeta.ServerID{"i1-w1"}, func(h *house) {
		conn := h.attach("i1-w1")
		h.workers["i1-w1"].Detach(conn)
		h.publish("i1-w1", 1, 50)
		time.Sleep(10 * time.Second)
		dead := h.broker.Messages(broker.QueueDeadEvents)
		if len(dead) == 0 || dead[0].Headers["reason"] != "caps" {
			t.Fatalf("%d dead events, want some for the caps", len(dead))
		}
		conn = h.attach("i1-w1", at(1))
		for range 100 {
			h.settle()
			h.ack("i1-w1", conn, h.covered(conn)+1)
		}
		if got := h.covered(conn); got != 50 {
			t.Errorf("events and gaps cover 1 to %d, want 50", got)
		}
		if n := h.left("i1-w1"); n != 0 {
			t.Errorf("%d messages are left", n)
		}
	})
}

// covered is the last event up to which conn was sent all, or told by a gap that it will not come.
func (h *house) covered(conn engine.ConnRef) (n int64) {
	s := h.workers["i1-w1"].sockets
	s.mu.Lock()
	defer s.mu.Unlock()
	for again := true; again; {
		again = false
		for _, f := range s.frames[conn] {
			var m struct {
				Seq, Prev int64
				Event     string
				Body      json.RawMessage
			}
			if json.Unmarshal(f, &m) == nil && m.Seq > n && m.Prev <= n {
				n, again = m.Seq, true
			}
		}
	}
	return n
}

func TestAnOverflowThatNobodyHasRoomForIsReadNowAndThenAndNoMore(t *testing.T) {
	inHouse(t, memory.Options{}, []socketmeta.ServerID{"i1-w1"}, func(h *house) {
		var held atomic.Int64
		h.broker.OnPublish(func(p memory.Publish) memory.Verdict {
			if p.To.Exchange == broker.ExchangeHold {
				held.Add(1)
			}
			return memory.Verdict{}
		})
		const n = 3 * readAtOnce
		conn := h.attach("i1-w1")
		h.workers["i1-w1"].Detach(conn)
		h.publish("i1-w1", 1, n)
		time.Sleep(2 * time.Minute)
		if got := held.Load(); got != n-10 {
			t.Errorf("%d events were put into the overflow, want %d: the 10 of the cap stay", got, n-10)
		}
		time.Sleep(2 * time.Minute) // past a quarter of the window, after which it is read in any case
		if got := held.Load(); got != 2*(n-10) {
			t.Errorf("after a reading: %d in all, want each of them twice", got)
		}
	})
}

func TestAWorkerWritesItselfIntoTheRegisterEveryDayAndSoonAfterAFailure(t *testing.T) {
	c := newCore("i1-w1", time.Minute)
	orders := func(now int64) (n int) {
		c.tick(now, nil)
		for _, o := range c.takeOrders() {
			if o.verb == register {
				n++
			}
		}
		return n
	}
	const start = 1_000_000
	c.joined(start)
	if orders(start) != 0 {
		t.Error("registered before the mailbox was owned: the janitor would look for one that is not there")
	}
	c.opened("i1-w1", gotIt, 1, start)
	if orders(start) != 1 || orders(start+registerEvery-1) != 0 || orders(start+registerEvery) != 1 {
		t.Error("want a record at once and one a day later")
	}
	c.registered(false, start+registerEvery)
	if orders(start+registerEvery+registerAgain-1) != 0 || orders(start+registerEvery+registerAgain) != 1 {
		t.Error("want another record soon after one that failed")
	}
}
