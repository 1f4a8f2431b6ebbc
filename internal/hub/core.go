package hub

import (
	"errors"
	"maps"
	"slices"
	"time"

	"github.com/wscluster/wscluster/internal/engine"
	"github.com/wscluster/wscluster/pkg/wire"
)

// The bounds of a hub. Options may lower some of them for tests.
const (
	maxChannels  = 50_000           // channels that have a subscriber or linger: a subscription beyond is refused as overloaded
	maxNamed     = 5_000            // channels bound by their names: with more the worker is bound to all
	minNamed     = 2_500            // below it they are bound by their names again
	maxRings     = 64 << 20         // bytes of all rings: a channel that takes a post beyond drops its oldest ones
	maxRing      = 256 << 10        // bytes of one ring, which has at most wire.MaxKept posts
	maxHeld      = 1_000            // posts of a channel that wait for the end of its sync, or were found: beyond, it goes on with what it has
	maxHeldBytes = 1 << 20          // bytes of those
	maxStreams   = 1_024            // counters of one channel: beyond, the one that was silent for longest is forgotten
	maxAsks      = 64               // questions on their way, of wire.MaxAskedChannels channels each: more channels wait
	maxLate      = 256              // questions that are over, and whose late answers are of use
	lingerFor    = 30 * time.Second // a channel stays bound after its last subscriber
	answerWithin = 300 * time.Millisecond
	bindWithin   = time.Second     // the broker may take so long before subscribers are answered without it
	lateFor      = 5 * time.Second // late answers are of use
	newLink      = time.Second     // so long after a link came up others may be there that are not known
)

// retryAfter is when those are asked again who did not answer.
var retryAfter = [...]time.Duration{time.Second, 2 * time.Second, 4 * time.Second, 8 * time.Second}

// Socket is what the hub needs of the connections: see engine.Engine. None of it may block or call back.
type Socket interface {
	Send(c engine.ConnRef, f *engine.Frame) error
	Offer(c engine.ConnRef, f *engine.Frame) error
	Broadcast(f *engine.Frame, cs []engine.ConnRef, failed []engine.Failure) []engine.Failure
	CloseConn(c engine.ConnRef, code engine.StatusCode, reason string, last *engine.Frame)
}

// core decides what a worker does with subscriptions. It has no lock, goroutine or clock, and knows no broker: what
// is to be done there it leaves as orders, and hears of by bound and found.
//
// What goes to all subscribers of a channel waits in a queue, which deliver works off a few sends at a time. What goes
// to one of them (the answer to its subscribe, with the snapshot) is sent at once. Each delivery of a channel has a
// number, and each subscriber the number up to which its snapshot went: so neither is there a hole nor a double between them.
type core struct {
	sock   Socket
	self   string            // this worker's name in answers
	newAsk func() wire.RunID // names a question
	limits limits

	channels map[wire.Channel]*channel
	conns    map[engine.ConnRef][]*channel // what each connection is subscribed to
	opened   uint64                        // channels so far
	subs     int                           // subscriptions
	busy     int                           // channels with a subscriber
	rings    int                           // bytes of all rings

	up       bool      // there is a link to the broker
	upSince  time.Time // if up
	named    int       // channels bound by their names, or ordered to be
	all      bool      // the worker is bound to all channels, or ordered to be
	allBound bool      // it is

	peers  map[string]struct{} // who answers questions, this worker included
	toAsk  []*channel
	asks   map[wire.RunID]*ask
	asking int // asks that are not over
	orders []order
	report bool // a post for the local channel is wanted now

	hasty     map[*channel]struct{} // with subscribers that wait for an answer while the broker does
	lingering []lingerer            // in order of time
	retrying  map[*channel]struct{}

	queue   []delivery // what goes to all subscribers of a channel
	head    int        // the first of queue that is not done
	at      int        // its next subscriber
	crowd   crowd
	scratch []byte
	count   counts
}

// limits are those that tests lower.
type limits struct{ channels, named, backNamed, rings, kept, held int }

// counts are sums since the start.
type counts struct {
	posts int64 // taken, of channels with subscribers or lingering
	sent  int64 // to subscribers
	slow  int64 // not sent: the subscriber did not keep up; for each subscriber
	lost  int64 // holes in the counters of publishers: never came; once for the worker
}

// verb is what an order asks for.
type verb uint8

const (
	bind verb = iota // a channel; bound follows
	unbind
	bindAll // allIsBound follows
	unbindAll
	find // ask all what they have of channels; hear follows
)

