// Package broker is the port between wscluster and its message broker, at the level of the
// delivery guarantee: who may hold which name, what became of a publish, and who settles what.
// It also owns every exchange and queue name. It does not know AMQP.
//
// Two implementations answer to this text and to one contract suite (brokertest): pkg/amqp over
// RabbitMQ, and pkg/broker/memory inside one process.
//
// The unit of failure is the Link. Any fault ends the whole link with everything opened on it;
// nothing is ever repaired in place. Whoever needs the broker for longer uses Keep, which joins
// again and hands out a new link with a higher generation.
package broker

import (
	"context"
	"errors"
	"time"

	"github.com/wscluster/wscluster/pkg/socketmeta"
	"github.com/wscluster/wscluster/pkg/wire"
)

// Errors of this port. Drivers wrap them; other errors are faults of the broker or the network,
// and after any of them a new link may do better.
var (
	ErrLocked    = errors.New("another process holds this identity") // Join, Lock, OpenChannels, Mailbox.Unbind: that process is alive, or its link is not yet seen dead
	ErrRefused   = errors.New("another process owns this mailbox")   // OpenMailbox, AdoptMailbox
	ErrNoMailbox = errors.New("there is no such mailbox")            // AdoptMailbox
	ErrNotEmpty  = errors.New("the mailbox is not empty")            // Mailbox.Delete
	ErrLinkGone  = errors.New("the link to the broker is gone")      // everything on a link that ended
	ErrTooLarge  = errors.New("message is over the broker's limit")  // Publish: refused before it was sent
)

// MaxMessage is the largest body that Publish takes, in bytes: RabbitMQ's max_message_size as
// deploy/rabbitmq sets it, less room for headers.
const MaxMessage = 1<<20 - 64<<10

// Broker reaches one message broker. It is safe for concurrent use.
type Broker interface {
	// Join connects as id and takes its lock. It blocks until the link is up, ctx ends, or it
	// failed: ErrLocked if another process holds id. A dead holder's lock frees itself when the
	// broker notices its death: at once after a kill, within three heartbeats after a silent cut.
	// ctx bounds only the joining; the link lives until Close or a fault.
	Join(ctx context.Context, id Identity) (Link, error)
}

// Link is one life of a connection to the broker. All methods are safe for concurrent use.
type Link interface {
	// Generation counts the links of this process, from 1. A later link has a higher one.
	Generation() uint64

	// Publish hands m to the broker and returns before its answer, so that many publishes are in
	// flight at once. Messages published by one goroutine to one address are stored in that order.
	// It blocks while the link's window of unanswered publishes is full or the broker takes no
	// bytes (memory alarm), at most until ctx or the link ends. An error means that m was not
	// sent (what Message.Check says, ErrLinkGone, ctx's); a nil error means that the receipt will
	// say. Nothing of m is used after Publish has returned.
	Publish(ctx context.Context, to Address, m Message) (Receipt, error)

	// OpenMailbox makes sure that the mailbox of s exists and is bound, takes ownership and
	// starts the deliveries: at most prefetch unsettled ones (1 to 65,535), redelivered ones
	// first, in order. ErrRefused if it has an owner, be it on this very link. It is for the
	// process that holds the identity Worker(s).
	OpenMailbox(ctx context.Context, s socketmeta.ServerID, prefetch int) (Mailbox, error)

	// AdoptMailbox takes ownership as OpenMailbox does, of a mailbox whose own worker is away: it
	// makes nothing, and is ErrNoMailbox if there is none. Control messages for Worker(s) reach
	// this link's Inbox until the mailbox is closed.
	AdoptMailbox(ctx context.Context, s socketmeta.ServerID, prefetch int) (Mailbox, error)

	// Lock takes a lock of that name for as long as the link lives or until release is called,
	// whichever is first. ErrLocked if another process has it; calling Lock for a name that this
	// very link holds is ErrLocked too. release does not block for longer than one call to the
	// broker.
	Lock(ctx context.Context, name string) (release func(), err error)

	// Register appends s to the register of servers, which remembers for longer than a mailbox
	// lives unused. Servers returns everything registered that it still knows, each once, sorted.
	// It reads the register from its start: call it seldom.
	Register(ctx context.Context, s socketmeta.ServerID) error
	Servers(ctx context.Context) ([]socketmeta.ServerID, error)

	// OpenTasks makes sure that the queues of the kinds exist, two for each, and starts taking tasks
	// from them: at most slots (1 to 65,535) unsettled ones over all kinds, of which there is at least
	// one. Where there is a choice, tasks of high priority of any kind come before normal ones, and the
	// kinds of one priority take turns. Nothing keeps normal ones from starving: for as long as high
	// ones wait, no normal one is taken.
	OpenTasks(ctx context.Context, kinds []string, slots int) (Consumer, error)

	// OpenDeadTasks starts taking the tasks that were given up (ToDeadTasks): at most prefetch (1 to
	// 65,535) unsettled ones. Each is given to one of all that take them, and again if that one does not
	// settle it; Attempt means nothing. It makes no queue: it is an error, and the link lives, where that
	// of the dead or that of the kept ones (ToKeptTasks) does not exist yet. It is for runners.
	OpenDeadTasks(ctx context.Context, prefetch int) (Consumer, error)

	// Waiting returns how many tasks of a kind wait that are taken before a new one of that priority,
	// as far as the broker can tell: for a normal one those of both priorities, else the high ones.
	// Those that were delivered do not wait. It is an error if the kind has no queues.
	Waiting(ctx context.Context, kind string, p wire.Priority) (int, error)

	// OpenLedger makes sure that the ledger exists, and reads it from the record at offset from on, or
	// from the first that it still has, whichever is later. What this link publishes after that to
	// ToLedger is read by it too, in its place among the others'. It is for runners.
	OpenLedger(ctx context.Context, from int64) (Ledger, error)

	// OpenChannels makes the place where posts for the worker s wait, and starts their deliveries; no channel is
	// bound yet. It is for the process that holds the identity Worker(s), and ends with the link: whoever joins
	// again binds again. ErrLocked if a link has it, be it this very one, or had it a moment ago: try again.
	OpenChannels(ctx context.Context, s socketmeta.ServerID) (Channels, error)

	// Inbox delivers the control messages for this identity and those for all. They are
	// transient and bounded: the newest are dropped when nobody reads (before 5,000 wait). Closed
	// when the link ends.
	Inbox() <-chan Message

	// Blocked reports whether the broker has said that it takes no publishes now (an alarm).
	Blocked() bool

	// Done is closed when the link has ended. Err then says why; nil after Close.
	Done() <-chan struct{}
	Err() error

	// Close ends the link: it stops the consumers, waits for the receipts in flight until ctx
	// ends, frees the lock and disconnects. What was not settled is delivered again elsewhere.
	// It returns an error if ctx ended first: the receipts still in flight are then Unknown.
	// Closing a link that has ended does nothing.
	Close(ctx context.Context) error
}

