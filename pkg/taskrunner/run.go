package taskrunner

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync"
	"time"

	"github.com/wscluster/wscluster/pkg/channel"
	"github.com/wscluster/wscluster/pkg/schema"
	"github.com/wscluster/wscluster/pkg/wire"
	"go.uber.org/zap"
)

var (
	errEnded      = errors.New("the task has ended")
	errStopped    = errors.New("the task runner stops")
	errSuperseded = errors.New("another runner has the task now")
	errCanceled   = wire.DeadCanceled.Failure()
	errFenced     = errors.New("the runner had no broker for so long that another one may have the task")
)

// run is one run of one task: a handler that tells, and a publisher that sends what was told.
type run struct {
	task   *wire.Task
	kind   Kind
	schema *schema.Schema // of the kind; nil if it has none
	refuse *wire.Error    // if set, the run is over before it begins
	log    *zap.Logger
	now    func() time.Time
	lease  func() time.Duration // for how long it may go on without a word of this process

	metrics *Metrics
	posts   *channel.Publisher
	book    *logbook   // nil if there is none
	file    *spoolFile // nil if nothing goes to disk
	spills  sync.Once  // says so in the log
	blocks  sync.Once  // and this, that the disk takes no more

	abandon context.CancelCauseFunc // ends the context of the whole run, the sending of its last event included
	cancel  context.CancelCauseFunc // ends the context of the handler
	handler context.Context

	wake chan struct{} // cap 1: there is something to send; never closed

	mu      sync.Mutex
	room    sync.Cond // the outbox has shrunk, or waiting has ended
	waitEnd error     // guarded by mu: why nobody may wait for room any more
	story   story     // guarded by mu
	retried bool      // guarded by mu: it failed, and that is not told
}

// newRun returns the run of a job, and the context that its abandon ends.
func newRun(j *job, s *shift) (context.Context, *run) {
	u := &run{
		task: j.task, kind: s.kinds[j.task.Kind], schema: s.schemas[j.task.Kind], now: time.Now, wake: make(chan struct{}, 1),
		metrics: s.metrics, book: s.book, file: s.spool.file(),
		story: story{task: j.task, attempt: j.attempt, run: j.run, runner: s.name, out: outbox{limit: s.bufferBytes}, watch: s.publishWorkflow},
		posts: s.posts,
	}
	u.log = s.log.With(zap.String("task_id", string(j.task.Task)), zap.Int("attempt", j.attempt), zap.String("run_id", string(j.run)))
	u.room.L = &u.mu
	u.lease = func() time.Duration { return s.lease(j) }
	switch {
	case j.canceled:
		u.refuse = errCanceled
	case j.dead != "":
		u.refuse = j.dead.Failure()
	case j.attempt > s.maxAttempts:
		u.refuse = refusal(wire.CodeAttempts, fmt.Sprintf("the task was started %d times without an end", j.attempt-1))
	case u.kind.Handler == nil:
		u.refuse = refusal(wire.CodeUnknownKind, fmt.Sprintf("this runner has no kind %q", j.task.Kind))
	}
	ctx, abandon := context.WithCancelCause(context.Background())
	u.abandon = abandon
	u.handler, u.cancel = context.WithCancelCause(ctx)
	return ctx, u
}

// play runs the handler to its end and reports whether the final event was stored. It is not if
// the run was abandoned.
func (u *run) play(ctx context.Context, links *links) (stored bool) {
	var wg sync.WaitGroup
	wg.Go(func() { stored = u.send(ctx, links) })
	wg.Go(func() { u.handle(u.handler) })
	wg.Wait()
	return stored
}

// handle calls the handler and tells how it began and ended.
func (u *run) handle(ctx context.Context) {
	if u.refuse == nil && u.schema != nil {
		if _, err := u.schema.Read(u.task.Params); err != nil {
			u.refuse = faultOf(ctx, err)
		}
	}
	if u.refuse != nil {
		u.finish(nil, u.refuse)
		return
	}
	ctx, cancel := context.WithTimeoutCause(ctx, u.kind.Timeout, refusal(wire.CodeTimeout,
		fmt.Sprintf("the task ran longer than %v, the limit of its kind", u.kind.Timeout)))
	defer cancel()
	defer context.AfterFunc(ctx, func() { u.endWait(context.Cause(ctx)) })()
	u.mu.Lock()
	err := u.story.started(u.kind.Steps, u.now())
	u.mu.Unlock()
	u.told(err)

	// Should the handler end its goroutine (runtime.Goexit), the run fails, not the process.
	var result any
	fault := refusal(wire.CodeInternal, "the task's handler ended without a result; the runner's log has the rest")
	defer func() {
		switch {
		case errors.Is(err, ErrGiveBack):
			u.abandon(err)
		case fault != nil && u.retries(fault.Code):
			u.retry(fault)
		default:
			u.finish(result, fault)
		}
	}()
	defer func() {
		if p := recover(); p != nil {
			u.log.Error("handler panicked", zap.Any("panic", p), zap.ByteString("stack", debug.Stack()))
		}
	}()
	result, err = u.kind.Handler.Run(ctx, &Task{
		ID: u.task.Task, Kind: u.task.Kind, Meta: u.task.Meta, Subject: u.task.Subject,
		Attempt: u.story.attempt, Run: u.story.run, Submitted: u.task.Submitted.Time,
		params: cmp.Or(string(u.task.Params), "{}"), run: u,
	})
	fault = faultOf(ctx, err)
}

