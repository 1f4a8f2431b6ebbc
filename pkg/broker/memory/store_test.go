package memory

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/wscluster/wscluster/pkg/broker"
	"github.com/wscluster/wscluster/pkg/socketmeta"
	"github.com/wscluster/wscluster/pkg/wire"
)

// TestStoreKeepsItsPromises drives the store through schedules of processes that come, publish, own
// and adopt mailboxes, take, settle, give back, pause, lock, retire mailboxes and go, and checks
// after each step that nothing is lost, doubled, out of order, for somebody else, or left lying
// while somebody has room for it.
func TestStoreKeepsItsPromises(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := &world{
			T:       t,
			store:   NewStore(Limits{QueueMessages: 20, HoldMessages: 5}),
			mailbox: map[socketmeta.ServerID]binding{},
			settled: map[string]bool{},
			attempt: map[string]int{},
			locks:   map[string]*process{},
		}
		steps := map[string]func(*rapid.T){
			"join":     w.join,
			"leave":    w.leave,
			"publish":  w.publish,
			"control":  w.control,
			"own":      w.own,
			"share":    w.share,
			"close":    w.close,
			"takeHeld": w.takeHeld,
			"ack":      func(t *rapid.T) { w.settle(t, false) },
			"requeue":  func(t *rapid.T) { w.settle(t, true) },
			"pause":    w.pause,
			"unbind":   w.unbind,
			"delete":   w.delete,
			"lock":     w.lock,
			"":         w.check,
		}
		for range 5 { // one round is some 30 steps
			t.Repeat(steps)
		}
	})
}

var (
	servers = []socketmeta.ServerID{"i1-w1", "i1-w2"} // whose mailboxes come and go
	joiners = []broker.Identity{broker.Worker("i1-w1"), broker.Worker("i1-w2"), broker.Worker("i2-w1"), broker.Runner("r1")}
	kinds   = []string{"a", "b"}
)

// world is the store and what must be true of it.
type world struct {
	*rapid.T
	store     *Store
	processes []*process
	sent      int
	mailbox   map[socketmeta.ServerID]binding // of those that exist
	stored    []string                        // "<queue>#<n>" of every message that was stored, oldest first
	settled   map[string]bool                 // by the same name
	attempt   map[string]int                  // how often each was delivered
	locks     map[string]*process             // by name
}

// binding says what a mailbox and its overflow are bound to: publishes, or nothing.
type binding struct{ mailbox, overflow bool }

// process is an inbox, what came in, and its takers.
type process struct {
	id     broker.Identity
	in     *Inbox
	got    []string
	takers []*observed
}

// observed is a taker, and the deliveries that it holds, oldest first.
type observed struct {
	*Taker
	held, overflown []broker.Delivery
	adopts, retires bool
}

// observe makes a taker that checks what it is given.
func (w *world) observe(p *process, make func(give func(broker.Delivery)) (*Taker, error)) (err error) {
	o := &observed{}
	if o.Taker, err = make(func(d broker.Delivery) { o.held = w.arrived(o.held, d) }); err == nil {
		p.takers = append(p.takers, o)
	}
	return err
}

func (w *world) arrived(held []broker.Delivery, ds ...broker.Delivery) []broker.Delivery {
	for _, d := range ds {
		w.attempt[d.ID]++
		if w.settled[d.ID] {
			w.Fatalf("%s was delivered again after it was settled", d.ID)
		}
		if want := w.attempt[d.ID] > 1; d.Redelivered != want {
			w.Fatalf("%s: redelivered is %v, want %v", d.ID, d.Redelivered, want)
		}
		if len(held) > 0 && d.Tag <= held[len(held)-1].Tag {
			w.Fatalf("tag %d after %d", d.Tag, held[len(held)-1].Tag)
		}
		held = append(held, d)
	}
	return held
}

// takers lists those of all processes that a test wants.
func (w *world) takers(want func(*observed) bool) (os []*observed) {
	for _, p := range w.processes {
		for _, o := range p.takers {
			if want(o) {
				os = append(os, o)
			}
		}
	}
	return os
}

func (w *world) owners() []*observed {
	return w.takers(func(o *observed) bool { return o.server != "" })
}

func (w *world) ownerOf(s socketmeta.ServerID) *observed {
	if i := slices.IndexFunc(w.owners(), func(o *observed) bool { return o.server == s }); i >= 0 {
		return w.owners()[i]
	}
	return nil
}

