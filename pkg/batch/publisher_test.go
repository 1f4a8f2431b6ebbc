package batch

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/wscluster/wscluster/pkg/broker"
	"github.com/wscluster/wscluster/pkg/broker/memory"
	"github.com/wscluster/wscluster/pkg/socketmeta"
	"github.com/wscluster/wscluster/pkg/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const server socketmeta.ServerID = "i1-w1"

// desk is a publisher on a broker that answers after a second, and whose mailbox nobody reads.
type desk struct {
	*testing.T
	pub    *Publisher
	broker *memory.Broker
	client socketmeta.ClientID
	end    context.CancelFunc
	ended  chan error
}

func inBubble(t *testing.T, o Options, test func(*desk)) {
	synctest.Test(t, func(t *testing.T) {
		b := memory.New(memory.Options{})
		worker, err := b.Join(t.Context(), broker.Worker(server))
		if err != nil {
			t.Fatal(err)
		}
		box, err := worker.OpenMailbox(t.Context(), server, 1000)
		if err != nil {
			t.Fatal(err)
		}
		if err := box.Close(t.Context()); err != nil { // it stays, and is bound
			t.Fatal(err)
		}
		link, err := b.Join(t.Context(), broker.Runner("r1"))
		if err != nil {
			t.Fatal(err)
		}
		b.OnPublish(func(memory.Publish) memory.Verdict { return memory.Verdict{Delay: time.Second} })
		ctx, cancel := context.WithCancel(t.Context())
		d := &desk{t, New(link, o), b, socketmeta.NewClientID(), cancel, make(chan error, 1)}
		go func() { d.ended <- d.pub.Run(ctx) }()
		synctest.Wait()
		test(d)
		cancel()
		if err := <-d.ended; err != nil {
			t.Errorf("Run: %v", err)
		}
		closing, stop := context.WithTimeout(context.Background(), time.Second)
		defer stop()
		_ = link.Close(closing) // there may be a publish without an answer
		_ = worker.Close(closing)
	})
}

func (d *desk) publish(from, to int64) (receipts []broker.Receipt) {
	d.Helper()
	for seq := from; seq <= to; seq++ {
		e := event(seq, 0)
		e.Client, e.Body = d.client, []byte("{}")
		r, err := d.pub.Publish(d.Context(), server, e, "00-trace-01")
		if err != nil {
			d.Fatal(err)
		}
		receipts = append(receipts, r)
	}
	synctest.Wait()
	return receipts
}

// messages lists what lies in the mailbox, as the numbers of the events of each message.
func (d *desk) messages() (all [][]int64) {
	d.Helper()
	for _, m := range d.broker.Messages(broker.MailboxQueue(server)) {
		events, err := wire.DecodeEvents(m.Type, m.Correlation, m.Headers, m.Body)
		if err != nil {
			d.Error(err)
		}
		var seqs []int64
		for _, e := range events {
			seqs = append(seqs, e.Seq)
		}
		all = append(all, seqs)
	}
	return all
}

func (d *desk) want(want ...[]int64) {
	d.Helper()
	if got := d.messages(); !slices.EqualFunc(got, want, slices.Equal) {
		d.Errorf("messages of %v, want %v", got, want)
	}
}

func outcomes(receipts []broker.Receipt) (all []broker.Outcome) {
	for _, r := range receipts {
		all = append(all, r.Outcome())
	}
	return all
}

func TestTheFirstGoesAtOnceAndOthersTogetherWithinAMillisecond(t *testing.T) {
	inBubble(t, Options{App: "app"}, func(d *desk) {
		receipts := d.publish(1, 4)
		d.want([]int64{1})
		time.Sleep(time.Millisecond)
		synctest.Wait()
		d.want([]int64{1}, []int64{2, 3, 4})
		ms := d.broker.Messages(broker.MailboxQueue(server))
		if m := ms[0]; m.Type != "log" || m.Content != "" || m.Headers["traceparent"] != "00-trace-01" || m.ID != string(run)+".1" || m.App != "app" {
			t.Errorf("alone it is %+v", m)
		}
		if m := ms[1]; m.Type != wire.BatchType || m.Content != wire.BatchContent || m.Headers != nil || m.ID != string(run)+".2+2" || m.App != "app" || m.Transient {
			t.Errorf("the batch is %+v", m)
		}
		time.Sleep(2 * time.Second)
		synctest.Wait()
		for _, o := range outcomes(receipts) {
			if o != broker.Stored {
				t.Errorf("outcomes %v", outcomes(receipts))
			}
		}
	})
}

