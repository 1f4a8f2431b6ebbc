package ask

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"github.com/wscluster/wscluster/pkg/broker"
	"github.com/wscluster/wscluster/pkg/socketmeta"
	"github.com/wscluster/wscluster/pkg/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world is some workers with real desks, their clients, and a network between the workers that a schedule may have lose,
// double and re-order everything.
type world struct {
	mu      sync.Mutex // the desks' timers have goroutines
	servers []socketmeta.ServerID
	desks   map[socketmeta.ServerID]*Desk
	down    map[socketmeta.ServerID]bool // its link to the broker
	flying  []flight
	clients []*simClient
	asking  sync.WaitGroup
	asked   []*asked
}

type flight struct {
	to socketmeta.ServerID
	m  wire.ControlMessage
}

// simClient does each key once, and replies to each request when the schedule says so.
type simClient struct {
	id    socketmeta.ClientID
	at    socketmeta.ServerID // attached there; "" if away
	token socketmeta.ServerID // where it was attached last
	todo  []wire.Request
	done  map[string]int // by key: how often
}

type asked struct {
	client *simClient
	key    string
	answer *Answer
	err    error
	took   time.Duration
}

func newWorld(workers, clients int) *world {
	w := &world{desks: map[socketmeta.ServerID]*Desk{}, down: map[socketmeta.ServerID]bool{}}
	for i := range workers {
		s := socketmeta.ServerID(fmt.Sprintf("i1-w%d", i+1))
		w.servers = append(w.servers, s)
		w.desks[s] = w.desk(s)
	}
	for range clients {
		w.clients = append(w.clients, &simClient{id: socketmeta.NewClientID(), done: map[string]int{}})
	}
	return w
}

func (w *world) desk(s socketmeta.ServerID) *Desk {
	return New(Options{
		Server: s,
		Say:    func(to broker.Address, m wire.ControlMessage) { w.say(s, to, m) },
		Send: func(c socketmeta.ClientID, m wire.ServerMessage) bool {
			w.mu.Lock()
			defer w.mu.Unlock()
			i := slices.IndexFunc(w.clients, func(x *simClient) bool { return x.id == c })
			if w.clients[i].at != s {
				return false
			}
			w.clients[i].todo = append(w.clients[i].todo, *m.(*wire.Request))
			return true
		},
		Where: func(cs []socketmeta.ClientID) (claims []wire.Claim) {
			w.mu.Lock()
			defer w.mu.Unlock()
			for _, c := range w.clients {
				if c.at == s && slices.Contains(cs, c.id) {
					claims = append(claims, wire.Claim{Client: c.id, Epoch: 1})
				}
			}
			return claims
		},
	})
}

func (w *world) say(from socketmeta.ServerID, to broker.Address, m wire.ControlMessage) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if to == broker.ToControl(broker.Worker(from)) {
		panic(fmt.Sprintf("%s says something to itself: %#v", from, m))
	}
	if w.down[from] {
		return
	}
	for _, s := range w.servers {
		if to == broker.ToAll() || to == broker.ToControl(broker.Worker(s)) {
			w.flying = append(w.flying, flight{s, m})
		}
	}
}

// fly takes a message out of the air; lost ones are not delivered.
func (w *world) fly(i int, deliver, keep bool) {
	w.mu.Lock()
	if len(w.flying) == 0 {
		w.mu.Unlock()
		return
	}
	i %= len(w.flying)
	f := w.flying[i]
	if !keep {
		w.flying = slices.Delete(w.flying, i, i+1)
	}
	desk := w.desks[f.to]
	deliver = deliver && !w.down[f.to]
	w.mu.Unlock()
	if deliver {
		desk.Hear(f.m)
	}
}

func (w *world) ask(at socketmeta.ServerID, c *simClient, key string, within time.Duration) *asked {
	a := &asked{client: c, key: key}
	w.asked = append(w.asked, a)
	desk, began := w.desks[at], time.Now()
	w.asking.Go(func() {
		answer, err := desk.Ask(context.Background(), Question{Client: c.id, Key: key, Name: "n", Within: within})
		w.mu.Lock()
		a.answer, a.err, a.took = answer, err, time.Since(began)
		w.mu.Unlock()
	})
	synctest.Wait()
	return a
}

