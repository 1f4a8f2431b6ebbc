package worker_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/wscluster/wscluster/internal/auth"
	"github.com/wscluster/wscluster/internal/worker"
	"github.com/wscluster/wscluster/pkg/broker"
	"github.com/wscluster/wscluster/pkg/socketmeta"
	"github.com/wscluster/wscluster/pkg/taskrunner"
	"github.com/wscluster/wscluster/pkg/wire"
	"github.com/wscluster/wscluster/pkg/wsclient"
)

// echo returns its parameters after two steps.
var echo = taskrunner.HandlerFunc(func(_ context.Context, t *taskrunner.Task) (any, error) {
	t.Steps(2)
	t.Step("read")
	fmt.Fprintln(t.Log(), "hello")
	t.Step("write")
	var v any
	err := t.Params(&v)
	return v, err
})

// gated returns a handler that tells n log lines, waits for the gate, and tells n more.
func gated(n int, gate <-chan struct{}) taskrunner.HandlerFunc {
	return func(ctx context.Context, t *taskrunner.Task) (any, error) {
		for i := range 2 * n {
			if i == n {
				select {
				case <-gate:
				case <-ctx.Done():
					return nil, ctx.Err()
				}
			}
			t.Step(fmt.Sprint(i))
		}
		return "done", nil
	}
}

func kinds(h taskrunner.Handler) map[string]taskrunner.Kind {
	return map[string]taskrunner.Kind{"k": {Handler: h}}
}

// submit submits a task of the kind k, once the runner offers it.
func submit(t *testing.T, c *wsclient.Client, params any) (task *wsclient.Task) {
	t.Helper()
	await(t, func() (err error) {
		task, err = c.Submit(t.Context(), "k", params)
		return err
	})
	return task
}

func TestATaskComesHomeWithItsStepsAndItsResult(t *testing.T) {
	c := newCluster(t)
	w := c.worker("i1-w1")
	c.runner(kinds(echo))
	client, _ := c.client(w)
	task := submit(t, client, map[string]int{"n": 7})
	var types []wire.EventType
	for e := range task.Events(t.Context()) {
		types = append(types, e.Type)
	}
	want := []wire.EventType{"started", "step", "step", "step", "step", "result"}
	if got := slices.DeleteFunc(slices.Clone(types), func(e wire.EventType) bool { return e == wire.EventLog || e == wire.EventProgress }); !slices.Equal(got, want) {
		t.Errorf("events %v, want %v", got, want)
	}
	if !slices.Contains(types, wire.EventLog) {
		t.Errorf("no log among %v", types)
	}
	if got, err := task.Wait(t.Context()); err != nil || string(got) != `{"n":7}` {
		t.Errorf("result %s, %v", got, err)
	}
}

func TestEachOfManyClientsOnTwoWorkersGetsItsOwnResultAndNoOther(t *testing.T) {
	c := newCluster(t)
	workers := []*running{c.worker("i1-w1"), c.worker("i1-w2")}
	c.runner(kinds(echo))
	var wg sync.WaitGroup
	for i := range 100 {
		client, _ := c.client(workers[i%2])
		wg.Go(func() {
			task := submit(t, client, map[string]int{"n": i})
			if got, err := task.Wait(t.Context()); err != nil || string(got) != fmt.Sprintf(`{"n":%d}`, i) {
				t.Errorf("client %d got %s, %v", i, got, err)
			}
			if s := client.Stats(); s.Unknown != 0 {
				t.Errorf("client %d got %d events of others", i, s.Unknown)
			}
		})
	}
	wg.Wait()
}

func TestAClientThatWasAwayGetsEverythingOnceAndInOrder(t *testing.T) {
	c := newCluster(t)
	w := c.worker("i1-w1")
	gate := make(chan struct{})
	c.runner(kinds(gated(20, gate)))
	client, stop := c.client(w)
	task := submit(t, client, nil)
	var got []int64
	for e := range task.Events(t.Context()) {
		got = append(got, e.Seq)
		if len(got) == 10 {
			break
		}
	}
	stop() // the page is gone; the task goes on
	close(gate)
	await(t, func() error {
		if _, unsettled := c.broker.Depth(broker.MailboxQueue("i1-w1")); unsettled < 60 {
			return fmt.Errorf("%d events wait", unsettled)
		}
		return nil
	})

	later, _ := c.client(w, func(o *wsclient.Options) { o.State = client.State() })
	if later.Meta().Client != client.Meta().Client || !later.Meta().Resumed {
		t.Errorf("came back as %+v", later.Meta())
	}
	for e := range later.Tasks()[0].Events(t.Context()) {
		if e.Durable {
			got = append(got, e.Seq)
		}
	}
	if !slices.IsSorted(got) || len(slices.Compact(slices.Clone(got))) != len(got) || len(got) < 80 {
		t.Errorf("%d events: %v", len(got), got)
	}
	await(t, func() error {
		if ready, unsettled := c.broker.Depth(broker.MailboxQueue("i1-w1")); ready+unsettled > 0 {
			return fmt.Errorf("%d ready and %d unsettled are left in the mailbox", ready, unsettled)
		}
		return nil
	})
}