// order is something to be done with the broker, in the order given. The orders of a link end with it.
type order struct {
	verb     verb
	channel  wire.Channel
	opened   uint64 // which life of the channel: for bound
	ask      wire.RunID
	channels []wire.Channel // of find
}

// lingerer is a channel without subscribers.
type lingerer struct {
	ch    *channel
	until time.Time
}

func newCore(sock Socket, self string, newAsk func() wire.RunID) *core {
	return &core{
		sock: sock, self: self, newAsk: newAsk,
		limits:   limits{channels: maxChannels, named: maxNamed, backNamed: minNamed, rings: maxRings, kept: wire.MaxKept, held: maxHeld},
		channels: map[wire.Channel]*channel{}, conns: map[engine.ConnRef][]*channel{},
		peers: map[string]struct{}{self: {}}, asks: map[wire.RunID]*ask{},
		hasty: map[*channel]struct{}{}, retrying: map[*channel]struct{}{},
	}
}

// takeOrders returns what is to be done, and forgets it.
func (c *core) takeOrders() []order {
	o := c.orders
	c.orders = nil
	return o
}

// subscribe adds a subscription, in the place of an earlier one of the same connection to the same channel. The answer
// comes at once, or once it is known what there is. A bare subscriber gets the bodies of the posts and nothing else.
func (c *core) subscribe(conn engine.ConnRef, name wire.Channel, id string, bare bool, now time.Time) *wire.Error {
	ch := c.channels[name]
	if ch != nil {
		if i, ok := ch.index[conn]; ok {
			c.remove(ch, i, now)
		}
	}
	if len(c.conns[conn]) >= wire.MaxSubscriptions {
		return wire.Errorf(wire.CodeTooManyChannels, "this connection is subscribed to %d channels; end one", wire.MaxSubscriptions)
	}
	if ch == nil {
		if len(c.channels) >= c.limits.channels {
			return wire.Errorf(wire.CodeOverloaded, "this worker has %d channels; try again, or another one", c.limits.channels)
		}
		ch = c.open(name)
		c.ask(now) // it may be bound already, as all are
	}
	if len(ch.index) == 0 {
		c.busy++
	}
	ch.index[conn] = len(ch.subs)
	ch.subs = append(ch.subs, sub{conn: conn, waiting: true, bare: bare})
	c.conns[conn] = append(c.conns[conn], ch)
	c.subs++
	if id != "" {
		ch.ids[conn] = id
	}
	if ch.phase == live {
		if _, gone := c.answer(ch, len(ch.subs)-1); gone {
			c.remove(ch, len(ch.subs)-1, now)
		}
		return nil
	}
	if _, ok := c.hasty[ch]; !ok {
		within := bindWithin
		if ch.local {
			within = answerWithin
		}
		ch.due, c.hasty[ch] = now.Add(within), struct{}{}
	}
	return nil
}

// unsubscribe ends a subscription, if there is one, and says so to the connection.
func (c *core) unsubscribe(conn engine.ConnRef, name wire.Channel, id string, now time.Time) {
	if ch := c.channels[name]; ch != nil {
		if i, ok := ch.index[conn]; ok {
			c.remove(ch, i, now)
		}
	}
	c.reply(conn, &wire.Unsubscribed{ID: id, Channel: name})
}

// gone ends all subscriptions of a connection.
func (c *core) gone(conn engine.ConnRef, now time.Time) {
	for _, ch := range slices.Clone(c.conns[conn]) {
		c.remove(ch, ch.index[conn], now)
	}
}

// reply sends what must arrive. Who has no room for it is closed, as for every other reply.
func (c *core) reply(conn engine.ConnRef, m wire.ServerMessage) {
	if errors.Is(c.sock.Send(conn, engine.NewText(wire.EncodeServer(m))), engine.ErrQueueFull) {
		c.sock.CloseConn(conn, wire.CloseSlow, "the socket's queue is full", nil)
	}
}

// open makes a channel and sees to it that its posts come.
func (c *core) open(name wire.Channel) *channel {
	c.opened++
	ch := &channel{name: name, opened: c.opened, local: name == wire.ChannelEngine, index: map[engine.ConnRef]int{}, ids: map[engine.ConnRef]string{}}
	c.channels[name] = ch
	switch {
	case ch.local:
		ch.phase = asking
		c.report = true
	case c.up:
		c.bind(ch)
	}
	return ch
}

