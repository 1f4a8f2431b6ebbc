package session_test

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/wscluster/wscluster/internal/engine"
	"github.com/wscluster/wscluster/internal/session"
	"github.com/wscluster/wscluster/pkg/socketmeta"
	"github.com/wscluster/wscluster/pkg/wire"
)

// ward is sockets that take so many frames each, and the events that they took: by task, in order.
type ward struct {
	room map[engine.ConnRef]int
	got  map[string][]string
}

func newWard(conns, room int) *ward {
	w := &ward{room: map[engine.ConnRef]int{}, got: map[string][]string{}}
	for i := range conns {
		w.room[engine.ConnRef(i+1)] = room
	}
	return w
}

func (w *ward) Send(c engine.ConnRef, f *engine.Frame) error {
	if w.room[c] == 0 {
		return engine.ErrQueueFull
	}
	w.room[c]--
	m, err := wire.DecodeServer(f.Payload())
	if err != nil {
		panic(err)
	}
	e := m.(*wire.Event)
	of := fmt.Sprint(c, " ", e.Task)
	w.got[of] = append(w.got[of], fmt.Sprint(e.Type, " ", e.Seq))
	return nil
}

func (w *ward) SendBatch(c engine.ConnRef, fs []*engine.Frame) (int, error) {
	for i, f := range fs {
		if err := w.Send(c, f); err != nil {
			return i, err
		}
	}
	return len(fs), nil
}

func (w *ward) CloseConn(engine.ConnRef, engine.StatusCode, string, *engine.Frame) {}

// registries are two of the same clients, over sockets with room for so many frames.
func registries(t *testing.T, clients []socketmeta.ClientID, now time.Time, rooms ...int) (rs []*session.Registry, ws []*ward) {
	for _, room := range rooms {
		w := newWard(len(clients), room)
		r := session.New(session.Options{Socket: w, Server: "i1-w1"})
		for i, id := range clients {
			claim := session.Claim{Client: id}
			if _, ok := r.Attach(engine.ConnRef(i+1), r.Welcome(claim, now).Epoch, claim, now); !ok {
				t.Fatal("not attached")
			}
		}
		rs, ws = append(rs, r), append(ws, w)
	}
	return rs, ws
}

var oneRun = wire.NewRunID()

// arrivals are n events of two tasks of each client: in order or some of them late, some twice, a third of them transient.
func arrivals(rnd *rand.Rand, clients []socketmeta.ClientID, n int, late bool) (in []session.Arrival) {
	last := map[string]int64{}
	for i := range n {
		e := wire.Event{Client: clients[rnd.IntN(len(clients))], Task: wire.TaskID([]string{"a", "b"}[rnd.IntN(2)]), Attempt: 1, Run: oneRun,
			Type: wire.EventStep, Durable: true, Body: []byte(`{}`)}
		of := e.Client.String() + string(e.Task)
		switch rnd.IntN(6) {
		case 0, 1:
			e.Type, e.Durable, e.Seq = wire.EventProgress, false, int64(i+1)
		case 2:
			if e.Seq = max(1, last[of]); late {
				e.Seq = max(1, last[of]+int64(rnd.IntN(5))-2)
			}
		default:
			e.Seq = last[of] + 1
		}
		if e.Durable {
			last[of] = max(last[of], e.Seq)
			e.Prev = e.Seq - 1
		}
		in = append(in, session.Arrival{Event: e, Ref: session.Ref{Mailbox: "i1-w1", Life: 1, Tag: uint64(i + 1)}})
	}
	return in
}

func TestEventsThatComeTogetherGoOutAsIfTheyCameOneByOne(t *testing.T) {
	for seed := range uint64(50) {
		rnd, now := rand.New(rand.NewPCG(seed, 1)), time.Now()
		clients := []socketmeta.ClientID{socketmeta.NewClientID(), socketmeta.NewClientID(), socketmeta.NewClientID()}
		rs, ws := registries(t, clients, now, 10_000, 10_000)
		late := seed%2 == 0
		in := arrivals(rnd, clients, 300, late)
		var one, many session.Effects
		for _, a := range in {
			fx := rs[0].Deliver(&a.Event, a.Ref, false, now)
			one.Settle, one.Duplicates = append(one.Settle, fx.Settle...), one.Duplicates+fx.Duplicates
		}
		for some := range slices.Chunk(in, 64) {
			fx := rs[1].DeliverAll(some, false, now)
			many.Settle, many.Duplicates = append(many.Settle, fx.Settle...), many.Duplicates+fx.Duplicates
		}
		for of, want := range ws[0].got {
			got := ws[1].got[of]
			if late { // what comes late has those after it sent again: if all come together, fewer times
				got, want = each(got), each(want)
			}
			if !slices.Equal(got, want) {
				t.Fatalf("seed %d: %s got together\n%v, one by one\n%v", seed, of, got, want)
			}
		}
		byTag := func(a, b session.Ref) int { return int(a.Tag) - int(b.Tag) }
		slices.SortFunc(one.Settle, byTag)
		slices.SortFunc(many.Settle, byTag)
		if !slices.Equal(one.Settle, many.Settle) || one.Duplicates != many.Duplicates {
			t.Fatalf("seed %d: together %d are settled, %d of them duplicates; one by one %d, %d", seed, len(many.Settle), many.Duplicates, len(one.Settle), one.Duplicates)
		}
	}
}

// each is got with each event once, sorted.
func each(got []string) []string { return slices.Compact(slices.Sorted(slices.Values(got))) }

func TestASocketThatTakesAPartOfWhatComesTogetherGetsTheRestInOrder(t *testing.T) {
	for seed := range uint64(50) {
		rnd, now := rand.New(rand.NewPCG(seed, 2)), time.Now()
		clients := []socketmeta.ClientID{socketmeta.NewClientID(), socketmeta.NewClientID()}
		rs, ws := registries(t, clients, now, 0)
		r, w := rs[0], ws[0]
		for some := range slices.Chunk(arrivals(rnd, clients, 200, true), 1+rnd.IntN(64)) {
			for c := range w.room {
				w.room[c] = rnd.IntN(40)
			}
			r.DeliverAll(some, false, now)
			if _, err := r.Audit(); err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
		}
		for c := range w.room {
			w.room[c] = 10_000
			r.Find(c).Writable(now)
		}
		for of, got := range w.got {
			var steps []string
			for _, e := range slices.Backward(got) { // the last time of each is the one after which nothing earlier comes
				if e[0] == 's' && !slices.Contains(steps, e) {
					steps = append(steps, e)
				}
			}
			slices.Reverse(steps)
			if !slices.IsSortedFunc(steps, func(a, b string) int { return cmp.Or(len(a)-len(b), strings.Compare(a, b)) }) {
				t.Fatalf("seed %d: %s got %v", seed, of, got)
			}
		}
	}
}
