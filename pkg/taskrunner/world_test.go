package taskrunner

import (
	"cmp"
	"context"
	"encoding/json"
	"maps"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wscluster/wscluster/pkg/broker"
	"github.com/wscluster/wscluster/pkg/broker/memory"
	"github.com/wscluster/wscluster/pkg/socketmeta"
	"github.com/wscluster/wscluster/pkg/wire"
)

// world is a broker with one worker on it, which reads its mailbox and submits tasks.
type world struct {
	*testing.T
	*memory.Broker
	client socketmeta.ClientID

	mu     sync.Mutex
	link   broker.Link
	events []wire.Event // as they came, copies too
}

const testServer socketmeta.ServerID = "i1-w1"

// inWorld runs a test in a bubble of time.
func inWorld(t *testing.T, test func(*world)) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{T: t, Broker: memory.New(memory.Options{}), client: socketmeta.NewClientID()}
		ctx, cancel := context.WithCancel(context.Background())
		var wg sync.WaitGroup
		wg.Go(func() { _ = broker.Keep(ctx, w, broker.Worker(testServer), broker.KeepOptions{}, w.serve) })
		defer wg.Wait()
		defer cancel()
		synctest.Wait()
		test(w)
	})
}

func (w *world) serve(ctx context.Context, l broker.Link) error {
	w.mu.Lock()
	w.link = l
	w.mu.Unlock()
	c, err := l.OpenMailbox(ctx, testServer, 1000)
	if err != nil {
		return err
	}
	for {
		select {
		case d, ok := <-c.Deliveries():
			if !ok {
				return c.Err()
			}
			events := w.eventsOf(d.Message)
			w.mu.Lock()
			w.events = append(w.events, events...)
			w.mu.Unlock()
			if err := c.Ack(d.Tag); err != nil {
				return err
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// eventsOf reads a message to a mailbox.
func (w *world) eventsOf(m broker.Message) []wire.Event {
	events, err := wire.DecodeEvents(m.Type, m.Correlation, m.Headers, m.Body)
	if err != nil {
		w.Errorf("a message that no worker would read: %v", err)
	}
	return events
}

// has reports whether an event of type typ is in a message to a mailbox.
func (w *world) has(p memory.Publish, typ wire.EventType) bool {
	return p.To.Exchange == broker.ExchangeUtils && slices.ContainsFunc(w.eventsOf(p.Message), func(e wire.Event) bool { return e.Type == typ })
}

// run starts a runner and waits until it idles. stop ends it and waits for that.
func (w *world) run(r *Runner) (stop func()) {
	w.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	if r.Name == "" {
		r.Name = "r1"
	}
	r.Broker = cmp.Or[broker.Broker](r.Broker, w.Broker)
	r.SpoolDir = cmp.Or(r.SpoolDir, w.TempDir())
	r.LogBytes = cmp.Or(r.LogBytes, -1) // lines are durable events, unless a test is about logs on disk
	wg.Go(func() {
		if err := r.Run(ctx); err != nil {
			w.Errorf("Run: %v", err)
		}
	})
	synctest.Wait()
	return func() {
		cancel()
		wg.Wait()
	}
}

// handle runs a handler for tasks of kind k.
func (w *world) handle(h HandlerFunc) (stop func()) {
	return w.run(&Runner{Kinds: map[string]Kind{"k": {Handler: h}}})
}

func (w *world) submit(id wire.TaskID, kind string, params any) {
	w.Helper()
	w.submitFrom(testServer, id, kind, params)
}

func (w *world) submitFrom(s socketmeta.ServerID, id wire.TaskID, kind string, params any) {
	w.Helper()
	p, err := json.Marshal(params)
	if err == nil && params == nil {
		p = nil
	}
	if err != nil {
		w.Fatal(err)
	}
	body, err := wire.EncodeTask(&wire.Task{
		Meta: socketmeta.Meta{Client: w.client, Server: s, Epoch: 1},
		Task: id, Kind: kind, Params: p, Trace: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
	})
	if err != nil {
		w.Fatal(err)
	}
	w.publish(kind, body)
}

func (w *world) publish(kind string, body []byte) {
	w.Helper()
	w.mu.Lock()
	l := w.link
	w.mu.Unlock()
	r, err := l.Publish(w.Context(), broker.ToTasks(kind, wire.Normal), broker.Message{ID: string(wire.NewTaskID()), Body: body})
	if err != nil {
		w.Fatal(err)
	}
	if out, err := broker.Await(w.Context(), r); out != broker.Stored {
		w.Fatalf("task %v, %v", out, err)
	}
}

// seen is what the application of the client sees by now of each task, made as the rules of
// docs/PROTOCOL.md say: the highest (attempt, run) counts, in order, once, and one final event.
func (w *world) seen(id wire.TaskID) (all []string) {
	synctest.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	var at wire.Event
	for _, e := range w.events {
		if e.Task != id || at.Last {
			continue
		}
		switch newer := e.Attempt > at.Attempt || e.Attempt == at.Attempt && e.Run > at.Run; {
		case newer && e.Prev != 0 && e.Durable:
			w.Errorf("attempt %d began with seq %d", e.Attempt, e.Seq)
		case newer:
			at, all = wire.Event{Attempt: e.Attempt, Run: e.Run}, nil
		case e.Attempt != at.Attempt || e.Run != at.Run:
			continue // of an older run
		}
		if e.Durable && e.Seq > at.Seq && e.Prev <= at.Seq {
			at = e
			all = append(all, shown(&e))
		} else if !e.Durable {
			all = append(all, shown(&e))
		}
	}
	return all
}

func (w *world) want(id wire.TaskID, want ...string) {
	w.Helper()
	if got := w.seen(id); !slices.Equal(got, want) {
		w.Errorf("client has\n\t%q\nwant\n\t%q", got, want)
	}
}

// wantQueues checks what waits and what is held, by queue; queues that are not named are empty.
func (w *world) wantQueues(want map[string][2]int) {
	w.Helper()
	synctest.Wait()
	got := map[string][2]int{}
	for _, q := range []string{"tasks.k", "mailbox.i1-w1", broker.QueueParked, broker.QueueDeadTasks, broker.QueueKeptTasks} {
		if ready, unsettled := w.Depth(q); ready+unsettled > 0 {
			got[q] = [2]int{ready, unsettled}
		}
	}
	if !maps.Equal(got, want) {
		w.Errorf("queues (ready, unsettled) %v, want %v", got, want)
	}
}

// attempts lists the attempts whose started events came, in order.
func (w *world) attempts(id wire.TaskID) (all []int) {
	synctest.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, e := range w.events {
		if e.Task == id && e.Type == wire.EventStarted && !slices.Contains(all, e.Attempt) {
			all = append(all, e.Attempt)
		}
	}
	return all
}

// pass lets time go by, and waits until everything has come to rest.
func pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}
