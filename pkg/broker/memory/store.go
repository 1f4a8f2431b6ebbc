package memory

import (
	"cmp"
	"fmt"
	"maps"
	"slices"

	"github.com/wscluster/wscluster/pkg/broker"
	"github.com/wscluster/wscluster/pkg/socketmeta"
	"github.com/wscluster/wscluster/pkg/wire"
)

// Store is what the broker holds: queues, the processes that have joined, what they take and lock,
// and the register of servers. It is the whole logic of the broker and nothing else: no lock,
// goroutine, channel or clock, so that a simulator may drive it as well as Broker does. The same
// calls in the same order give the same results. It is not safe for concurrent use.
//
// It hands out messages through the give functions of inboxes and takers, before the call that
// lets them go returns; those must not call the store. After every call no queue has a message
// ready while one of its takers has room for it.
type Store struct {
	limits  Limits
	queues  map[string]*queue // by name
	inboxes []*Inbox          // alive, oldest first
	servers map[socketmeta.ServerID]bool
	ledger  ledger

	subscribers []*Subscriber // oldest first
}

// Limits bounds what waits in one queue, by number and by bytes of bodies; beyond either a publish
// to it is Refused. As in RabbitMQ, what its takers hold unsettled does not count: it is bounded by
// their prefetch. The zero value is a good default.
type Limits struct {
	QueueMessages int // of a mailbox, task queue or dead queue; 0 means 200,000
	QueueBytes    int // 0 means 64 MiB
	HoldMessages  int // of the overflow of a mailbox; 0 means as QueueMessages
	HoldBytes     int // 0 means as QueueBytes
}

// NewStore returns a store with nobody in it, and the queues that always exist.
func NewStore(l Limits) *Store {
	l.QueueMessages, l.QueueBytes = cmp.Or(l.QueueMessages, 200_000), cmp.Or(l.QueueBytes, 64<<20)
	l.HoldMessages, l.HoldBytes = cmp.Or(l.HoldMessages, l.QueueMessages), cmp.Or(l.HoldBytes, l.QueueBytes)
	s := &Store{limits: l, queues: map[string]*queue{}, servers: map[socketmeta.ServerID]bool{}}
	for _, name := range []string{broker.QueueParked, broker.QueueDeadEvents, broker.QueueDeadTasks, broker.QueueKeptTasks} {
		s.declare(name, mail)
	}
	return s
}

// declare returns the queue of that name, made if it is new. A new mailbox is not bound.
func (s *Store) declare(name string, k kind) *queue {
	q := s.queues[name]
	if q == nil {
		q = &queue{kind: k, limit: limit{s.limits.QueueMessages, s.limits.QueueBytes}}
		if k == overflow {
			q.limit = limit{s.limits.HoldMessages, s.limits.HoldBytes}
		}
		s.queues[name] = q
	}
	return q
}

// Publish routes m and stores it everywhere or nowhere: Stored, Returned or Refused. The store
// keeps m as it is: neither caller nor receivers may change its Headers or Body.
func (s *Store) Publish(to broker.Address, m broker.Message) broker.Outcome {
	switch to.Exchange {
	case broker.ExchangeControl, broker.ExchangeAnnounce:
		return s.post(to, m)
	case broker.ExchangeLedger:
		return s.ledger.append(m, s.limits.QueueMessages)
	case broker.ExchangeChannels:
		return s.spread(to.Key, m)
	}
	q := s.route(to)
	if q == nil {
		return broker.Returned
	}
	return q.put(m)
}

// Park stores m as if the mailbox that it is for did not exist.
func (s *Store) Park(m broker.Message) broker.Outcome { return s.queues[broker.QueueParked].put(m) }

// route finds the queue behind an address: nil if there is none.
func (s *Store) route(to broker.Address) *queue {
	switch server := socketmeta.ServerID(to.Key); {
	case to.Exchange == broker.ExchangeUtils:
		return cmp.Or(s.bound(broker.MailboxQueue(server)), s.queues[broker.QueueParked])
	case to.Exchange == broker.ExchangeHold:
		return s.bound(broker.HoldQueue(server))
	case to.Exchange == broker.ExchangeTasks:
		return s.queues[broker.TasksQueue(to.Key, wire.Normal)] // a key of high priority says so itself
	case to == broker.ToDeadEvents():
		return s.queues[broker.QueueDeadEvents]
	case to == broker.ToDeadTasks():
		return s.queues[broker.QueueDeadTasks]
	case to == broker.ToKeptTasks():
		return s.queues[broker.QueueKeptTasks]
	}
	return nil
}