// Message is what crosses the broker. Who receives one must not change its Headers or Body: others
// may have been given the same.
type Message struct {
	ID          string         // unique name for people and logs; not used to de-duplicate
	Type        string         // what Body is
	Content     string         // the media type of Body; "" means JSON
	Correlation string         // the task ID
	App         string         // the process that published it
	Time        time.Time      // whole seconds in AMQP
	Headers     map[string]any // string, int64 and bool values only
	Body        []byte
	Transient   bool // may be lost when the broker restarts; the zero value is durable
}

// Receipt is a publish whose answer is awaited.
type Receipt interface {
	// Done is closed when the outcome is known.
	Done() <-chan struct{}
	// Outcome is Pending before Done is closed, and never changes after.
	Outcome() Outcome
}

// Outcome is what became of a publish.
type Outcome uint8

// The outcomes. Only after Stored may the publisher forget the message. After Unknown it may or
// may not have been stored: publish it again under the same numbers.
const (
	Pending  Outcome = iota
	Stored           // in every queue that it routes to, and on disk if it is durable
	Returned         // no queue takes this address; nothing was stored
	Refused          // the broker said no (a full mailbox); nothing was stored for certain
	Unknown          // the link ended, or no answer came in time
)

func (o Outcome) String() string {
	return [...]string{"pending", "stored", "returned", "refused", "unknown"}[o]
}

// Await waits for r's outcome; Unknown with ctx's error if ctx ends first. An outcome that is
// known already is told even if ctx has ended: a stored message is not called unknown for nothing.
func Await(ctx context.Context, r Receipt) (Outcome, error) {
	select {
	case <-r.Done():
		return r.Outcome(), nil
	default:
	}
	select {
	case <-r.Done():
		return r.Outcome(), nil
	case <-ctx.Done():
		return Unknown, context.Cause(ctx)
	}
}

// Delivery is one message given to a consumer, to be settled by its Tag.
type Delivery struct {
	Message
	Tag         uint64 // rises within one Consumer
	Redelivered bool   // it was delivered before, to anybody
	Attempt     int    // tasks: how often it has been delivered, counting this one; 0 if the broker does not count
}

