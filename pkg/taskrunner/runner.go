// Package taskrunner is the SDK for programs that do tasks: it takes tasks from the broker, calls
// a Handler for each, numbers the events that the handler tells and brings them to the mailbox of
// the worker that the task came from. Where the client is by then is not its affair.
//
// What it promises: every durable event (all but progress) is published again, under the same
// numbers, until the broker has stored it; events of a run are stored in order; and every task that is
// taken comes to an end. Who runs what is in the ledger, a stream that all runners read: a task whose
// runner dies is run again by another one, and never by two at once. A run goes on while the broker is
// away or takes nothing, up to its fence: what it tells waits in memory, then on disk.
package taskrunner

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/wscluster/wscluster/pkg/broker"
	"github.com/wscluster/wscluster/pkg/channel"
	"github.com/wscluster/wscluster/pkg/schema"
	"github.com/wscluster/wscluster/pkg/wire"
	"go.uber.org/zap"
)

// Runner takes tasks and runs them. Set its fields before Run and leave them alone after.
type Runner struct {
	Name   string          // required: [a-z0-9-], of one process at a time
	Broker broker.Broker   // required
	Kinds  map[string]Kind // required: the kinds that it takes, by name

	Slots       int                // tasks that run at once, at most MaxSlots; 0 means one for each CPU
	MaxAttempts int                // starts of one task before it fails with code attempts; 0 means DefaultAttempts
	Fence       time.Duration      // without a broker for so long, running tasks are given up; 0 means 2 min; see Kind.Fence
	Grace       time.Duration      // what running tasks get to end when Run's context has; 0 means 30 s, below 0 none
	BufferBytes int                // events of one run that wait for the broker in memory; 0 means 1 MiB
	Single      bool               // each event is a message of its own; false puts several into one where that delays none, which workers must know (wire.DecodeBatch)
	SpoolDir    string             // where more of them wait, and logs are kept; "" means wscluster-<Name> in os.TempDir
	SpoolBytes  int64              // of events that may wait there before handlers wait; 0 means 1 GiB, below 0 none do
	LogBytes    int64              // of all logs there; beyond it those of the runs that ended first are removed; 0 means 10 GiB, below 0 none is kept: lines are durable events
	LogAge      time.Duration      // after which the log of a run that has ended is removed, within 5 min; 0 means 7 days
	MaxLogBytes int64              // of one log; further output is counted and dropped; 0 means 4 GiB
	Channels    *channel.Publisher // publishes what tasks publish, and how they stand; of this Runner only, with its name; nil means one of its own
	Log         *zap.Logger        // nil logs nothing
	Metrics     *Metrics           // of this runner only; nil counts for nobody
	OnState     func(broker.State) // hears how the link to the broker is; must not block; may be nil
}

// ErrSpoolDir says that no file can be made in Runner.SpoolDir.
var ErrSpoolDir = errors.New("SpoolDir cannot be used")

const (
	MaxSlots = 65535                       // the most that Runner.Slots may be: what a broker counts to
	MaxFence = wire.MaxFence * time.Second // the same of Runner.Fence and Kind.Fence

	DefaultAttempts = 10 // what Runner.MaxAttempts 0 means
)

const (
	maxRuns        = 20_000    // that have ended and are remembered; those that ended first go
	minBuffer      = 64 << 10  // the least that BufferBytes may be
	defaultTimeout = time.Hour // for Kind.Timeout 0
	defaultFence   = 2 * time.Minute
	leaveTimeout   = 5 * time.Second // for telling the other runners what was given up
	insistPause    = time.Second     // between two tries to publish what must be stored
)

// Run takes tasks until ctx ends, whatever becomes of the broker meanwhile: it joins again and
// the runs go on. When ctx ends, it takes no more tasks, gives those that run Grace to end, ends
// the contexts of the others, and returns when all handlers have returned. Tasks that have not
// ended are left to other runners. An error before that says which field is wrong, or is ErrSpoolDir;
// after it, what failed while leaving the broker.
func (r *Runner) Run(ctx context.Context) error {
	if err := r.validate(); err != nil {
		return err
	}
	s, err := r.shift()
	if err != nil {
		return err
	}
	s.stopping = ctx.Done()
	kept, leave := context.WithCancel(context.WithoutCancel(ctx))
	defer leave()
	var keeping sync.WaitGroup
	var left error
	keeping.Go(func() {
		left = broker.Keep(kept, r.Broker, broker.Runner(r.Name), broker.KeepOptions{Log: s.log, OnState: r.OnState}, s.serve)
	})

	ticking := make(chan struct{})
	keeping.Go(func() { s.keepTime(ticking) })
	keeping.Go(func() { s.keepTidy(ticking) })

	<-ctx.Done()
	s.do(func(plan *scheduler, _ time.Time) { plan.stop() })
	select {
	case <-s.idle:
	case <-time.After(cmp.Or(r.Grace, 30*time.Second)):
		s.do(func(plan *scheduler, _ time.Time) { plan.quit(errStopped) })
		s.work.Wait()
		select {
		case <-s.idle:
		case <-time.After(leaveTimeout):
		}
	}
	close(ticking)
	leave()
	keeping.Wait()
	s.spool.release()
	return left
}