func (w *world) process(id broker.Identity) *process {
	if i := slices.IndexFunc(w.processes, func(p *process) bool { return p.id == id }); i >= 0 {
		return w.processes[i]
	}
	return nil
}

func draw[T any](t *rapid.T, what string, of []T) T {
	if len(of) == 0 {
		t.Skip("no " + what)
	}
	return rapid.SampledFrom(of).Draw(t, what)
}

func (w *world) join(t *rapid.T) {
	p := &process{id: draw(t, "identity", joiners)}
	retired := slices.ContainsFunc(w.owners(), func(o *observed) bool { return o.retires && broker.Worker(o.server) == p.id })
	var err error
	p.in, err = w.store.Join(p.id, func(m broker.Message) { p.got = append(p.got, m.ID) })
	if want := w.process(p.id) != nil || retired; errors.Is(err, broker.ErrLocked) != want || (err != nil) != want {
		t.Fatalf("join as %v: %v, but locked is %v", p.id, err, want)
	}
	if err == nil {
		w.processes = append(w.processes, p)
	}
}

func (w *world) leave(t *rapid.T) {
	n := rapid.IntRange(0, len(w.processes)).Draw(t, "leaving")
	var ins []*Inbox
	for _, p := range w.processes[:n] {
		ins = append(ins, p.in)
		for name, holder := range w.locks {
			if holder == p {
				delete(w.locks, name)
			}
		}
	}
	gone := w.processes[:n]
	w.processes = w.processes[n:]
	w.store.Leave(ins...)
	for _, p := range gone {
		for _, o := range p.takers {
			w.dead(o)
		}
	}
}

// dead sees that a taker that has ended does nothing.
func (w *world) dead(o *observed) {
	for _, d := range slices.Concat(o.held, o.overflown) {
		if o.Settle(d.Tag, false) {
			w.Fatalf("%s was settled by a taker that has ended", d.ID)
		}
	}
	if o.server != "" {
		if ds, _ := o.TakeHeld(1); ds != nil || o.Unbind() == nil || o.Delete() == nil {
			w.Fatalf("an owner of %s that has ended did something", o.server)
		}
	}
	o.Close()
}

func (w *world) publish(t *rapid.T) {
	to := draw(t, "address", []broker.Address{
		broker.ToMailbox(servers[0]), broker.ToMailbox(servers[1]), broker.ToHold(servers[0]), broker.ToHold(servers[1]),
		broker.ToTasks(kinds[0], wire.Normal), broker.ToTasks(kinds[1], wire.Normal),
		broker.ToTasks(kinds[0], wire.High), broker.ToTasks(kinds[1], wire.High),
	})
	server, limit := socketmeta.ServerID(to.Key), 20
	queue := ""
	switch to.Exchange {
	case broker.ExchangeTasks:
		if queue = "tasks." + to.Key; w.store.queues[queue] == nil {
			queue = ""
		}
	case broker.ExchangeHold:
		if limit = 5; w.mailbox[server].overflow {
			queue = broker.HoldQueue(server)
		}
	default:
		if queue = broker.QueueParked; w.mailbox[server].mailbox {
			queue = broker.MailboxQueue(server)
		}
	}
	for range rapid.IntRange(1, 4).Draw(t, "messages") {
		w.sent++
		want := broker.Stored
		if ready, _ := w.store.Depth(queue); queue == "" {
			want = broker.Returned
		} else if ready >= limit { // what came back unsettled may be more
			want = broker.Refused
		}
		name := fmt.Sprintf("%s#%d", queue, w.sent)
		if want == broker.Stored {
			w.stored = append(w.stored, name)
		}
		if got := w.store.Publish(to, broker.Message{ID: name, Body: make([]byte, w.sent%7)}); got != want {
			t.Fatalf("publish to %v: %v, want %v", to, got, want)
		}
	}
}