// attach brings a client to a worker: one that it did not come from tells all.
func (w *world) attach(c *simClient, s socketmeta.ServerID) {
	w.mu.Lock()
	moved := c.token != "" && c.token != s
	c.at, c.token = s, s
	w.mu.Unlock()
	if moved {
		w.say(s, broker.ToAll(), &wire.Moved{From: s, Clients: []wire.Claim{{Client: c.id, Epoch: 1}}})
	}
	w.desks[s].Attached(c.id, moved)
}

// reply has a client reply to what it was asked first, through any worker.
func (w *world) reply(c *simClient, through socketmeta.ServerID) {
	w.mu.Lock()
	if len(c.todo) == 0 {
		w.mu.Unlock()
		return
	}
	r := c.todo[0]
	c.todo = c.todo[1:]
	c.done[r.Key] = 1
	w.mu.Unlock()
	body, _ := json.Marshal(string(c.id.String()) + r.Key)
	_ = w.desks[through].Reply(c.id, &wire.Reply{Request: r.ID, Body: body})
}

func (w *world) link(s socketmeta.ServerID, up bool) {
	w.mu.Lock()
	was := w.down[s]
	w.down[s] = !up
	w.mu.Unlock()
	if up && was {
		w.desks[s].do(func(c *core, now time.Time) { c.linked(now) })
		w.say(s, broker.ToAll(), &wire.Owner{From: s, Mailbox: s})
	}
}

// restart has a worker die and come back: its clients have to attach again.
func (w *world) restart(s socketmeta.ServerID) {
	w.desks[s].Close()
	w.mu.Lock()
	w.desks[s], w.down[s] = w.desk(s), true
	for _, c := range w.clients {
		if c.at == s {
			c.at = ""
		}
	}
	w.mu.Unlock()
	w.link(s, true)
}

// calm delivers all that is in the air, and has the clients reply, until nothing is left to do.
func (w *world) calm() {
	for {
		synctest.Wait()
		w.mu.Lock()
		busy := len(w.flying) > 0
		for _, c := range w.clients {
			busy = busy || len(c.todo) > 0
		}
		w.mu.Unlock()
		if !busy {
			return
		}
		w.fly(0, true, false)
		for i, c := range w.clients {
			w.reply(c, w.servers[i%len(w.servers)])
		}
	}
}

// TestAnySchedule: whatever is lost, doubled or late, wherever the clients go and whichever worker restarts, each question
// ends once, in time, with its own client's answer to its own key or with an error; and once nothing is lost any
// more and the clients are somewhere, perhaps where they were all the time, all that is open is answered within maxPause.
func TestAnySchedule(t *testing.T) {
	type step struct{ Do, A, B, C int }
	rapid.Check(t, func(r *rapid.T) {
		n := rapid.IntRange(0, 9)
		steps := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) step {
			return step{rapid.IntRange(0, 15).Draw(t, "do"), n.Draw(t, "a"), n.Draw(t, "b"), n.Draw(t, "c")}
		}), 20, 80).Draw(r, "steps")
		var wrong string
		synctest.Test(t, func(*testing.T) {
			w := newWorld(3, 2)
			for _, s := range steps {
				server, c := w.servers[s.A%3], w.clients[s.B%2]
				switch s.Do {
				case 0, 1:
					w.ask(server, c, fmt.Sprint("key", s.C%3), MaxWithin)
				case 2, 3:
					w.attach(c, server)
				case 4:
					w.mu.Lock()
					c.at = ""
					w.mu.Unlock()
				case 5, 6:
					w.reply(c, server)
				case 7, 8, 9, 10:
					w.fly(s.C, true, false)
				case 11:
					for range s.A {
						w.fly(s.C, false, false)
					}
				case 12:
					w.fly(s.C, true, true)
				case 13:
					time.Sleep(time.Duration(s.A*s.C) * 30 * time.Millisecond)
				case 14:
					w.link(server, s.C%2 == 0)
				case 15:
					if s.C < 3 {
						w.restart(server)
					}
				}
				synctest.Wait()
			}
			for steps[0].A%2 == 0 && len(w.flying) > 0 {
				w.fly(0, false, false)
			}
			for _, s := range w.servers {
				w.link(s, true)
			}
			for i, c := range w.clients {
				switch {
				case c.at != "":
				case c.token != "":
					w.attach(c, c.token)
				default:
					w.attach(c, w.servers[i])
				}
			}
			for range maxPause / time.Second {
				w.calm()
				time.Sleep(time.Second)
			}
			w.calm()
			wrong = w.judge()
			for _, d := range w.desks {
				if n := d.Open(); n > 0 || len(d.waiting) > 0 {
					wrong += fmt.Sprintf("%s has %d open questions, and %d wait; ", d.o.Server, n, len(d.waiting))
				}
				d.Close()
			}
			w.asking.Wait()
		})
		if wrong != "" {
			r.Fatal(wrong)
		}
	})
}

