package worker_test

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/wscluster/wscluster/internal/worker"
	"github.com/wscluster/wscluster/pkg/broker"
	"github.com/wscluster/wscluster/pkg/taskrunner"
	"github.com/wscluster/wscluster/pkg/wire"
	"github.com/wscluster/wscluster/pkg/wsclient"
)

// told is what an application was told, by a client's OnEvent.
type told struct {
	mu     sync.Mutex
	seqs   []int64 // guarded by mu; of durable events
	finals int     // guarded by mu
	gaps   int     // guarded by mu
}

func (a *told) hear(_ *wsclient.Task, e wsclient.Event) {
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case e.Type == wire.EventGap:
		a.gaps++
	case e.Durable:
		a.seqs = append(a.seqs, e.Seq)
	}
	if e.Last {
		a.finals++
	}
}

// counting tells n steps, 100 ms apart.
func counting(n int, runs *atomic.Int64) taskrunner.HandlerFunc {
	return func(ctx context.Context, t *taskrunner.Task) (any, error) {
		runs.Add(1)
		for i := range n {
			t.Step(fmt.Sprint(i))
			select {
			case <-time.After(100 * time.Millisecond):
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		}
		return n, nil
	}
}

// The welcome is sent and the connection is cut before the client has it, twice in a row; each socket
// goes to another worker. The session is claimed only by the one whose welcome arrived.
func TestFault33AWelcomeThatIsLostTwiceOnTheWayCostsTheClientNothing(t *testing.T) {
	for _, path := range [][3]int{{1, 2, 0}, {1, 1, 1}, {1, 2, 1}, {0, 1, 2}} {
		inBubble(t, func(b *bubble) {
			all := []*lodger{b.worker("i1-w1"), b.worker("i1-w2"), b.worker("i1-w3")}
			b.runner("r1", map[string]taskrunner.Kind{"k": {Handler: counting(100, new(atomic.Int64))}})
			var at, lose atomic.Int64
			var app told
			said := b.overhear()
			c, _ := b.client(func() *lodger { return all[at.Load()] }, func(o *wsclient.Options) {
				o.OnEvent = app.hear
				o.BaseDelay, o.MaxDelay = 10*time.Millisecond, 10*time.Millisecond
				o.Faults.Receive = func(m wire.ServerMessage) wsclient.Fate {
					if _, welcome := m.(*wire.SocketMeta); welcome && lose.Load() > 0 {
						at.Store(int64(path[2-lose.Add(-1)])) // where the next one goes
						return wsclient.Cut
					}
					return wsclient.Pass
				}
			})
			task, err := c.Submit(b.Context(), "k", nil)
			if err != nil {
				t.Fatal(err)
			}
			for range 3 {
				b.pass(2 * time.Second)
				lose.Store(2)
				at.Store(int64(path[0]))
				c.Cut()
			}
			if _, err := b.wait(task); err != nil {
				t.Error(err)
			}
			b.pass(10 * time.Second)
			if n := len(app.seqs); !slices.IsSorted(app.seqs) || len(slices.Compact(app.seqs)) != n || n < 200 || app.finals != 1 {
				t.Errorf("path %v: the application was told %d events (%v) and %d ends", path, n, app.seqs, app.finals)
			}
			if n := b.left("i1-w1", "i1-w2", "i1-w3"); n != 0 {
				t.Errorf("path %v: %d messages are left in the mailboxes", path, n)
			}
			if n := said()["moved"]; n > 100 {
				t.Errorf("path %v: %d claims were made", path, n)
			}
			if s := c.Stats(); s.Sockets < 4 {
				t.Errorf("path %v: %d sockets were welcomed, want 4 at least", path, s.Sockets)
			}
		})
	}
}

// The answer to a submit is lost and the client asks again, at another worker: both tasks are stored,
// and two runners are given one each, at once or one after the other. One runs, and the client is told
// one end.
func TestFault34ATaskSubmittedToTwoWorkersAtOnceEndsOnceForItsClient(t *testing.T) {
	for name, after := range map[string]bool{"at once": false, "one after the other": true} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(b *bubble) {
				all := []*lodger{b.worker("i1-w1"), b.worker("i1-w2")}
				var runs, at atomic.Int64
				kinds := map[string]taskrunner.Kind{"k": {Handler: counting(50, &runs)}}
				b.runner("r0", kinds)() // from now on the kind is known; an event would stand for the lost answer
				var app told
				var lost atomic.Bool
				c, _ := b.client(func() *lodger { return all[at.Load()] }, func(o *wsclient.Options) {
					o.OnEvent = app.hear
					o.Faults.Receive = func(m wire.ServerMessage) wsclient.Fate {
						if _, accepted := m.(*wire.Accepted); accepted && lost.CompareAndSwap(false, true) {
							at.Store(1)
							return wsclient.Cut
						}
						return wsclient.Pass
					}
				})
				task, err := c.SubmitAs(b.Context(), "build-1", "k", map[string]int{"n": 1})
				if err != nil {
					t.Fatal(err)
				}
				stop := b.runner("r1", kinds)
				b.pass(2 * time.Second)
				release := b.keepTasks("k")
				if !after {
					release()
					b.runner("r2", kinds)
				}
				value, err := b.wait(task)
				if err != nil || string(value) != "50" {
					t.Errorf("the result is %s, %v", value, err)
				}
				if after {
					stop()
					release()
					b.runner("r2", kinds)
				}
				b.pass(time.Minute)
				app.mu.Lock()
				defer app.mu.Unlock()
				if !lost.Load() || runs.Load() != 1 || app.finals != 1 {
					t.Errorf("%d runs and %d ends, want one of each", runs.Load(), app.finals)
				}
				if n := b.left("i1-w1", "i1-w2"); n != 0 {
					t.Errorf("%d messages are left in the mailboxes", n)
				}
				if s := c.Stats(); s.Unknown != 0 || len(c.Tasks()) != 0 {
					t.Errorf("%d events of unknown tasks, %d open tasks", s.Unknown, len(c.Tasks()))
				}
			})
		})
	}
}

