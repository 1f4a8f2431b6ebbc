package memory

import (
	"cmp"
	"maps"
	"slices"

	"github.com/wscluster/wscluster/pkg/broker"
	"github.com/wscluster/wscluster/pkg/socketmeta"
)

// store is what the broker holds: queues, who takes from them, and inboxes. It is the whole queue
// logic and nothing else: no lock, goroutine, channel or clock. Its calls hand out deliveries
// through the give functions of takers and inboxes before they return.
//
// After every call, no queue has a message ready while one of its takers has room for it.
type store struct {
	limit   limit             // of every queue that is made
	queues  map[string]*queue // by name; never shrinks
	inboxes []*inbox
}

// limit bounds one queue: what waits in it beyond either is refused.
type limit struct{ messages, bytes int }

// inbox is a joined process's end of control and announce.
type inbox struct {
	key  string
	give func(broker.Message) // must neither block nor call back
}

func newStore(l limit) *store {
	s := &store{limit: l, queues: map[string]*queue{}}
	for _, name := range []string{broker.QueueParked, broker.QueueDeadEvents, broker.QueueDeadTasks} {
		s.declare(name, false)
	}
	return s
}

// declare returns the queue of that name, made if it is new.
func (s *store) declare(name string, tasks bool) *queue {
	q := s.queues[name]
	if q == nil {
		q = &queue{tasks: tasks, limit: s.limit}
		s.queues[name] = q
	}
	return q
}

// publish routes m and stores it everywhere or nowhere: Stored, Returned or Refused.
func (s *store) publish(to broker.Address, m broker.Message) broker.Outcome {
	switch to.Exchange {
	case broker.ExchangeControl, broker.ExchangeAnnounce:
		return s.post(to, m)
	}
	q := s.route(to)
	if q == nil {
		return broker.Returned
	}
	return s.put(q, m)
}

// park stores m as if the mailbox that it is for did not exist.
func (s *store) park(m broker.Message) broker.Outcome { return s.put(s.queues[broker.QueueParked], m) }

func (s *store) put(q *queue, m broker.Message) broker.Outcome {
	if len(q.ready) >= q.limit.messages || q.bytes+len(m.Body) > q.limit.bytes {
		return broker.Refused
	}
	q.push(&entry{msg: m})
	q.pump()
	return broker.Stored
}

// route finds the queue behind an address: nil if there is none.
func (s *store) route(to broker.Address) *queue {
	switch {
	case to.Exchange == broker.ExchangeUtils:
		return cmp.Or(s.queues[broker.MailboxQueue(socketmeta.ServerID(to.Key))], s.queues[broker.QueueParked])
	case to.Exchange == broker.ExchangeTasks:
		return s.queues[broker.TasksQueue(to.Key)]
	case to == broker.ToDeadEvents():
		return s.queues[broker.QueueDeadEvents]
	case to == broker.ToDeadTasks():
		return s.queues[broker.QueueDeadTasks]
	}
	return nil
}

// post gives m to one inbox or to all of them; Returned if there is none.
func (s *store) post(to broker.Address, m broker.Message) broker.Outcome {
	out := broker.Returned
	for _, in := range s.inboxes {
		if to.Exchange == broker.ExchangeAnnounce || in.key == to.Key {
			in.give(m)
			out = broker.Stored
		}
	}
	return out
}

// join opens an inbox; false if its key is taken.
func (s *store) join(in *inbox) bool {
	if slices.ContainsFunc(s.inboxes, func(other *inbox) bool { return other.key == in.key }) {
		return false
	}
	s.inboxes = append(s.inboxes, in)
	return true
}

// own makes t the owner of a mailbox, made if it is new; false if it has an owner.
func (s *store) own(name string, t *taker) bool {
	q := s.declare(name, false)
	if len(q.takers) > 0 {
		return false
	}
	t.queues = []*queue{q}
	t.enter()
	return true
}

// share makes t one of the takers of queues of tasks, made if they are new.
func (s *store) share(names []string, t *taker) {
	for _, name := range names {
		t.queues = append(t.queues, s.declare(name, true))
	}
	t.enter()
}

// leave closes inboxes and ends takers, all at one moment: what they had not settled goes back
// and to the takers that remain.
func (s *store) leave(ins []*inbox, takers []*taker) {
	s.inboxes = slices.DeleteFunc(s.inboxes, func(in *inbox) bool { return slices.Contains(ins, in) })
	for _, t := range takers {
		t.leave()
	}
	for _, t := range takers {
		for _, q := range t.queues {
			q.pump()
		}
	}
}

// messages returns what lies in a queue: the unsettled ones first, each in order.
func (s *store) messages(name string) (ms []broker.Message) {
	q := s.queues[name]
	if q == nil {
		return nil
	}
	for _, t := range q.takers {
		for _, tag := range slices.Sorted(maps.Keys(t.held)) {
			if g := t.held[tag]; g.from == q {
				ms = append(ms, g.entry.msg)
			}
		}
	}
	for _, e := range q.ready {
		ms = append(ms, e.msg)
	}
	return ms
}

// forgetTransient is what a restart of the broker does to messages that wait.
func (s *store) forgetTransient() {
	for _, q := range s.queues {
		q.ready = slices.DeleteFunc(q.ready, func(e *entry) bool {
			if e.msg.Transient {
				q.bytes -= len(e.msg.Body)
			}
			return e.msg.Transient
		})
	}
}
