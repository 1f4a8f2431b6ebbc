package taskrunner

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/wscluster/wscluster/pkg/batch"
	"github.com/wscluster/wscluster/pkg/broker"
	"github.com/wscluster/wscluster/pkg/channel"
	"github.com/wscluster/wscluster/pkg/schema"
	"github.com/wscluster/wscluster/pkg/wire"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"
)

// shift is one call of Runner.Run: the runs that go on, over as many links as it takes. It carries
// out what its scheduler orders.
type shift struct {
	name        string
	kinds       map[string]Kind
	schemas     map[string]*schema.Schema // of the kinds that have one
	maxAttempts int
	bufferBytes int
	single      bool
	spool       *spool   // nil if nothing goes to disk
	book        *logbook // nil if nothing goes to disk
	posts       *channel.Publisher
	metrics     *Metrics
	log         *zap.Logger

	links    *links
	work     sync.WaitGroup  // of the runs
	stopping <-chan struct{} // closed once the runner takes no more tasks

	mu      sync.Mutex
	clock   clock
	plan    *scheduler
	running map[wire.RunID]*run
	desk    *desk         // of the present link; nil while there is none
	unheld  sync.Once     // says in the log that the spool has another holder
	idle    chan struct{} // closed once the runner has stopped and has nothing left to do
	rested  bool          // it is closed
}

// clock is what the scheduler's times are of: it goes on while the machine sleeps, which Go's monotonic
// clock does not, and it never goes back, which the wall clock may. Set forward, it ends runs too early,
// which is safe.
type clock struct{ read, shown time.Time }

// now is to be called under the lock.
func (c *clock) now() time.Time {
	t := time.Now()
	if c.read.IsZero() {
		c.read, c.shown = t, t.Round(0)
	}
	c.shown = c.shown.Add(max(t.Sub(c.read), t.Round(0).Sub(c.read.Round(0))))
	c.read = t
	return c.shown
}

// tickEvery is how often the scheduler looks at the time.
const tickEvery = time.Second

// do changes the plan and sees to what follows. It does not block. f is called under the lock.
func (s *shift) do(f func(plan *scheduler, now time.Time)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f(s.plan, s.clock.now())
	for _, o := range s.plan.orders {
		s.carryOut(o)
	}
	clear(s.plan.orders)
	s.plan.orders = s.plan.orders[:0]
	if s.desk != nil {
		s.desk.changed()
	}
	if s.plan.stopped && s.plan.idle() && !s.rested {
		s.rested = true
		close(s.idle)
	}
}

// carryOut does what does not block, and leaves the rest to the desk. s.mu is held.
func (s *shift) carryOut(o order) {
	switch o.verb {
	case begin:
		ctx, u := newRun(o.job, s)
		s.running[o.job.run] = u
		s.work.Go(func() { s.live(ctx, u, o.job) })
	case cancel:
		s.running[o.job.run].cancel(errCanceled)
	case abandon:
		s.running[o.job.run].abandon(o.cause)
	default:
		if s.desk != nil {
			s.desk.put(o)
		}
	}
}

// live is a run from its begin to its end.
func (s *shift) live(ctx context.Context, u *run, j *job) {
	u.openPage()
	began := u.now()
	_, ours := s.kinds[u.task.Kind] // others' names know no bounds
	switch j.dead {
	case "":
		u.log.Info("task begins", zap.String("kind", u.task.Kind), zap.Stringer("client_id", u.task.Client))
	case wire.DeadCanceled:
		ours = false // it is no run
		u.log.Info("canceled task that nobody runs: its client is told", zap.String("kind", u.task.Kind), zap.Stringer("client_id", u.task.Client))
	default:
		ours = false
		u.log.Warn("dead task: its client is told", zap.String("reason", string(j.dead)), zap.String("kind", u.task.Kind), zap.Stringer("client_id", u.task.Client))
	}
	if ours {
		s.metrics.begun(j, began)
	}
	stored := u.play(ctx, s.links)
	u.file.close()
	u.closePage(stored)
	if !stored && j.dead == "" {
		u.tellGivenUp(context.Cause(ctx))
	}
	if ours {
		s.metrics.Seconds.WithLabelValues(u.task.Kind, u.outcome(stored)).Observe(u.now().Sub(began).Seconds())
	}
	if stored {
		u.log.Info("task ended")
	} else {
		u.log.Info("task given back", zap.NamedError("reason", context.Cause(ctx)))
	}
	u.abandon(errEnded) // frees the context
	s.do(func(plan *scheduler, now time.Time) {
		delete(s.running, j.run)
		plan.over(j, stored, now)
	})
}

// lease returns for how long from now the run of a job may go on without a link.
func (s *shift) lease(j *job) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.plan.alive.Add(j.fence).Sub(s.clock.now())
}

// serve reads the ledger and takes tasks over one link until ctx or the link ends.
func (s *shift) serve(ctx context.Context, link broker.Link) error {
	s.mu.Lock()
	from := s.plan.from(s.clock.now())
	s.mu.Unlock()
	records, err := link.OpenLedger(ctx, from)
	if err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	d := newDesk(link, s)
	events := batch.New(link, batch.Options{App: s.app(), Single: s.single})
	s.do(func(plan *scheduler, now time.Time) {
		s.desk = d
		s.holdSpool(plan)
		plan.join(now)
	})
	defer s.do(func(plan *scheduler, _ time.Time) {
		s.desk = nil
		plan.part()
	})
	defer s.links.set(nil)
	g.Go(func() error { return s.follow(ctx, records) })
	g.Go(func() error { return s.hear(ctx, link, d) })
	g.Go(func() error { return s.posts.Serve(ctx, link) })
	g.Go(func() error { return events.Run(ctx) })
	g.Go(func() error { return d.write(ctx, g) })
	g.Go(func() error { return d.settle(ctx, g) })
	g.Go(func() error {
		if err := d.waitCurrent(ctx); err != nil {
			return err
		}
		s.links.set(&way{link, events})
		g.Go(func() error { return s.takeDead(ctx, g, link) })
		return s.take(ctx, g, link, d)
	})
	return g.Wait()
}