// The promise of conflict ends with the session's memory at one worker (docs/adr/0002). Then runners know the task
// by its client and ID: they run what was asked for first, and nothing of the second.
func TestOtherContentsUnderATasksIDAreAConflictAtItsWorkerAndRunNowhere(t *testing.T) {
	for name, elsewhere := range map[string]func(b *bubble, w *lodger) *lodger{
		"the session moves":     func(b *bubble, _ *lodger) *lodger { return b.worker("i1-w2") },
		"the worker is started": func(b *bubble, w *lodger) *lodger { b.kill(w); return b.worker(w.id) },
	} {
		inBubble(t, func(b *bubble) {
			gate := make(chan struct{})
			var ran atomic.Value
			var runs atomic.Int64
			b.runner("r1", kinds(taskrunner.HandlerFunc(func(_ context.Context, t *taskrunner.Task) (any, error) {
				runs.Add(1)
				var params json.RawMessage
				err := t.Params(&params)
				ran.Store(string(params))
				<-gate
				return nil, err
			})))
			first := b.worker("i1-w1")
			s := b.bare(first, "")
			s.say(&wire.Hello{})
			m := s.meta()
			ask := func(s *bareSocket, params string) (answers []string, ends int) {
				s.say(&wire.Submit{Task: "t", Kind: "k", Params: json.RawMessage(params)})
				b.pass(time.Minute)
				ms, _ := s.all()
				for _, m := range ms {
					switch m := m.(type) {
					case *wire.Accepted:
						answers = append(answers, "accepted")
					case *wire.Refused:
						answers = append(answers, string(m.Code))
					case *wire.Event:
						if m.Last {
							ends++
						}
					}
				}
				return answers, ends
			}
			for _, c := range [][2]string{{`{"n":1}`, "accepted"}, {`{"n":2}`, "conflict"}} {
				if got, _ := ask(s, c[0]); !slices.Equal(got, []string{c[1]}) {
					t.Errorf("%s: %s is answered with %v, want %s", name, c[0], got, c[1])
				}
			}
			s = b.bare(elsewhere(b, first), "")
			s.say(&wire.Hello{Token: m.Token, Tasks: []wire.Position{{Task: "t"}}})
			if m = s.meta(); !m.Resumed {
				t.Fatalf("%s: got %+v, want the session", name, m)
			}
			s.say(&wire.Confirm{Epoch: m.Epoch})
			if got, _ := ask(s, `{"n":2}`); !slices.Equal(got, []string{"accepted"}) {
				t.Errorf("%s: other contents are answered with %v, want accepted", name, got)
			}
			close(gate)
			if _, ends := ask(s, `{"n":2}`); runs.Load() != 1 || ran.Load() != `{"n":1}` || ends != 1 {
				t.Errorf("%s: %d runs, of %v, and %d ends; want one, of the first", name, runs.Load(), ran.Load(), ends)
			}
			if ready, unsettled := b.broker.Depth(broker.TasksQueue("k", wire.Normal)); ready+unsettled > 0 {
				t.Errorf("%s: %d tasks are left", name, ready+unsettled)
			}
		})
	}
}

