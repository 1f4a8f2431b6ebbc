package taskrunner

import (
	"context"
	"time"
)

// Handler does the tasks of one kind. It is called concurrently, once for each run of a task.
type Handler interface {
	// Run does the task and returns its result, any value that encoding/json can write.
	//
	// An error ends the task as failed: with the code and message of a *wire.Error in it, with
	// code timeout if the kind's time was over, else with code failed and the error's text, which
	// the client reads. A panic ends it with code internal, and only the log has the rest.
	//
	// ctx ends when the kind's time is over, when the runner stops, or when the task was given to
	// another runner meanwhile. Run must return soon after that: nothing can end it from outside,
	// and until it returns it keeps its place.
	Run(ctx context.Context, t *Task) (result any, err error)
}

// HandlerFunc is a function as a Handler.
type HandlerFunc func(ctx context.Context, t *Task) (result any, err error)

// Run calls f.
func (f HandlerFunc) Run(ctx context.Context, t *Task) (any, error) { return f(ctx, t) }

// Kind is how the tasks of one kind are run.
type Kind struct {
	Handler Handler       // required
	Timeout time.Duration // of one run; 0 means 1 hour
	Steps   uint32        // how many steps a run has, for its started event; 0 if only Task.Steps knows
}
