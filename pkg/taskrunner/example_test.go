package taskrunner_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/wscluster/wscluster/pkg/broker"
	"github.com/wscluster/wscluster/pkg/broker/memory"
	"github.com/wscluster/wscluster/pkg/socketmeta"
	"github.com/wscluster/wscluster/pkg/taskrunner"
	"github.com/wscluster/wscluster/pkg/wire"
)

// A runner for one kind of task: it takes tasks until it is told to stop. Then it takes no more, and those
// that run have Grace to end. Over RabbitMQ, Broker is what amqp.New returns instead.
func ExampleRunner() {
	squares := func(ctx context.Context, t *taskrunner.Task) (any, error) {
		var params struct {
			Upto int `json:"upto"`
		}
		if err := t.Params(&params); err != nil {
			return nil, err
		}
		sum := 0
		for i := range params.Upto {
			sum += i * i
		}
		return map[string]int{"sum": sum}, ctx.Err()
	}
	b := memory.New(memory.Options{})
	runner := taskrunner.Runner{
		Name:   "squares-1",
		Broker: b,
		Kinds:  map[string]taskrunner.Kind{"squares": {Handler: taskrunner.HandlerFunc(squares), Timeout: time.Minute}},
		Grace:  10 * time.Second,
	}
	ctx, stop := context.WithCancel(context.Background()) // a program would use signal.NotifyContext
	stopped := make(chan error)
	go func() { stopped <- runner.Run(ctx) }()
	client(b, "squares", `{"upto": 4}`)
	stop()
	fmt.Println("stopped:", <-stopped)
	// Output:
	// result {"sum":14}
	// stopped: <nil>
}

// Step ends the step before it; the last one ends with the run, as failed if that returns an error.
func ExampleTask_Step() {
	show(`{}`, func(_ context.Context, t *taskrunner.Task) (any, error) {
		t.Steps(3)
		t.Step("clone")
		t.Step("build")
		t.Step("test")
		return nil, errors.New("2 of 17 tests failed")
	})
	// Output:
	// step 1 of 3: clone running
	// step 1 of 3: clone succeeded
	// step 2 of 3: build running
	// step 2 of 3: build succeeded
	// step 3 of 3: test running
	// step 3 of 3: test failed
	// error failed: 2 of 17 tests failed (may be tried again)
}

// Progress counts what is done of the current step. It may be called as often as there is something to
// count: the client is told of the latest, ten times a second at most.
func ExampleTask_Progress() {
	show(`{}`, func(_ context.Context, t *taskrunner.Task) (any, error) {
		t.Step("count")
		for i := range uint32(100_000) {
			t.Progress(i+1, 100_000, "counting")
		}
		return "done", nil
	})
	// Output:
	// step 1 of 1: count running
	// progress 100000/100000 counting
	// step 1 of 1: count succeeded
	// result "done"
}

// Log takes any output, as that of a command, and makes numbered lines of it.
func ExampleTask_Log() {
	show(`{}`, func(_ context.Context, t *taskrunner.Task) (any, error) {
		fmt.Fprintf(t.Log(), "go: downloading %s\n", "example.org/m")
		_, err := io.Copy(t.Log(), strings.NewReader("ok\tm/a\nok\tm/b\nno line end"))
		return nil, err
	})
	// Output:
	// log 1: go: downloading example.org/m
	// log 2: ok	m/a
	// log 3: ok	m/b
	// log 4: no line end
	// result null
}

// Params refuses what the handler does not know. Its error is ready to be returned.
func ExampleTask_Params() {
	show(`{"colour": "red"}`, func(_ context.Context, t *taskrunner.Task) (any, error) {
		var params struct {
			Color string `json:"color"`
		}
		if err := t.Params(&params); err != nil {
			return nil, err
		}
		return params.Color, nil
	})
	// Output:
	// error bad_params: unknown field "colour"
}

// Artifact tells of something that the task has made.
func ExampleTask_Artifact() {
	show(`{}`, func(_ context.Context, t *taskrunner.Task) (any, error) {
		return nil, t.Artifact(wire.Artifact{Name: "app.tar.gz", ContentType: "application/gzip", SizeBytes: 1 << 20, SHA256: strings.Repeat("0f", 32)})
	})
	// Output:
	// artifact app.tar.gz, 1048576 bytes
	// result null
}

// An error with a code tells programs what went wrong. Any other error is "failed", with its text for people.
func ExampleHandlerFunc() {
	show(`{}`, func(context.Context, *taskrunner.Task) (any, error) {
		return nil, fmt.Errorf("license server: %w", wire.Errorf(wire.CodeUnavailable, "no license is free"))
	})
	// Output:
	// error unavailable: no license is free (may be tried again)
}

// A panic ends its task and nothing else. The client is not told what it was: that is in the log.
func ExampleHandlerFunc_panic() {
	show(`{}`, func(context.Context, *taskrunner.Task) (any, error) {
		panic("the password is secret")
	})
	// Output:
	// error internal: the task's handler ended without a result; the runner's log has the rest (may be tried again)
}

