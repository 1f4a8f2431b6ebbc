package taskrunner

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"github.com/wscluster/wscluster/pkg/batch"
	"github.com/wscluster/wscluster/pkg/broker"
	"github.com/wscluster/wscluster/pkg/wire"
)

// This file is what runners do about dead tasks: those that the broker or another runner has given up, and
// whose clients wait. See docs/adr/0014.

const (
	deadAtOnce = 16               // dead tasks that one runner has in hand
	deadPause  = 10 * time.Second // before it is tried again to take some, where that failed
)

// deliverDead is a task that lies among the dead ones. It is claimed as others are, so that it has one end:
// whoever gets it ends it, and nobody runs it. If the ledger knows the task, or it is being claimed here, it
// has its end from there.
func (s *scheduler) deliverDead(t *wire.Task, reason wire.DeadReason, h hold, now time.Time) {
	switch k := keyOf(t); {
	case !s.current: // its link is gone: it goes to somebody else
	case s.stopped:
		s.order(order{verb: requeue, hold: h})
	case s.ledger.knows(k), s.jobs[k] != nil:
		s.order(order{verb: settle, hold: h})
	default:
		s.claim(t, wire.DeadAttempt, reason, now).holds = []hold{h}
	}
}

// takeDead takes dead tasks over one link until the runner stops. Where it may not, or there are no queues
// of them yet, it says so and tries again: all else goes on.
func (s *shift) takeDead(ctx context.Context, g *errgroup.Group, link broker.Link) error {
	for said := ""; ; {
		select {
		case <-s.stopping:
			return nil
		default:
		}
		from, err := link.OpenDeadTasks(ctx, deadAtOnce)
		if err == nil {
			err = s.undertake(ctx, g, link, from)
		}
		if ctx.Err() != nil || errors.Is(err, broker.ErrLinkGone) {
			return err
		}
		if text := err.Error(); text != said {
			s.log.Warn("dead tasks cannot be taken now, and their clients wait; it is tried again", zap.Error(err))
			said = text
		}
		if !rest(ctx, link, deadPause) {
			return context.Cause(ctx)
		}
	}
}

// undertake sees to dead tasks until there come no more. A runner that stops takes none, and gives back what
// was on its way.
func (s *shift) undertake(ctx context.Context, g *errgroup.Group, link broker.Link, from broker.Consumer) error {
	stopping := s.stopping
	for {
		select {
		case m, ok := <-from.Deliveries():
			if !ok {
				return fmt.Errorf("taking dead tasks ended: %w", cmp.Or(from.Err(), errors.New("the consumer was closed")))
			}
			h := hold{from, m.Tag, &m.Message}
			task, err := wire.DecodeTask(m.Body)
			if err != nil {
				g.Go(func() error { s.endUnreadable(ctx, link, h, err); return nil })
				continue
			}
			s.do(func(plan *scheduler, now time.Time) {
				plan.deliverDead(task, wire.DeadReasonOf(m.Headers), h, now)
			})
		case <-stopping:
			stopping = nil
			if err := from.Pause(ctx); err != nil {
				return err
			}
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// endUnreadable tells the client of a dead task that no ledger can name, if the task says whose it is, and
// keeps the task for the operator. If this process dies in between, the client is told again, and drops that.
func (s *shift) endUnreadable(ctx context.Context, link broker.Link, h hold, why error) {
	log := s.log.With(zap.String("message_id", h.dead.ID), zap.NamedError("unreadable", why))
	task, ok := wire.DecodeTaskAddress(h.dead.Correlation, h.dead.Headers, h.dead.Body)
	switch {
	case !ok:
		log.Error("dead task that does not say whose it is: nobody is told")
	case s.knows(task):
		log.Warn("dead task cannot be read, and is a copy of one that can", zap.String("task_id", string(task.Task)))
	default:
		e := lastWord(task, s.name, wire.DeadReasonOf(h.dead.Headers).Failure(), time.Now())
		if !s.insist(ctx, link, broker.ToMailbox(task.Server), batch.Message(e, s.app(), time.Now())) {
			return
		}
		s.metrics.settled(broker.Stored, true)
		log.Warn("dead task: its client is told", zap.String("task_id", string(task.Task)), zap.Stringer("client_id", task.Client))
	}
	s.keep(ctx, link, h)
}

func (s *shift) knows(t *wire.Task) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.plan.ledger.knows(keyOf(t))
}

// lastWord is the only event of a run that ends a dead task.
func lastWord(t *wire.Task, runner string, fault *wire.Error, now time.Time) *wire.Event {
	last := story{task: t, attempt: wire.DeadAttempt, run: wire.NewRunID(), runner: runner, out: outbox{limit: minBuffer}}
	if err := last.end(nil, fault, now); err != nil {
		panic("an error event that is too large: " + err.Error()) // its text is ours
	}
	return last.out.next()
}

// keep moves a dead task to where the operator looks, and acknowledges it once it is stored there. If this
// process dies in between, it is there twice. Of a foreign body that is larger than a runner may publish, the
// first broker.MaxMessage bytes are kept.
func (s *shift) keep(ctx context.Context, link broker.Link, h hold) {
	reason := wire.DeadReasonOf(h.dead.Headers)
	m := *h.dead
	m.Body = m.Body[:min(len(m.Body), broker.MaxMessage)]
	m.Headers = map[string]any{"reason": string(reason)}
	for _, name := range []string{"client_id", "server_id", "x-first-death-queue"} {
		if v, ok := h.dead.Headers[name]; ok {
			m.Headers[name] = v
		}
	}
	if !s.insist(ctx, link, broker.ToKeptTasks(), m) {
		return
	}
	h.settle(s.log)
	s.metrics.Dead.WithLabelValues(string(reason)).Inc()
	s.log.Info("dead task is in the queue "+broker.QueueKeptTasks+" now", zap.String("reason", string(reason)),
		zap.String("task_id", h.dead.Correlation), zap.String("message_id", h.dead.ID))
}