// faultOf turns a handler's error into what the client hears; nil for nil.
func faultOf(ctx context.Context, err error) *wire.Error {
	if err == nil {
		return nil
	}
	if e, ok := errors.AsType[*wire.Error](err); ok && e.Code.Known() {
		return refusal(e.Code, e.Message)
	}
	if timeout, ok := errors.AsType[*wire.Error](context.Cause(ctx)); ok {
		return timeout
	}
	return refusal(wire.CodeFailed, err.Error())
}

// outcome is how the run ended, for the metrics.
func (u *run) outcome(stored bool) string {
	u.mu.Lock()
	defer u.mu.Unlock()
	switch {
	case u.retried:
		return "retried"
	case !stored:
		return "given_back"
	case u.story.fault != nil:
		return "failed"
	}
	return "succeeded"
}

// openPage has the run kept on disk: its page is there before it tells anything.
func (u *run) openPage() {
	kept, err := u.book.begin(u.task, u.story.attempt, u.story.run, u.now())
	if err != nil {
		u.log.Warn("the log of the run cannot be kept on disk: its lines are told as durable events", zap.Error(err))
		return
	}
	if kept != nil {
		u.story.kept = kept
	}
}

// closePage makes the page of a run say that it was given up, if no final event of it is stored: also if the page
// has an end, which nobody was told then.
func (u *run) closePage(stored bool) {
	if u.story.kept != nil && !stored {
		u.story.kept.end(wire.RunGivenUp, nil, u.now())
	}
	u.book.tidy(u.now())
}

// tellGivenUp says that the task waits for another run, unless another one may have begun.
func (u *run) tellGivenUp(cause error) {
	if errors.Is(cause, errSuperseded) || errors.Is(cause, errFenced) {
		return
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	why := "was given up"
	if u.retried {
		why = "failed"
	}
	u.story.tellWaiting(why, u.now())
}

func (u *run) finish(result any, fault *wire.Error) {
	if fault != nil {
		u.log.Info("handler failed", zap.String("code", string(fault.Code)), zap.String("reason", clip(fault.Message)))
	}
	u.mu.Lock()
	err := u.story.end(result, fault, u.now())
	u.mu.Unlock()
	u.told(err)
}

// told wakes the sender, and logs what could not be told.
func (u *run) told(err error) {
	if err != nil {
		u.log.Error("event dropped", zap.Error(err))
	}
	select {
	case u.wake <- struct{}{}:
	default:
	}
}

// endWait is the end of the handler's context: nobody waits for room any more.
func (u *run) endWait(cause error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.waitEnd = cause
	u.room.Broadcast()
}

// whenRoom calls tell under the lock once the outbox has room. It returns the cause if the
// handler's context ends first, and errEnded after the run.
func (u *run) whenRoom(tell func(s *story, now time.Time) error) error {
	u.mu.Lock()
	for !u.story.over && !u.story.out.room() && u.waitEnd == nil {
		if !u.spill() {
			u.room.Wait()
		}
	}
	var err, failed error
	switch {
	case u.story.over:
		err = errEnded
	case !u.story.out.room():
		err = u.waitEnd
	default:
		failed = tell(&u.story, u.now())
	}
	u.mu.Unlock()
	u.told(failed)
	return cmp.Or(err, failed)
}

// spill writes to the run's file what does not fit into memory; false if there is nothing to
// write, or no file that takes it. u.mu is held, but not while it writes.
func (u *run) spill() bool {
	if u.file == nil {
		return false
	}
	events := u.story.out.spill()
	if events == nil {
		return false
	}
	u.mu.Unlock()
	err := u.file.append(events)
	if err == nil {
		u.spills.Do(func() { u.log.Info("the broker is slower than the task: its events wait on disk") })
	} else {
		u.blocks.Do(func() {
			u.log.Warn("events do not fit on disk: the task waits until the broker takes some", zap.Error(err))
		})
		time.AfterFunc(spoolPause, u.spillAgain)
	}
	u.mu.Lock()
	if err == nil {
		u.story.out.wrote()
	} else {
		u.story.out.refused()
	}
	u.room.Broadcast()
	return true
}

func (u *run) spillAgain() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.story.out.full = false
	u.room.Broadcast()
}

func (u *run) setSteps(total uint32) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.story.steps = max(total, u.story.step)
}

// begin drops the step if there is no room for it until the handler's context ends: what follows
// is the final event, which tells the same.
func (u *run) begin(name string) {
	_ = u.whenRoom(func(s *story, now time.Time) error { return s.begin(name, now) })
}

func (u *run) artifact(a wire.Artifact) error {
	return u.whenRoom(func(s *story, _ time.Time) error { return s.tell(wire.EventArtifact, a) })
}

func (u *run) setProgress(done, total uint32, message string) {
	u.mu.Lock()
	waiting := u.story.progress != nil
	if !u.story.over {
		u.story.progress = u.story.update(wire.StatusRunning, done, total, message, u.now())
	}
	u.mu.Unlock()
	if !waiting { // else the sender knows when to look
		u.told(nil)
	}
}

// write waits for room only where the log's events must be stored: what is kept on disk waits for nobody.
func (u *run) write(p []byte) (n int, err error) {
	when := u.whenRoom
	if u.story.kept != nil {
		when = u.atOnce
	}
	for n < len(p) && err == nil {
		err = when(func(s *story, now time.Time) error {
			took, err := s.write(p[n:], now)
			n += took
			return err
		})
	}
	return n, err
}

// atOnce calls tell under the lock, unless the run has ended.
func (u *run) atOnce(tell func(s *story, now time.Time) error) error {
	u.mu.Lock()
	if u.story.over {
		u.mu.Unlock()
		return errEnded
	}
	err := tell(&u.story, u.now())
	u.mu.Unlock()
	u.told(err)
	return err
}
