package taskrunner

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/wscluster/wscluster/pkg/broker"
	"github.com/wscluster/wscluster/pkg/broker/memory"
	"github.com/wscluster/wscluster/pkg/wire"
)

// shownBy lists what a collector shows, by name and values of labels: counts, gauges, and how many
// were observed.
func shownBy(c prometheus.Collector) map[string]float64 {
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(c)
	families, err := registry.Gather()
	if err != nil {
		panic(err)
	}
	all := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			name := strings.TrimPrefix(f.GetName(), "wscluster_runner_")
			for _, l := range m.GetLabel() {
				name += " " + l.GetValue()
			}
			all[name] = m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
		}
	}
	return all
}

// counted is the counter of an outcome of durable events.
func counted(m *Metrics, outcome string) float64 {
	return shownBy(m.Events)["events_total true "+outcome]
}

// wantShown checks all that a collector shows; what is 0 may be left out.
func wantShown(t *testing.T, c prometheus.Collector, want map[string]float64) {
	t.Helper()
	synctest.Wait()
	got := shownBy(c)
	isZero := func(_ string, n float64) bool { return n == 0 }
	maps.DeleteFunc(got, isZero)
	maps.DeleteFunc(want, isZero)
	if !maps.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// The confirmed durable events are one side of the operator's balance: as many as there are, though
// confirms are lost, events refused and links cut, and though one run is given up on the way.
func TestEveryStoredEventIsCountedOnce(t *testing.T) {
	inWorld(t, func(w *world) {
		m := NewMetrics(nil)
		stop := w.run(&Runner{Slots: 3, Metrics: m, Grace: -1, Kinds: map[string]Kind{"k": {Handler: HandlerFunc(func(_ context.Context, task *Task) (any, error) {
			for i := range 100 {
				task.Step(fmt.Sprint("s", i))
				task.Progress(1, 2, "")
				time.Sleep(50 * time.Millisecond)
			}
			return nil, nil
		})}}})
		w.OnPublish(func(p memory.Publish) memory.Verdict {
			fate := memory.Deliver
			if p.To.Exchange == broker.ExchangeUtils && rand.IntN(8) == 0 {
				fate = []memory.Fate{memory.Refuse, memory.Mislead, memory.Lose}[rand.IntN(3)]
			}
			return memory.Verdict{Fate: fate, Delay: time.Duration(rand.IntN(300)) * time.Millisecond}
		})
		for i := range 3 {
			w.submit(wire.TaskID(fmt.Sprint("t", i)), "k", nil)
		}
		for range 5 {
			pass(3 * time.Second)
			w.Cut(broker.Runner("r1"))
		}
		pass(10 * time.Minute)
		w.wantQueues(none)
		w.OnPublish(nil)
		w.submit("given-back", "k", nil)
		pass(time.Second)
		stop()

		distinct := map[string]bool{}
		w.mu.Lock()
		for _, e := range w.events {
			if e.Durable {
				distinct[fmt.Sprint(e.Run, e.Seq)] = true
			}
		}
		w.mu.Unlock()
		if n := counted(m, "confirmed"); n != float64(len(distinct)) || n < 3*202 {
			t.Errorf("%v durable events are confirmed, %d are there", n, len(distinct))
		}
		for _, c := range []string{"refused", "republished"} {
			if counted(m, c) == 0 {
				t.Errorf("none were %s: the test is too tame", c)
			}
		}
		wantShown(t, m.Seconds, map[string]float64{"task_seconds k succeeded": 3, "task_seconds k given_back": 1})
	})
}

func TestRunsAreCountedByAttemptAndHowLongTheirTasksWaited(t *testing.T) {
	inWorld(t, func(w *world) {
		m := NewMetrics(nil)
		tries := 0
		defer w.run(&Runner{Slots: 1, Metrics: m, Kinds: map[string]Kind{"k": {Handler: HandlerFunc(func(context.Context, *Task) (any, error) {
			if tries++; tries == 2 {
				return nil, ErrGiveBack
			}
			return nil, nil
		})}}})()
		w.submit("t1", "k", nil)
		w.submit("t2", "k", nil)
		pass(time.Minute)
		wantShown(t, m.Begun, map[string]float64{"task_runs_total first k": 2, "task_runs_total again k": 1})
		wantShown(t, m.Waited, map[string]float64{"task_wait_seconds k": 2})
		wantShown(t, m.Seconds, map[string]float64{"task_seconds k succeeded": 2, "task_seconds k given_back": 1})
	})
}

func TestARunGivenUpCountsWhatIsStored(t *testing.T) {
	inWorld(t, func(w *world) {
		m := NewMetrics(nil)
		stop := w.run(&Runner{Metrics: m, Grace: -1, Kinds: map[string]Kind{"k": {Handler: HandlerFunc(func(ctx context.Context, task *Task) (any, error) {
			task.Step("a")
			<-ctx.Done()
			return nil, ctx.Err()
		})}}})
		w.OnPublish(func(p memory.Publish) memory.Verdict {
			if p.To.Exchange == broker.ExchangeUtils {
				return memory.Verdict{Delay: 2 * time.Second}
			}
			return memory.Verdict{}
		})
		w.submit("t1", "k", nil)
		pass(time.Second)
		stop()
		wantShown(t, m.Events, map[string]float64{"events_total true confirmed": 2})
	})
}

func TestTheGaugesShowWhatRunsAndWhatWaits(t *testing.T) {
	inWorld(t, func(w *world) {
		m := NewMetrics(prometheus.NewPedanticRegistry())
		wantShown(t, gauges{m}, nil) // before Run
		defer w.run(&Runner{Metrics: m, BufferBytes: minBuffer, Kinds: map[string]Kind{"k": {Handler: HandlerFunc(func(_ context.Context, task *Task) (any, error) {
			time.Sleep(time.Second)
			for range 5 {
				task.Step("s")
			}
			time.Sleep(time.Minute)
			return nil, nil
		})}}})()
		wantShown(t, gauges{m}, nil)
		w.submit("t1", "k", nil)
		pass(time.Second / 2) // the started event is stored
		w.Block(true)
		pass(time.Second)
		wantShown(t, gauges{m}, map[string]float64{"outbox_events": 9, "tasks k": 1, "posts_total returned": 2, "posts_queued": 10})
		w.Block(false)
		pass(2 * time.Minute)
		wantShown(t, gauges{m}, map[string]float64{"posts_total returned": 14}) // 7 updates on two channels, and nobody watches
	})
}