// Consumer is the ownership of one mailbox, or a place among the takers of tasks, within one
// link. Settling is idempotent for the broker's sake, not the caller's: settle each tag once.
type Consumer interface {
	// Deliveries is closed when the consumer ended: by Close, with its link, or because the
	// queue was taken away. It must be read at all times, also while paused.
	Deliveries() <-chan Delivery

	// Ack tells the broker to forget deliveries, in any order; many at once cost it less than one by one. It waits for no
	// answer: if the link dies soon after, they may be delivered again. ErrLinkGone if the consumer has ended: some of
	// the messages may be delivered again, and nothing else was settled.
	Ack(tags ...uint64) error

	// Requeue gives the delivery back for another try, here or elsewhere. Tasks only, dead ones too: a mailbox
	// would lose its order, so there it is an error and settles nothing.
	Requeue(tag uint64) error

	// Pause stops new deliveries (those under way still come); Resume starts them again, in
	// order. Ownership is kept as far as other workers can tell.
	Pause(ctx context.Context) error
	Resume(ctx context.Context) error

	// Err says why Deliveries was closed; nil after Close.
	Err() error

	// Close gives up the ownership. What is not settled is delivered again, in order, to the
	// next owner.
	Close(ctx context.Context) error
}

// Channels is what one worker gets of the cluster's channels, within one link. Posts are at-most-once: nothing is
// settled, and what waits beyond MaxWaitingPosts or MaxWaitingPostBytes is dropped, the oldest first. All methods are
// safe for concurrent use; the calls to the broker are made one after the other. Each is ErrLinkGone once
// Posts is to be closed; after another error some of the names may be bound and others not, and the link lives.
type Channels interface {
	// Bind asks for the posts of the channels whose publish begins after it has returned. Asking for one that
	// is bound does nothing. It blocks for one call to the broker for each 500 names.
	Bind(ctx context.Context, channels ...wire.Channel) error

	// Unbind ends that. Posts that are under way still come. It blocks for one call to the broker for each name.
	Unbind(ctx context.Context, channels ...wire.Channel) error

	// BindAll asks for the posts of all channels, beside those that are bound by name: each post comes once.
	// UnbindAll ends it, and leaves those that are bound by name.
	BindAll(ctx context.Context) error
	UnbindAll(ctx context.Context) error

	// Posts delivers what was published, in the order of publishing what one goroutine published. It is closed
	// when the link ends, or because the queue was taken away: then OpenChannels may be called again. Who reads it
	// late loses posts, and holds up nothing else of the link.
	Posts() <-chan Post
}

// Post is a message of a channel as it came. Anybody who may write to the exchange may have published it.
type Post struct {
	Message
	Channel string // the routing key; nobody has checked it
}

// What waits for one worker, beside some hundred posts that are on their way to it.
const (
	MaxWaitingPosts     = 10_000
	MaxWaitingPostBytes = 64 << 20 // of bodies
)

// Ledger reads the ledger, a stream of records that all its readers see in one order. What was Stored
// there is read; the oldest records are forgotten after a day, or by number. It ends with its link.
type Ledger interface {
	// Next returns the next record. It blocks until there is one, or ctx or the link ends: then it is
	// ctx's error, or ErrLinkGone. One goroutine at a time may call it, and should do so soon.
	Next(ctx context.Context) (Record, error)
}

// Record is one entry of the ledger.
type Record struct {
	Message
	Offset int64 // its place, from 0: that of a later one is higher, and not every number is used
}

// Mailbox is the ownership of one mailbox. Beside its queue it has an overflow, where its owner
// puts what it can neither deliver nor keep in memory (ToHold); nobody else publishes there.
type Mailbox interface {
	Consumer

	// TakeHeld takes at most max messages from the front of the overflow, those that wait there
	// now: it never waits for more. They are settled by Ack, under tags that no delivery has;
	// those that are not come again to the next owner, in order. They do not count to the prefetch.
	// left is how many wait behind them, as far as the broker can tell.
	TakeHeld(ctx context.Context, max int) (ds []Delivery, left int, err error)

	// Unbind is the first step of retiring the mailbox of a worker that is gone: it takes the
	// worker's identity, so that it cannot return in between, and sends later publishes to the
	// parked mailbox; those to the overflow are Returned. ErrLocked, and nothing has changed, if
	// that worker is alive, be it on this very link. What is on its way still arrives: wait a
	// second, settle everything, then Delete. Close undoes the hold on the identity, not the
	// unbinding: a worker that returns binds its mailbox again. Calling it again does nothing; for
	// the parked mailbox, which is never retired, it is an error.
	Unbind(ctx context.Context) error

	// Delete deletes the mailbox that this owner has unbound, with its overflow, and closes it: its
	// worker's identity is free. ErrNotEmpty, and it is still owned, if anything is left in either,
	// also if it is unsettled; another error if it was not unbound by this owner.
	Delete(ctx context.Context) error
}
