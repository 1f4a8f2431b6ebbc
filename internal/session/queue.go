package session

import (
	"cmp"
	"slices"

	"github.com/wscluster/wscluster/pkg/wire"
)

// task is what a session remembers of one task.
type task struct {
	id       wire.TaskID
	state    taskState
	digest   digest // of what was submitted; zero if it is not known here
	asked    bool   // the client's socket waits for the answer to a submit
	reply    string // the request ID to echo to it
	position wire.Position
	queue    []entry    // not acknowledged, in the order of (attempt, run, seq), each once
	sent     int        // queue[:sent] are with the socket
	plain    wire.RunID // the run under which its events without numbers are sent, and
	plainSeq int64      // the number of the last of them
}

type taskState uint8

const (
	stateOpen       taskState = iota // accepted, or heard of, and not ended
	stateSubmitting                  // on its way to the broker
	stateFinished                    // its final event is acknowledged
)

// insert puts e in its place. What was sent after it waits for it at the client, so all that is to
// be sent again, in order: an earlier event never waits behind later ones. It reports the place,
// and false if the event is there already.
func (c *core) insert(t *task, e entry) (at int, ok bool) {
	at, found := t.find(&e.event)
	if found {
		return at, false
	}
	t.queue = slices.Insert(t.queue, at, e)
	c.held++
	c.heldBytes += e.size()
	for t.sent > at {
		t.sent--
		c.sent--
		c.sentBytes -= t.queue[t.sent+1].size()
	}
	return at, true
}

// find returns the place of e, or where it belongs. Written out, it makes e no memory of its own, as slices.BinarySearchFunc does.
func (t *task) find(e *wire.Event) (at int, found bool) {
	from, to := 0, len(t.queue)
	if to > 0 && compare(&t.queue[to-1].event, e) < 0 {
		from = to // mostly
	}
	for from < to {
		mid := (from + to) / 2
		if compare(&t.queue[mid].event, e) < 0 {
			from = mid + 1
		} else {
			to = mid
		}
	}
	return from, from < len(t.queue) && compare(&t.queue[from].event, e) == 0
}

// extract takes queue[i:j] out and returns it.
func (c *core) extract(t *task, i, j int) []entry {
	out := slices.Clone(t.queue[i:j])
	c.drop(t, i, j)
	return out
}

// keepRoom is for how many events an empty queue keeps room: a task whose client keeps up makes none for each.
const keepRoom = 4

// drop takes queue[i:j] out.
func (c *core) drop(t *task, i, j int) {
	for k := i; k < j; k++ {
		size := t.queue[k].size()
		c.held--
		c.heldBytes -= size
		if k < t.sent {
			c.sent--
			c.sentBytes -= size
		}
	}
	t.sent -= max(0, min(t.sent, j)-i)
	t.queue = slices.Delete(t.queue, i, j)
	if len(t.queue) == 0 && (cap(t.queue) > keepRoom || t.state == stateFinished) {
		t.queue = nil
	}
}

// extractIf takes out every entry for which want holds, over all tasks, in order.
func (c *core) extractIf(want func(*entry) bool) (out []entry) {
	for _, t := range c.order {
		for i := 0; i < len(t.queue); {
			j := i
			for j < len(t.queue) && want(&t.queue[j]) {
				j++
			}
			if j == i {
				i++
				continue
			}
			out = append(out, c.extract(t, i, j)...)
		}
	}
	return out
}

// next returns the next event to send and counts it as sent, or nil if there is none, the window
// is closed or the client is away. If sending fails, unsend takes it back.
func (c *core) next(now int64) (*wire.Event, *task) {
	if c.conn == 0 || c.work == nil || c.held == c.sent {
		return nil, nil
	}
	for _, t := range c.order {
		if t.sent == len(t.queue) {
			continue
		}
		e := &t.queue[t.sent]
		if c.sent > 0 && (c.sent >= c.o.MaxSent || c.sentBytes+e.size() > c.o.MaxSentBytes) {
			return nil, nil
		}
		if c.stalled == 0 { // else it waits already, for what is being refreshed
			c.stalled = now
		}
		t.sent++
		c.sent++
		c.sentBytes += e.size()
		return &e.event, t
	}
	return nil, nil
}

// unsend takes back what next handed out last.
func (c *core) unsend(t *task) {
	t.sent--
	c.sent--
	c.sentBytes -= t.queue[t.sent].size()
	if c.sent == 0 {
		c.stalled = 0
	}
}

// resend counts everything that is held as not sent: the socket that it was sent to is gone.
func (c *core) resend() {
	for _, t := range c.order {
		t.sent = 0
	}
	c.sent, c.sentBytes = 0, 0
}

// number gives e, which came from a publisher that does not count, the next number of its task.
func (t *task) number(e *wire.Event, run func() wire.RunID) {
	if t.plain == "" {
		t.plain = run()
	}
	t.plainSeq++
	e.Run, e.Seq, e.Prev = t.plain, t.plainSeq, 0
}

// renumber goes on counting plain events where the client says that it is, so that it takes none of
// them, and its worker neither, for one that it has had elsewhere: another worker may have gone on with
// our very run.
func (t *task) renumber(p wire.Position, elsewhere bool) {
	if p.Attempt != 0 || p.Run == "" || p.Run == t.plain && !elsewhere {
		return
	}
	t.plain, t.plainSeq = p.Run, max(0, p.Next-1)
	for i := range t.queue {
		if e := &t.queue[i].event; e.Attempt == 0 {
			t.number(e, nil)
		}
	}
}

// compare orders the events of one task: by attempt, run and seq (docs/PROTOCOL.md).
func compare(a, b *wire.Event) int {
	return cmp.Or(cmp.Compare(a.Attempt, b.Attempt), cmp.Compare(a.Run, b.Run), cmp.Compare(a.Seq, b.Seq))
}

// covers reports whether a client at p has e, or wants it no more.
func covers(p *wire.Position, e *wire.Event) bool {
	return cmp.Or(cmp.Compare(p.Attempt, e.Attempt), cmp.Compare(p.Run, e.Run), cmp.Compare(p.Next, e.Seq)) > 0
}

// ended reports whether e ends its task for a client at p, who has it. That of an earlier run does
// not: its runner was thought dead, and the client has gone on to another.
func ended(p *wire.Position, e *wire.Event) bool {
	return e.Last && covers(p, e) && p.Attempt == e.Attempt && p.Run == e.Run
}

func comparePositions(a, b *wire.Position) int {
	return cmp.Or(cmp.Compare(a.Attempt, b.Attempt), cmp.Compare(a.Run, b.Run), cmp.Compare(a.Next, b.Next))
}
