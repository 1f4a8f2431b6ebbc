// A task runner in Go: takes tasks of the kind "squares". AMQP_URL is the broker, as its user "runner".
package main

import (
	"context"
	"fmt"
	"log"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/wscluster/wscluster/pkg/amqp"
	"github.com/wscluster/wscluster/pkg/taskrunner"
	"github.com/wscluster/wscluster/pkg/wire"
)

func squares(ctx context.Context, t *taskrunner.Task) (any, error) {
	var params struct {
		Upto uint32 `json:"upto"`
	}
	if err := t.Params(&params); err != nil {
		return nil, err // bad_params: unknown fields are refused too
	}
	if params.Upto > 1000 {
		return nil, wire.Errorf(wire.CodeBadParams, "upto is %d and may be 1000", params.Upto)
	}
	t.Step("square")
	sum := uint32(0)
	for i := range params.Upto {
		fmt.Fprintln(t.Log(), i*i)       // numbered lines; what a command writes may go there as it is
		t.Progress(i+1, params.Upto, "") // the latest wins
		sum += i * i
	}
	t.Step("check") // ends the step before it
	return map[string]uint32{"sum": sum}, ctx.Err()
}

func main() {
	rabbit, err := amqp.New(amqp.Options{URLs: []string{os.Getenv("AMQP_URL")}})
	if err != nil {
		log.Fatal(err)
	}
	runner := taskrunner.Runner{
		Name:   "squares-1", // one process at a time has this name
		Broker: rabbit,
		Kinds: map[string]taskrunner.Kind{"squares": {
			Handler: taskrunner.HandlerFunc(squares), Timeout: time.Minute, Steps: 2,
			Schema: []byte(`{"type": "object", "properties": {"upto": {"type": "integer", "minimum": 0, "maximum": 1000000}}}`),
		}},
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := runner.Run(ctx); err != nil {
		log.Fatal(err)
	}
}
