package taskrunner

import (
	"context"
	"encoding/json"
	"errors"
	"time"
)

// ErrGiveBack in a Handler's error gives the task up: it is run again, by this runner or another one,
// unless it was started too often.
var ErrGiveBack = errors.New("the task is given back")

// Handler does the tasks of one kind. It is called concurrently, once for each run of a task.
type Handler interface {
	// Run does the task and returns its result, any value that encoding/json can write.
	//
	// An error ends the task as failed: with the code and message of a *wire.Error in it, with
	// code timeout if the kind's time was over, else with code failed and the error's text, which
	// the client reads. A panic ends it with code internal, and only the log has the rest.
	//
	// With ErrGiveBack in it the task is run again. So it is after an error with code failed or timeout, by
	// Kind.Retries; never after a panic, which would come again sooner than not, or any other code.
	//
	// ctx ends when the kind's time is over, when the runner stops, when it had no broker for the
	// kind's fence, or when another runner has the task meanwhile. Run must return soon after that: nothing can end it from outside,
	// and until it returns it keeps its place.
	Run(ctx context.Context, t *Task) (result any, err error)
}

// HandlerFunc is a function as a Handler.
type HandlerFunc func(ctx context.Context, t *Task) (result any, err error)

// Run calls f.
func (f HandlerFunc) Run(ctx context.Context, t *Task) (any, error) { return f(ctx, t) }

// Kind is how the tasks of one kind are run.
type Kind struct {
	Handler Handler // required

	// Schema says what the parameters may be: a JSON Schema (2020-12) of at most wire.MaxSchema bytes, with
	// patterns that mean the same in Go and in JavaScript, since pages may check by it too. Workers are
	// told, and refuse a submit that no runner's schema of the kind takes; what comes all the same ends
	// with code bad_params before Handler is called. A parameter that is missing is judged as if it had its
	// default; Handler is not given that. nil takes any object.
	Schema json.RawMessage

	// Retries is after how many starts of a task at most a run that fails with code failed or timeout is not
	// told as its end: it is run again, by this runner or another one, at once the first time and then after
	// 2 s, 4 s and so on up to a minute. A start that ended with its runner counts too. 0 tells the first
	// failure; it must be lower than Runner.MaxAttempts, so that the last failure is told and not the limit.
	Retries int

	Timeout time.Duration // of one run; 0 means 1 hour
	Fence   time.Duration // without a broker for so long, a run is given up, and others wait a minute longer for it; 0 means Runner.Fence
	Steps   uint32        // how many steps a run has, for its started event; 0 if only Task.Steps knows
}
