package session

import (
	"encoding/json"
	"slices"
	"time"

	"github.com/wscluster/wscluster/pkg/broker"
	"github.com/wscluster/wscluster/pkg/wire"
)

// This file holds the rules for events that cannot go to their client now: they are passed on to
// the worker that has it, held, put into the overflow, refreshed, and given up when the client
// does not come back.

// forward passes entries on to the worker that has the session.
func (c *core) forward(es []entry, fx *Effects) {
	to := c.moved.to
	for _, e := range es {
		copied := e.copy() // what is refused is tried again as it was
		copied.Epoch, copied.Hops = to.epoch, copied.Hops+1
		c.job(Forward, []entry{e}, fx, []Copy{{broker.ToMailbox(to.server), copied}})
	}
}

// hear notes that there was word of where the client is. Its window begins with the first event that
// is held for it after that: from then on it is sought. Until a moment before it may have been with a
// worker that has died since, of which nobody told us.
func (c *core) hear(now int64) {
	c.heard = now
	if c.work != nil {
		c.since, c.ended = 0, 0
	}
}

// refresh publishes entries again to their own mailbox, each alone.
func (c *core) refresh(es []entry, fx *Effects) {
	for _, e := range es {
		c.job(Refresh, []entry{e}, fx, []Copy{{broker.ToMailbox(e.ref.Mailbox), e.copy()}})
	}
}

// unpin lets go of the batches that are kept for this client: by what came at the time waiting or before, and by what is
// with its socket and came at the time sent or before.
func (c *core) unpin(waiting, sent int64, fx *Effects) {
	var out []entry
	for _, t := range c.order {
		for i := 0; i < len(t.queue); {
			since := waiting
			if i < t.sent {
				since = sent
			}
			if e := &t.queue[i]; e.ref.Part > 0 && e.at <= since {
				out = append(out, c.extract(t, i, i+1)...)
			} else {
				i++
			}
		}
	}
	c.refresh(out, fx)
}

// hold puts entries into the overflow of their mailbox.
func (c *core) hold(es []entry, fx *Effects) {
	for _, e := range es {
		if c.overflow == nil {
			c.overflow = make(map[uint64]int)
		}
		c.overflow[e.ref.Life]++
		c.job(Hold, []entry{e}, fx, []Copy{{broker.ToHold(e.ref.Mailbox), e.copy()}})
	}
}

// unhold notes that one event has left the overflow.
func (c *core) unhold(life uint64) {
	if c.overflow[life] > 1 {
		c.overflow[life]--
	} else {
		delete(c.overflow, life)
	}
}

// job makes a job of entries that are in no queue.
func (c *core) job(p Purpose, es []entry, fx *Effects, steps ...[]Copy) *Job {
	c.begin()
	j := &Job{Client: c.client, Purpose: p, Steps: steps, entries: es}
	for _, e := range es {
		j.Refs = append(j.Refs, e.ref)
	}
	c.flying += len(es)
	fx.Jobs = append(fx.Jobs, j)
	return j
}

// over notes how a job ended. What the broker refused is held again, unless its life has ended
// meanwhile: then it is delivered again.
func (c *core) over(j *Job, end End, now int64, fx *Effects) {
	if c.lost[j.Life()] && end == Refused {
		end = Lost
	}
	if c.flying -= len(j.entries); c.flying == 0 {
		c.lost = nil
	}
	if end == Stored {
		return
	}
	if j.Purpose == Hold {
		c.unhold(j.Life())
	}
	if end == Lost {
		return
	}
	for _, e := range j.entries {
		if !e.event.Durable {
			fx.Settle = append(fx.Settle, e.ref)
			continue
		}
		t := c.record(e.event.Task)
		if e.event.Attempt == 0 {
			t.number(&e.event, c.o.NewRun)
		}
		if t.state == stateFinished || covers(&t.position, &e.event) {
			fx.Settle = append(fx.Settle, e.ref)
		} else if _, ok := c.keep(t, e, fx); !ok {
			fx.Settle = append(fx.Settle, e.ref)
		}
	}
	switch {
	case j.Purpose == Hold && j.entries[0].event.Type == wire.EventGap: // which only relief puts there
		c.stuckAt = now
	case j.Purpose == Evict: // the dead events take nothing, or the mailbox no gap
		c.fullAt, c.park = now, !c.park
	case j.Purpose == Hold && !c.full(now) && (c.pressed || c.crowded()): // the overflow is full: the oldest make room for what came last
		c.pressed = false
		c.giveUp(c.oldest(), wire.GapCaps, now, fx)
	}
}