// control reaches the process of that identity and whoever has adopted its mailbox, each once.
func (w *world) control(t *rapid.T) {
	id := draw(t, "identity", joiners)
	w.sent++
	name := fmt.Sprintf("control#%d", w.sent)
	want := broker.Returned
	got := w.store.Publish(broker.ToControl(id), broker.Message{ID: name})
	for _, p := range w.processes {
		times := 0
		if p.id == id || slices.ContainsFunc(p.takers, func(o *observed) bool { return o.adopts && broker.Worker(o.server) == id }) {
			want, times = broker.Stored, 1
		}
		if n := len(p.got) - len(slices.DeleteFunc(slices.Clone(p.got), func(id string) bool { return id == name })); n != times {
			t.Fatalf("%s for %v reached %v %d times, want %d", name, id, p.id, n, times)
		}
		p.got = nil
	}
	if got != want {
		t.Fatalf("control to %v: %v, want %v", id, got, want)
	}
}

// own opens a mailbox or adopts it.
func (w *world) own(t *rapid.T) {
	p := draw(t, "process", w.processes)
	server := draw(t, "server", append(servers, broker.ParkedServer))
	prefetch := rapid.IntRange(1, 5).Draw(t, "prefetch")
	open := server != broker.ParkedServer && rapid.Bool().Draw(t, "open")
	bound, exists := w.mailbox[server]
	var want error
	switch {
	case w.ownerOf(server) != nil:
		want = broker.ErrRefused
	case !open && !exists && server != broker.ParkedServer:
		want = broker.ErrNoMailbox
	}
	err := w.observe(p, func(give func(broker.Delivery)) (*Taker, error) {
		if open {
			return w.store.Own(p.in, server, prefetch, give)
		}
		return w.store.Adopt(p.in, server, prefetch, give)
	})
	if !errors.Is(err, want) || (err == nil) != (want == nil) {
		t.Fatalf("own %s (open %v): %v, want %v", server, open, err, want)
	}
	if err == nil {
		w.ownerOf(server).adopts = !open
	}
	if err == nil && server != broker.ParkedServer {
		w.mailbox[server] = binding{bound.mailbox || open, true}
	}
}

func (w *world) share(t *rapid.T) {
	p := draw(t, "process", w.processes)
	if len(p.takers) > 4 {
		t.Skip("enough takers")
	}
	slots := rapid.IntRange(1, 5).Draw(t, "slots")
	n := rapid.IntRange(1, 2).Draw(t, "kinds")
	w.observe(p, func(give func(broker.Delivery)) (*Taker, error) {
		return w.store.Share(p.in, kinds[:n], slots, give), nil
	})
}

// close ends one taker of a process that stays.
func (w *world) close(t *rapid.T) {
	p := draw(t, "process", w.processes)
	o := draw(t, "taker", p.takers)
	o.Close()
	p.takers = slices.DeleteFunc(p.takers, func(other *observed) bool { return other == o })
	w.dead(o)
}

func (w *world) takeHeld(t *rapid.T) {
	o := draw(t, "owner", w.owners())
	most := rapid.IntRange(0, 3).Draw(t, "most")
	ready, _ := w.store.Depth(broker.HoldQueue(o.server))
	ds, _ := o.TakeHeld(most)
	if want := min(most, ready); len(ds) != want {
		t.Fatalf("took %d of %d in the overflow, want %d", len(ds), ready, want)
	}
	o.overflown = w.arrived(o.overflown, ds...)
}

func (w *world) settle(t *rapid.T, again bool) {
	o := draw(t, "taker", w.takers(func(o *observed) bool {
		return len(o.held)+len(o.overflown) > 0 && (!again || o.server == "")
	}))
	from := &o.held
	if len(o.held) == 0 || len(o.overflown) > 0 && rapid.Bool().Draw(t, "overflown") {
		from = &o.overflown
	}
	i := rapid.IntRange(0, len(*from)-1).Draw(t, "delivery")
	d := (*from)[i]
	*from = slices.Delete(*from, i, i+1)
	w.settled[d.ID] = !again
	if !o.Settle(d.Tag, again) {
		t.Fatalf("tag %d of %s could not be settled", d.Tag, d.ID)
	}
	if o.Settle(d.Tag, again) {
		t.Fatalf("tag %d of %s was settled twice", d.Tag, d.ID)
	}
}

func (w *world) pause(t *rapid.T) {
	o := draw(t, "taker", w.takers(func(*observed) bool { return true }))
	o.Pause(!o.paused)
}