// bound returns the queue of that name if publishes reach it.
func (s *Store) bound(name string) *queue {
	if q := s.queues[name]; q != nil && q.bound {
		return q
	}
	return nil
}

// Register remembers a server for as long as the store lives.
func (s *Store) Register(server socketmeta.ServerID) { s.servers[server] = true }

// Servers returns what was registered, each once, sorted.
func (s *Store) Servers() []socketmeta.ServerID { return slices.Sorted(maps.Keys(s.servers)) }

// Messages returns what lies in the queue of that name (broker.MailboxQueue, HoldQueue, TasksQueue,
// QueueParked, QueueDeadEvents, QueueDeadTasks, QueueKeptTasks): first what its takers hold unsettled, then what
// waits, each in order. It is nil for a queue that does not exist.
func (s *Store) Messages(queue string) (ms []broker.Message) {
	q := s.queues[queue]
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

// Depth counts the messages that wait in a queue and those that its takers hold unsettled.
func (s *Store) Depth(queue string) (ready, unsettled int) {
	if q := s.queues[queue]; q != nil {
		return len(q.ready), q.held
	}
	return 0, 0
}

// ForgetTransient is what a restart of the broker does to messages that wait. Let every process
// leave before.
func (s *Store) ForgetTransient() {
	for _, q := range s.queues {
		q.ready = slices.DeleteFunc(q.ready, func(e *entry) bool {
			if e.msg.Transient {
				q.bytes -= len(e.msg.Body)
			}
			return e.msg.Transient
		})
	}
}

// Own makes a process the owner of the mailbox of server, with its overflow: both are made if they
// are new, and bound. ErrRefused if it has an owner. See Taker for prefetch and give.
func (s *Store) Own(in *Inbox, server socketmeta.ServerID, prefetch int, give func(broker.Delivery)) (*Taker, error) {
	q := s.declare(broker.MailboxQueue(server), mail)
	if len(q.takers) > 0 {
		return nil, fmt.Errorf("open the mailbox of %s: %w", server, broker.ErrRefused)
	}
	q.bound = true
	return s.own(in, server, prefetch, give), nil
}

// Adopt makes a process the owner of the mailbox of a server that is away: ErrNoMailbox if there is
// none, ErrRefused if it has an owner. Until the taker is closed, control messages for that worker
// reach the process's inbox.
func (s *Store) Adopt(in *Inbox, server socketmeta.ServerID, prefetch int, give func(broker.Delivery)) (*Taker, error) {
	switch q := s.queues[broker.MailboxQueue(server)]; {
	case q == nil:
		return nil, fmt.Errorf("adopt the mailbox of %s: %w", server, broker.ErrNoMailbox)
	case len(q.takers) > 0:
		return nil, fmt.Errorf("adopt the mailbox of %s: %w", server, broker.ErrRefused)
	}
	t := s.own(in, server, prefetch, give)
	t.adopted = true
	return t, nil
}

func (s *Store) own(in *Inbox, server socketmeta.ServerID, prefetch int, give func(broker.Delivery)) *Taker {
	t := in.newTaker(prefetch, give)
	t.server = server
	t.overflow = s.declare(broker.HoldQueue(server), overflow)
	t.overflow.bound = true
	t.overflow.takers = []*Taker{t}
	t.turns = []turn{{queues: []*queue{s.queues[broker.MailboxQueue(server)]}}}
	t.enter()
	return t
}

// Share makes a process one of the takers of the tasks of some kinds, each named once; their queues,
// two for each, are made if they are new. It takes tasks of high priority first.
func (s *Store) Share(in *Inbox, kinds []string, slots int, give func(broker.Delivery)) *Taker {
	t := in.newTaker(slots, give)
	for _, p := range []wire.Priority{wire.High, wire.Normal} {
		var qs []*queue
		for _, kind := range kinds {
			qs = append(qs, s.declare(broker.TasksQueue(kind, p), tasks))
		}
		t.turns = append(t.turns, turn{queues: qs})
	}
	t.enter()
	return t
}

// ShareDead makes a process one of the takers of the dead tasks.
func (s *Store) ShareDead(in *Inbox, prefetch int, give func(broker.Delivery)) *Taker {
	t := in.newTaker(prefetch, give)
	t.turns = []turn{{queues: []*queue{s.queues[broker.QueueDeadTasks]}}}
	t.enter()
	return t
}