// fullFor is how long what the broker would not let us give up is kept, caps or no caps, before it is
// tried again, in milliseconds: each try may leave another copy with the dead. Only the prefetch is
// then a bound.
const fullFor = 5000

func (c *core) full(now int64) bool {
	if c.fullAt != 0 && now-c.fullAt >= fullFor {
		c.fullAt = 0
	}
	return c.fullAt != 0
}

// keepCaps sees to it that no more than one client's share waits in memory: the last of what
// waits goes into the overflow. Gaps stay.
func (c *core) keepCaps(now int64, fx *Effects) {
	if c.work != nil && c.crowded() && !c.full(now) && !c.expired() {
		c.holdWhile(c.crowded, false, fx)
	}
}

// crowded reports whether more waits in memory than one client's share.
func (c *core) crowded() bool {
	return c.held-c.sent > c.o.MaxWaiting || c.heldBytes-c.sentBytes > c.o.MaxWaitingBytes
}

// holdWhile puts what waits into the overflow, from the last event of the youngest task on, while more
// says so: events, or gaps. It goes there in order: what comes out of it first is then what the client
// waits for.
func (c *core) holdWhile(more func() bool, gaps bool, fx *Effects) (held bool) {
	var out []entry
	for _, t := range slices.Backward(c.order) {
		for i := len(t.queue) - 1; i >= t.sent && more(); i-- {
			if (t.queue[i].event.Type == wire.EventGap) == gaps {
				out = append(out, c.extract(t, i, i+1)...)
			}
		}
	}
	slices.Reverse(out)
	c.hold(out, fx)
	return len(out) > 0
}

// relieve puts what waits into the overflow, because the worker holds too much: gaps only when nothing
// else waits. A client that is here keeps what it can be sent next, or one event if it has acknowledged
// nothing for a while; that one gives back what it was sent too. It may wait for an event that another
// worker cannot pass on as long as our mailbox is full, or for the one that has just come.
func (c *core) relieve(now int64, fx *Effects) {
	if c.work == nil {
		return
	}
	keep := 0
	if c.conn != 0 {
		keep = c.o.MaxSent
		if now-c.stalled > c.o.AckTimeout.Milliseconds()/12 {
			keep = 1
			c.resend()
		}
	}
	more := func() bool { return c.held-c.sent > keep }
	switch {
	case c.full(now):
	case c.holdWhile(more, false, fx):
		c.pressed = true
	case now-c.stuckAt >= fullFor:
		c.holdWhile(more, true, fx)
	}
}

// wantOverflow asks for the events of this client that lie in overflows.
func (c *core) wantOverflow(fx *Effects) {
	if c.work == nil {
		return
	}
	for life := range c.overflow {
		fx.Overflow = append(fx.Overflow, life)
	}
}

// seekEvery is how often one client is sought at most, in milliseconds.
const seekEvery = 5000

// seek asks who has the client, for whom something is held, if that was not asked a moment ago.
func (c *core) seek(now int64, fx *Effects) {
	if c.conn == 0 && c.since == 0 {
		c.since = now
	}
	if c.conn == 0 && now-c.sought >= seekEvery {
		c.sought = now
		fx.Seek = append(fx.Seek, c.client)
	}
}