func (r *Runner) validate() error {
	var errs []error
	wrong := func(format string, args ...any) { errs = append(errs, fmt.Errorf("runner: "+format, args...)) }
	if wire.CheckKind(r.Name) != nil { // a name has the letters of a kind
		wrong("Name %.80q must have 1 to %d bytes of [a-z0-9-]", r.Name, wire.MaxID)
	}
	if r.Broker == nil {
		wrong("Broker must be set")
	}
	if len(r.Kinds) == 0 {
		wrong("Kinds must have at least one kind")
	}
	for _, name := range slices.Sorted(maps.Keys(r.Kinds)) {
		if err := wire.CheckKind(name); err != nil {
			wrong("Kinds: %w", err)
		}
		k := r.Kinds[name]
		if k.Handler == nil || k.Timeout < 0 {
			wrong("Kinds: %q must have a Handler and no negative Timeout", name)
		}
		if k.Schema != nil {
			if _, err := schema.Compile(k.Schema); err != nil {
				wrong("Kinds: %q: Schema: %w", name, err)
			}
		}
		if limit := cmp.Or(r.MaxAttempts, DefaultAttempts); k.Retries < 0 || k.Retries >= max(limit, 1) {
			wrong("Kinds: %q: Retries %d must be between 0 and %d, one less than MaxAttempts", name, k.Retries, max(limit, 1)-1)
		}
		if !fenceable(k.Fence) {
			wrong("Kinds: %q: Fence %v must be between 1s and %v, or 0 for the runner's", name, k.Fence, MaxFence)
		}
	}
	if n := announcedBytes(offers(r.Kinds)); n > wire.MaxControl {
		wrong("Kinds: names and Schemas of all together have %d bytes and may have %d", n, wire.MaxControl)
	}
	if r.Slots < 0 || r.Slots > MaxSlots {
		wrong("Slots %d must be between 1 and %d, or 0 for one for each CPU", r.Slots, MaxSlots)
	}
	if r.MaxAttempts < 0 {
		wrong("MaxAttempts %d must be 1 or more, or 0 for %d", r.MaxAttempts, DefaultAttempts)
	}
	if !fenceable(r.Fence) {
		wrong("Fence %v must be between 1s and %v, or 0 for %v", r.Fence, MaxFence, defaultFence)
	}
	if r.LogAge < 0 || r.MaxLogBytes < 0 {
		wrong("LogAge %v and MaxLogBytes %d must not be negative; 0 means 7 days and 4 GiB", r.LogAge, r.MaxLogBytes)
	}
	if r.BufferBytes != 0 && r.BufferBytes < minBuffer {
		wrong("BufferBytes %d must be at least %d, or 0 for 1 MiB", r.BufferBytes, minBuffer)
	}
	return errors.Join(errs...)
}

func fenceable(d time.Duration) bool {
	return d == 0 || d >= time.Second && d <= MaxFence
}

// shift returns the state of one Run, with defaults for what is not set.
func (r *Runner) shift() (*shift, error) {
	log := cmp.Or(r.Log, zap.NewNop()).With(zap.String("runner", r.Name))
	disk, book, err := r.openDisk(log)
	if err != nil {
		return nil, fmt.Errorf("runner: %w: %w", ErrSpoolDir, err)
	}
	kinds, schemas := maps.Clone(r.Kinds), map[string]*schema.Schema{}
	for name, k := range kinds {
		if k.Schema != nil {
			var err error
			if schemas[name], err = schema.Compile(k.Schema); err != nil {
				return nil, fmt.Errorf("runner: Kinds: %q: Schema: %w", name, err) // it was tried before
			}
		}
		k.Timeout = cmp.Or(k.Timeout, defaultTimeout)
		k.Fence = cmp.Or(k.Fence, r.Fence, defaultFence)
		kinds[name] = k
	}
	s := &shift{
		name: r.Name, kinds: kinds, schemas: schemas, maxAttempts: cmp.Or(r.MaxAttempts, DefaultAttempts),
		bufferBytes: cmp.Or(r.BufferBytes, 1<<20), single: r.Single, spool: disk, book: book, log: log,
		links:   newLinks(),
		plan:    newScheduler(r.Name, cmp.Or(r.Slots, runtime.GOMAXPROCS(0)), kinds, wire.NewRunID),
		running: map[wire.RunID]*run{}, idle: make(chan struct{}),
	}
	if s.posts = r.Channels; s.posts == nil {
		if s.posts, err = channel.New(channel.Options{Name: r.Name}); err != nil {
			return nil, fmt.Errorf("runner: %w", err)
		}
	}
	if err := s.remember(); err != nil {
		return nil, fmt.Errorf("runner: %w", err)
	}
	if s.metrics = r.Metrics; s.metrics == nil {
		s.metrics = NewMetrics(nil)
	}
	s.metrics.shift.Store(s)
	return s, nil
}

// openDisk opens what the runner may have on disk, each nil if it may not.
func (r *Runner) openDisk(log *zap.Logger) (events *spool, book *logbook, err error) {
	dir := cmp.Or(r.SpoolDir, filepath.Join(os.TempDir(), "wscluster-"+r.Name))
	if r.SpoolBytes >= 0 {
		events, err = openSpool(dir, cmp.Or(r.SpoolBytes, 1<<30))
	}
	if r.LogBytes >= 0 && err == nil {
		book, err = openLogbook(filepath.Join(dir, "runs"), r.Name, logLimits{
			run: cmp.Or(r.MaxLogBytes, 4<<30), bytes: cmp.Or(r.LogBytes, 10<<30), age: cmp.Or(r.LogAge, 7*24*time.Hour), runs: maxRuns,
		}, log)
	}
	return events, book, err
}
