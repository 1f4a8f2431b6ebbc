package build

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os/exec"
	"regexp"
	"time"

	"github.com/wscluster/wscluster/internal/guard"
	"github.com/wscluster/wscluster/pkg/taskrunner"
	"github.com/wscluster/wscluster/pkg/wire"
	"go.uber.org/zap"
)

// Result is the value of a recipe's result event.
type Result struct {
	Steps  []StepResult      `json:"steps"`
	Values map[string]string `json:"values,omitempty"` // what the steps captured, as the commit
}

// StepResult is one step that has ended.
type StepResult struct {
	Name       string `json:"name"`
	ExitCode   int    `json:"exit_code"`
	DurationMS int64  `json:"duration_ms"`
}

// handler does the tasks of one recipe.
type handler struct {
	recipe *Recipe
	params *params
	steps  []boundStep
	parent string        // of the workspaces
	env    []string      // the runner's
	cgroup *guard.Cgroup // the runner's; nil if it has none
	log    *zap.Logger
}

// boundStep is a step with everything found that does not depend on a task.
type boundStep struct {
	Step
	path  string
	args  []arg
	match *regexp.Regexp // nil without progress
}

// newHandler finds the programs of a recipe that ParseRecipe has accepted.
func newHandler(r *Recipe, o Options) (*handler, error) {
	object := maps.Clone(r.Params)
	if object != nil && object["title"] == nil && r.About != "" {
		object["title"] = r.About // for the forms that are made of it
	}
	params, err := newParams(object, o.RepoRoots)
	if err != nil {
		return nil, err
	}
	h := &handler{recipe: r, params: params, parent: o.WorkDir, env: o.Environ, cgroup: o.Cgroup, log: o.Log}
	for _, s := range r.Steps {
		b := boundStep{Step: s}
		if b.path, err = exec.LookPath(s.Argv[0]); err != nil {
			return nil, fmt.Errorf("step %q: %w; install it or leave this recipe out", s.Name, err)
		}
		if b.args, err = parseTemplate(s.Argv); err != nil {
			return nil, err
		}
		if s.Progress != nil {
			if b.match, err = regexp.Compile(s.Progress.Match); err != nil {
				return nil, err
			}
		}
		h.steps = append(h.steps, b)
	}
	return h, nil
}

// Run checks the parameters, runs the steps in a fresh workspace and removes it. The first step
// that does not exit with 0 is the last.
func (h *handler) Run(ctx context.Context, t *taskrunner.Task) (_ any, err error) {
	argvs, err := h.prepare(t)
	if err != nil {
		return nil, err
	}
	w, err := newWorkspace(h.parent, string(t.Run), h.recipe.Files)
	if err != nil {
		return nil, h.internal(t, err)
	}
	defer func() {
		if failed := w.remove(); failed != nil {
			h.log.Warn("workspace not removed", zap.String("task_id", string(t.ID)), zap.Error(failed))
		}
	}()

	result := Result{Values: map[string]string{}}
	env := w.environment(h.recipe.Env, h.env)
	left := h.recipe.OutputLimitBytes
	counts := map[string]uint32{} // by step
	for i, s := range h.steps {
		t.Step(s.Name)
		fmt.Fprintf(t.Log(), "$ %s\n", commandLine(argvs[i]))
		dir, err := w.dir(s.Dir)
		if err != nil {
			return nil, fmt.Errorf("step %q cannot begin: %w", s.Name, err)
		}
		p := process{path: s.path, argv: argvs[i], env: env, dir: dir, grace: h.recipe.Grace, lease: t.Lease, cgroup: h.cgroup}
		out := &output{log: t.Log(), limit: &left, match: s.match}
		if s.Progress != nil {
			total := counts[s.Progress.TotalOf]
			out.progress = func(done uint32, line string) { t.Progress(done, total, line) }
		}
		step, err := h.step(ctx, t, s, p, out)
		if err != nil {
			return nil, err
		}
		result.Steps = append(result.Steps, step)
		counts[s.Name] = out.done
		if s.Capture != "" {
			result.Values[s.Capture] = out.first
		}
	}
	return result, nil
}

// prepare checks the parameters and returns the argument vector of each step, before anything is
// started.
func (h *handler) prepare(t *taskrunner.Task) ([][]string, error) {
	var raw json.RawMessage
	if err := t.Params(&raw); err != nil {
		return nil, err
	}
	values, err := h.params.read(raw)
	if err != nil {
		return nil, err
	}
	argvs := make([][]string, len(h.steps))
	for i, s := range h.steps {
		if argvs[i], err = expand(s.args, values); err != nil {
			return nil, err
		}
	}
	return argvs, nil
}

// step runs one process within its limits. The error says why the task cannot go on.
func (h *handler) step(ctx context.Context, t *taskrunner.Task, s boundStep, p process, out *output) (StepResult, error) {
	limited, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	out.over = func() { stop(errOutput) }
	if s.Timeout != 0 {
		var cancel context.CancelFunc
		limited, cancel = context.WithTimeoutCause(limited, s.Timeout, &wire.Error{
			Code: wire.CodeTimeout, Message: fmt.Sprintf("step %q ran longer than %v", s.Name, s.Timeout)})
		defer cancel()
	}
	began := time.Now()
	code, err := p.run(limited, out)
	out.end()
	switch cause := context.Cause(limited); {
	case errors.Is(cause, errOutput):
		return StepResult{}, tooMuch(h.recipe.OutputLimitBytes, *out.limit)
	case cause != nil: // also if the process took it with an exit code of 0
		return StepResult{}, cause
	case errors.Is(err, errLease):
		return StepResult{}, fmt.Errorf("%w: %w", taskrunner.ErrGiveBack, err)
	case err != nil:
		return StepResult{}, h.internal(t, err)
	case code == -1:
		return StepResult{}, fmt.Errorf("step %q was ended by a signal", s.Name)
	case code != 0:
		return StepResult{}, fmt.Errorf("step %q failed with exit code %d", s.Name, code)
	}
	return StepResult{Name: s.Name, DurationMS: time.Since(began).Milliseconds()}, nil
}

// internal logs a fault of the runner, whose text is nobody's business but the operator's.
func (h *handler) internal(t *taskrunner.Task, err error) error {
	h.log.Error("task could not be run", zap.String("task_id", string(t.ID)), zap.Error(err))
	return &wire.Error{Code: wire.CodeInternal, Message: "the runner could not start the task; its log has the rest"}
}
