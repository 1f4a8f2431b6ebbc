package session

import (
	"github.com/wscluster/wscluster/pkg/broker"
	"github.com/wscluster/wscluster/pkg/socketmeta"
	"github.com/wscluster/wscluster/pkg/wire"
)

// Ref names the broker's delivery behind a held event, or its part of one.
type Ref struct {
	Mailbox  socketmeta.ServerID // which mailbox it came from
	Life     uint64              // which ownership of that mailbox, unique within the process
	Tag      uint64              // its tag there
	Bytes    int                 // the size of the delivery's body, for the caps
	Overflow bool                // it came from the mailbox's overflow
	Part     uint8               // which event of a batch it is, from 1; 0 for one that came alone
}

// Effects are what sessions want done with the broker. The zero value wants nothing.
type Effects struct {
	Settle   []Ref                 // done with: to be acknowledged
	Jobs     []*Job                // copies to be published, after which more is done with
	Seek     []socketmeta.ClientID // events are held for these, who are not attached here
	Overflow []uint64              // lives whose overflow holds events for a client that has room now

	Delivered  int // durable events that a client has acknowledged just now
	Duplicates int // durable events that were here already, or that the client had
	Dropped    int // transient events that met an absent client
}

// Add appends what more wants.
func (fx *Effects) Add(more Effects) {
	fx.Settle = append(fx.Settle, more.Settle...)
	fx.Jobs = append(fx.Jobs, more.Jobs...)
	fx.Seek = append(fx.Seek, more.Seek...)
	fx.Overflow = append(fx.Overflow, more.Overflow...)
	fx.Delivered += more.Delivered
	fx.Duplicates += more.Duplicates
	fx.Dropped += more.Dropped
}

// Purpose is why a job copies events.
type Purpose uint8

// The purposes.
const (
	Forward Purpose = iota // to the mailbox of the worker that has the client
	Hold                   // to the overflow of their own mailbox: beyond the caps
	Refresh                // to their own mailbox again, alone: held for too long in one delivery, or in a batch that others wait with
	Evict                  // to the dead events, and a gap to their own mailbox
)

func (p Purpose) String() string { return [...]string{"forward", "hold", "refresh", "evict"}[p] }

// Job moves held events of one client elsewhere: all copies of a step are published, and when the
// broker has stored every one of them the next step begins. After the last step Refs are
// acknowledged. Whoever takes a job reports its end with Registry.Done. Its fields are read only.
type Job struct {
	Client  socketmeta.ClientID
	Purpose Purpose
	Reason  wire.GapReason // of Evict
	Steps   [][]Copy
	Refs    []Ref // all of one life

	entries []entry // what the copies are of
}

// Life is the ownership under which the job's events were delivered.
func (j *Job) Life() uint64 { return j.Refs[0].Life }

// Copy is one event to be published.
type Copy struct {
	To    broker.Address
	Event wire.Event
}

// End is how a job ended.
type End uint8

// The ends of a job.
const (
	Stored  End = iota // every copy is stored
	Refused            // the broker refused or returned one; nothing was acknowledged
	Lost               // the link ended first; what was not acknowledged is delivered again
)

// entry is one held event.
type entry struct {
	event wire.Event
	ref   Ref
	at    int64 // when it was delivered, Unix milliseconds
}

func (e *entry) size() int { return len(e.event.Body) }

// copy returns the event as it goes back to the broker. Numbers that this worker gave to a plain
// event mean nothing elsewhere; a gap in the place of one keeps the first number, for without any it
// would stand in for nothing.
func (e *entry) copy() wire.Event {
	ev := e.event
	if ev.Attempt == 0 {
		ev.Run, ev.Seq, ev.Prev = "", 0, 0
		if ev.Type == wire.EventGap {
			ev.Seq = 1
		}
	}
	return ev
}
