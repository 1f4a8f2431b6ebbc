package mailbox

import (
	"maps"
	"slices"
	"time"

	"github.com/wscluster/wscluster/pkg/broker"
	"github.com/wscluster/wscluster/pkg/socketmeta"
	"github.com/wscluster/wscluster/pkg/wire"
)

// core decides which mailboxes this worker takes, keeps, gives up and retires. It is pure: no
// broker, lock, goroutine or clock. Every method takes what happened, at a time in Unix
// milliseconds, and appends to orders what is to be done; whoever carries an order out reports
// how it went by the method that the order's verb names.
//
// The rules: a worker opens its own mailbox, and asks whoever has adopted it for it. A mailbox
// whose owner is gone (a probe to it comes back) is adopted by the worker that a client of it has
// come to, or by the one that holds the janitor's lock. An adopted mailbox goes back when its
// worker asks, and is retired when nothing was in it for a resume window. A worker that stops
// offers what it owns.
type core struct {
	self   socketmeta.ServerID // set once
	window int64               // the resume window, ms; set once

	orders []order // what is to be done, in order; the caller takes them

	up         bool
	draining   bool
	known      bool  // this worker has written itself into the register, or tried to
	registerAt int64 // when this worker writes itself into the register again
	openAt     int64 // when to try again to open the own mailbox; 0: it is owned, or being opened
	owned      map[socketmeta.ServerID]*ownership
	taking     map[socketmeta.ServerID]bool     // being adopted
	suspects   map[socketmeta.ServerID]*suspect // workers that clients have come from
	offers     map[socketmeta.ServerID]int64    // mailboxes that stopping workers offer: until when
	offered    map[socketmeta.ServerID]bool     // ours, and nobody has taken them yet

	janitor bool // we have the lock
	lockAt  int64
	listAt  int64
	roundAt int64
	servers []socketmeta.ServerID        // everybody ever registered, as far as the janitor knows
	gone    map[socketmeta.ServerID]bool // of those: they have no mailbox
}

// ownership is one mailbox that this worker owns.
type ownership struct {
	life      uint64
	releasing bool

	wanted  bool  // its overflow is to be read
	reading bool  // it is being read
	left    int   // messages in it that the present reading has not come to
	readAt  int64 // when it may be read next
	pollAt  int64 // when it is read in any case
	empty   bool  // it was, when it was read last

	quiet   int64 // since when nothing was in it
	retire  stage
	unbound int64 // when
}

type stage uint8

const (
	inUse stage = iota
	unbinding
	unbound
	deleting
)

// suspect is a worker that may be dead.
type suspect struct{ next, until int64 }

// order is one thing to be done.
type order struct {
	verb    verb
	server  socketmeta.ServerID // whose mailbox
	max     int                 // of takeHeld
	to      broker.Address      // of say and probe
	message wire.ControlMessage // of say and probe
}

// verb says what to do, and by which method the outcome is reported.
type verb uint8

const (
	say         verb = iota // publish message to an address; nothing is reported
	probe                   // publish message to an address; returned, if it was
	openOwn                 // Link.OpenMailbox: opened
	adopt                   // Link.AdoptMailbox: opened
	release                 // stop taking, let jobs end, close: released
	takeHeld                // Mailbox.TakeHeld: took
	unbind                  // Mailbox.Unbind: unboundNow
	deleteBox               // Mailbox.Delete: deleted
	lockJanitor             // Link.Lock: locked
	listServers             // Link.Servers: listed
	register                // Link.Register: registered
)

// Times, in milliseconds.
const (
	reopenEvery   = 300            // between tries to get the own mailbox back
	probeEvery    = 400            // between probes of a suspect
	suspectFor    = 60_000         // a worker that was not returned for so long is alive
	offerFor      = 5_000          // a stopping worker's mailbox is tried for so long
	offerEvery    = 50             // between those tries
	lockEvery     = 5_000          // between tries for the janitor's lock
	roundEvery    = 5_000          // between the janitor's rounds
	listEvery     = 60_000         // between readings of the register
	readEvery     = 250            // between two readings of one overflow
	readAtOnce    = 1_000          // messages of one takeHeld
	settleBefore  = 1_000          // between unbinding and deleting a mailbox
	registerEvery = 24 * 3_600_000 // between records of this worker: the register forgets after days
	registerAgain = 10_000         // after a record that failed
)

func newCore(self socketmeta.ServerID, window time.Duration) *core {
	c := &core{self: self, window: window.Milliseconds()}
	c.left()
	return c
}

// joined notes that there is a link.
func (c *core) joined(now int64) {
	c.up = true
	c.openAt, c.lockAt, c.roundAt, c.listAt, c.registerAt = now, now+lockEvery, now, now, now
	c.tick(now, nil)
}

// left notes that the link is gone, and everything on it.
func (c *core) left() {
	c.up, c.janitor, c.known, c.openAt = false, false, false, 0
	c.orders = nil
	c.owned = make(map[socketmeta.ServerID]*ownership)
	c.taking = make(map[socketmeta.ServerID]bool)
	c.suspects = make(map[socketmeta.ServerID]*suspect)
	c.offers = make(map[socketmeta.ServerID]int64)
	c.offered = make(map[socketmeta.ServerID]bool)
	c.gone = make(map[socketmeta.ServerID]bool)
}

func (c *core) order(o order) { c.orders = append(c.orders, o) }

// takeOrders hands out what is to be done.
func (c *core) takeOrders() (out []order) {
	out, c.orders = c.orders, nil
	return out
}

func (c *core) say(to broker.Address, m wire.ControlMessage) {
	c.order(order{verb: say, to: to, message: m})
}

