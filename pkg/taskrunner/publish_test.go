package taskrunner

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/wscluster/wscluster/pkg/broker"
	"github.com/wscluster/wscluster/pkg/broker/memory"
	"github.com/wscluster/wscluster/pkg/socketmeta"
	"github.com/wscluster/wscluster/pkg/wire"
)

// published lists what goes to mailboxes, as "task.seq" or, for a refused one, "task.seq!". The events of one message
// share the fate of the first of them that has one.
func (w *world) published(fate func(task wire.TaskID, seq int64) memory.Fate) (list func(wire.TaskID) []string) {
	var mu sync.Mutex
	all := map[wire.TaskID][]string{}
	w.OnPublish(func(p memory.Publish) memory.Verdict {
		if p.To.Exchange != broker.ExchangeUtils {
			return memory.Verdict{}
		}
		events := w.eventsOf(p.Message)
		v := memory.Verdict{Delay: time.Second} // all are in flight before the first answer
		mark := ""
		for _, e := range events {
			if f := fate(e.Task, e.Seq); f != memory.Deliver && mark == "" {
				v.Fate, mark = f, "!"
			}
		}
		mu.Lock()
		defer mu.Unlock()
		for _, e := range events {
			all[e.Task] = append(all[e.Task], fmt.Sprint(e.Seq, mark))
		}
		return v
	})
	return func(id wire.TaskID) []string {
		synctest.Wait()
		mu.Lock()
		defer mu.Unlock()
		return slices.Clone(all[id])
	}
}

// steps is a handler that begins three steps: with started and the result, eight events.
func steps(_ context.Context, task *Task) (any, error) {
	task.Step("a")
	task.Step("b")
	task.Step("c")
	return nil, nil
}

func TestANackGoesBackToTheFirstEventThatIsNotStored(t *testing.T) {
	for name, fate := range map[string]memory.Fate{"refused": memory.Refuse, "lost": memory.Lose, "confirm lost": memory.Mislead, "never answered": memory.Swallow} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				m := NewMetrics(nil)
				defer w.run(&Runner{Slots: 2, Metrics: m, Single: true, Kinds: map[string]Kind{"k": {Handler: HandlerFunc(steps)}}})()
				failed := false
				list := w.published(func(task wire.TaskID, seq int64) memory.Fate {
					if task == "t1" && seq == 3 && !failed {
						failed = true
						return fate
					}
					return memory.Deliver
				})
				w.submit("t1", "k", nil)
				w.submit("t2", "k", nil)
				if fate == memory.Swallow { // what has no answer gets one when its link ends
					pass(2 * time.Second)
					w.Cut(broker.Runner("r1"))
				}
				pass(time.Minute)
				if got := strings.Join(list("t1"), " "); got != "1 2 3! 4 5 6 7 8 3 4 5 6 7 8" {
					t.Errorf("published %s", got)
				}
				if got := strings.Join(list("t2"), " "); got != "1 2 3 4 5 6 7 8" {
					t.Errorf("the other task published %s", got)
				}
				for _, id := range []wire.TaskID{"t1", "t2"} {
					if got := w.seen(id); len(got) != 8 || got[7] != "result null" {
						t.Errorf("client has %q", got)
					}
				}
				refused := 0.
				if fate == memory.Refuse {
					refused = 1
				}
				wantShown(t, m.Events, map[string]float64{"events_total true confirmed": 16, "events_total true republished": 6, "events_total true refused": refused})
			})
		})
	}
}

// Of two tasks whose events share a message each goes back, and to its own first event.
func TestABatchThatIsNotStoredGoesBackWithAllItsEvents(t *testing.T) {
	for name, fate := range map[string]memory.Fate{"refused": memory.Refuse, "lost": memory.Lose, "confirm lost": memory.Mislead} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, func(w *world) {
				m := NewMetrics(nil)
				defer w.run(&Runner{Slots: 2, Metrics: m, Kinds: map[string]Kind{"k": {Handler: HandlerFunc(steps)}}})()
				failed := false
				list := w.published(func(task wire.TaskID, seq int64) memory.Fate {
					if task == "t2" && seq == 3 && !failed {
						failed = true
						return fate
					}
					return memory.Deliver
				})
				w.submit("t1", "k", nil)
				w.submit("t2", "k", nil)
				pass(time.Minute)
				all, failedOf := 0, map[wire.TaskID]int{}
				for _, id := range []wire.TaskID{"t1", "t2"} {
					if got := w.seen(id); len(got) != 8 || got[7] != "result null" {
						t.Errorf("client has %q", got)
					}
					all += len(list(id))
					for _, e := range list(id) {
						if strings.HasSuffix(e, "!") {
							failedOf[id]++
						}
					}
				}
				if failedOf["t1"] == 0 || failedOf["t2"] == 0 {
					t.Fatalf("the batch that failed had %v events: it was to have some of both", failedOf)
				}
				if want := 16 + failedOf["t1"] + failedOf["t2"]; all != want {
					t.Errorf("%d events were published, want %d", all, want)
				}
				again := float64(failedOf["t1"] + failedOf["t2"])
				refused := 0. // each task counts the first of its own that was not stored
				if fate == memory.Refuse {
					refused = 2
				}
				wantShown(t, m.Events, map[string]float64{"events_total true confirmed": 16, "events_total true republished": again, "events_total true refused": refused})
			})
		})
	}
}

