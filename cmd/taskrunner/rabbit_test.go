package main

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"

	"github.com/wscluster/wscluster/internal/rig"
	"github.com/wscluster/wscluster/pkg/amqp"
	"github.com/wscluster/wscluster/pkg/broker"
	"github.com/wscluster/wscluster/pkg/socketmeta"
	"github.com/wscluster/wscluster/pkg/taskrunner"
	"github.com/wscluster/wscluster/pkg/wire"
)

// rabbit is the private node that the tests of this file share, nil before the first.
var rabbit *rig.RabbitMQ

func stopRabbit() error {
	if rabbit == nil {
		return nil
	}
	return rabbit.Stop()
}

// patience is how long a test waits for what must happen.
const patience = 2 * time.Minute

// site is a runner with RabbitMQ's rights of one, a worker who reads its mailbox, and a task whose
// output they bring from one to the other.
type site struct {
	*testing.T
	server  socketmeta.ServerID
	client  socketmeta.ClientID
	kind    string
	metrics *prometheus.Registry
	logs    *observer.ObservedLogs
	written atomic.Int64  // lines of 1,000 bytes
	enough  chan struct{} // closed: the task is to end
	ended   chan struct{} // closed: its handler has returned

	mu      sync.Mutex
	link    broker.Link          // of the worker; nil while there is none
	stored  map[string]bool      // durable events that came, by run and seq
	next    int                  // the line that must come next
	at      wire.Event           // the youngest event in order
	early   map[int64]wire.Event // those behind one that has not come, by its Seq
	attempt int                  // the highest
}

var sites int

// newSite starts a runner of a kind of its own, which writes 2 MB a second until s.enough is closed.
func newSite(t *testing.T) *site {
	t.Helper()
	ctx := t.Context()
	if rabbit == nil {
		var err error
		if rabbit, err = rig.StartRabbitMQ(ctx, rig.RabbitOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	sites++
	logs, observed := observer.New(zapcore.InfoLevel)
	s := &site{
		T: t, client: socketmeta.NewClientID(), server: socketmeta.ServerID(fmt.Sprintf("i%d-w1", sites)), kind: fmt.Sprint("noise", sites),
		metrics: prometheus.NewRegistry(), logs: observed, enough: make(chan struct{}), ended: make(chan struct{}), stored: map[string]bool{}, early: map[int64]wire.Event{},
	}
	r := taskrunner.Runner{
		LogBytes: -1, // lines are the events that must not be lost here
		Name:     s.kind, Broker: s.dial("runner", zap.New(logs)), Log: zap.New(logs), Metrics: taskrunner.NewMetrics(s.metrics),
		Kinds: map[string]taskrunner.Kind{s.kind: {Handler: taskrunner.HandlerFunc(s.noise)}}, SpoolDir: t.TempDir(),
	}
	s.background(func(ctx context.Context) error { return r.Run(ctx) })
	return s
}

func (s *site) dial(user string, log *zap.Logger) *amqp.Broker {
	s.Helper()
	b, err := amqp.New(amqp.Options{URLs: []string{rabbit.URLFor(user)}, Log: log})
	if err != nil {
		s.Fatal(err)
	}
	return b
}

// background runs part until the test ends.
func (s *site) background(part func(context.Context) error) {
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := part(ctx); err != nil {
			s.Error(err)
		}
	})
	s.Cleanup(func() { cancel(); wg.Wait() })
}

func (s *site) noise(ctx context.Context, task *taskrunner.Task) (any, error) {
	defer close(s.ended) // a second run would panic
	line := strings.Repeat("x", 980)
	beat := time.NewTicker(10 * time.Millisecond)
	defer beat.Stop()
	for {
		for range 20 {
			if _, err := fmt.Fprintf(task.Log(), "%d %s\n", s.written.Load(), line); err != nil {
				return nil, err
			}
			s.written.Add(1)
		}
		select {
		case <-beat.C:
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-s.enough:
			return s.written.Load(), nil
		}
	}
}

