package mailbox

import (
	"cmp"
	"context"
	"errors"
	"time"

	"github.com/google/uuid"
	"golang.org/x/sync/errgroup"

	"github.com/wscluster/wscluster/internal/session"
	"github.com/wscluster/wscluster/pkg/broker"
	"github.com/wscluster/wscluster/pkg/socketmeta"
	"github.com/wscluster/wscluster/pkg/wire"
)

// submission is one task, or the cancel of one, on its way to the broker.
type submission struct {
	session *session.Session
	task    wire.Task
	cancel  *wire.Cancel  // nil for a task; else task has no more than a cancel knows of it
	reply   session.Reply // of a cancel
	body    []byte
	by      time.Time // when the client is told that there was no answer
	doubt   bool      // it was published before, and may be stored
}

// Submit publishes a client's task and answers the client when the broker has: accepted once it
// is stored. It never blocks: what cannot be taken now is refused at once, as are parameters that no
// runner which announces the kind takes. The task's meta is
// set here from the session, never from the message.
func (m *Mailbox) Submit(s *session.Session, request *wire.Submit) { m.SubmitFor(s, request, nil) }

// SubmitFor is Submit with the answer given to somebody else than the client's socket.
func (m *Mailbox) SubmitFor(s *session.Session, request *wire.Submit, to session.Reply) {
	owner, publish := s.Submit(request, to)
	if !publish {
		return
	}
	if refusal := m.kinds.judge(request.Kind, request.Params); refusal != nil {
		m.answer(submission{session: s, task: wire.Task{Task: request.Task}}, refusal)
		return
	}
	task := wire.Task{
		Meta: socketmeta.Meta{Client: s.Client(), Server: m.o.Server, Epoch: owner.Epoch},
		Task: request.Task, Kind: request.Kind, Params: request.Params, Priority: request.Priority,
		Subject: owner.Subject, Submitted: wire.Time{Time: time.Now()},
	}
	body, err := wire.EncodeTask(&task)
	m.queue(submission{session: s, task: task, body: body}, err)
}

// Cancel publishes that a client wants a task of its own to end, and answers the client when the broker
// has. It goes to the ledger, which every runner reads, so that it reaches the task wherever it is and
// whoever dies meanwhile. If the client names the task's kind, the record has what a runner needs to end
// the task before any has it: its meta, from the session, but as the time of its submit that of the cancel, for the
// session may have been with another worker then. As Submit, it never blocks.
func (m *Mailbox) Cancel(s *session.Session, request *wire.Cancel) { m.CancelFor(s, request, nil) }

// CancelFor is Cancel with the answer given to somebody else than the client's socket.
func (m *Mailbox) CancelFor(s *session.Session, request *wire.Cancel, to session.Reply) {
	owner, publish := s.Cancel(request, to)
	if !publish {
		return
	}
	task := wire.Task{
		Meta: socketmeta.Meta{Client: s.Client(), Server: m.o.Server, Epoch: owner.Epoch},
		Task: request.Task, Kind: request.Kind, Submitted: wire.Time{Time: time.Now()},
	}
	record := wire.LedgerRecord{Op: wire.LedgerCancel, Task: task.Task, Client: s.Client().String()}
	var err error
	if task.Kind != "" {
		record.Body, err = wire.EncodeTask(&task)
	}
	body, failed := wire.EncodeLedger(&record)
	m.queue(submission{session: s, task: task, cancel: request, reply: to, body: body}, cmp.Or(err, failed))
}

// queue takes a submission, or refuses it at once; err says what is wrong with it.
func (m *Mailbox) queue(s submission, err error) {
	switch {
	case err != nil:
		m.answer(s, wire.Errorf(wire.CodeBadFrame, "%v", err))
		return
	case m.Ready() != nil: // why is for operators: /readyz and the log say it
		m.answer(s, wire.Errorf(wire.CodeUnavailable, "this worker takes no tasks now; try again with the same task ID"))
		return
	}
	s.by = time.Now().Add(m.o.SubmitWithin)
	select {
	case m.submits <- s:
	default:
		m.answer(s, wire.Errorf(wire.CodeOverloaded, "%d submits are on their way to the broker; try again", m.o.MaxSubmits))
	}
}

// awaited is a submission with the broker.
type awaited struct {
	submission
	receipt broker.Receipt
}

// publish sends submissions on one link, many at once, and answers each when the broker has. Those
// whose answer an earlier link took with it go first: a client that was told "try again" would
// take the events of a task that is stored after all for those of a stranger.
func (m *Mailbox) publish(ctx context.Context, link broker.Link) error {
	flying := make(chan awaited, m.o.MaxSubmits)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		defer close(flying)
		for _, s := range m.takeDoubtful() {
			if err := m.send(ctx, link, s, flying); err != nil && ctx.Err() == nil {
				return err
			}
		}
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
		queues := newQueues(link)
		defer queues.asked.Wait()
		for a := range flying {
			switch refusal, known := m.judge(ctx, a); {
			case !known:
				m.keepDoubtful(a.submission)
			case refusal == nil && a.cancel == nil:
				m.accept(a.submission, queues.ahead(ctx, &a.task))
				if m.o.Accepted != nil { // not before: an event that overtakes the answer costs the client its place
					m.o.Accepted(&a.task)
				}
			default:
				m.answer(a.submission, refusal)
			}
		}
		return nil
	})
	return g.Wait()
}

