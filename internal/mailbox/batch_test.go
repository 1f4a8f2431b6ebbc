package mailbox

import (
	"context"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"pgregory.net/rapid"

	"github.com/wscluster/wscluster/internal/session"
	"github.com/wscluster/wscluster/pkg/broker"
	"github.com/wscluster/wscluster/pkg/socketmeta"
	"github.com/wscluster/wscluster/pkg/wire"
)

// stepOf is event seq of the task t of a client.
func stepOf(c socketmeta.ClientID, seq int64) *wire.Event {
	return &wire.Event{Client: c, Task: "t", Attempt: 1, Run: run, Seq: seq, Prev: seq - 1, Type: wire.EventStep, Durable: true, Home: "i1-w1", Body: []byte("{}")}
}

// publishBatch publishes events as one message.
func (b *bench) publishBatch(events ...*wire.Event) {
	b.t.Helper()
	b.publishMessage(batchMessage(events))
}

func (b *bench) publishMessage(m broker.Message) {
	b.t.Helper()
	link, err := b.broker.Join(b.t.Context(), broker.Runner("r1"))
	if err != nil {
		b.t.Fatal(err)
	}
	defer link.Close(context.Background())
	if _, err := link.Publish(b.t.Context(), broker.ToMailbox("i1-w1"), m); err != nil {
		b.t.Fatal(err)
	}
	synctest.Wait()
}

func (b *bench) ack(next int64) {
	b.Ack(b.o.Sessions.Find(1), []wire.Position{at(next)})
	settle()
}

// shown reads a gauge or a counter.
func shown(t *testing.T, c prometheus.Collector) float64 {
	t.Helper()
	r := prometheus.NewRegistry()
	r.MustRegister(c)
	families, err := r.Gather()
	if err != nil || len(families) != 1 {
		t.Fatalf("%d metrics, %v", len(families), err)
	}
	m := families[0].GetMetric()[0]
	return m.GetGauge().GetValue() + m.GetCounter().GetValue()
}

// types lists what lies in the mailbox.
func (b *bench) types() (types []string) {
	for _, m := range b.broker.Messages(broker.MailboxQueue("i1-w1")) {
		types = append(types, m.Type)
	}
	return types
}

func TestABatchLeavesTheBrokerWithTheLastOfItsEvents(t *testing.T) {
	inBubble(t, Options{}, func(b *bench) {
		b.publishBatch(stepOf(b.client, 1), stepOf(b.client, 2), stepOf(b.client, 3))
		if got := b.sockets.since(1, 1); !slices.Equal(got, []string{"event 1", "event 2", "event 3"}) {
			t.Errorf("sent %v, want three events", got)
		}
		size := float64(len(wire.EncodeBatch([]*wire.Event{stepOf(b.client, 1), stepOf(b.client, 2), stepOf(b.client, 3)})))
		for acked, want := range []struct{ events, bytes float64 }{{3, size}, {2, size}, {1, size}, {0, 0}} {
			b.ack(int64(acked + 1))
			if events, bytes := shown(b.t, b.o.Metrics.Held), shown(b.t, b.o.Metrics.HeldBytes); events != want.events || bytes != want.bytes {
				t.Errorf("after %d of 3: %v events and %v bytes are held, want %v and %v", acked, events, bytes, want.events, want.bytes)
			}
			if n := b.left(); n != min(1, int(want.events)) {
				t.Errorf("after %d of 3: %d messages are left in the broker", acked, n)
			}
		}
		if n := shown(b.t, b.o.Metrics.Events.WithLabelValues("taken").(prometheus.Collector)); n != 3 {
			t.Errorf("%v events were counted as taken", n)
		}
	})
}

func TestALostLinkBringsTheWholeBatchAgainAndItsClientsOnlyTheRest(t *testing.T) {
	inBubble(t, Options{}, func(b *bench) {
		b.publishBatch(stepOf(b.client, 1), stepOf(b.client, 2), stepOf(b.client, 3))
		b.ack(2)
		b.broker.CutLinks()
		time.Sleep(900 * time.Millisecond)
		synctest.Wait()
		if got := b.sockets.since(1, 4); !slices.Equal(got, []string{"event 2", "event 3"}) {
			t.Errorf("after the link was lost: %v, want 2 and 3 again", got)
		}
		b.ack(4)
		if b.left() != 0 {
			t.Errorf("%v is left in the broker", b.types())
		}
	})
}