// bind orders that the posts of ch come.
func (c *core) bind(ch *channel) {
	if !c.all && c.named >= c.limits.named {
		c.all = true
		c.orders = append(c.orders, order{verb: bindAll})
	}
	switch {
	case !c.all:
		c.name(ch)
	case c.allBound:
		c.isBound(ch)
	}
}

func (c *core) name(ch *channel) {
	ch.named = true
	c.named++
	c.orders = append(c.orders, order{verb: bind, channel: ch.name, opened: ch.opened})
}

// close forgets a channel.
func (c *core) close(ch *channel) {
	delete(c.channels, ch.name)
	delete(c.hasty, ch)
	delete(c.retrying, ch)
	c.rings -= ch.ringBytes
	ch.closed = true
	if ch.named {
		c.named--
		c.orders = append(c.orders, order{verb: unbind, channel: ch.name})
	}
	if c.allBound && len(c.channels) < c.limits.backNamed {
		for _, name := range slices.Sorted(maps.Keys(c.channels)) {
			if ch := c.channels[name]; !ch.named && !ch.local {
				c.name(ch)
			}
		}
		c.all, c.allBound = false, false
		c.orders = append(c.orders, order{verb: unbindAll})
	}
}

// linkUp notes that there is a broker.
func (c *core) linkUp(now time.Time) {
	c.up, c.upSince, c.orders = true, now, nil
	names := slices.Sorted(maps.Keys(c.channels))
	if len(names) > c.limits.named {
		c.all = true
		c.orders = append(c.orders, order{verb: bindAll})
	}
	for _, name := range names {
		if ch := c.channels[name]; !ch.local {
			c.bind(ch)
		}
	}
}

// linkDown notes that the broker is away: posts pass by.
func (c *core) linkDown() {
	c.up, c.named, c.all, c.allBound = false, 0, false, false
	for _, ch := range slices.Collect(maps.Values(c.channels)) {
		ch.named = false
		if len(ch.index) == 0 {
			c.close(ch)
			continue
		}
		if ch.local {
			continue
		}
		ch.phase, ch.found, ch.foundBytes, ch.passed, ch.retries = opening, nil, 0, nil, 0
		ch.lossy = ch.lossy || ch.synced
		delete(c.retrying, ch)
	}
	c.orders, c.toAsk, c.asking = nil, nil, 0
	clear(c.asks)
}

// bound notes that a channel is bound by its name.
func (c *core) bound(name wire.Channel, opened uint64) {
	if ch := c.channels[name]; ch != nil && ch.opened == opened {
		c.isBound(ch)
	}
}

// allIsBound notes that bindAll is done.
func (c *core) allIsBound() {
	if !c.all {
		return
	}
	c.allBound = true
	for _, name := range slices.Sorted(maps.Keys(c.channels)) {
		if ch := c.channels[name]; !ch.named && !ch.local {
			c.isBound(ch)
		}
	}
}

// isBound begins to ask what there is of ch.
func (c *core) isBound(ch *channel) {
	if ch.phase == opening {
		ch.phase = asking
		c.toAsk = append(c.toAsk, ch)
	}
}

// tick does what time asks for; call it some twenty times a second. It begins to ask what is to be asked, too: call
// it after bound.
func (c *core) tick(now time.Time) {
	c.tickAsks(now)
	for ch := range c.hasty {
		if now.Before(ch.due) {
			continue
		}
		delete(c.hasty, ch)
		if ch.local {
			c.endSync(ch, true)
			continue
		}
		// What is published between this and the end of the sync may be missed by who is answered now.
		ch.partial, ch.lossy = true, true
		c.push(delivery{ch: ch, answers: true})
	}
	for len(c.lingering) > 0 && !now.Before(c.lingering[0].until) {
		l := c.lingering[0]
		c.lingering = c.lingering[1:]
		if !l.ch.closed && len(l.ch.index) == 0 && l.ch.idle.Equal(l.until) {
			c.close(l.ch)
		}
	}
	for ch := range c.retrying {
		if !now.Before(ch.retryAt) {
			delete(c.retrying, ch)
			c.toAsk = append(c.toAsk, ch)
		}
	}
	c.ask(now)
}

// subscribers is how many of this worker's connections are subscribed to a channel.
func (c *core) subscribers(name wire.Channel) int {
	if ch := c.channels[name]; ch != nil {
		return len(ch.index)
	}
	return 0
}