// opening is how an openOwn or adopt ended.
type opening uint8

const (
	gotIt     opening = iota
	isOwned           // somebody else has it
	isMissing         // there is none
	failed            // a fault; the link will tell
)

// opened notes how an openOwn or an adopt ended; life names the ownership if it was got.
func (c *core) opened(s socketmeta.ServerID, how opening, life uint64, now int64) {
	delete(c.taking, s)
	if !c.up {
		return
	}
	switch how {
	case gotIt:
		c.owned[s] = &ownership{life: life, wanted: true, readAt: now, pollAt: now + c.window/4, quiet: now}
		delete(c.suspects, s)
		delete(c.offers, s)
		delete(c.gone, s)
		c.say(broker.ToAll(), &wire.Owner{From: c.self, Mailbox: s})
		c.register(now)
		if c.draining { // it was on its way when we began to stop
			c.offer(s)
		}
	case isMissing:
		delete(c.suspects, s)
		delete(c.offers, s)
		c.gone[s] = true
	case isOwned, failed:
		if s == c.self {
			c.openAt = now + reopenEvery
			if how == isOwned {
				c.say(broker.ToControl(broker.Worker(s)), &wire.Handback{Mailbox: s})
			}
		}
	}
}

// suspect notes that a client has come here from worker s.
func (c *core) suspect(s socketmeta.ServerID, now int64) {
	if c.up && !c.draining && s != c.self && c.owned[s] == nil && !c.gone[s] {
		if c.suspects[s] == nil {
			c.suspects[s] = &suspect{next: now}
		}
		c.suspects[s].until = now + suspectFor
	}
}

// returned notes that nobody owns the mailbox of s.
func (c *core) returned(s socketmeta.ServerID) { c.take(s) }

func (c *core) take(s socketmeta.ServerID) {
	if c.up && !c.draining && s != c.self && c.owned[s] == nil && !c.taking[s] {
		c.taking[s] = true
		c.order(order{verb: adopt, server: s})
	}
}

// heard takes a message that is about mailboxes.
func (c *core) heard(m wire.ControlMessage, now int64) {
	switch m := m.(type) {
	case *wire.Handback:
		if o := c.owned[m.Mailbox]; o != nil && m.Mailbox != c.self {
			c.release(m.Mailbox, o)
		}
	case *wire.Offer:
		if m.From != c.self && c.up && !c.draining && c.owned[m.Mailbox] == nil {
			c.offers[m.Mailbox] = now + offerFor
		}
	case *wire.Owner:
		if m.From == c.self {
			return
		}
		delete(c.offers, m.Mailbox)
		delete(c.offered, m.Mailbox)
		delete(c.gone, m.Mailbox)
	}
}

func (c *core) release(s socketmeta.ServerID, o *ownership) {
	if !o.releasing {
		o.releasing = true
		c.order(order{verb: release, server: s})
	}
}

// released notes that the mailbox is given up.
func (c *core) released(s socketmeta.ServerID) { delete(c.owned, s) }

// drain notes that this worker stops: it takes nothing any more. offerAll follows.
func (c *core) drain() { c.draining = true }

// offerAll gives up everything that this worker owns, to whoever takes it.
func (c *core) offerAll() {
	c.draining = true
	for _, s := range slices.Sorted(maps.Keys(c.owned)) {
		c.offer(s)
	}
}

func (c *core) offer(s socketmeta.ServerID) {
	if o := c.owned[s]; !o.releasing {
		c.offered[s] = true
		c.say(broker.ToAll(), &wire.Offer{From: c.self, Mailbox: s})
		c.release(s, o)
	}
}

// handedOver reports whether others have taken all that was offered.
func (c *core) handedOver() bool { return len(c.owned)+len(c.offered) == 0 }

// tick does what time asks for. live counts what was delivered from a mailbox or its overflow and
// is not settled; nil is for none.
func (c *core) tick(now int64, live func(life uint64) int) {
	if !c.up {
		return
	}
	if c.openAt != 0 && now >= c.openAt && !c.draining {
		c.openAt = 0
		c.order(order{verb: openOwn, server: c.self})
	}
	c.register(now)
	for _, s := range slices.Sorted(maps.Keys(c.suspects)) {
		switch x := c.suspects[s]; {
		case now >= x.until || c.draining:
			delete(c.suspects, s)
		case now >= x.next:
			x.next = now + probeEvery
			c.probe(s)
		}
	}
	for _, s := range slices.Sorted(maps.Keys(c.offers)) {
		if c.take(s); now >= c.offers[s] || c.draining {
			delete(c.offers, s)
		}
	}
	for _, s := range slices.Sorted(maps.Keys(c.owned)) {
		c.look(s, c.owned[s], now, live)
	}
	c.tickJanitor(now)
}

func (c *core) register(now int64) {
	if c.owned[c.self] != nil && now >= c.registerAt {
		c.registerAt = now + registerEvery
		c.order(order{verb: register, server: c.self})
	}
}

// registered notes whether a record of this worker was stored.
func (c *core) registered(ok bool, now int64) {
	c.known = true
	if !ok {
		c.registerAt = now + registerAgain
	}
}

// serves reports whether this worker may take clients: it owns its mailbox, and is in the register. Were
// it to die before that, and for good, nobody would look for what is in its mailbox.
func (c *core) serves() bool {
	own := c.owned[c.self]
	return c.known && own != nil && !own.releasing && !c.draining
}

func (c *core) probe(s socketmeta.ServerID) {
	c.order(order{verb: probe, server: s, to: broker.ToControl(broker.Worker(s)), message: &wire.Probe{From: c.self}})
}
