package mailbox

import (
	"slices"
	"strconv"

	"github.com/wscluster/wscluster/pkg/broker"
	"github.com/wscluster/wscluster/pkg/socketmeta"
	"github.com/wscluster/wscluster/pkg/wire"
)

// buried is the dead queue taking an event, with a reason that must be true.
func (w *world) buried(p *simPublish) {
	e, err := wire.DecodeEvent(p.m.Type, p.m.Correlation, p.m.Headers, p.m.Body)
	if err != nil {
		w.fail("a dead event cannot be read: %v", err)
		return
	}
	t := w.task(e.Task)
	k := keyOf(&e)
	if t.plain {
		k.seq, _ = strconv.ParseInt(string(e.Body[len(`{"n":`):len(e.Body)-1]), 10, 64)
	}
	w.dead[k] = p.dead
	window := simWindow.Milliseconds()
	if c := t.owner; p.dead == wire.GapExpired && t.serves() && !t.covers(&e) && w.now-c.seen < window && w.now-c.late >= window {
		w.fail("%v expired although its client was here %d s ago", k, (w.now-c.seen)/1000)
	}
}

// serves reports whether the session of t has a client that may come back.
func (t *simTask) serves() bool { return t.client == t.owner.id && !t.owner.left }

// covers reports whether the application wants e no more.
func (t *simTask) covers(e *wire.Event) bool {
	order := compareRuns(e.Position(), t.had)
	return t.over || order < 0 || order == 0 && e.Seq < t.had.Next
}

// judge holds what is left to the promise: every confirmed durable event is with the application, or
// it is dead with a reason and the application knows, or the client has gone for ever.
func (w *world) judge() {
	for _, t := range w.tasks {
		for _, r := range t.runs {
			for i := range r.confirmed {
				w.judgeEvent(t, &r.events[i], i)
			}
		}
	}
	if !w.drained() {
		for x := range simBoxes {
			for _, name := range []string{broker.MailboxQueue(serverOf(x)), broker.HoldQueue(serverOf(x))} {
				for _, m := range w.store.Messages(name) {
					w.fail("%s never empties: %s %v", name, m.Type, m.Headers)
				}
			}
		}
		w.fail("a run never ends")
	}
}

func (w *world) judgeEvent(t *simTask, e *wire.Event, n int) {
	if !e.Durable {
		return
	}
	k := keyOf(e)
	if t.plain {
		k.seq = int64(n)
		reason, dead := w.dead[k]
		if !t.plains[n] && !(dead && (t.gaps > 0 || !t.serves())) {
			w.fail("plain event %d of %s was confirmed and not delivered (dead %v %q, %d gaps told, position %v, plains %v, owner %d)", n, t.id, dead, reason, t.gaps, t.had, t.plains, t.owner.i)
		}
		return
	}
	order := compareRuns(e.Position(), t.had)
	superseded := order < 0 || order > 0 && t.over || !t.serves() && t.ranAgain(e)
	reason, dead := w.dead[k]
	switch {
	case slices.Contains(t.log, k), superseded, dead && (t.missed[k] || !t.serves()):
	default:
		w.fail("%v was confirmed and not delivered (dead %v %q, told %v, position %v)", k, dead, reason, t.missed[k], t.had)
	}
}

// ranAgain reports whether something of a later run than e's was stored: a client that has that in its
// re-order buffer drops e, and may leave before its application has any of it.
func (t *simTask) ranAgain(e *wire.Event) bool {
	return slices.ContainsFunc(t.runs, func(r *simRun) bool {
		return r.confirmed > 0 && compareRuns(r.events[0].Position(), e.Position()) > 0
	})
}

// audit compares, after each step, what sessions think that they have with what was given to them:
// a delivery that is with nobody would stay in its mailbox for ever.
func (w *world) audit() {
	for _, n := range w.nodes {
		if p := n.proc; p != nil && p.touched && w.err == "" {
			p.touched = false
			p.audit()
		}
	}
}

func (p *simProc) audit() {
	have, err := p.sessions.Audit()
	if err != nil {
		p.world.fail("%s: %v", p.server, err)
		return
	}
	flying := map[socketmeta.ClientID]int{}
	for _, l := range p.lives {
		n := have.Held[l.id]
		for _, j := range l.jobs {
			n += len(j.Refs)
			flying[j.Client] += len(j.Refs)
		}
		if n != len(l.held) && !l.closed {
			p.world.fail("%s holds %d deliveries of %s, and its sessions know of %d", p.server, len(l.held), serverOf(l.box), n)
		}
		delete(have.Held, l.id)
	}
	for _, l := range p.given {
		for _, j := range l.jobs {
			flying[j.Client] += len(j.Refs)
		}
	}
	for life := range have.Held {
		p.world.fail("%s: sessions hold deliveries of life %d, which is over", p.server, life)
	}
	for c, n := range have.Flying {
		if n != flying[c] {
			p.world.fail("%s: a session thinks that %d events are under way, and %d are", p.server, n, flying[c])
		}
	}
}
