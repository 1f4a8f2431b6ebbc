package mailbox

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"time"

	"github.com/wscluster/wscluster/pkg/broker"
	"github.com/wscluster/wscluster/pkg/socketmeta"
	"github.com/wscluster/wscluster/pkg/wire"
)

const (
	maxAsks      = 1024                   // questions to runners and workers that wait for answers
	readWithin   = 5 * time.Second        // an answer to a ReadLog
	gatherWithin = 500 * time.Millisecond // the answers to a FindRuns
)

// errNoRunner says that a log is nowhere within reach.
var errNoRunner = wire.Errorf(wire.CodeLogUnavailable, "no task runner that can be reached has this log")

// ask publishes a question; answers arrive on the channel, of which room are kept, until forget is called.
func (m *Mailbox) ask(ctx context.Context, to broker.Address, name wire.RunID, question wire.ControlMessage, room int) (answers <-chan wire.ControlMessage, sent broker.Receipt, gone <-chan struct{}, forget func(), err error) {
	m.mu.Lock()
	s := m.service
	ch := make(chan wire.ControlMessage, room)
	full := len(m.asks) >= maxAsks
	if s != nil && !full {
		put(&m.asks, name, ch)
	}
	m.mu.Unlock()
	switch {
	case s == nil:
		return nil, nil, nil, nil, wire.Errorf(wire.CodeUnavailable, "this worker has no broker now; try again")
	case full:
		return nil, nil, nil, nil, wire.Errorf(wire.CodeOverloaded, "%d questions wait for answers; try again", maxAsks)
	}
	forget = func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		delete(m.asks, name)
	}
	sent, err = s.link.Publish(ctx, to, broker.Message{
		Type: question.ControlType(), App: string(m.o.Server), Transient: true, Time: time.Now(), Body: wire.EncodeControl(question),
	})
	if err != nil {
		forget()
		return nil, nil, nil, nil, wire.Errorf(wire.CodeUnavailable, "the broker takes no questions now; try again")
	}
	return ch, sent, s.stopped, forget, nil
}

// answered gives an answer to who asked, if that still waits. It never blocks.
func (m *Mailbox) answered(name wire.RunID, answer wire.ControlMessage) {
	m.mu.Lock()
	defer m.mu.Unlock()
	select {
	case m.asks[name] <- answer:
	default: // nobody waits, or it came twice
	}
}

// askOne asks one process, and waits for its answer at most within: away if it is not there, late if it does not answer in time.
// Other errors are *wire.Error too: unavailable or overloaded.
func (m *Mailbox) askOne(ctx context.Context, to broker.Identity, name wire.RunID, question wire.ControlMessage, within time.Duration, away, late *wire.Error) (wire.ControlMessage, error) {
	ctx, cancel := context.WithTimeout(ctx, within)
	defer cancel()
	answers, sent, gone, forget, err := m.ask(ctx, broker.ToControl(to), name, question, 1)
	if err != nil {
		return nil, err
	}
	defer forget()
	receipt := sent.Done()
	for {
		select {
		case a := <-answers:
			return a, nil
		case <-receipt:
			if sent.Outcome() == broker.Returned {
				return nil, away
			}
			receipt = nil
		case <-gone:
			return nil, wire.Errorf(wire.CodeUnavailable, "the broker went away; try again")
		case <-ctx.Done():
			return nil, late
		}
	}
}

// ReadLog asks a runner for a piece of a log and waits for it, at most readWithin. From and Ask of the
// question are set here. Errors are *wire.Error: log_unavailable, unavailable or overloaded.
func (m *Mailbox) ReadLog(ctx context.Context, runner string, q wire.ReadLog) (*wire.LogChunk, error) {
	q.From, q.Ask = m.o.Server, wire.NewRunID()
	late := wire.Errorf(wire.CodeLogUnavailable, "the task runner %s did not answer in time", runner)
	a, err := m.askOne(ctx, broker.Runner(runner), q.Ask, &q, readWithin, errNoRunner, late)
	if err != nil {
		return nil, err
	}
	chunk, ok := a.(*wire.LogChunk)
	if !ok || chunk.Missing {
		return nil, errNoRunner
	}
	return chunk, nil
}