func TestABatchWithOneDurableEventIsDurable(t *testing.T) {
	inBubble(t, Options{}, func(d *desk) {
		d.publish(1, 1)
		for _, durable := range []bool{false, true, false} {
			e := event(2, 0)
			e.Client, e.Body, e.Durable = d.client, []byte("{}"), durable
			if _, err := d.pub.Publish(d.Context(), server, e, ""); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(time.Millisecond)
		synctest.Wait()
		if ms := d.broker.Messages(broker.MailboxQueue(server)); len(ms) != 2 || ms[1].Transient {
			t.Errorf("there are %+v", ms)
		}
	})
}

func TestWhatBecomesOfABatchIsToldOfEachOfItsEvents(t *testing.T) {
	for fate, want := range map[memory.Fate]broker.Outcome{memory.Refuse: broker.Refused, memory.Lose: broker.Unknown, memory.Mislead: broker.Unknown} {
		inBubble(t, Options{}, func(d *desk) {
			d.broker.OnPublish(func(p memory.Publish) memory.Verdict {
				v := memory.Verdict{Delay: time.Second}
				if p.Message.Type == wire.BatchType {
					v.Fate = fate
				}
				return v
			})
			receipts := d.publish(1, 3)
			time.Sleep(3 * time.Second)
			receipts = append(receipts, d.publish(4, 4)...)
			time.Sleep(3 * time.Second)
			synctest.Wait()
			if got := outcomes(receipts); !slices.Equal(got, []broker.Outcome{broker.Stored, want, want, broker.Stored}) {
				t.Errorf("fate %d: outcomes %v, want %v for the two of the batch", fate, got, want)
			}
		})
	}
}

func TestEachEventIsAMessageWhereBatchesAreOff(t *testing.T) {
	inBubble(t, Options{Single: true}, func(d *desk) {
		d.publish(1, 4)
		d.want([]int64{1}, []int64{2}, []int64{3}, []int64{4})
	})
}

func TestOneMailboxThatDoesNotAnswerHoldsUpNoOther(t *testing.T) {
	inBubble(t, Options{}, func(d *desk) {
		d.broker.OnPublish(func(p memory.Publish) memory.Verdict {
			if p.To == broker.ToMailbox("i1-w9") {
				return memory.Verdict{Fate: memory.Hang}
			}
			return memory.Verdict{}
		})
		e := event(1, 0)
		e.Client, e.Body = d.client, []byte("{}")
		stuck, err := d.pub.Publish(d.Context(), "i1-w9", e, "")
		if err != nil {
			t.Fatal(err)
		}
		receipts := d.publish(1, 3)
		time.Sleep(10 * time.Millisecond)
		synctest.Wait()
		if stuck.Outcome() != broker.Pending || !slices.Equal(outcomes(receipts), []broker.Outcome{broker.Stored, broker.Stored, broker.Stored}) {
			t.Errorf("outcomes %v beside one that is %v", outcomes(receipts), stuck.Outcome())
		}
		d.end()
		time.Sleep(2 * lastAnswers)
		synctest.Wait()
		if stuck.Outcome() != broker.Unknown {
			t.Errorf("after the end it is %v", stuck.Outcome())
		}
	})
}

func TestAtTheEndEveryReceiptIsKnown(t *testing.T) {
	for name, end := range map[string]func(*desk){
		"the context ends": func(d *desk) { d.end() },
		"the link is cut":  func(d *desk) { d.broker.CutLinks() },
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, Options{}, func(d *desk) {
				receipts := d.publish(1, 3) // one is with the broker, two wait
				end(d)
				began := time.Now()
				err := <-d.ended
				if took := time.Since(began); took > lastAnswers {
					t.Errorf("it took %v", took)
				}
				if name == "the link is cut" && !errors.Is(err, broker.ErrLinkGone) {
					t.Errorf("Run: %v", err)
				}
				d.ended <- nil
				if got := outcomes(receipts); slices.Contains(got, broker.Pending) || got[1] != broker.Unknown || got[2] != broker.Unknown {
					t.Errorf("outcomes %v", got)
				}
				if _, err := d.pub.Publish(d.Context(), server, event(4, 0), ""); !errors.Is(err, broker.ErrLinkGone) {
					t.Errorf("publish after the end: %v", err)
				}
			})
		})
	}
}