func TestABrokerThatIsLostAndFoundCostsNothing(t *testing.T) {
	c := newCluster(t)
	w := c.worker("i1-w1")
	gate := make(chan struct{})
	c.runner(kinds(gated(50, gate)))
	client, _ := c.client(w)
	task := submit(t, client, nil)
	seen := 0
	var last int64
	for e := range task.Events(t.Context()) {
		if !e.Durable {
			continue
		}
		if e.Prev != last {
			t.Fatalf("event %d after %d", e.Seq, last)
		}
		last = e.Seq
		if seen++; seen == 20 {
			c.broker.Down(true)
			c.broker.CutLinks()
			close(gate)
			await(t, func() error {
				if w.Ready() == nil {
					return errors.New("the worker is ready without a broker")
				}
				return nil
			})
			c.broker.Down(false)
		}
	}
	if _, err := task.Wait(t.Context()); err != nil {
		t.Error(err)
	}
	if s := client.Stats(); s.Sockets != 1 || s.Resets != 0 {
		t.Errorf("%d sockets and %d resets, want the one socket to stay open and one run", s.Sockets, s.Resets)
	}
}

func TestTheNewerSocketTakesTheSessionOver(t *testing.T) {
	c := newCluster(t)
	w := c.worker("i1-w1")
	over := make(chan error, 1)
	first, _ := c.client(w, func(o *wsclient.Options) {
		open := o.OnStatus
		o.OnStatus = func(s wsclient.Status) {
			open(s)
			if s.Phase == wsclient.Closed {
				over <- s.Err
			}
		}
	})
	second, _ := c.client(w, func(o *wsclient.Options) { o.State = first.State() })
	if err := <-over; err == nil || !strings.Contains(err.Error(), "4000") {
		t.Errorf("the first socket ended with %v, want close code 4000", err)
	}
	if a, b := first.Meta(), second.Meta(); a.Client != b.Client || b.Epoch <= a.Epoch {
		t.Errorf("epochs %d then %d, clients %v and %v", a.Epoch, b.Epoch, a.Client, b.Client)
	}
}

func TestATokenThatIsNotOursGetsANewSessionAndTheReason(t *testing.T) {
	c := newCluster(t)
	w := c.worker("i1-w1")
	meta := socketmeta.Meta{Client: socketmeta.NewClientID(), Server: "i1-w1", Epoch: 1}
	now := time.Now()
	forged, _ := socketmeta.RandomKeys().SignToken(socketmeta.Token{Meta: meta, IssuedAt: now, Expires: now.Add(time.Hour)})
	expired, _ := c.keys.SignToken(socketmeta.Token{Meta: meta, IssuedAt: now.Add(-2 * time.Hour), Expires: now.Add(-time.Hour)})
	route, _ := c.keys.SignRoute(socketmeta.Route{Server: "i1-w1", Expires: now.Add(time.Hour)})
	for token, want := range map[string]error{forged: socketmeta.ErrForged, expired: socketmeta.ErrExpired, "x": socketmeta.ErrMalformed, route: nil} {
		client, _ := c.client(w, func(o *wsclient.Options) { o.State.Token = token })
		m := client.Meta()
		if m.Client == meta.Client || m.Resumed || m.Reason == "" || (want != nil && m.Reason != want.Error()) {
			t.Errorf("got client %v, resumed %v, reason %q; want a new one and the reason %v", m.Client, m.Resumed, m.Reason, want)
		}
	}
}

