package hub

import (
	"errors"
	"time"

	"github.com/wscluster/wscluster/internal/engine"
	"github.com/wscluster/wscluster/pkg/wire"
)

// delivery is something for all subscribers of a channel.
type delivery struct {
	ch      *channel
	n       uint64
	post    *kept         // or
	missed  *engine.Frame // so many were lost, or
	lost    int64         // 0: nobody knows how many
	answers bool          // who waits for an answer gets it
}

// push puts d into the queue.
func (c *core) push(d delivery) {
	d.ch.n++
	d.n = d.ch.n
	c.queue = append(c.queue, d)
}

// pushMissed tells all subscribers of ch that posts were lost; 0 if nobody knows how many.
func (c *core) pushMissed(ch *channel, n int64) {
	c.push(delivery{ch: ch, lost: n, missed: missedFrame(ch.name, n, wire.MissedLost)})
}

func missedFrame(ch wire.Channel, n int64, why wire.MissedReason) *engine.Frame {
	return engine.NewText(wire.EncodeServer(&wire.Missed{Channel: ch, Count: n, Reason: why}))
}

// deliver works off the queue, at most about budget sends, and reports whether something is left. It allocates nothing
// for a subscriber that keeps up.
func (c *core) deliver(budget int, now time.Time) (more bool) {
	for ; c.head < len(c.queue); c.head++ {
		d := &c.queue[c.head]
		ch := d.ch
		for ; c.at < len(ch.subs); c.at++ {
			if budget <= 0 {
				c.giveCrowd(d, now)
				return true
			}
			s, gone := &ch.subs[c.at], false
			switch {
			case s.conn == 0:
			case d.answers && s.waiting:
				var frames int
				frames, gone = c.answer(ch, c.at)
				budget -= frames
			case d.answers || s.waiting || s.from >= d.n:
			case !s.bare && !s.behind():
				c.crowd.conns, c.crowd.at = append(c.crowd.conns, s.conn), append(c.crowd.at, c.at)
				budget--
			default:
				c.give(d, c.at, now)
				budget--
			}
			if gone {
				c.remove(ch, c.at, now)
			}
		}
		c.giveCrowd(d, now)
		*d, c.at = delivery{}, 0
		c.compact(ch)
	}
	c.queue, c.head = c.queue[:0], 0
	return false
}

// crowd is the subscribers that deliver has gathered to give them one frame.
type crowd struct {
	conns  []engine.ConnRef
	at     []int // their places
	failed []engine.Failure
}

// giveCrowd gives d to the crowd, which is empty afterwards.
func (c *core) giveCrowd(d *delivery, now time.Time) {
	w := &c.crowd
	if len(w.conns) == 0 {
		return
	}
	f := d.missed
	if d.post != nil {
		f = d.post.frame
	}
	w.failed = c.sock.Broadcast(f, w.conns, w.failed[:0])
	c.count.sent += int64(len(w.conns) - len(w.failed))
	for _, fail := range w.failed {
		c.failed(d, w.at[fail.At], fail.Err, now)
	}
	w.conns, w.at = w.conns[:0], w.at[:0]
}

// failed notes that the subscriber at a place has not taken d.
func (c *core) failed(d *delivery, at int, err error, now time.Time) {
	switch {
	case errors.Is(err, engine.ErrQueueFull):
		d.ch.subs[at].miss(d)
		c.count.slow++
	case errors.Is(err, engine.ErrGone):
		c.remove(d.ch, at, now)
	}
}

// give is deliver for one subscriber that does not get what the crowd gets.
func (c *core) give(d *delivery, at int, now time.Time) {
	s := &d.ch.subs[at]
	switch {
	case s.behind():
		s.miss(d)
		c.count.slow++
	case d.post != nil: // it is a bare one, and those are not told of what is missed
		if err := c.sock.Offer(s.conn, d.post.bareFrame()); err != nil {
			c.failed(d, at, err, now)
		} else {
			c.count.sent++
		}
	}
}

// miss notes that s did not get d.
func (s *sub) miss(d *delivery) {
	switch {
	case d.post != nil:
		s.slow++
	case d.lost > 0:
		s.lost += d.lost
	default:
		s.unsure = true
	}
}

// answer replies to a subscribe and sends the snapshot, if the connection has room for it: else it waits until it is
// writable. It returns about how many frames it sent, and whether the connection is gone.
func (c *core) answer(ch *channel, i int) (frames int, gone bool) {
	s := &ch.subs[i]
	if !s.bare {
		err := c.sock.Offer(s.conn, engine.NewText(wire.EncodeServer(&wire.Subscribed{
			ID: ch.ids[s.conn], Channel: ch.name, Snapshot: len(ch.ring), Partial: ch.partial,
		})))
		if err != nil {
			return 1, errors.Is(err, engine.ErrGone)
		}
	}
	delete(ch.ids, s.conn)
	s.waiting, s.from, s.slow, s.lost, s.unsure = false, ch.n, 0, 0, false
	for _, k := range ch.ring { // it was offered the first: the other half of its queue has room for these
		f := k.frame
		if s.bare {
			f = k.bareFrame()
		}
		switch err := c.sock.Send(s.conn, f); {
		case errors.Is(err, engine.ErrQueueFull):
			s.slow++ // its queue is smaller than usual
		case err != nil:
			return 1, true
		}
	}
	return 1 + len(ch.ring), false
}

// writable goes on with a connection that had no room.
func (c *core) writable(conn engine.ConnRef) {
	for _, ch := range c.conns[conn] {
		i := ch.index[conn]
		switch s := &ch.subs[i]; {
		case s.waiting && ch.phase == live:
			c.answer(ch, i)
		case !s.waiting && s.behind():
			c.catchUp(ch, i)
		}
	}
}

// catchUp tells a subscriber what it has missed, after which it gets posts again. A bare one is given the
// snapshot anew, for it cannot ask.
func (c *core) catchUp(ch *channel, i int) {
	s := &ch.subs[i]
	if s.bare {
		c.answer(ch, i)
		return
	}
	tell := func(n int64, why wire.MissedReason) bool {
		return !errors.Is(c.sock.Offer(s.conn, missedFrame(ch.name, n, why)), engine.ErrQueueFull)
	}
	if s.slow > 0 && tell(s.slow, wire.MissedSlow) {
		s.slow = 0
	}
	if s.slow == 0 && s.lost > 0 && tell(s.lost, wire.MissedLost) {
		s.lost = 0
	}
	if s.slow == 0 && s.lost == 0 && s.unsure && tell(0, wire.MissedLost) {
		s.unsure = false
	}
}

// post takes a post that has passed its check. Of a channel that nobody here is subscribed to it does nothing.
func (c *core) post(p *wire.Post) {
	ch := c.channels[p.Channel]
	if ch == nil {
		return
	}
	c.count.posts++
	if ch.phase != live && !ch.local {
		ch.held = append(ch.held, p)
		ch.heldBytes += keptRoom + len(p.Body)
		if len(ch.held) > c.limits.held || ch.heldBytes > maxHeldBytes {
			c.merge(ch)
		}
		return
	}
	holes, ok := ch.take(p)
	if !ok {
		return
	}
	if holes > 0 {
		c.count.lost += holes
		c.pushMissed(ch, holes)
	}
	k := c.encode(p)
	c.keep(ch, k)
	c.push(delivery{ch: ch, post: k})
	if ch.phase != live {
		c.endSync(ch, false)
	}
}