// Under an alarm the broker takes nothing.
func TestWhatWaitsForTheLinkIsBounded(t *testing.T) {
	inBubble(t, Options{}, func(d *desk) {
		d.broker.Block(true)
		taken := 0
		ctx, cancel := context.WithTimeout(d.Context(), time.Minute)
		defer cancel()
		for {
			e := event(int64(taken+1), 0)
			e.Client, e.Body = d.client, []byte("{}")
			if _, err := d.pub.Publish(ctx, server, e, ""); err != nil {
				if !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("publish: %v", err)
				}
				break
			}
			taken++
		}
		if taken != maxWaiting {
			t.Errorf("%d were taken, want %d", taken, maxWaiting)
		}
		d.broker.Block(false)
		time.Sleep(10 * time.Second)
		synctest.Wait()
		n := 0
		for _, seqs := range d.messages() {
			n += len(seqs)
		}
		if n != taken {
			t.Errorf("%d events are in the mailbox, want %d", n, taken)
		}
	})
}

// A message that the link does not take for what it is harms nobody else's.
func TestAMessageThatCannotBeSentIsUnknownAndOthersGoOn(t *testing.T) {
	inBubble(t, Options{}, func(d *desk) {
		e := event(1, 0)
		e.Body = make([]byte, broker.MaxMessage+1)
		r, err := d.pub.Publish(d.Context(), server, e, "")
		if err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if r.Outcome() != broker.Unknown {
			t.Errorf("it is %v", r.Outcome())
		}
		d.publish(1, 1)
		d.want([]int64{1})
	})
}

func TestOfManyGoroutinesEachKeepsItsOrder(t *testing.T) {
	inBubble(t, Options{}, func(d *desk) {
		d.broker.OnPublish(func(memory.Publish) memory.Verdict { return memory.Verdict{Delay: 300 * time.Microsecond} })
		const each, tellers = 500, 8
		var wg sync.WaitGroup
		for i := range tellers {
			wg.Go(func() {
				for seq := int64(1); seq <= each; seq++ {
					e := event(seq, 0)
					e.Client, e.Task, e.Body = d.client, wire.TaskID(fmt.Sprintf("t%d", i)), []byte("{}")
					if _, err := d.pub.Publish(d.Context(), server, e, ""); err != nil {
						t.Error(err)
					}
					if seq%50 == 0 {
						time.Sleep(time.Duration(i) * 100 * time.Microsecond)
					}
				}
			})
		}
		wg.Wait()
		time.Sleep(time.Second)
		synctest.Wait()
		last := map[wire.TaskID]int64{}
		messages := d.broker.Messages(broker.MailboxQueue(server))
		for _, m := range messages {
			events, err := wire.DecodeEvents(m.Type, m.Correlation, m.Headers, m.Body)
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range events {
				if e.Seq != last[e.Task]+1 {
					t.Fatalf("event %d of %s after %d", e.Seq, e.Task, last[e.Task])
				}
				last[e.Task] = e.Seq
			}
		}
		for i := range tellers {
			if id := wire.TaskID(fmt.Sprintf("t%d", i)); last[id] != each {
				t.Errorf("%s has %d events", id, last[id])
			}
		}
		if n := len(messages); n > each*tellers/10 {
			t.Errorf("%d messages for %d events", n, each*tellers)
		}
	})
}

// BenchmarkOneAtATime is the time from a publish to its answer where nothing else is under way.
func BenchmarkOneAtATime(b *testing.B) {
	for _, single := range []bool{true, false} {
		b.Run(fmt.Sprintf("single %t", single), func(b *testing.B) {
			m := memory.New(memory.Options{})
			link, err := m.Join(b.Context(), broker.Runner("r1"))
			if err != nil {
				b.Fatal(err)
			}
			ctx, cancel := context.WithCancel(b.Context())
			p := New(link, Options{Single: single})
			ended := make(chan error, 1)
			go func() { ended <- p.Run(ctx) }()
			e := event(1, 0)
			e.Body = []byte("{}")
			for b.Loop() {
				r, err := p.Publish(ctx, server, e, "")
				if err == nil {
					_, err = broker.Await(ctx, r)
				}
				if err != nil {
					b.Fatal(err)
				}
			}
			cancel()
			<-ended
			_ = link.Close(context.Background())
		})
	}
}