// Two workers, one of which does not read: its mailbox fills up.
func TestAFullMailboxHoldsUpOnlyItsOwnTasks(t *testing.T) {
	const slow socketmeta.ServerID = "i1-w2"
	synctest.Test(t, func(t *testing.T) {
		w := &world{T: t, Broker: memory.New(memory.Options{Limits: memory.Limits{QueueMessages: 20}}), client: socketmeta.NewClientID()}
		ctx, cancel := context.WithCancel(context.Background())
		var wg sync.WaitGroup
		wg.Go(func() { _ = broker.Keep(ctx, w, broker.Worker(testServer), broker.KeepOptions{}, w.serve) })
		defer wg.Wait()
		defer cancel()
		other := mustJoin(w, broker.Worker(slow))
		inbox, err := other.OpenMailbox(ctx, slow, 1)
		must(t, err)
		synctest.Wait()

		m := NewMetrics(nil)
		var written [2]atomic.Int64
		defer w.run(&Runner{Slots: 2, Metrics: m, Kinds: map[string]Kind{
			"slow": {Handler: numbers(20_000, &written[0])}, "k": {Handler: numbers(20_000, &written[1])},
		}})()
		w.submitFrom(slow, "t1", "slow", nil)
		pass(time.Second)
		w.submit("t2", "k", nil)
		pass(time.Minute)
		w.wantNumbers("t2", 20_000)
		if n := written[0].Load(); n != 20_000 {
			t.Errorf("the build against the full mailbox stands at line %d", n)
		}
		if ready, unsettled := w.Depth(broker.MailboxQueue(slow)); ready != 20 || unsettled != 1 {
			t.Errorf("%d and %d messages in the full mailbox, want 20 and 1", ready, unsettled)
		}

		wg.Go(func() {
			for d := range inbox.Deliveries() {
				events, err := wire.DecodeEvents(d.Type, d.Correlation, d.Headers, d.Body)
				if err != nil {
					t.Error(err)
				}
				w.mu.Lock()
				w.events = append(w.events, events...)
				w.mu.Unlock()
				if err := inbox.Ack(d.Tag); err != nil {
					t.Error(err)
				}
			}
		})
		pass(time.Minute)
		w.wantNumbers("t1", 20_000)
		w.wantQueues(none)
		if counted(m, "refused") == 0 {
			t.Error("no refusal was counted")
		}
		must(t, other.Close(ctx))
	})
}

func TestAnEventThatNoQueueTakesIsKeptAndAlarms(t *testing.T) {
	inWorld(t, func(w *world) {
		var missing atomic.Bool
		missing.Store(true)
		logs, seen := observer.New(zap.ErrorLevel)
		m := NewMetrics(nil)
		defer w.run(&Runner{Broker: queueless{w.Broker, &missing}, Metrics: m, Log: zap.New(logs), Kinds: map[string]Kind{"k": {Handler: HandlerFunc(steps)}}})()
		w.submit("t1", "k", nil)
		pass(time.Minute)
		w.want("t1")
		// 0.1 s, twice as long each time, at most 5 s, give or take half: 15 to 30 tries a minute
		if n := seen.FilterMessageSnippet("neither its mailbox nor parked exists").Len(); n < 10 || n > 40 {
			t.Errorf("%d alarms in a minute", n)
		}
		missing.Store(false)
		pass(10 * time.Second)
		if got := w.seen("t1"); len(got) != 8 {
			t.Errorf("client has %q", got)
		}
		w.wantQueues(none)
		if n := counted(m, "confirmed"); n != 8 || counted(m, "returned") == 0 {
			t.Errorf("%v confirmed of 8, %v returned", n, counted(m, "returned"))
		}
	})
}

// queueless is a broker that has lost every queue for events, parked too, while missing is set.
type queueless struct {
	broker.Broker
	missing *atomic.Bool
}

func (b queueless) Join(ctx context.Context, id broker.Identity) (broker.Link, error) {
	l, err := b.Broker.Join(ctx, id)
	return queuelessLink{l, b.missing}, err
}

type queuelessLink struct {
	broker.Link
	missing *atomic.Bool
}

func (l queuelessLink) Publish(ctx context.Context, to broker.Address, m broker.Message) (broker.Receipt, error) {
	if to.Exchange == broker.ExchangeUtils && l.missing.Load() {
		return returned{}, nil
	}
	return l.Link.Publish(ctx, to, m)
}

type returned struct{}

func (returned) Outcome() broker.Outcome { return broker.Returned }
func (returned) Done() <-chan struct{} {
	done := make(chan struct{})
	close(done)
	return done
}

func TestAnEventOverTheLimitIsNotPublished(t *testing.T) {
	inWorld(t, func(w *world) {
		list := w.published(func(wire.TaskID, int64) memory.Fate { return memory.Deliver })
		var refused error
		defer w.handle(func(_ context.Context, task *Task) (any, error) {
			refused = task.Artifact(wire.Artifact{Name: strings.Repeat("x", wire.MaxEvent)})
			return nil, task.Artifact(wire.Artifact{Name: "small"})
		})()
		w.submit("t1", "k", nil)
		pass(time.Minute)
		if !errors.Is(refused, wire.ErrTooLarge) {
			t.Errorf("Artifact: %v, want it to be too large", refused)
		}
		w.want("t1", "started", "artifact", "result null")
		if got := strings.Join(list("t1"), " "); got != "1 2 3" {
			t.Errorf("published %s", got)
		}
	})
}