// send publishes s. An error is the link's end, and s has been seen to.
func (m *Mailbox) send(ctx context.Context, link broker.Link, s submission, flying chan<- awaited) error {
	within, cancel := context.WithDeadline(ctx, s.by)
	defer cancel()
	to, typ := broker.ToTasks(s.task.Kind, s.task.Priority), "task"
	if s.cancel != nil {
		to, typ = broker.ToLedger(), string(wire.LedgerCancel)
	}
	receipt, err := link.Publish(within, to, broker.Message{
		ID: uuid.NewString(), Type: typ, Correlation: string(s.task.Task), App: string(m.o.Server), Time: s.task.Submitted.Time, Body: s.body,
		Headers: map[string]any{"client_id": s.task.Client.String(), "server_id": string(s.task.Server)},
	})
	switch {
	case err == nil:
		flying <- awaited{s, receipt} // waits for room at most until the oldest has its answer
		return nil
	case errors.Is(err, context.DeadlineExceeded):
		m.answer(s, wire.Errorf(wire.CodeUnavailable, "the broker takes no tasks now (an alarm?); try again"))
		return nil
	case s.doubt:
		m.keepDoubtful(s)
	default:
		m.answer(s, wire.Errorf(wire.CodeUnavailable, "the broker went away; try again with the same task ID"))
	}
	return err
}

// keepDoubtful keeps what the broker may have or not for the next link. They are no more than
// were under way at once.
func (m *Mailbox) keepDoubtful(s submission) {
	s.doubt = true
	m.mu.Lock()
	defer m.mu.Unlock()
	m.doubtful = append(m.doubtful, s)
}

func (m *Mailbox) takeDoubtful() (all []submission) {
	m.mu.Lock()
	defer m.mu.Unlock()
	all, m.doubtful = m.doubtful, nil
	return all
}

// refuseDoubtful answers those that have waited for as long as a client is to wait.
func (m *Mailbox) refuseDoubtful(now time.Time) {
	for _, s := range m.takeDoubtful() {
		if now.Before(s.by) {
			m.keepDoubtful(s)
		} else {
			m.answer(s, wire.Errorf(wire.CodeUnavailable, "the broker gave no answer; try again with the same task ID"))
		}
	}
}

// judge turns the broker's answer into the client's: nil for accepted. It is not known if the link
// has ended first and there is time to ask another one.
func (m *Mailbox) judge(ctx context.Context, a awaited) (refusal *wire.Error, known bool) {
	within, cancel := context.WithDeadline(ctx, a.by)
	defer cancel()
	outcome, err := broker.Await(within, a.receipt)
	switch {
	case err != nil || outcome == broker.Unknown:
		return wire.Errorf(wire.CodeUnavailable, "the broker gave no answer; try again with the same task ID"), !time.Now().Before(a.by)
	case outcome == broker.Stored:
		return nil, true
	case outcome == broker.Returned && a.cancel != nil:
		return wire.Errorf(wire.CodeUnavailable, "no task runner that can cancel has ever been here"), true
	case outcome == broker.Refused && a.cancel != nil:
		return wire.Errorf(wire.CodeOverloaded, "the broker refused the cancel; try again"), true
	case outcome == broker.Returned && a.task.Priority == wire.High:
		return wire.Errorf(wire.CodeUnknownKind, "no task runner has ever offered the kind %q with high priority", a.task.Kind), true
	case outcome == broker.Returned:
		return wire.Errorf(wire.CodeUnknownKind, "no task runner has ever offered the kind %q", a.task.Kind), true
	}
	return wire.Errorf(wire.CodeOverloaded, "the queue %s is full; try again later", broker.TasksQueue(a.task.Kind, a.task.Priority)), true
}

// refuseWaiting answers what has not been sent when a link ended.
func (m *Mailbox) refuseWaiting() {
	for {
		select {
		case s := <-m.submits:
			m.answer(s, wire.Errorf(wire.CodeUnavailable, "the broker went away; try again with the same task ID"))
		default:
			return
		}
	}
}

// accept answers a submit that is stored behind so many others, if that is known.
func (m *Mailbox) accept(s submission, ahead *int) {
	m.o.Metrics.Submits.WithLabelValues("accepted").Inc()
	s.session.Submitted(s.task.Task, ahead, nil)
}

// answer answers a submit that was refused, or a cancel; nil says that it is stored.
func (m *Mailbox) answer(s submission, refusal *wire.Error) {
	if s.cancel != nil {
		s.session.Canceled(s.cancel, s.reply, refusal)
		return
	}
	m.o.Metrics.Submits.WithLabelValues(string(refusal.Code)).Inc()
	s.session.Submitted(s.task.Task, nil, refusal)
}