// follow reads the ledger.
func (s *shift) follow(ctx context.Context, records broker.Ledger) error {
	for {
		record, err := records.Next(ctx)
		if err != nil {
			return err
		}
		r, err := wire.DecodeLedger(record.Body)
		if err != nil {
			s.log.Warn("record of the ledger cannot be read, passed over", zap.Int64("offset", record.Offset), zap.Error(err))
			continue
		}
		s.do(func(plan *scheduler, now time.Time) { plan.read(r, record.Offset, now) })
	}
}

// app is what messages say of who published them.
func (s *shift) app() string { return "taskrunner " + s.name }

// take takes tasks, held off while there is no place for them.
func (s *shift) take(ctx context.Context, g *errgroup.Group, link broker.Link, d *desk) error {
	s.mu.Lock()
	slots, stopped := s.plan.slots, s.plan.stopped
	s.mu.Unlock()
	if stopped { // what still runs only needs the link
		return nil
	}
	kinds := slices.Sorted(maps.Keys(s.kinds))
	from, err := link.OpenTasks(ctx, kinds, slots)
	if err != nil {
		return fmt.Errorf("take tasks of %v: %w", kinds, err)
	}
	s.log.Info("takes tasks", zap.Strings("kinds", kinds), zap.Int("slots", slots))
	g.Go(func() error { return d.gate(ctx, from) })
	g.Go(func() error { return s.announce(ctx, link, d, slots) })
	for {
		select {
		case m, ok := <-from.Deliveries():
			if !ok {
				return fmt.Errorf("taking tasks ended: %w", cmp.Or(from.Err(), errors.New("the consumer was closed")))
			}
			h := hold{from: from, tag: m.Tag}
			task, err := wire.DecodeTask(m.Body)
			if err != nil {
				s.log.Error("task cannot be read, moved to the dead tasks", zap.String("message_id", m.ID), zap.Error(err))
				g.Go(func() error { s.bury(ctx, link, h, m.Message); return nil })
				continue
			}
			s.do(func(plan *scheduler, now time.Time) { plan.deliver(task, m.Attempt, h, now) })
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// keepTime ticks until done is closed.
func (s *shift) keepTime(done <-chan struct{}) {
	tick := time.NewTicker(tickEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			s.do(func(plan *scheduler, now time.Time) {
				s.holdSpool(plan)
				plan.tick(now)
			})
		case <-done:
			return
		}
	}
}

// tidyEvery is how often the logbook is looked through for what is too old: a log is there for so long after its age, at most.
const tidyEvery = 5 * time.Minute

// keepTidy removes old logs until done is closed, also while no run ends. It is not a part of keepTime: the scheduler would
// take a disk that is slow to remove many files for a process that stood still.
func (s *shift) keepTidy(done <-chan struct{}) {
	tick := time.NewTicker(tidyEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			s.book.tidy(time.Now())
		case <-done:
			return
		}
	}
}

// holdSpool takes the spool's lock, unless somebody else has it.
func (s *shift) holdSpool(plan *scheduler) {
	id, err := s.spool.hold()
	plan.spool = id
	if err != nil {
		s.unheld.Do(func() {
			s.log.Warn("the spool's lock is not ours: tasks of a runner of this name that has died wait for their fence", zap.Error(err))
		})
	}
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
	s.mu.Unlock()
	for _, u := range runs {
		if _, ours := tasks[u.task.Kind]; ours {
			tasks[u.task.Kind]++
		}
		u.mu.Lock()
		events += u.story.out.len()
		u.mu.Unlock()
	}
	return tasks, events
}

// bury publishes what cannot be read to the dead tasks, and acknowledges it once it is stored
// there. It tries again until ctx or the link ends.
func (s *shift) bury(ctx context.Context, link broker.Link, h hold, m broker.Message) {
	m.Headers = maps.Clone(m.Headers)
	if m.Headers == nil {
		m.Headers = map[string]any{}
	}
	m.Headers["reason"] = string(wire.DeadBadBody)
	if s.insist(ctx, link, broker.ToDeadTasks(), m) {
		h.settle(s.log)
	}
}

// insist publishes m until it is stored; false if ctx or the link ends first.
func (s *shift) insist(ctx context.Context, link broker.Link, to broker.Address, m broker.Message) bool {
	for said := false; ; said = true {
		receipt, err := link.Publish(ctx, to, m)
		if err != nil {
			return false
		}
		outcome, _ := broker.Await(ctx, receipt)
		if outcome == broker.Stored {
			return true
		}
		if !said {
			s.log.Warn("not stored, publishing it again until it is", zap.Stringer("outcome", outcome),
				zap.String("exchange", to.Exchange), zap.String("key", to.Key), zap.String("message_id", m.ID))
		}
		if !rest(ctx, link, insistPause) {
			return false
		}
	}
}