func TestSubmitsAreRefusedWithACode(t *testing.T) {
	c := newCluster(t)
	w := c.worker("i1-w1")
	gate := make(chan struct{})
	defer close(gate)
	c.runner(kinds(gated(1, gate)))
	client, _ := c.client(w)
	code := func(err error) wire.Code {
		if e, ok := errors.AsType[*wire.Error](err); ok {
			return e.Code
		}
		return wire.Code(fmt.Sprint(err))
	}
	_, err := client.Submit(t.Context(), "nobody", nil)
	if got := code(err); got != wire.CodeUnknownKind {
		t.Errorf("a kind that nobody offers: %s, want %s", got, wire.CodeUnknownKind)
	}
	for i := range wire.MaxOpenTasks {
		submit(t, client, map[string]int{"i": i})
	}
	if _, err = client.Submit(t.Context(), "k", nil); code(err) != wire.CodeTooManyTasks {
		t.Errorf("task %d: %v, want %s", wire.MaxOpenTasks+1, err, wire.CodeTooManyTasks)
	}
}

func TestAWorkerListsTheKindsAndRefusesWhatTheirSchemasDo(t *testing.T) {
	c := newCluster(t)
	w := c.worker("i1-w1")
	if status, body := get(t, "http://"+w.addr+"/v1/kinds"); status != http.StatusOK || body != `{"kinds":[]}`+"\n" {
		t.Errorf("before any runner: %d %s", status, body)
	}
	k := kinds(taskrunner.HandlerFunc(func(context.Context, *taskrunner.Task) (any, error) { return 1, nil }))["k"]
	k.Schema, k.Timeout = json.RawMessage(`{"required":["a"]}`), time.Minute
	c.runner(map[string]taskrunner.Kind{"k": k})
	const want = `{"kinds":[{"kind":"k","runners":1,"schemas":1,"schema":{"required":["a"]},"timeout_ms":60000}]}` + "\n"
	await(t, func() error {
		if _, body := get(t, "http://"+w.addr+"/v1/kinds"); body != want {
			return fmt.Errorf("kinds %s", body)
		}
		return nil
	})
	client, _ := c.client(w)
	e, ok := errors.AsType[*wire.Error](second(client.Submit(t.Context(), "k", map[string]int{"b": 1})))
	if !ok || e.Code != wire.CodeBadParams || e.Message != "a is missing" || e.Retryable {
		t.Errorf("refused with %v", e)
	}
	if _, err := submit(t, client, map[string]int{"a": 1}).Wait(t.Context()); err != nil {
		t.Error(err)
	}
}

func second[T any](_ T, err error) error { return err }

func TestASecondProcessWithTheSameServerIDStaysUnreadyAndTheFirstIsUndisturbed(t *testing.T) {
	c := newCluster(t)
	first := c.worker("i1-w1")
	c.runner(kinds(echo))
	second := c.start("i1-w1")
	await(t, func() error {
		if err := second.Ready(); err == nil || !strings.Contains(err.Error(), "another process") {
			return fmt.Errorf("the second says %v", err)
		}
		return nil
	})
	client, _ := c.client(first)
	if _, err := submit(t, client, nil).Wait(t.Context()); err != nil {
		t.Error(err)
	}
	status, body := get(t, "http://"+second.addr+"/readyz")
	if status != http.StatusNotFound || !strings.Contains(body, "i1-w1") {
		t.Errorf("/readyz of the second: %d %s", status, body)
	}
	first.stop()
	await(t, second.Ready)
}

func TestAtTheCapTheWorkerTakesNoMoreAndSaysSo(t *testing.T) {
	c := newCluster(t)
	w := c.worker("i1-w1", func(o *worker.Options) { o.MaxHeld = 20 })
	gate := make(chan struct{})
	close(gate)
	c.runner(kinds(gated(20, gate)))
	client, _ := c.client(w, func(o *wsclient.Options) {
		o.Faults.Send = func(m wire.ClientMessage) wsclient.Fate {
			if _, ack := m.(*wire.Ack); ack {
				return wsclient.Lose
			}
			return wsclient.Pass
		}
	})
	submit(t, client, nil)
	await(t, func() error {
		if err := w.Ready(); err == nil || !strings.Contains(err.Error(), "wait for their clients") {
			return fmt.Errorf("readiness is %v", err)
		}
		return nil
	})
	if _, unsettled := c.broker.Depth(broker.MailboxQueue("i1-w1")); unsettled > 20 {
		t.Errorf("%d events held, want at most 20", unsettled)
	}
	if status, _ := get(t, "http://"+w.addr+"/livez"); status != http.StatusOK {
		t.Errorf("/livez %d, want 200", status)
	}
}

