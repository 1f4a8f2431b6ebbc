package taskrunner

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"

	"github.com/wscluster/wscluster/pkg/broker"
	"github.com/wscluster/wscluster/pkg/wire"
	"go.uber.org/zap"
)

// shift is one call of Runner.Run: the runs that go on, over as many links as it takes.
type shift struct {
	name        string
	kinds       map[string]Kind
	slots       int
	maxAttempts int
	bufferBytes int
	spool       *spool // nil if nothing goes to disk
	metrics     *Metrics
	log         *zap.Logger

	links    *links
	places   chan struct{} // one for each run that has begun; cap slots
	stopping chan struct{} // closed: take nothing any more
	work     sync.WaitGroup

	mu      sync.Mutex
	running map[wire.TaskID]*run
	ended   recent
	stopped bool // stopping is closed
}

// serve takes tasks over one link until ctx or the link ends.
func (s *shift) serve(ctx context.Context, link broker.Link) error {
	s.links.set(link)
	defer s.links.set(nil)
	select {
	case <-s.stopping: // what still runs only needs the link
		<-ctx.Done()
		return nil
	default:
	}
	kinds := slices.Sorted(maps.Keys(s.kinds))
	from, err := link.OpenTasks(ctx, kinds, s.slots)
	if err != nil {
		return fmt.Errorf("take tasks of %v: %w", kinds, err)
	}
	s.log.Info("takes tasks", zap.Strings("kinds", kinds), zap.Int("slots", s.slots))
	defer s.lose(from)
	var wg sync.WaitGroup
	defer wg.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	wg.Go(func() {
		select {
		case <-s.stopping:
			// An error means that the consumer has ended, which is as good.
			_ = from.Pause(ctx)
		case <-ctx.Done():
		}
	})
	for {
		select {
		case d, ok := <-from.Deliveries():
			if !ok {
				return fmt.Errorf("taking tasks ended: %w", cmp.Or(from.Err(), errors.New("the consumer was closed")))
			}
			s.take(ctx, link, hold{from, d.Tag}, d, &wg)
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// take finds the run for a delivery, or begins it. It does not block.
func (s *shift) take(ctx context.Context, link broker.Link, h hold, d broker.Delivery, wg *sync.WaitGroup) {
	task, err := wire.DecodeTask(d.Body)
	if err != nil {
		s.log.Error("task cannot be read, moved to the dead tasks", zap.String("message_id", d.ID), zap.Error(err))
		wg.Go(func() { s.bury(ctx, link, h, d.Message) })
		return
	}

	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped {
		return // it goes back with the link
	}
	var after chan struct{}
	if u := s.running[task.Task]; u != nil {
		if u.had.continues(d) {
			u.holds = append(u.holds, h)
			u.had.note(d)
			return
		}
		u.abandon(errSuperseded)
		after = u.done
	} else if had, ok := s.ended.byTask[task.Task]; ok && had.continues(d) {
		wg.Go(func() { s.settle(h) })
		return
	}

	attempt := max(1, d.Attempt)
	ctx, u := newRun(context.WithoutCancel(ctx), task, attempt, s)
	u.holds, u.had, u.after = []hold{h}, copies{attempt: attempt}, after
	u.had.note(d)
	switch {
	case d.Attempt > s.maxAttempts:
		u.refuse = refusal(wire.CodeAttempts, fmt.Sprintf("the task was started %d times without an end", d.Attempt-1))
	case u.kind.Handler == nil:
		u.refuse = refusal(wire.CodeUnknownKind, fmt.Sprintf("this runner has no kind %q", task.Kind))
	}
	s.running[task.Task] = u
	s.work.Go(func() { s.live(ctx, u) })
}

// live is a run from its delivery to its acknowledgement.
func (s *shift) live(ctx context.Context, u *run) {
	defer close(u.done)
	defer u.abandon(errEnded)
	defer u.file.close()
	stored := false
	if s.begin(ctx, u) {
		u.log.Info("task begins", zap.String("kind", u.task.Kind), zap.Stringer("client_id", u.task.Client))
		began := u.now()
		stored = u.play(ctx, s.links)
		if _, ours := s.kinds[u.task.Kind]; ours { // others' names know no bounds
			s.metrics.Seconds.WithLabelValues(u.task.Kind, u.outcome(stored)).Observe(u.now().Sub(began).Seconds())
		}
		<-s.places
	}

	s.mu.Lock()
	if s.running[u.task.Task] == u {
		delete(s.running, u.task.Task)
	}
	if stored {
		s.ended.add(u.task.Task, u.had)
	}
	holds := u.holds
	s.mu.Unlock()
	if !stored {
		cause := context.Cause(ctx)
		u.log.Info("task given back", zap.NamedError("reason", cause))
		for _, h := range holds {
			if errors.Is(cause, errSpoolRead) { // any other cause ends the link too, or has ended it
				_ = h.from.Requeue(h.tag) // an error means that it went back with its link
			}
		}
		return
	}
	for _, h := range holds {
		s.settle(h)
	}
	u.log.Info("task ended")
}

// load counts the tasks that run, by kind (of this runner's kinds all, of others none), and the
// events in their outboxes.
func (s *shift) load() (tasks map[string]int, events int) {
	tasks = map[string]int{}
	for kind := range s.kinds {
		tasks[kind] = 0
	}
	s.mu.Lock()
	runs := slices.Collect(maps.Values(s.running))
	for _, u := range runs {
		if _, ours := tasks[u.task.Kind]; ours && u.began {
			tasks[u.task.Kind]++
		}
	}
	s.mu.Unlock()
	for _, u := range runs {
		u.mu.Lock()
		events += u.story.out.len()
		u.mu.Unlock()
	}
	return tasks, events
}

// begin waits for a place and takes it; false if the run was abandoned before.
func (s *shift) begin(ctx context.Context, u *run) bool {
	if u.after != nil {
		<-u.after // not bounded by ctx: u must not be gone before
	}
	select {
	case s.places <- struct{}{}:
	case <-ctx.Done():
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if ctx.Err() != nil {
		<-s.places
		return false
	}
	u.began = true
	return true
}

// settle acknowledges a task whose final event is stored.
func (s *shift) settle(h hold) {
	if err := h.from.Ack(h.tag); err != nil && !errors.Is(err, broker.ErrLinkGone) {
		s.log.Warn("task not acknowledged, it will come again", zap.Error(err))
	}
}

// lose forgets the deliveries of a consumer that has ended. A run that has not begun ends with
// its last delivery: whoever gets that one begins it.
func (s *shift) lose(from broker.Consumer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, u := range s.running {
		u.holds = slices.DeleteFunc(u.holds, func(h hold) bool { return h.from == from })
		if len(u.holds) == 0 && !u.began {
			u.abandon(errOrphaned)
			delete(s.running, u.task.Task)
		}
	}
}

// stop takes no task any more and gives back those that wait for a place.
func (s *shift) stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stopped = true
	close(s.stopping)
	for _, u := range s.running {
		if !u.began {
			u.abandon(errStopped)
		}
	}
}

// abandonAll ends the runs that go on; their tasks go back.
func (s *shift) abandonAll() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, u := range s.running {
		u.abandon(errStopped)
	}
}

// bury publishes what cannot be read to the dead tasks, and acknowledges it once it is stored
// there. It tries again until ctx or the link ends.
func (s *shift) bury(ctx context.Context, link broker.Link, h hold, m broker.Message) {
	headers := maps.Clone(m.Headers)
	if headers == nil {
		headers = map[string]any{}
	}
	headers["reason"] = "bad_body"
	m.Headers = headers
	for {
		receipt, err := link.Publish(ctx, broker.ToDeadTasks(), m)
		if err != nil {
			return
		}
		if outcome, _ := broker.Await(ctx, receipt); outcome == broker.Stored {
			s.settle(h)
			return
		}
		if !rest(ctx, link, buryPause) {
			return
		}
	}
}
