package build

import (
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/wscluster/wscluster/pkg/broker"
	"github.com/wscluster/wscluster/pkg/broker/memory"
	"github.com/wscluster/wscluster/pkg/socketmeta"
	"github.com/wscluster/wscluster/pkg/taskrunner"
	"github.com/wscluster/wscluster/pkg/wire"
)

// outcome is what a client has of a task at its end.
type outcome struct {
	events   []string // steps as "test succeeded", progress as "3/7 message"
	log      []string
	result   Result
	value    string // the result as it was sent
	failure  wire.Failure
	duration time.Duration
}

// do runs one task over a broker in memory, to its end.
func do(t *testing.T, kinds map[string]taskrunner.Kind, kind string, params any) (o outcome) {
	t.Helper()
	began := time.Now()
	follow(t, kinds, kind, params, func(e wire.Event) {
		switch e.Type {
		case wire.EventStep:
			u := decode[wire.Update](t, e.Body)
			o.events = append(o.events, fmt.Sprintf("%s %s", u.Message, u.Status))
		case wire.EventProgress:
			u := decode[wire.Update](t, e.Body)
			o.events = append(o.events, fmt.Sprintf("%d/%d %s", u.CurrentStep, u.TotalSteps, u.Message))
		case wire.EventLog:
			o.log = append(o.log, decode[wire.Log](t, e.Body).Lines...)
		case wire.EventResult:
			r := decode[wire.Result](t, e.Body)
			o.value = string(r.Value)
			o.result = decode[Result](t, r.Value)
		case wire.EventError:
			o.failure = decode[wire.Failure](t, e.Body)
		}
	})
	o.duration = time.Since(began)
	return o
}

// follow runs one task over a broker in memory, and hands each of its events to see, up to the final one.
func follow(t *testing.T, kinds map[string]taskrunner.Kind, kind string, params any, see func(wire.Event)) {
	t.Helper()
	s, stop := newShop(t, kinds)
	defer stop()
	s.submit("t1", kind, params)
	for e := range s.events() {
		see(e)
		if final(e) {
			return
		}
	}
}

func final(e wire.Event) bool { return e.Type == wire.EventResult || e.Type == wire.EventError }

// shop is a runner with one slot over a broker in memory, and a worker with a client that has tasks for it.
type shop struct {
	*testing.T
	worker  broker.Link
	mailbox broker.Mailbox
	client  socketmeta.ClientID
}

// newShop returns one whose runner is up. stop ends all.
func newShop(t *testing.T, kinds map[string]taskrunner.Kind) (s *shop, stop func()) {
	t.Helper()
	b := memory.New(memory.Options{Limits: memory.Limits{QueueBytes: 4 << 20}}) // a flood waits for its reader
	ctx, cancel := context.WithCancel(context.Background())
	up, done := make(chan struct{}), make(chan struct{})
	r := taskrunner.Runner{Name: "r", Broker: b, Kinds: kinds, Slots: 1, Grace: -1, SpoolBytes: -1, LogBytes: -1, OnState: func(s broker.State) {
		if s.Phase == broker.Up {
			close(up)
		}
	}}
	go func() {
		defer close(done)
		if err := r.Run(ctx); err != nil {
			t.Error(err)
		}
	}()
	<-up
	s = &shop{T: t, client: socketmeta.NewClientID()}
	var err error
	if s.worker, err = b.Join(ctx, broker.Worker("i1-w1")); err == nil {
		s.mailbox, err = s.worker.OpenMailbox(ctx, "i1-w1", 100)
	}
	if err != nil {
		t.Fatal(err)
	}
	return s, func() {
		_ = s.worker.Close(context.Background())
		cancel()
		<-done
	}
}

// submit is a submit of the client; nil params are none.
func (s *shop) submit(id wire.TaskID, kind string, params any) {
	s.Helper()
	if params == nil {
		params = struct{}{}
	}
	body := s.task(id, kind, json.RawMessage(asJSON(params)))
	for !s.publish(broker.ToTasks(kind, wire.Normal), body) { // the runner opens its queues just after it is up
	}
}

func (s *shop) task(id wire.TaskID, kind string, params json.RawMessage) []byte {
	s.Helper()
	body, err := wire.EncodeTask(&wire.Task{Meta: socketmeta.Meta{Client: s.client, Server: "i1-w1"}, Task: id, Kind: kind, Params: params})
	if err != nil {
		s.Fatal(err)
	}
	return body
}

// cancel says in the ledger, as a worker does whose client names the kind, that the client wants a task to end.
func (s *shop) cancel(id wire.TaskID, kind string) {
	s.Helper()
	body, err := wire.EncodeLedger(&wire.LedgerRecord{Op: wire.LedgerCancel, Task: id, Client: s.client.String(), Body: s.task(id, kind, nil)})
	if err != nil || !s.publish(broker.ToLedger(), body) {
		s.Fatal("no ledger", err)
	}
}

func (s *shop) publish(to broker.Address, body []byte) (stored bool) {
	s.Helper()
	receipt, err := s.worker.Publish(context.Background(), to, broker.Message{Body: body})
	if err != nil {
		s.Fatal(err)
	}
	out, _ := broker.Await(context.Background(), receipt)
	return out == broker.Stored
}

// events are all that come to the client.
func (s *shop) events() iter.Seq[wire.Event] {
	return func(yield func(wire.Event) bool) {
		for d := range s.mailbox.Deliveries() {
			events, err := wire.DecodeEvents(d.Type, d.Correlation, d.Headers, d.Body)
			if err != nil {
				s.Fatal(err)
			}
			for _, e := range events {
				if !yield(e) {
					return
				}
			}
			if err := s.mailbox.Ack(d.Tag); err != nil {
				s.Fatal(err)
			}
		}
		s.Fatal("the mailbox was closed")
	}
}

func decode[T any](t *testing.T, b []byte) (v T) {
	t.Helper()
	if err := json.Unmarshal(b, &v); err != nil {
		t.Fatal(err)
	}
	return v
}

// kindsOf makes recipes ready, with %s in them standing for the test program.
func kindsOf(t *testing.T, o Options, recipes ...string) map[string]taskrunner.Kind {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if o.WorkDir == "" {
		o.WorkDir = t.TempDir()
	}
	var all []*Recipe
	for _, text := range recipes {
		r, err := ParseRecipe([]byte(strings.ReplaceAll(text, "%s", self)))
		if err != nil {
			t.Fatal(err)
		}
		if r.Env.Set == nil {
			r.Env.Set = map[string]string{}
		}
		r.Env.Set[programVariable] = "1"
		r.Env.Set["GORACE"] = "atexit_sleep_ms=0" // the race detector's own second at the end of a process
		all = append(all, r)
	}
	kinds, err := Kinds(all, o)
	if err != nil {
		t.Fatal(err)
	}
	return kinds
}

// wantEmpty checks that nothing is left of the workspaces.
func wantEmpty(t *testing.T, dir string) {
	t.Helper()
	left, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(left) > 0 {
		t.Errorf("left in the work directory: %v", left)
	}
}