func TestAnEventForAnAbsentClientLeavesItsBatchAtOnce(t *testing.T) {
	inBubble(t, Options{}, func(b *bench) {
		b.publishBatch(stepOf(socketmeta.NewClientID(), 1), stepOf(b.client, 1), stepOf(socketmeta.NewClientID(), 1))
		if got := b.types(); !slices.Equal(got, []string{"events", "step", "step"}) {
			t.Errorf("there are %v, want the batch and both copies", got)
		}
		b.ack(2)
		if got := b.types(); !slices.Equal(got, []string{"step", "step"}) {
			t.Errorf("after the acknowledgement there are %v, want both copies", got)
		}
		if n := shown(b.t, b.o.Metrics.HeldBytes); n != 4 {
			t.Errorf("%v bytes are held, want the two bodies of 2", n)
		}
	})
}

func TestAnEventThatWaitsLeavesItsBatchAfterASecond(t *testing.T) {
	inBubble(t, Options{}, func(b *bench) {
		large := func(seq int64) *wire.Event { // one fills what may be sent and not acknowledged
			e := stepOf(b.client, seq)
			e.Body = []byte(`{"a":"` + strings.Repeat("x", 200<<10) + `"}`)
			return e
		}
		b.publishMessage(eventMessage(large(1)))
		b.publishMessage(eventMessage(large(2)))
		b.publishBatch(stepOf(b.client, 3), stepOf(b.client, 4))
		time.Sleep(900 * time.Millisecond)
		synctest.Wait()
		if got := b.types(); !slices.Equal(got, []string{"step", "step", "events"}) {
			t.Errorf("within a second there are %v, want the batch", got)
		}
		time.Sleep(pinFor + lookEvery)
		synctest.Wait()
		if got := b.types(); !slices.Equal(got, []string{"step", "step", "step", "step"}) {
			t.Errorf("after that there are %v, want the two events alone", got)
		}
		b.ack(2)
		b.ack(3)
		if got := b.sockets.since(1, 1); !slices.Equal(got, []string{"event 1", "event 2", "event 3", "event 4"}) {
			t.Errorf("sent %v, want each once", got)
		}
		b.ack(5)
		if b.left() != 0 {
			t.Errorf("%v is left in the broker", b.types())
		}
	})
}

func TestAnEventThatWasSentKeepsItsBatch(t *testing.T) {
	inBubble(t, Options{}, func(b *bench) {
		b.publishBatch(stepOf(b.client, 1), stepOf(b.client, 2))
		b.ack(2)
		time.Sleep(20 * time.Second)
		synctest.Wait()
		if got := b.types(); !slices.Equal(got, []string{"events"}) {
			t.Errorf("after 20 s there are %v, want the batch", got)
		}
	})
}

func TestWhereMuchIsHeldAnEventThatWasSentLeavesItsBatchToo(t *testing.T) {
	for tight, want := range map[bool]bool{false: false, true: true} {
		now := time.UnixMilli(simEpoch)
		waiting, sent := pinnedSince(now, tight)
		if waiting != now.Add(-time.Second) || sent.Equal(now.Add(-5*time.Second)) != want || !want && sent.After(time.Time{}) {
			t.Errorf("tight %t: since %v and %v", tight, waiting, sent)
		}
	}
}

func TestAnEventOfAClientThatLeavesLeavesItsBatchToo(t *testing.T) {
	inBubble(t, Options{}, func(b *bench) {
		b.publishBatch(stepOf(b.client, 1), stepOf(b.client, 2))
		b.Detach(1)
		time.Sleep(pinFor + lookEvery)
		synctest.Wait()
		if got := b.types(); !slices.Equal(got, []string{"step", "step"}) {
			t.Errorf("there are %v, want the two events alone", got)
		}
	})
}

func TestWhatCannotBeReadOfABatchIsBuriedAlone(t *testing.T) {
	inBubble(t, Options{}, func(b *bench) {
		bad := stepOf(b.client, 2)
		bad.Body = []byte("no JSON")
		b.publishBatch(stepOf(b.client, 1), bad, stepOf(b.client, 2))
		if got := b.sockets.since(1, 1); !slices.Equal(got, []string{"event 1", "event 2"}) {
			t.Errorf("sent %v, want the two others", got)
		}
		b.ack(3)
		dead := b.broker.Messages(broker.QueueDeadEvents)
		if len(dead) != 1 || b.left() != 0 {
			t.Fatalf("%d dead, and %v left", len(dead), b.types())
		}
		alone, err := wire.DecodeBatch(dead[0].Body)
		if err != nil || len(alone) != 1 || alone[0].Err == nil || dead[0].Type != wire.BatchType || dead[0].Headers["reason"] != "bad_body" {
			t.Errorf("the dead one is %+v (%v)", dead[0], err)
		}
	})
}

