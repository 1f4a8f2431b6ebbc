package hub

import (
	"cmp"
	"slices"
	"time"

	"github.com/wscluster/wscluster/pkg/wire"
)

// ask is one question to all, what they have of channels.
type ask struct {
	channels []*channel
	missing  map[string]struct{} // who has not answered
	deadline time.Time
	over     bool // its channels went on; late answers are of use until deadline
}

// ask begins to ask what waits to be asked.
func (c *core) ask(now time.Time) {
	for len(c.toAsk) > 0 && c.asking < maxAsks {
		a := &ask{missing: map[string]struct{}{}, deadline: now.Add(answerWithin)}
		var names []wire.Channel
		for len(c.toAsk) > 0 && len(names) < wire.MaxAskedChannels {
			ch := c.toAsk[0]
			c.toAsk[0] = nil
			c.toAsk = c.toAsk[1:]
			if !ch.closed && ch.phase != opening {
				names = append(names, ch.name)
				a.channels = append(a.channels, ch)
			}
		}
		if len(names) == 0 {
			continue
		}
		for name := range c.peers {
			a.missing[name] = struct{}{}
		}
		id := c.newAsk()
		c.asks[id] = a
		c.asking++
		c.orders = append(c.orders, order{verb: find, ask: id, channels: names})
	}
}

// know sets who answers questions; this worker does, too.
func (c *core) know(names []string) {
	c.peers = map[string]struct{}{c.self: {}}
	for _, name := range names {
		c.peers[name] = struct{}{}
	}
}

// hear takes an answer.
func (c *core) hear(m *wire.ChannelsFound, now time.Time) {
	a := c.asks[m.Ask]
	if a == nil {
		return
	}
	if _, twice := a.missing[m.Name]; !twice && a.over {
		return
	}
	delete(a.missing, m.Name)
	for i := range m.Channels {
		f := &m.Channels[i]
		ch := c.channels[f.Channel]
		if ch == nil || len(f.Kept) == 0 || !slices.Contains(a.channels, ch) {
			continue
		}
		for j := range f.Kept {
			ch.found = append(ch.found, &f.Kept[j])
			ch.foundBytes += keptRoom + len(f.Kept[j].Body)
		}
		ch.boundFound(c.limits.held)
		if ch.phase == live {
			c.merge(ch)
		}
	}
	if len(a.missing) == 0 && !a.over && now.Sub(c.upSince) >= newLink {
		c.finish(a, now)
	}
}

// boundFound forgets the oldest posts that were found, where there are too many.
func (ch *channel) boundFound(limit int) {
	if len(ch.found) <= limit && ch.foundBytes <= maxHeldBytes {
		return
	}
	slices.SortStableFunc(ch.found, func(a, b *wire.Post) int { return a.Time.Compare(b.Time.Time) })
	for len(ch.found) > limit/2 || ch.foundBytes > maxHeldBytes/2 {
		ch.foundBytes -= keptRoom + len(ch.found[0].Body)
		ch.pass(ch.found[0])
		ch.found[0] = nil
		ch.found = ch.found[1:]
	}
}

// tickAsks ends questions whose time is up.
func (c *core) tickAsks(now time.Time) {
	for id, a := range c.asks {
		switch {
		case a.over && (!now.Before(a.deadline) || len(c.asks) > maxLate):
			delete(c.asks, id)
		case !a.over && (!now.Before(a.deadline) || len(a.missing) == 0 && now.Sub(c.upSince) >= newLink):
			c.finish(a, now)
		}
	}
}

// finish lets the channels of a go on with what was found.
func (c *core) finish(a *ask, now time.Time) {
	a.over, a.deadline = true, now.Add(lateFor)
	c.asking--
	partial := len(a.missing) > 0
	for _, ch := range a.channels {
		switch {
		case ch.closed:
		case ch.phase == asking:
			c.endSync(ch, partial)
		case ch.phase == live: // asked again
			ch.partial = partial
		}
		if partial && !ch.closed && ch.phase == live && ch.retries < len(retryAfter) {
			ch.retryAt = now.Add(retryAfter[ch.retries])
			ch.retries++
			c.retrying[ch] = struct{}{}
		}
	}
	c.ask(now)
}