// oldest takes out what came first of what waits, an eighth of it and at least one: enough to
// make room for a while. A gap that they follow goes with them, to be part of theirs.
func (c *core) oldest() (out []entry) {
	n := max(1, (c.held-c.sent)/8)
	for _, t := range c.order {
		for i := t.sent; i < len(t.queue) && len(out) < n; {
			switch {
			case t.queue[i].event.Type != wire.EventGap:
				out = append(out, c.extract(t, i, i+1)...)
			case i+1 < len(t.queue) && joins(&t.queue[i], &t.queue[i+1]):
				out = append(out, c.extract(t, i, i+2)...)
				n++
			default:
				i++
			}
		}
	}
	return out
}

// giveUp evicts entries: first every one of them is copied to the dead events, then a gap that
// names them goes to their mailbox, then they are acknowledged. Only neighbours share a gap. Where the
// mailbox is full, and so is all that was taken from it, a gap that waited for room there would wait
// for itself: it is parked.
func (c *core) giveUp(es []entry, reason wire.GapReason, now int64, fx *Effects) {
	for len(es) > 0 {
		n := 1
		for n < len(es) && neighbours(&es[n-1], &es[n]) {
			n++
		}
		chain := es[:n]
		es = es[n:]
		var dead []Copy
		for i := range chain {
			if chain[i].event.Type != wire.EventGap {
				dead = append(dead, Copy{broker.ToDeadEvents(), chain[i].copy()})
			}
		}
		gap := Copy{broker.ToMailbox(chain[0].ref.Mailbox), gapOf(chain, reason, now)}
		if c.park {
			gap.To = broker.ToMailbox(broker.ParkedServer)
		}
		c.job(Evict, chain, fx, dead, []Copy{gap}).Reason = reason
	}
}

// neighbours reports whether b follows a in one run, out of one life. The gap of a plain event covers
// every number, so that all plain ones of a task share one.
func neighbours(a, b *entry) bool {
	return a.ref.Life == b.ref.Life && a.event.Task == b.event.Task && a.event.Attempt == b.event.Attempt &&
		a.event.Run == b.event.Run && (a.event.Attempt == 0 || b.event.Prev == a.event.Seq)
}

// joins reports whether gap can be part of the gap that e leaves.
func joins(gap, e *entry) bool {
	return e.event.Type != wire.EventGap && neighbours(gap, e) && gapIn(&gap.event).Reason == wire.GapCaps
}

// gapOf makes the event that stands in for a chain of neighbours. That of a plain event is numbered
// by whoever sends it, as plain events are: from is 1, so that it covers every number.
func gapOf(chain []entry, reason wire.GapReason, now int64) wire.Event {
	first, last := chain[0].copy(), chain[len(chain)-1].copy()
	from := max(1, first.Seq)
	if first.Type == wire.EventGap {
		from = gapIn(&first).FromSeq
	}
	body, err := json.Marshal(wire.Gap{FromSeq: from, Reason: reason, Timestamp: wire.Time{Time: time.UnixMilli(now)}})
	if err != nil {
		panic(err) // nothing in it can fail
	}
	gap := last
	gap.Type, gap.Seq, gap.Prev, gap.Hops, gap.Body = wire.EventGap, max(from, last.Seq), first.Prev, 0, body
	return gap
}

// gapIn reads the body of a gap; that of one that no worker made may be zero.
func gapIn(e *wire.Event) (g wire.Gap) {
	if json.Unmarshal(e.Body, &g) != nil {
		return wire.Gap{FromSeq: e.Seq}
	}
	return g
}

// stands reports whether gap is one that stands for e, or for all that the gap e does. One in the place
// of plain events does not: its numbers are this worker's.
func stands(gap, e *wire.Event) bool {
	if gap.Type != wire.EventGap || gap.Attempt == 0 || gap.Attempt != e.Attempt || gap.Run != e.Run || e.Seq > gap.Seq {
		return false
	}
	from := e.Seq
	if e.Type == wire.EventGap {
		from = gapIn(e).FromSeq
	}
	return gapIn(gap).FromSeq <= from
}