// work has the worker join and read its mailbox and the parked one, again after every end of its
// link.
func (s *site) work() {
	b := s.dial("worker", nil)
	s.background(func(ctx context.Context) error {
		// An error when it leaves says that receipts were open: nobody here waits for them.
		_ = broker.Keep(ctx, b, broker.Worker(s.server), broker.KeepOptions{}, s.read)
		return nil
	})
	s.await("a link of the worker", func() bool { s.mu.Lock(); defer s.mu.Unlock(); return s.link != nil })
}

func (s *site) read(ctx context.Context, l broker.Link) error {
	mailbox, err := l.OpenMailbox(ctx, s.server, 1000)
	if err != nil {
		return err
	}
	parked, err := l.AdoptMailbox(ctx, broker.ParkedServer, 1000)
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.link = l
	s.mu.Unlock()
	for {
		from := mailbox
		var d broker.Delivery
		var ok bool
		select {
		case d, ok = <-mailbox.Deliveries():
		case d, ok = <-parked.Deliveries():
			from = parked
		case <-ctx.Done():
			return nil
		}
		if !ok {
			return from.Err()
		}
		s.take(d)
		if err := from.Ack(d.Tag); err != nil {
			return err
		}
	}
}

// take takes what a message brings.
func (s *site) take(d broker.Delivery) {
	events, err := wire.DecodeEvents(d.Type, d.Correlation, d.Headers, d.Body)
	if err != nil {
		s.Errorf("event that no worker would read: %v", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range events {
		s.takeEvent(e)
	}
}

// takeEvent takes one event as a client does: in order, once, of the highest attempt. One whose
// predecessor is still parked waits for it. s.mu is held.
func (s *site) takeEvent(e wire.Event) {
	if !e.Durable {
		return
	}
	s.stored[fmt.Sprint(e.Run, e.Seq)] = true
	if s.attempt = max(s.attempt, e.Attempt); e.Seq <= s.at.Seq {
		return // a copy
	}
	s.early[e.Prev] = e
	for next, ok := s.early[s.at.Seq]; ok; next, ok = s.early[s.at.Seq] {
		delete(s.early, s.at.Seq)
		s.inOrder(next)
	}
}

// inOrder takes the event that follows all that came. s.mu is held.
func (s *site) inOrder(e wire.Event) {
	s.at = e
	if e.Type == wire.EventLog {
		var log wire.Log
		if err := json.Unmarshal(e.Body, &log); err != nil {
			s.Error(err)
		}
		for _, line := range log.Lines {
			if !strings.HasPrefix(line, fmt.Sprint(s.next, " ")) {
				s.Errorf("line %.20q instead of line %d", line, s.next)
			}
			s.next++
		}
	}
}

func (s *site) submit(l broker.Link) {
	s.Helper()
	body, err := wire.EncodeTask(&wire.Task{Meta: socketmeta.Meta{Client: s.client, Server: s.server, Epoch: 1}, Task: "t1", Kind: s.kind})
	if err != nil {
		s.Fatal(err)
	}
	s.await("a runner", func() bool { return s.logs.FilterMessage("takes tasks").Len() > 0 })
	r, err := l.Publish(s.Context(), broker.ToTasks(s.kind, wire.Normal), broker.Message{Body: body})
	if err != nil {
		s.Fatal(err)
	}
	if outcome, err := broker.Await(s.Context(), r); outcome != broker.Stored {
		s.Fatalf("task: %v, %v", outcome, err)
	}
}

func (s *site) await(what string, is func() bool) {
	s.Helper()
	for limit := time.Now().Add(patience); !is(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(limit) {
			s.Fatalf("%s did not come within %v; the runner: %v", what, patience, s.logs.All())
		}
	}
}

// shown is one metric of the runner, with the labels' values behind its name.
func (s *site) shown(name string) float64 {
	s.Helper()
	families, err := s.metrics.Gather()
	if err != nil {
		s.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			labelled := f.GetName()
			for _, l := range m.GetLabel() {
				labelled += " " + l.GetValue()
			}
			if labelled == name {
				return m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
	}
	s.Fatalf("no metric %q", name)
	return 0
}

// tasks is how many messages the queue of the site's kind has, taken ones included. The usual ways
// to ask know only what was true up to five seconds ago.
func (s *site) tasks() string {
	s.Helper()
	return s.eval(fmt.Sprintf(`{ok, Q} = rabbit_amqqueue:lookup(rabbit_misc:r(<<"/">>, queue, <<"%s">>)),
		{ok, {_, N}, _} = ra:local_query(amqqueue:get_pid(Q), fun rabbit_fifo:query_messages_total/1), io:format("~p", [N])`, broker.TasksQueue(s.kind, wire.Normal)))
}

func (s *site) eval(expressions string) string {
	s.Helper()
	out, err := rabbit.Eval(s.Context(), expressions)
	if err != nil {
		s.Fatal(err)
	}
	return out
}

// outage sees that the build goes on for d while the broker takes nothing, onto the disk, and
// ends in the middle of it.
func (s *site) outage(d time.Duration) {
	s.Helper()
	before, began := s.written.Load(), time.Now()
	s.await("output on disk", func() bool { return s.shown("wscluster_runner_spilled_bytes") > 0 })
	time.Sleep(d - time.Since(began)) // not to wait for something: so much real output is the test
	last := s.written.Load()
	s.await("more output", func() bool { return s.written.Load() > last })
	close(s.enough)
	<-s.ended
	s.Logf("%d MB of output in %.1f s without the broker, %.0f MB on disk", (s.written.Load()-before)/1000,
		time.Since(began).Seconds(), s.shown("wscluster_runner_spilled_bytes")/1e6)
	if n := s.shown("wscluster_runner_tasks " + s.kind); n != 1 {
		s.Error("the task counts as done before its final event is stored")
	}
}

// end checks that all of the task came, once, in order, in the first attempt, that the counter
// knows it, and that neither the task nor its file is left.
func (s *site) end() {
	s.Helper()
	s.await("the final event", func() bool { s.mu.Lock(); defer s.mu.Unlock(); return s.at.Last })
	s.await("the acknowledgement of the task", func() bool { return s.tasks() == "0" })
	s.mu.Lock()
	defer s.mu.Unlock()
	if int64(s.next) != s.written.Load() || s.at.Type != wire.EventResult || s.attempt != 1 {
		s.Errorf("%d lines of %d came, the last event is %s %s of attempt %d", s.next, s.written.Load(), s.at.Type, s.at.Body, s.attempt)
	}
	if n := s.shown("wscluster_runner_events_total true confirmed"); n != float64(len(s.stored)) {
		s.Errorf("%v events are counted, %d came", n, len(s.stored))
	}
	if n := s.shown("wscluster_runner_spilled_bytes"); n != 0 {
		s.Errorf("%v bytes are left on disk", n)
	}
	s.Logf("%d events stored, %v published again", len(s.stored), s.shown("wscluster_runner_events_total true republished"))
}

func (s *site) begin() {
	s.Helper()
	s.work()
	s.submit(s.link)
	s.await("output", func() bool { s.mu.Lock(); defer s.mu.Unlock(); return s.next > 0 })
}

// Neither the worker's mailbox nor the parked one is there: nothing may be lost, and somebody
// must hear of it.
func TestEventsAreKeptAndAlarmWhenParkedIsMissing(t *testing.T) {
	s := newSite(t)
	link, err := s.dial("operator", nil).Join(t.Context(), broker.Worker("submits-w1"))
	if err != nil {
		t.Fatal(err)
	}
	defer link.Close(context.Background())
	s.eval(fmt.Sprintf(`{ok, Q} = rabbit_amqqueue:lookup(rabbit_misc:r(<<"/">>, queue, <<"%s">>)),
		{ok, _} = rabbit_amqqueue:delete(Q, false, false, <<"test">>)`, broker.QueueParked))
	s.submit(link)
	alarms := func() int { return s.logs.FilterMessageSnippet("neither its mailbox nor parked exists").Len() }
	s.await("the second alarm", func() bool { return alarms() > 1 })
	if n := s.shown("wscluster_runner_events_total true confirmed"); n != 0 {
		t.Errorf("%v events are stored nowhere", n)
	}
	s.outage(time.Second)
	s.work() // this makes both
	s.end()
}
