package mailbox

import (
	"slices"

	"github.com/wscluster/wscluster/pkg/broker"
	"github.com/wscluster/wscluster/pkg/socketmeta"
)

// This file is the part of core that looks after what nobody asks for: overflows, mailboxes whose
// worker does not come back, and those that no client claims.

// wantOverflow notes that a client has room for what lies in the overflow of the ownership life.
func (c *core) wantOverflow(life uint64) {
	for _, o := range c.owned {
		if o.life == life {
			o.wanted = true
		}
	}
}

// look does what one owned mailbox needs.
func (c *core) look(s socketmeta.ServerID, o *ownership, now int64, live func(uint64) int) {
	if o.releasing {
		return
	}
	if now >= o.pollAt {
		o.pollAt, o.wanted = now+c.window/4, true
	}
	if o.wanted && !o.reading && now >= o.readAt {
		o.wanted, o.reading, o.left = false, true, -1
		c.order(order{verb: takeHeld, server: s, max: readAtOnce})
	}
	if s == c.self || s == broker.ParkedServer || c.draining {
		return
	}
	if live == nil || live(o.life) > 0 || !o.empty {
		o.quiet = now
	}
	switch {
	case o.retire == inUse && now-o.quiet >= c.window:
		o.retire = unbinding
		c.order(order{verb: unbind, server: s})
	case o.retire == unbound && now-o.unbound >= settleBefore && now-o.quiet >= settleBefore:
		o.retire = deleting
		c.order(order{verb: deleteBox, server: s})
	}
}

// took notes that n messages were taken from an overflow and left are still in it. One reading
// comes to each message once: what is put back meanwhile is for the next one.
func (c *core) took(s socketmeta.ServerID, n, left int, now int64) {
	o := c.owned[s]
	if o == nil {
		return
	}
	if o.left < 0 {
		o.left = n + left
	}
	o.left -= n
	o.empty = left == 0 && n == 0
	if n > 0 {
		o.quiet = now
	}
	if o.left > 0 && n > 0 && !o.releasing {
		c.order(order{verb: takeHeld, server: s, max: min(o.left, readAtOnce)})
		return
	}
	o.reading, o.readAt = false, now+readEvery
}

// unboundNow notes how an unbind ended: ok is false if the worker is alive.
func (c *core) unboundNow(s socketmeta.ServerID, ok bool, now int64) {
	if o := c.owned[s]; o != nil {
		o.retire, o.unbound, o.quiet = inUse, now, now
		if ok {
			o.retire = unbound
			o.wanted = true // once more: something may have come to the overflow since
		}
	}
}

// deleted notes how a deletion ended: ok is false if something is left in the mailbox.
func (c *core) deleted(s socketmeta.ServerID, ok bool, now int64) {
	o := c.owned[s]
	if o == nil {
		return
	}
	if !ok {
		o.retire, o.unbound, o.wanted = unbound, now, true
		return
	}
	delete(c.owned, s)
	c.gone[s] = true
}

// tickJanitor tries for the lock, or does the round of who has it.
func (c *core) tickJanitor(now int64) {
	switch {
	case c.draining:
	case !c.janitor && now >= c.lockAt:
		c.lockAt = now + lockEvery
		c.order(order{verb: lockJanitor})
	case c.janitor && now >= c.listAt:
		c.listAt = now + listEvery
		c.order(order{verb: listServers})
	case c.janitor && now >= c.roundAt:
		c.roundAt = now + roundEvery
		for _, s := range c.servers {
			if s != c.self && c.owned[s] == nil && !c.gone[s] {
				c.probe(s)
			}
		}
		c.take(broker.ParkedServer)
	}
}

// locked notes whether this worker is the janitor now.
func (c *core) locked(ok bool, now int64) {
	c.janitor = ok && c.up
	c.listAt, c.roundAt = now, now
}

// listed notes what the register says. Whose mailbox was gone is looked for again: that it was made anew
// may have been said while we did not hear.
func (c *core) listed(servers []socketmeta.ServerID, now int64) {
	clear(c.gone)
	c.servers = slices.Sorted(slices.Values(servers))
	c.roundAt = now
	clear(c.gone) // a worker may have come back unheard
}
