package mailbox

import (
	"context"
	"errors"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/wscluster/wscluster/internal/session"
	"github.com/wscluster/wscluster/pkg/broker"
	"github.com/wscluster/wscluster/pkg/socketmeta"
	"github.com/wscluster/wscluster/pkg/wire"
)

// submission is one task on its way to the broker.
type submission struct {
	session *session.Session
	task    wire.Task
	body    []byte
	by      time.Time // when the client is told that there was no answer
}

// Submit publishes a client's task and answers the client when the broker has: accepted once it
// is stored. It never blocks: what cannot be taken now is refused at once. The task's meta is
// set here from the session, never from the message.
func (m *Mailbox) Submit(s *session.Session, request *wire.Submit) {
	owner, publish := s.Submit(request)
	if !publish {
		return
	}
	task := wire.Task{
		Meta: socketmeta.Meta{Client: s.Client, Server: m.o.Server, Epoch: owner.Epoch},
		Task: request.Task, Kind: request.Kind, Params: request.Params,
		Subject: owner.Subject, Submitted: wire.Time{Time: time.Now()},
	}
	body, err := wire.EncodeTask(&task)
	if err != nil {
		m.answer(s, &task, wire.Errorf(wire.CodeBadFrame, "%v", err))
		return
	}
	if m.Ready() != nil { // why is for operators: /readyz and the log say it
		m.answer(s, &task, wire.Errorf(wire.CodeUnavailable, "this worker takes no tasks now; try again with the same task ID"))
		return
	}
	select {
	case m.submits <- submission{s, task, body, time.Now().Add(m.o.SubmitWithin)}:
	default:
		m.answer(s, &task, wire.Errorf(wire.CodeOverloaded, "%d submits are on their way to the broker; try again", m.o.MaxSubmits))
	}
}

// awaited is a submission with the broker.
type awaited struct {
	submission
	receipt broker.Receipt
}

// publish sends submissions on one link, many at once, and answers each when the broker has.
func (m *Mailbox) publish(ctx context.Context, link broker.Link) error {
	flying := make(chan awaited, m.o.MaxSubmits)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		defer close(flying)
		for {
			select {
			case <-ctx.Done():
				m.refuseWaiting()
				return nil
			case s := <-m.submits:
				if err := m.send(ctx, link, s, flying); err != nil {
					return err
				}
			}
		}
	})
	g.Go(func() error {
		for a := range flying {
			m.answer(a.session, &a.task, m.judge(ctx, a))
		}
		return nil
	})
	return g.Wait()
}

func (m *Mailbox) send(ctx context.Context, link broker.Link, s submission, flying chan<- awaited) error {
	within, cancel := context.WithDeadline(ctx, s.by)
	defer cancel()
	receipt, err := link.Publish(within, broker.ToTasks(s.task.Kind), broker.Message{
		ID: string(s.task.Task), Type: "task", Correlation: string(s.task.Task), App: string(m.o.Server),
		Time: s.task.Submitted.Time, Body: s.body,
		Headers: map[string]any{"client_id": s.task.Client.String(), "server_id": string(s.task.Server)},
	})
	switch {
	case err == nil:
		flying <- awaited{s, receipt} // waits for room at most until the oldest has its answer
		return nil
	case errors.Is(err, context.DeadlineExceeded):
		m.answer(s.session, &s.task, wire.Errorf(wire.CodeUnavailable, "the broker takes no tasks now (an alarm?); try again"))
		return nil
	}
	m.answer(s.session, &s.task, wire.Errorf(wire.CodeUnavailable, "the broker went away; try again with the same task ID"))
	return err
}

// judge turns the broker's answer into the client's: nil for accepted.
func (m *Mailbox) judge(ctx context.Context, a awaited) *wire.Error {
	within, cancel := context.WithDeadline(ctx, a.by)
	defer cancel()
	outcome, err := broker.Await(within, a.receipt)
	switch {
	case err != nil || outcome == broker.Unknown:
		return wire.Errorf(wire.CodeUnavailable, "the broker gave no answer; try again with the same task ID")
	case outcome == broker.Stored:
		return nil
	case outcome == broker.Returned:
		return wire.Errorf(wire.CodeUnknownKind, "no task runner has ever offered the kind %q", a.task.Kind)
	}
	return wire.Errorf(wire.CodeOverloaded, "the queue %s is full; try again later", broker.TasksQueue(a.task.Kind))
}

// refuseWaiting answers what has not been sent when a link ended.
func (m *Mailbox) refuseWaiting() {
	for {
		select {
		case s := <-m.submits:
			m.answer(s.session, &s.task, wire.Errorf(wire.CodeUnavailable, "the broker went away; try again with the same task ID"))
		default:
			return
		}
	}
}

func (m *Mailbox) answer(s *session.Session, task *wire.Task, refusal *wire.Error) {
	outcome := "accepted"
	if refusal != nil {
		outcome = string(refusal.Code)
	}
	m.o.Metrics.Submits.WithLabelValues(outcome).Inc()
	s.Submitted(task.Task, refusal)
}