// endSync makes a channel live: what was found and held goes to who was answered before, and who waits is answered.
func (c *core) endSync(ch *channel, partial bool) {
	ch.partial = partial
	if !ch.local {
		c.merge(ch)
	}
	ch.phase, ch.synced, ch.lossy = live, true, false
	delete(c.hasty, ch)
	c.push(delivery{ch: ch, answers: true})
}

// merge gives on what was found at publishers and what came meanwhile, each post that is new, in the order of each
// publisher and, among them, of time. Of what was found and has a key, only what is later than the last one with that key.
//
// Who has been answered is told what is missing by the counters; after a loss of the link that nobody knows, for there may
// have been publishers that do not count, or that have come and gone.
func (c *core) merge(ch *channel) {
	first := !ch.synced
	var fresh []*kept
	var holes int64
	for _, p := range inOrder(ch.found, ch.held) {
		if p.found && ch.superseded(p.Post) {
			ch.pass(p.Post)
			continue
		}
		n, ok := ch.take(p.Post)
		if !ok {
			continue
		}
		holes += n
		k := c.encode(p.Post)
		c.keep(ch, k)
		fresh = append(fresh, k)
	}
	for s, seq := range ch.passed {
		if at, known := ch.streams[s]; !known || at.seq < seq {
			if known {
				holes += seq - at.seq
			}
			ch.moveTo(s, seq)
		}
	}
	ch.held, ch.found, ch.heldBytes, ch.foundBytes, ch.passed = nil, nil, 0, 0, nil
	if !first {
		c.count.lost += holes
	}
	switch {
	case ch.lossy:
		c.pushMissed(ch, 0)
	case holes > 0 && !first:
		c.pushMissed(ch, holes)
	}
	for _, k := range fresh {
		c.push(delivery{ch: ch, post: k})
	}
}

// superseded reports whether the ring has a post with p's key that is not earlier, of another stream.
func (ch *channel) superseded(p *wire.Post) bool {
	if p.Key == "" {
		return p.Seq == 0 && (ch.synced || len(ch.ring) > 0) // nobody can tell whether it is new
	}
	for _, k := range ch.ring {
		if k.key == p.Key {
			return (p.Seq == 0 || k.stream != streamOf(p)) && !p.Time.After(k.at)
		}
	}
	return false
}

// candidate is a post of a merge.
type candidate struct {
	*wire.Post
	found bool // at its publisher; else it came
}

// inOrder returns all posts: those of each stream by their numbers, each number once; those that do not count as they
// came; and among them always that whose time is earliest.
func inOrder(found, held []*wire.Post) []candidate {
	lists := map[stream][]candidate{}
	for _, p := range held {
		lists[streamOf(p)] = append(lists[streamOf(p)], candidate{p, false})
	}
	primed := 0
	for _, p := range found {
		s := streamOf(p)
		if p.Seq == 0 { // each on its own, beside those that came
			primed++
			s = stream{id: wire.RunID(rune(primed))}
		}
		lists[s] = append(lists[s], candidate{p, true})
	}
	heads := make([][]candidate, 0, len(lists))
	total := 0
	for s, l := range lists {
		if s.publisher != "" {
			slices.SortStableFunc(l, func(a, b candidate) int { return cmp.Compare(a.Seq, b.Seq) })
			l = slices.CompactFunc(l, func(a, b candidate) bool { return a.Seq == b.Seq })
		}
		heads = append(heads, l)
		total += len(l)
	}
	out := make([]candidate, 0, total)
	for len(heads) > 0 {
		i := 0
		for j := range heads {
			if before(heads[j][0], heads[i][0]) {
				i = j
			}
		}
		out = append(out, heads[i][0])
		if heads[i] = heads[i][1:]; len(heads[i]) == 0 {
			heads = slices.Delete(heads, i, i+1)
		}
	}
	return out
}

func before(a, b candidate) bool {
	return cmp.Or(a.Time.Compare(b.Time.Time), cmp.Compare(a.Publisher, b.Publisher), cmp.Compare(a.Stream, b.Stream)) < 0
}
