package memory

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/wscluster/wscluster/pkg/broker"
)

// TestStoreKeepsItsPromises drives the store through schedules of publishes, takers that come,
// settle, give back, pause and go, and checks after each step that nothing is lost, doubled, out
// of order or left lying while somebody has room for it.
func TestStoreKeepsItsPromises(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := &world{
			T:       t,
			store:   newStore(limit{messages: 20, bytes: 1 << 20}),
			settled: map[string]bool{},
			attempt: map[string]int{},
		}
		t.Repeat(map[string]func(*rapid.T){
			"publish": w.publish,
			"own":     w.own,
			"share":   w.share,
			"leave":   w.leave,
			"ack":     func(t *rapid.T) { w.settle(t, false) },
			"requeue": func(t *rapid.T) { w.settle(t, true) },
			"pause":   w.pause,
			"":        w.check,
		})
	})
}

var (
	mailboxes = []string{"mailbox.i1-w1", "mailbox.i1-w2"}
	kinds     = []string{"tasks.a", "tasks.b"}
)

// world is the store and what must be true of it.
type world struct {
	*rapid.T
	store   *store
	takers  []*observed
	sent    int
	stored  []string        // "<queue>#<n>" of every message that was stored, oldest first
	settled map[string]bool // by the same name
	attempt map[string]int  // how often each was delivered
}

// observed is a taker, and the deliveries that it holds, oldest first.
type observed struct {
	taker
	held []broker.Delivery
}

func (w *world) observed(limit int) *observed {
	o := &observed{}
	o.taker = taker{limit: limit, give: func(d broker.Delivery) {
		w.attempt[d.ID]++
		if w.settled[d.ID] {
			w.Fatalf("%s was delivered again after it was settled", d.ID)
		}
		if want := w.attempt[d.ID] > 1; d.Redelivered != want {
			w.Fatalf("%s: redelivered is %v, want %v", d.ID, d.Redelivered, want)
		}
		if len(o.held) > 0 && d.Tag <= o.held[len(o.held)-1].Tag {
			w.Fatalf("tag %d after %d", d.Tag, o.held[len(o.held)-1].Tag)
		}
		o.held = append(o.held, d)
	}}
	return o
}

func (w *world) publish(t *rapid.T) {
	queue := rapid.SampledFrom(slices.Concat(kinds, mailboxes)).Draw(t, "queue")
	w.sent++
	name := fmt.Sprintf("%s#%d", queue, w.sent)
	to := broker.Address{Exchange: broker.ExchangeTasks, Key: queue[len("tasks."):]}
	if slices.Contains(mailboxes, queue) {
		to = broker.Address{Exchange: broker.ExchangeUtils, Key: queue[len("mailbox."):]}
	}
	q := w.store.queues[queue]
	full := q != nil && len(q.ready) == 20
	switch o := w.store.publish(to, broker.Message{ID: name, Body: make([]byte, w.sent%7)}); {
	case full && o != broker.Refused:
		t.Fatalf("%s: %v by a full queue", name, o)
	case q == nil && to.Exchange == broker.ExchangeTasks && o != broker.Returned:
		t.Fatalf("%s: %v without a queue", name, o)
	case q != nil && !full && o != broker.Stored:
		t.Fatalf("%s: %v", name, o)
	case q != nil && o == broker.Stored:
		w.stored = append(w.stored, name)
	}
}

func (w *world) own(t *rapid.T) {
	queue := rapid.SampledFrom(mailboxes).Draw(t, "mailbox")
	owned := slices.ContainsFunc(w.takers, func(o *observed) bool { return o.queues[0] == w.store.queues[queue] })
	o := w.observed(rapid.IntRange(1, 5).Draw(t, "prefetch"))
	if got := w.store.own(queue, &o.taker); got == owned {
		t.Fatalf("own %s: %v, but owned is %v", queue, got, owned)
	} else if got {
		w.takers = append(w.takers, o)
	}
}

func (w *world) share(t *rapid.T) {
	if len(w.takers) > 6 {
		t.Skip("enough takers")
	}
	o := w.observed(rapid.IntRange(1, 5).Draw(t, "slots"))
	w.store.share(kinds[:rapid.IntRange(1, 2).Draw(t, "kinds")], &o.taker)
	w.takers = append(w.takers, o)
}

func (w *world) leave(t *rapid.T) {
	n := rapid.IntRange(0, len(w.takers)).Draw(t, "leaving")
	var ts []*taker
	for _, o := range w.takers[:n] {
		ts = append(ts, &o.taker)
		o.held = nil
	}
	w.takers = w.takers[n:]
	w.store.leave(nil, ts)
}

func (w *world) settle(t *rapid.T, again bool) {
	var holders []*observed
	for _, o := range w.takers {
		if len(o.held) > 0 && (!again || o.queues[0].tasks) {
			holders = append(holders, o)
		}
	}
	if len(holders) == 0 {
		t.Skip("nothing is held")
	}
	o := rapid.SampledFrom(holders).Draw(t, "taker")
	i := rapid.IntRange(0, len(o.held)-1).Draw(t, "delivery")
	d := o.held[i]
	o.held = slices.Delete(o.held, i, i+1)
	w.settled[d.ID] = !again
	if !o.taker.settle(d.Tag, again) {
		t.Fatalf("tag %d of %s could not be settled", d.Tag, d.ID)
	}
	if o.taker.settle(d.Tag, again) {
		t.Fatalf("tag %d of %s was settled twice", d.Tag, d.ID)
	}
}

func (w *world) pause(t *rapid.T) {
	if len(w.takers) == 0 {
		t.Skip("no takers")
	}
	o := rapid.SampledFrom(w.takers).Draw(t, "taker")
	o.taker.pause(!o.paused)
}

func (w *world) check(t *rapid.T) {
	for _, queue := range slices.Concat(mailboxes, kinds) {
		q := w.store.queues[queue]
		if q == nil {
			continue
		}
		var want, got []string
		for _, name := range w.stored {
			if strings.HasPrefix(name, queue+"#") && !w.settled[name] {
				want = append(want, name)
			}
		}
		for _, m := range w.store.messages(queue) {
			got = append(got, m.ID)
		}
		if q.tasks { // which keep no order
			slices.Sort(want)
			slices.Sort(got)
		}
		if !slices.Equal(got, want) {
			t.Fatalf("%s holds %v, want %v", queue, got, want)
		}
		if q.bytes != size(q.ready) {
			t.Fatalf("%s counts %d bytes of %d", queue, q.bytes, size(q.ready))
		}
		if len(q.ready)+q.held != len(want) {
			t.Fatalf("%s counts %d ready and %d held of %d", queue, len(q.ready), q.held, len(want))
		}
	}
	for i, o := range w.takers {
		if len(o.held) > o.limit {
			t.Fatalf("taker %d holds %d of %d", i, len(o.held), o.limit)
		}
		for _, q := range o.queues {
			if o.room() && len(q.ready) > 0 {
				t.Fatalf("taker %d has room and %d messages wait", i, len(q.ready))
			}
			if !q.tasks && !slices.IsSortedFunc(o.held, func(a, b broker.Delivery) int {
				return slices.Index(w.stored, a.ID) - slices.Index(w.stored, b.ID)
			}) {
				t.Fatalf("owner %d holds its mail out of order", i)
			}
		}
	}
}
