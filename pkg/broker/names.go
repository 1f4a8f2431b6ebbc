package broker

import (
	"github.com/wscluster/wscluster/pkg/socketmeta"
	"github.com/wscluster/wscluster/pkg/wire"
)

// Every exchange and queue of wscluster. docs/PROTOCOL.md tells the same to authors of runners;
// deploy/rabbitmq/ holds what an operator may change (policies and rights).
const (
	ExchangeUtils    = "utils"          // direct: events, by server ID
	ExchangeUnrouted = "utils.unrouted" // fanout, internal: utils' alternate exchange
	ExchangeControl  = "control"        // direct: one worker (key S) or one runner (key r.R)
	ExchangeAnnounce = "announce"       // fanout: all workers and runners
	ExchangeTasks    = "tasks"          // direct: tasks, by kind (keys K and K.high); no alternate exchange
	ExchangeHold     = "hold"           // direct: events beyond an owner's caps, by the mailbox's server ID
	ExchangeDead     = "dead"           // direct: what could not be delivered (keys event, task), and kept

	ExchangeChannels = "channels"         // topic: posts, by channel; a publisher's rights may be by routing key
	ExchangeNamed    = "channels.by-name" // direct, internal: the same, bound to channels by #: where workers bind the channels that they want

	ExchangeLedger = "ledger" // fanout: records of who runs which task, to the stream of that name

	QueueParked     = "parked" // the mailbox of ParkedServer
	QueueDeadEvents = "dead.events"
	QueueDeadTasks  = "dead.tasks" // until a runner has seen to their end
	QueueKeptTasks  = "kept.tasks" // the same after that: an operator looks at them

	StreamServers = "servers" // the register: every worker appends its ID
	StreamLedger  = "ledger"  // who runs which task: every runner writes and reads it

	LockJanitor = "janitor" // held by the one worker that looks after dead mailboxes

	// ParkedServer is the reserved dead server whose mailbox takes events for mailboxes that do not exist.
	ParkedServer socketmeta.ServerID = "_parked"
)

// Address says where a message goes. Make one with the functions below.
type Address struct{ Exchange, Key string }

// ToMailbox addresses the mailbox of worker s: exchange utils, key s.
func ToMailbox(s socketmeta.ServerID) Address { return Address{ExchangeUtils, string(s)} }

// ToHold addresses the overflow of the mailbox of s. It is Returned if s has no mailbox, or
// its owner has unbound it.
func ToHold(s socketmeta.ServerID) Address { return Address{ExchangeHold, string(s)} }

// ToControl addresses the process that holds id, and the worker that has adopted its mailbox. It
// is Returned when there is neither.
func ToControl(id Identity) Address { return Address{ExchangeControl, id.Key()} }

// ToAll addresses every worker and runner that is joined now.
func ToAll() Address { return Address{ExchangeAnnounce, ""} }

// ToTasks addresses the runners of a kind. It is Returned when none has ever offered it.
func ToTasks(kind string, p wire.Priority) Address { return Address{ExchangeTasks, tasksKey(kind, p)} }

// ToLedger addresses the ledger. It is Returned if nobody has ever opened it.
func ToLedger() Address { return Address{ExchangeLedger, ""} }

// ToChannel addresses the subscribers of a channel. It is Returned when no worker has one.
func ToChannel(c wire.Channel) Address { return Address{ExchangeChannels, string(c)} }

// ToDeadEvents addresses the events that were given up: an operator looks at them.
func ToDeadEvents() Address { return Address{ExchangeDead, "event"} }

// ToDeadTasks addresses the tasks that were given up, before their clients are told.
func ToDeadTasks() Address { return Address{ExchangeDead, "task"} }

// ToKeptTasks addresses the dead tasks whose end was seen to.
func ToKeptTasks() Address { return Address{ExchangeDead, "kept"} }

// MailboxQueue names the queue behind the mailbox of s.
func MailboxQueue(s socketmeta.ServerID) string {
	if s == ParkedServer {
		return QueueParked
	}
	return "mailbox." + string(s)
}

// HoldQueue names the queue behind the overflow of the mailbox of s.
func HoldQueue(s socketmeta.ServerID) string {
	if s == ParkedServer {
		return "hold." + QueueParked
	}
	return "hold." + string(s)
}

// ChannelsQueue names the exclusive queue in which the worker s gets posts.
func ChannelsQueue(s socketmeta.ServerID) string { return "channels." + string(s) }

// LockQueue names the exclusive queue that goes with the ownership of the mailbox of s. It never
// holds a message.
func LockQueue(s socketmeta.ServerID) string { return "lock." + MailboxQueue(s) }

// TasksQueue names the queue of a kind for tasks of that priority.
func TasksQueue(kind string, p wire.Priority) string { return "tasks." + tasksKey(kind, p) }

// tasksKey cannot be the name of another kind, which has no dot.
func tasksKey(kind string, p wire.Priority) string {
	if p == wire.High {
		return kind + ".high"
	}
	return kind
}

// Identity is what one process of the cluster is known by. At most one process holds it at a time.
type Identity struct{ prefix, name string }

// Worker is the identity of the worker s.
func Worker(s socketmeta.ServerID) Identity { return Identity{name: string(s)} }

// Runner is the identity of the task runner named name: one or more of [a-z0-9-].
func Runner(name string) Identity { return Identity{prefix: "r.", name: name} }

// Key is the routing key of the process in the exchange control: S, or r.R for a runner.
func (id Identity) Key() string { return id.prefix + id.name }

// ControlQueue names the exclusive queue that is id's lock and its inbox.
func (id Identity) ControlQueue() string { return "control." + id.Key() }

func (id Identity) String() string { return id.Key() }