// Found is what runners have of a client's tasks.
type Found struct {
	Runs    []wire.RunInfo // the latest submitted first
	More    bool           // there are others, submitted earlier
	Missing []string       // runners that announce themselves and did not answer in time: they may have more
}

// FindRuns asks all runners what they have of a client's tasks: of one task all runs, else the latest run of each
// task, at most q.Limit. It returns when all runners that this worker knows have answered, and after gatherWithin at the latest,
// also where it knows none. Errors are *wire.Error: unavailable or overloaded; or ctx's.
func (m *Mailbox) FindRuns(ctx context.Context, q wire.FindRuns) (*Found, error) {
	within, cancel := context.WithTimeout(ctx, gatherWithin)
	defer cancel()
	q.From, q.Ask = m.o.Server, wire.NewRunID()
	known := m.kinds.runners()
	waiting := map[string]bool{}
	for _, r := range known {
		waiting[r] = true
	}
	answers, _, gone, forget, err := m.ask(within, broker.ToAll(), q.Ask, &q, maxRunners)
	if err != nil {
		return nil, err
	}
	defer forget()
	f := new(Found)
	for late := false; !late && (len(known) == 0 || len(waiting) > 0); {
		select {
		case a := <-answers:
			if found, ok := a.(*wire.RunsFound); ok {
				delete(waiting, found.Runner)
				f.Runs = append(f.Runs, found.Runs...)
				f.More = f.More || found.More
			}
		case <-gone:
			return nil, wire.Errorf(wire.CodeUnavailable, "the broker went away; try again")
		case <-within.Done():
			if ctx.Err() != nil {
				return nil, context.Cause(ctx)
			}
			late = true
		}
	}
	f.Missing = slices.Sorted(maps.Keys(waiting))
	if q.Task == "" {
		f.Runs = latest(f.Runs)
	}
	slices.SortFunc(f.Runs, func(x, y wire.RunInfo) int {
		return cmp.Or(y.Submitted.Compare(x.Submitted.Time), cmp.Compare(x.Task, y.Task), y.Compare(&x))
	})
	if q.Task != "" && len(f.Runs) > 0 {
		voidEnds(f.Runs[1:])
	}
	if len(f.Runs) > q.Limit {
		f.Runs, f.More = f.Runs[:q.Limit], true
	}
	return f, nil
}

// maxRunners is how many runners may answer one question.
const maxRunners = 1024

// latest keeps the latest run of each task.
func latest(runs []wire.RunInfo) []wire.RunInfo {
	at := map[wire.TaskID]int{}
	out := runs[:0]
	for _, r := range runs {
		i, seen := at[r.Task]
		switch {
		case !seen:
			at[r.Task] = len(out)
			out = append(out, r)
		case out[i].Compare(&r) < 0:
			out[i] = r
		}
	}
	return out
}

// voidEnds makes ends none that a later run followed: of a runner that died before it had told them. They are on its
// page, for that is written first (pkg/taskrunner).
func voidEnds(earlier []wire.RunInfo) {
	for i := range earlier {
		if r := &earlier[i]; r.Status != wire.RunRunning {
			r.Status, r.Error = wire.RunGivenUp, nil
		}
	}
}

// LogOf finds who has the log of a task: its latest run, or the one given. Errors are as FindRuns has
// them, and log_unavailable.
func (m *Mailbox) LogOf(ctx context.Context, client socketmeta.ClientID, task wire.TaskID, run wire.RunID) (*wire.RunInfo, error) {
	f, err := m.FindRuns(ctx, wire.FindRuns{Client: client, Task: task, Limit: wire.MaxRuns})
	if err != nil {
		return nil, err
	}
	var found *wire.RunInfo
	for i := range f.Runs {
		if r := &f.Runs[i]; run == "" && (found == nil || found.Compare(r) < 0) || r.Run == run {
			found = r
		}
	}
	if found == nil {
		return nil, errNoRunner
	}
	return found, nil
}