// keepTasks takes a task of a kind, and runs nothing of it, until release.
func (b *bubble) keepTasks(kind string) (release func()) {
	b.Helper()
	link, err := b.broker.Join(b.Context(), broker.Runner("keeper"))
	if err != nil {
		b.Fatal(err)
	}
	tasks, err := link.OpenTasks(b.Context(), []string{kind}, 1)
	if err != nil {
		b.Fatal(err)
	}
	select {
	case <-tasks.Deliveries():
	case <-time.After(time.Hour):
		b.Fatal("no task waits for a runner")
	}
	return func() { _ = link.Close(context.Background()) }
}

// A client that comes back after the window is told by a gap, wherever it comes to.
func TestFault17AClientThatComesBackTooLateIsTold(t *testing.T) {
	for name, elsewhere := range map[string]bool{"where it was": false, "elsewhere": true} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(b *bubble) {
				short := func(o *worker.Options) { o.ResumeWindow = time.Minute }
				all := []*lodger{b.worker("i1-w1", short), b.worker("i1-w2", short)}
				b.runner("r1", map[string]taskrunner.Kind{"k": {Handler: counting(50, new(atomic.Int64))}})
				var app told
				c, leave := b.client(always(all[0]), func(o *wsclient.Options) { o.OnEvent = app.hear })
				if _, err := c.Submit(b.Context(), "k", nil); err != nil {
					t.Fatal(err)
				}
				b.pass(2 * time.Second)
				leave()
				had := len(app.seqs)
				b.pass(2 * time.Minute)
				if n := len(b.broker.Messages(broker.QueueDeadEvents)); n == 0 {
					t.Fatal("nothing has expired")
				}
				back := all[0]
				if elsewhere {
					back = all[1]
				}
				late, _ := b.client(always(back), func(o *wsclient.Options) { o.OnEvent, o.State = app.hear, c.State() })
				tasks := late.Tasks()
				b.pass(20 * time.Second)
				app.mu.Lock()
				defer app.mu.Unlock()
				if len(late.Tasks()) != 0 || len(app.seqs) != had || app.gaps != 1 {
					t.Errorf("%d tasks are open, %d events more and %d gaps were told; want the task over, with a gap", len(late.Tasks()), len(app.seqs)-had, app.gaps)
				}
				for _, task := range tasks {
					if _, err := b.wait(task); err == nil {
						t.Error("the task succeeded")
					} else {
						t.Logf("the task ends with: %v", err)
					}
				}
				if n := b.left("i1-w1", "i1-w2"); n != 0 {
					t.Errorf("%d messages are left in the mailboxes", n)
				}
			})
		})
	}
}