func TestWhatIsNoBatchIsBuriedAsItIs(t *testing.T) {
	inBubble(t, Options{}, func(b *bench) {
		m := batchMessage([]*wire.Event{stepOf(b.client, 1)})
		m.Body = m.Body[:20]
		b.publishMessage(m)
		if dead := b.broker.Messages(broker.QueueDeadEvents); len(dead) != 1 || !slices.Equal(dead[0].Body, m.Body) || b.left() != 0 {
			t.Errorf("dead %v, left %v", dead, b.types())
		}
	})
}

// The broker's prefetch counts messages.
func TestAtTheCapOfEventsBatchesStopAndGoOnAtThreeQuarters(t *testing.T) {
	inBubble(t, Options{MaxHeld: 40}, func(b *bench) {
		seq := int64(0)
		for range 30 {
			var events []*wire.Event
			for range 10 {
				seq++
				events = append(events, stepOf(b.client, seq))
			}
			b.publishBatch(events...)
		}
		if err := b.Ready(); err == nil {
			t.Error("it is ready with 300 events")
		}
		if held := shown(b.t, b.o.Metrics.Held); held > 90 {
			t.Errorf("%v events are held, over 40 and what was under way", held)
		}
		for next := int64(10); next <= seq; next += 10 {
			b.ack(next + 1)
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		b.ack(seq + 1)
		if err := b.Ready(); err != nil || b.left() != 0 {
			t.Errorf("ready: %v with %v left; want it ready with none", err, b.types())
		}
	})
}

// TestPinsSettleEachBatchOnceAndNameWhoKeepsIt compares pins with what is taken and settled one by one.
func TestPinsSettleEachBatchOnceAndNameWhoKeepsIt(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		type held struct {
			tag  uint64
			part uint8
		}
		var p pins
		var now int64
		var tag uint64
		kept, came := map[held]socketmeta.ClientID{}, map[uint64]int64{}
		t.Repeat(map[string]func(*rapid.T){
			"take": func(t *rapid.T) {
				tag++
				came[tag] = now
				clients := make([]socketmeta.ClientID, rapid.IntRange(1, wire.MaxBatch).Draw(t, "events"))
				for i := range clients {
					clients[i][0] = rapid.Byte().Draw(t, "client")
					kept[held{tag, part(i)}] = clients[i]
				}
				p.take(tag, clients, now)
			},
			"settle": func(t *rapid.T) {
				if len(kept) == 0 {
					return
				}
				all := make([]held, 0, len(kept))
				for h := range kept {
					all = append(all, h)
				}
				slices.SortFunc(all, func(a, b held) int { return int(a.tag-b.tag)*100 + int(a.part) - int(b.part) })
				for range rapid.IntRange(1, 200).Draw(t, "so many") {
					if len(all) == 0 {
						break
					}
					i := rapid.IntRange(0, len(all)-1).Draw(t, "which")
					h := all[i]
					all = slices.Delete(all, i, i+1)
					delete(kept, h)
					want := !slices.ContainsFunc(all, func(o held) bool { return o.tag == h.tag })
					if got := p.settle(session.Ref{Tag: h.tag, Part: h.part}); got != want {
						t.Fatalf("part %d of batch %d settles it: %t, want %t", h.part, h.tag, got, want)
					}
					if p.settle(session.Ref{Tag: h.tag, Part: h.part}) {
						t.Fatalf("batch %d was settled twice", h.tag)
					}
				}
			},
			"alone": func(t *rapid.T) {
				if !p.settle(session.Ref{Tag: tag + 1}) {
					t.Fatal("a message of one event is not settled with it")
				}
			},
			"tick": func(*rapid.T) { now++ },
			"": func(t *rapid.T) {
				at := now - rapid.Int64Range(0, 3).Draw(t, "ago")
				want := map[socketmeta.ClientID]bool{}
				for h, c := range kept {
					if came[h.tag] <= at {
						want[c] = true
					}
				}
				got := p.since(at)
				for _, c := range got {
					if !want[c] {
						t.Fatalf("%v is named, twice or for nothing", c)
					}
					delete(want, c)
				}
				if len(want) > 0 {
					t.Fatalf("%v are not named", want)
				}
				if n := len(p.order); n > 2*len(p.batches)+17 {
					t.Fatalf("%d tags are kept for %d batches", n, len(p.batches))
				}
			},
		})
	})
}