// judge says what is wrong with what was asked.
func (w *world) judge() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	var wrong []string
	for i, a := range w.asked {
		want := fmt.Sprintf("%q", a.client.id.String()+a.key)
		e, isError := errors.AsType[*wire.Error](a.err)
		switch {
		case a.answer != nil && a.err == nil && string(a.answer.Body) == want:
		case a.answer == nil && isError && (e.Code == wire.CodeNoAnswer || e.Code == wire.CodeUnavailable):
		case a.answer == nil && a.err == nil:
			wrong = append(wrong, fmt.Sprintf("question %d has not ended", i))
		default:
			wrong = append(wrong, fmt.Sprintf("question %d ended with %v, %v, want %s", i, a.answer, a.err, want))
		}
	}
	return strings.Join(wrong, "; ")
}

// TestNothingWaitsForTime: where nothing is lost, a question is answered as soon as its client is there, wherever it comes
// to, and however often its connection dies.
func TestNothingWaitsForTime(t *testing.T) {
	places := []string{"i1-w1", "i1-w2", "i1-w3"}
	for _, before := range append(places, "") {
		for _, comes := range places {
			for _, again := range append(places, "") {
				t.Run(fmt.Sprintf("%s,%s,%s", before, comes, again), func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						w := newWorld(3, 1)
						c := w.clients[0]
						c.token = socketmeta.ServerID(before)
						if before == "" { // it was there, and its worker has lost what it knew
							c.token = socketmeta.ServerID(comes)
						}
						a := w.ask("i1-w1", c, "k", time.Minute)
						for len(w.flying) > 0 {
							w.fly(0, true, false)
						}
						if before == "" {
							w.restart(socketmeta.ServerID(comes))
							if comes == "i1-w1" {
								w.asking.Wait()
								if e, ok := errors.AsType[*wire.Error](a.err); !ok || e.Code != wire.CodeUnavailable {
									t.Errorf("the worker that asked has died: %v", a.err)
								}
								w.desks["i1-w1"].Close()
								return
							}
						}
						for len(w.flying) > 0 {
							w.fly(0, true, false)
						}
						w.attach(c, socketmeta.ServerID(comes))
						for len(w.flying) > 0 {
							w.fly(0, true, false)
						}
						if len(c.todo) == 0 {
							t.Fatal("the client came, and was not asked")
						}
						if again != "" { // its connection dies with what it was asked
							c.at, c.todo = "", nil
							w.attach(c, socketmeta.ServerID(again))
						}
						w.calm()
						w.asking.Wait()
						if a.err != nil || a.took != 0 {
							t.Errorf("answered with %v, %v after %v, want an answer at once", a.answer, a.err, a.took)
						}
						for _, d := range w.desks {
							d.Close()
						}
					})
				})
			}
		}
	}
}