func (w *world) unbind(t *rapid.T) {
	o := draw(t, "owner", w.owners())
	switch err := o.Unbind(); {
	case o.server == broker.ParkedServer:
		if err == nil {
			t.Fatal("the parked mailbox was unbound")
		}
	case w.process(broker.Worker(o.server)) != nil:
		if !errors.Is(err, broker.ErrLocked) {
			t.Fatalf("unbind %s while its worker lives: %v", o.server, err)
		}
	case err != nil:
		t.Fatalf("unbind %s: %v", o.server, err)
	default:
		w.mailbox[o.server] = binding{}
		o.retires = true
	}
}

func (w *world) delete(t *rapid.T) {
	p := draw(t, "process", w.processes)
	o := draw(t, "owner", slices.DeleteFunc(slices.Clone(p.takers), func(o *observed) bool { return o.server == "" }))
	left := len(w.store.Messages(broker.MailboxQueue(o.server))) + len(w.store.Messages(broker.HoldQueue(o.server)))
	err := o.Delete()
	if (err == nil) != (o.retires && left == 0) || errors.Is(err, broker.ErrNotEmpty) != (o.retires && left > 0) {
		t.Fatalf("delete %s, unbound %v, with %d left: %v", o.server, o.retires, left, err)
	}
	if err == nil {
		delete(w.mailbox, o.server)
		if w.store.queues[broker.MailboxQueue(o.server)] != nil || w.store.queues[broker.HoldQueue(o.server)] != nil {
			t.Fatalf("the deleted mailbox of %s is still there", o.server)
		}
		p.takers = slices.DeleteFunc(p.takers, func(other *observed) bool { return other == o })
		w.dead(o)
	}
}

func (w *world) lock(t *rapid.T) {
	p := draw(t, "process", w.processes)
	name := draw(t, "name", []string{"janitor", "other"})
	if rapid.Bool().Draw(t, "release") {
		p.in.Unlock(name)
		if w.locks[name] == p {
			delete(w.locks, name)
		}
		return
	}
	if err := p.in.Lock(name); errors.Is(err, broker.ErrLocked) != (w.locks[name] != nil) {
		t.Fatalf("lock %s: %v, but it is held: %v", name, err, w.locks[name] != nil)
	} else if err == nil {
		w.locks[name] = p
	}
}

func (w *world) check(t *rapid.T) {
	queues := []string{broker.QueueParked}
	for _, s := range append(servers, broker.ParkedServer) {
		queues = append(queues, broker.MailboxQueue(s), broker.HoldQueue(s))
	}
	for _, kind := range kinds {
		queues = append(queues, broker.TasksQueue(kind, wire.Normal), broker.TasksQueue(kind, wire.High))
	}
	for _, queue := range queues {
		var want, got []string
		for _, name := range w.stored {
			if strings.HasPrefix(name, queue+"#") && !w.settled[name] {
				want = append(want, name)
			}
		}
		for _, m := range w.store.Messages(queue) {
			got = append(got, m.ID)
		}
		q := w.store.queues[queue]
		if q == nil {
			q = &queue0
		}
		if q.kind == tasks { // which keep no order
			slices.Sort(want)
			slices.Sort(got)
		}
		if !slices.Equal(got, want) {
			t.Fatalf("%s holds %v, want %v", queue, got, want)
		}
		if q.bytes != size(q.ready) {
			t.Fatalf("%s counts %d bytes of %d", queue, q.bytes, size(q.ready))
		}
		if ready, unsettled := w.store.Depth(queue); ready+unsettled != len(want) {
			t.Fatalf("%s counts %d ready and %d held of %d", queue, ready, unsettled, len(want))
		}
	}
	for i, o := range w.takers(func(*observed) bool { return true }) {
		if len(o.held) > o.limit {
			t.Fatalf("taker %d holds %d of %d", i, len(o.held), o.limit)
		}
		for _, q := range o.queues() {
			if !o.paused && len(o.held) < o.limit && len(q.ready) > 0 {
				t.Fatalf("taker %d has room and %d messages wait", i, len(q.ready))
			}
			for _, held := range [][]broker.Delivery{o.held, o.overflown} {
				if q.kind == mail && !slices.IsSortedFunc(held, func(a, b broker.Delivery) int {
					return slices.Index(w.stored, a.ID) - slices.Index(w.stored, b.ID)
				}) {
					t.Fatalf("owner %d holds its mail out of order", i)
				}
			}
		}
	}
}

var queue0 queue // stands for one that does not exist