// keep puts e into the queue of its task. It reports the place, and false if e is there already, or is
// stood for: then it is to be settled.
func (c *core) keep(t *task, e entry, fx *Effects) (at int, ok bool) {
	if c.makeWay(t, &e.event, fx) {
		return 0, false
	}
	return c.insert(t, e)
}

// makeWay sees to it that nothing is held beside a gap that stands for it: its worker died, or lost its
// link, while it acknowledged the events that it had given up, and some of them came again. They are with the
// dead. Left before the gap, they would wait at the client for those that are gone, and the gap behind
// them for room; and the last of them has its number. It reports whether e itself is stood for.
func (c *core) makeWay(t *task, e *wire.Event, fx *Effects) (given bool) {
	at, _ := t.find(e)
	if at < len(t.queue) && stands(&t.queue[at].event, e) {
		return true
	}
	if e.Type == wire.EventGap {
		to := at
		if to < len(t.queue) && compare(&t.queue[to].event, e) == 0 {
			to++
		}
		for at > 0 && stands(e, &t.queue[at-1].event) {
			at--
		}
		for _, had := range c.extract(t, at, to) {
			fx.Settle = append(fx.Settle, had.ref)
			fx.Duplicates++
		}
	}
	return false
}

// sweep does what time asks for. It reports whether the session may be forgotten.
func (c *core) sweep(now int64, fx *Effects) (over bool) {
	window := c.o.Window.Milliseconds()
	if c.moved != nil && now-c.moved.at > window+window/8 {
		c.moved = nil
		c.hear(now)
	}
	if c.work == nil {
		return c.conn == 0 && c.moved == nil && now-c.heard >= window
	}
	if c.conn == 0 {
		c.sweepAway(now, fx)
	}
	old := c.o.RefreshAfter.Milliseconds() // after what needs no copy: a full mailbox refuses them
	c.refresh(c.extractIf(func(e *entry) bool { return now-e.at >= old }), fx)
	c.keepCaps(now, fx)
	if c.conn != 0 || c.moved != nil || c.held+c.flying+len(c.overflow) > 0 {
		return false
	}
	// The record outlives the last copy by a window: a copy that comes back from the mailbox would
	// else begin another window, again and again.
	return now-max(c.ended, c.since, c.heard) >= window
}

// sweepAway does what time asks for in a session without a socket.
func (c *core) sweepAway(now int64, fx *Effects) {
	if c.moved != nil {
		to := c.moved.to.epoch // what was refused before is tried again
		c.forward(c.extractIf(func(e *entry) bool { return e.event.Epoch < to }), fx)
	}
	if c.since != 0 && now-c.since >= c.o.Window.Milliseconds() {
		c.expire(now, fx)
	}
	if c.held > 0 {
		c.seek(now, fx)
	}
}

// expired reports whether the client was given up: what comes now waits for the next sweep, which gives
// it up too. Put into the overflow it would come again, and never all at once.
func (c *core) expired() bool { return c.conn == 0 && c.work != nil && c.ended != 0 }

// expire gives up what is held for a client that did not come back within the window. Gaps are
// kept for as long as a token lives; then nobody can ask for them.
func (c *core) expire(now int64, fx *Effects) {
	if c.held+c.flying+len(c.overflow) > 0 {
		c.ended = now
	}
	if !c.full(now) {
		c.giveUp(c.extractIf(func(e *entry) bool { return e.event.Type != wire.EventGap }), wire.GapExpired, now, fx)
	}
	life := 3 * c.o.Window.Milliseconds()
	past := func(e *entry) bool {
		return e.event.Type == wire.EventGap && now-gapIn(&e.event).Timestamp.UnixMilli() >= life
	}
	for _, e := range c.extractIf(past) {
		fx.Settle = append(fx.Settle, e.ref)
	}
	c.wantOverflow(fx)
}
