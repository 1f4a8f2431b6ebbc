package taskrunner_test

import (
	"context"
	"fmt"
	"time"

	"github.com/wscluster/wscluster/pkg/broker/memory"
	"github.com/wscluster/wscluster/pkg/taskrunner"
)

// A runner for one kind of task, written in Go. Over RabbitMQ, Broker is an *amqp.Broker instead.
func ExampleRunner() {
	squares := func(ctx context.Context, t *taskrunner.Task) (any, error) {
		var params struct {
			Upto uint32 `json:"upto"`
		}
		if err := t.Params(&params); err != nil {
			return nil, err
		}
		t.Step("square")
		sum := 0
		for i := range params.Upto {
			fmt.Fprintln(t.Log(), i*i)
			t.Progress(i+1, params.Upto, "")
			sum += int(i * i)
		}
		return map[string]int{"sum": sum}, ctx.Err()
	}
	runner := taskrunner.Runner{
		Name:   "example",
		Broker: memory.New(memory.Options{}),
		Kinds:  map[string]taskrunner.Kind{"squares": {Handler: taskrunner.HandlerFunc(squares), Timeout: time.Minute}},
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Millisecond)
	defer cancel() // a program would use signal.NotifyContext
	fmt.Println("stopped:", runner.Run(ctx))
	// Output: stopped: <nil>
}
