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
			default:
				gone = c.give(d, s)
				budget--
			}
			if gone {
				c.remove(ch, c.at, now)
			}
		}
		*d, c.at = delivery{}, 0
		c.compact(ch)
	}
	c.queue, c.head = c.queue[:0], 0
	return false
}

// give is deliver for one subscriber. It reports whether the connection is gone.
func (c *core) give(d *delivery, s *sub) (gone bool) {
	if s.behind() {
		s.miss(d)
		c.count.slow++
		return false
	}
	f := d.missed
	switch {
	case d.post == nil && s.bare:
		return false
	case d.post != nil && s.bare:
		f = d.post.bareFrame()
	case d.post != nil:
		f = d.post.frame
	}
	err := c.sock.Offer(s.conn, f)
	switch {
	case err == nil:
		c.count.sent++
	case errors.Is(err, engine.ErrQueueFull):
		s.miss(d)
		c.count.slow++
	}
	return errors.Is(err, engine.ErrGone)
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