// A task that cannot be done here and now is given back, and comes again as another attempt.
func ExampleTask_attempt() {
	show(`{}`, func(_ context.Context, t *taskrunner.Task) (any, error) {
		fmt.Println("attempt", t.Attempt)
		if t.Attempt == 1 {
			return nil, taskrunner.ErrGiveBack
		}
		return "done", nil
	})
	// Output:
	// attempt 1
	// attempt 2
	// result "done"
}

// The metrics tell of each kind how many tasks run now, how long they waited and ran, and how many began
// again. docs/guides/operator.md lists them.
func ExampleNewMetrics() {
	registry := prometheus.NewRegistry()
	metrics := taskrunner.NewMetrics(registry)
	showOn(taskrunner.Runner{Metrics: metrics}, `{}`, func(context.Context, *taskrunner.Task) (any, error) {
		families, err := registry.Gather()
		for _, f := range families {
			if f.GetName() == "wscluster_runner_tasks" {
				m := f.GetMetric()[0]
				fmt.Printf("of kind %s run %v\n", m.GetLabel()[0].GetValue(), m.GetGauge().GetValue())
			}
		}
		return nil, err
	})
	// Output:
	// of kind k run 1
	// result null
}

// show runs one task of a handler and prints what its client is told.
func show(params string, h taskrunner.HandlerFunc) { showOn(taskrunner.Runner{}, params, h) }

func showOn(r taskrunner.Runner, params string, h taskrunner.HandlerFunc) {
	b := memory.New(memory.Options{})
	r.Name, r.Broker, r.Kinds, r.SpoolBytes = "r1", b, map[string]taskrunner.Kind{"k": {Handler: h}}, -1
	ctx, stop := context.WithCancel(context.Background())
	stopped := make(chan error)
	go func() { stopped <- r.Run(ctx) }()
	client(b, "k", params)
	stop()
	if err := <-stopped; err != nil {
		fmt.Println(err)
	}
}

// client submits a task as a worker does, and prints its events up to the final one; but for started, with
// which each run begins.
func client(b broker.Broker, kind, params string) {
	ctx := context.Background()
	worker, err := b.Join(ctx, broker.Worker("i1-w1"))
	if err != nil {
		panic(err)
	}
	defer worker.Close(ctx)
	mailbox, err := worker.OpenMailbox(ctx, "i1-w1", 100)
	if err != nil {
		panic(err)
	}
	body, err := wire.EncodeTask(&wire.Task{Meta: socketmeta.Meta{Client: socketmeta.NewClientID(), Server: "i1-w1"},
		Task: wire.NewTaskID(), Kind: kind, Params: json.RawMessage(params)})
	if err != nil {
		panic(err)
	}
	for stored := broker.Returned; stored == broker.Returned; time.Sleep(time.Millisecond) { // until the runner is there
		receipt, err := worker.Publish(ctx, broker.ToTasks(kind, wire.Normal), broker.Message{Body: body})
		if err != nil {
			panic(err)
		}
		if stored, err = broker.Await(ctx, receipt); err != nil {
			panic(err)
		}
	}
	for d := range mailbox.Deliveries() {
		events, err := wire.DecodeEvents(d.Type, d.Correlation, d.Headers, d.Body)
		if err != nil {
			panic(err)
		}
		for _, e := range events {
			if tell(e); e.Last {
				return
			}
		}
		if err := mailbox.Ack(d.Tag); err != nil {
			panic(err)
		}
	}
}

func tell(d wire.Event) {
	switch d.Type {
	case wire.EventStep:
		u := bodyOf[wire.Update](d)
		fmt.Printf("step %d of %d: %s %s\n", u.CurrentStep, u.TotalSteps, u.Message, u.Status)
	case wire.EventProgress:
		if u := bodyOf[wire.Update](d); u.CurrentStep == u.TotalSteps { // of the others some come, by the clock
			fmt.Printf("progress %d/%d %s\n", u.CurrentStep, u.TotalSteps, u.Message)
		}
	case wire.EventLog:
		l := bodyOf[wire.Log](d)
		for i, line := range l.Lines {
			fmt.Printf("log %d: %s\n", l.FirstLine+int64(i), line)
		}
	case wire.EventArtifact:
		a := bodyOf[wire.Artifact](d)
		fmt.Printf("artifact %s, %d bytes\n", a.Name, a.SizeBytes)
	case wire.EventResult:
		fmt.Printf("result %s\n", bodyOf[wire.Result](d).Value)
	case wire.EventError:
		again := map[bool]string{true: " (may be tried again)"}
		e := bodyOf[wire.Failure](d)
		fmt.Printf("error %s: %s%s\n", e.Code, e.Message, again[e.Retryable])
	}
}

func bodyOf[T any](d wire.Event) (body T) {
	if err := json.Unmarshal(d.Body, &body); err != nil {
		panic(err)
	}
	return body
}