func TestAStoppingWorkerTellsItsClientsAndRefusesNewOnes(t *testing.T) {
	c := newCluster(t)
	w := c.worker("i1-w1")
	waiting := make(chan wsclient.Status, 100)
	c.client(w, func(o *wsclient.Options) {
		open := o.OnStatus
		o.OnStatus = func(s wsclient.Status) {
			open(s)
			if s.Phase == wsclient.Waiting {
				waiting <- s
			}
		}
	})
	w.stop()
	if s := <-waiting; s.Err == nil || !strings.Contains(s.Err.Error(), "1012") {
		t.Errorf("the socket ended with %v, want close code 1012", s.Err)
	}
}

func TestOnlyAllowedOriginsMayConnect(t *testing.T) {
	origins, err := auth.ParseOrigins([]string{"https://build.example"})
	if err != nil {
		t.Fatal(err)
	}
	c := newCluster(t)
	w := c.worker("i1-w1", func(o *worker.Options) { o.Origins = origins })
	for origin, want := range map[string]int{"https://build.example": http.StatusSwitchingProtocols, "https://evil.example": http.StatusForbidden, "": http.StatusSwitchingProtocols} {
		s := dialSocket(t, w.addr, "/v1/ws", origin)
		if s.status != want {
			t.Errorf("origin %q: status %d, want %d", origin, s.status, want)
		}
	}
	if s := dialSocket(t, w.addr, "/v1/other", ""); s.status != http.StatusNotFound {
		t.Errorf("another path: status %d, want 404", s.status)
	}
}

func TestMetricsTellOfConnectionsSessionsAndEvents(t *testing.T) {
	c := newCluster(t)
	w := c.worker("i1-w1")
	c.runner(kinds(echo))
	client, stop := c.client(w)
	if _, err := submit(t, client, nil).Wait(t.Context()); err != nil {
		t.Fatal(err)
	}
	has := func(lines ...string) func() error {
		return func() error {
			_, body := get(t, "http://"+w.internal+"/metrics")
			for _, line := range lines {
				if !strings.Contains(body, line+"\n") {
					return fmt.Errorf("%q is not among the metrics:\n%s", line, body)
				}
			}
			return nil
		}
	}
	await(t, has("wscluster_connections 1", `wscluster_sessions{state="attached"} 1`, `wscluster_submits_total{outcome="accepted"} 1`, "wscluster_ready 1", "wscluster_mailbox_held_events 0"))
	stop()
	await(t, has("wscluster_connections 0", `wscluster_connections_closed_total{cause="peer"} 1`, `wscluster_connections_closed_total{cause="silent"} 0`, `wscluster_sessions{state="attached"} 0`, `wscluster_sessions{state="absent"} 1`))
}

func TestAnEventThatCannotBeReadGoesToTheDeadOnes(t *testing.T) {
	c := newCluster(t)
	w := c.worker("i1-w1")
	c.runner(kinds(echo))
	link, err := c.broker.Join(t.Context(), broker.Runner("rogue"))
	if err != nil {
		t.Fatal(err)
	}
	defer link.Close(context.Background())
	for _, body := range []string{"", "x", "[]", `{"client_id":"nobody"}`, "\xff\xfe"} {
		if _, err := link.Publish(t.Context(), broker.ToMailbox("i1-w1"), broker.Message{Type: "result", Body: []byte(body)}); err != nil {
			t.Fatal(err)
		}
	}
	await(t, func() error {
		if dead := c.broker.Messages(broker.QueueDeadEvents); len(dead) != 5 || dead[0].Headers["reason"] != "bad_body" {
			return fmt.Errorf("dead events: %v", dead)
		}
		return nil
	})
	client, _ := c.client(w)
	if _, err := submit(t, client, nil).Wait(t.Context()); err != nil {
		t.Errorf("after bad events: %v", err)
	}
}

func get(t *testing.T, url string) (int, string) {
	t.Helper()
	r, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer http.DefaultClient.CloseIdleConnections()
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return r.StatusCode, string(body)
}

func object(t *testing.T, text []byte) map[string]any {
	t.Helper()
	var m map[string]any
	if err := json.Unmarshal(text, &m); err != nil {
		t.Fatalf("%v in %q", err, text)
	}
	return m
}
