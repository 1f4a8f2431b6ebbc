package wsclient

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/wscluster/wscluster/pkg/wire"
)

// gap makes one of the task "t" that stands in for the durable events from to seq, after prev.
func gap(from, seq, prev int64) wire.Event {
	e := event(1, runA, seq, prev, wire.EventGap)
	e.Body = fmt.Appendf(nil, `{"client_id":%q,"from_seq":%d,"reason":"expired","timestamp":"2026-01-02T03:04:05.000Z"}`, testClient, from)
	return e
}

func lastGap(from, seq, prev int64) wire.Event {
	e := gap(from, seq, prev)
	e.Last = true
	return e
}

// missing reads what a gap tells the application.
func missing(t interface{ Fatalf(string, ...any) }, e *wire.Event) (from, to int64) {
	var g wire.Gap
	if err := json.Unmarshal(e.Body, &g); err != nil || g.Reason != wire.GapExpired || g.Timestamp.IsZero() {
		t.Fatalf("the body of a gap is %s: %v", e.Body, err)
	}
	return g.FromSeq, e.Seq
}

func TestAGapTakesThePlaceOfWhatItStandsFor(t *testing.T) {
	type puts []wire.Event
	for _, test := range []struct {
		name string
		puts puts
		want string
	}{
		{"in its place", puts{step(1, 0), gap(2, 4, 1), step(5, 4)}, "1, 2-4 missing, 5"},
		{"too early", puts{gap(3, 4, 2), step(5, 4), step(1, 0), step(2, 1)}, "1, 2, 3-4 missing, 5"},
		{"before anything else", puts{gap(1, 3, 0), step(4, 3)}, "1-3 missing, 4"},
		{"of what the application has in part", puts{step(1, 0), step(2, 1), step(3, 2), gap(2, 5, 1)}, "1, 2, 3, 4-5 missing"},
		{"of what the application has", puts{step(1, 0), step(2, 1), gap(1, 2, 0), step(3, 2)}, "1, 2, 3"},
		{"of what comes after it all the same", puts{gap(1, 3, 0), step(2, 1), step(3, 2), step(4, 3)}, "1-3 missing, 4"},
		{"twice", puts{gap(1, 3, 0), gap(1, 3, 0), step(4, 3)}, "1-3 missing, 4"},
		{"of what waits for the same as it does", puts{step(3, 2), step(4, 3), gap(3, 4, 2), step(1, 0), step(2, 1)}, "1, 2, 3, 4"},
		{"the same, the gap first", puts{gap(3, 4, 2), step(4, 3), step(3, 2), step(1, 0), step(2, 1)}, "1, 2, 3, 4"},
		{"of a single event that came after all", puts{gap(2, 2, 1), step(2, 1), step(1, 0)}, "1, 2"},
		{"of what waits in part", puts{step(3, 2), gap(3, 5, 2), step(1, 0), step(2, 1), step(6, 5)}, "1, 2, 3, 4-5 missing, 6"},
		{"whose end waits", puts{step(5, 4), gap(3, 5, 2), step(6, 5), step(1, 0), step(2, 1)}, "1, 2, 3-5 missing, 6"},
		{"whose end waits behind it", puts{gap(3, 5, 2), step(5, 4), step(1, 0), step(2, 1)}, "1, 2, 3-5 missing"},
		{"of two gaps the one that fits", puts{gap(4, 6, 3), gap(2, 6, 1), step(1, 0), step(7, 6)}, "1, 2-6 missing, 7"},
		{"of two gaps the lesser is enough", puts{gap(2, 6, 1), gap(4, 6, 3), step(3, 2), step(2, 1), step(1, 0)}, "1, 2, 3, 4-6 missing"},
		{"overlapping another", puts{step(1, 0), gap(2, 4, 1), gap(3, 7, 2), step(8, 7)}, "1, 2-4 missing, 5-7 missing, 8"},
		{"with holes where progress was", puts{step(1, 0), gap(4, 9, 1), step(12, 9)}, "1, 4-9 missing, 12"},
		{"of another run", puts{step(1, 0), {Task: "t", Attempt: 2, Run: runB, Seq: 3, Type: wire.EventGap, Durable: true, Body: gap(1, 3, 0).Body}}, "reset 1-3 missing"},
		{"of an earlier run", puts{event(2, runB, 1, 0, wire.EventStarted), gap(1, 3, 0)}, "1"},
		{"the last", puts{step(1, 0), lastGap(2, 3, 1), event(2, runB, 1, 0, wire.EventStarted)}, "1, 2-3 missing"},
	} {
		t.Run(test.name, func(t *testing.T) {
			for _, when := range []string{"taken at the end", "taken at once", "put twice"} {
				b := newTestInbox()
				var got []string
				for _, e := range test.puts {
					b.put(&e)
					switch when {
					case "taken at once":
						got = append(got, drain(b)...)
					case "put twice":
						b.put(&e)
					}
				}
				got = append(got, drain(b)...)
				want := test.want
				if test.name == "of another run" && when == "taken at once" {
					want = "1, " + want
				}
				if test.name == "of another run" && when != "taken at once" {
					want = "1-3 missing" // nothing was told of the run before
				}
				if test.name == "the last" && when != "taken at once" {
					want = "1" // the other run came first
				}
				if got := strings.Join(got, ", "); got != want {
					t.Errorf("%s: the application got %q, want %q", when, got, want)
				}
				if b.room.events != 100 && b.open["t"] != nil && len(b.open["t"].late) == 0 {
					t.Errorf("%s: room for %d events is left of 100", when, b.room.events)
				}
			}
		})
	}
}

func TestAGapMakesWayForItselfInAFullRoom(t *testing.T) {
	b := newInbox(3, 1<<20)
	b.begin(wire.Position{Task: "t"})
	for _, e := range []wire.Event{step(6, 5), step(7, 6), step(8, 7)} {
		b.put(&e)
	}
	e := gap(1, 9, 0) // it is next in order, and higher than all that wait
	if got := b.put(&e); got != inOrder {
		t.Errorf("put = %v, want in order", got)
	}
	if got, want := drain(b), []string{"1-9 missing"}; !slices.Equal(got, want) {
		t.Errorf("the application got %q, want %q", got, want)
	}
}

func TestAFullRoomKeepsTheEventBeforeTheGapOfItsNumber(t *testing.T) {
	for _, puts := range [][]wire.Event{{step(5, 4), gap(3, 5, 2)}, {gap(3, 5, 2), step(5, 4)}} {
		b := newInbox(1, 1<<20)
		b.begin(wire.Position{Task: "t"})
		for _, e := range puts {
			b.put(&e)
		}
		if late := b.open["t"].late; len(late) != 1 || late[0].Type != wire.EventStep {
			t.Errorf("waiting are %+v, want the step", late)
		}
	}
}

func TestAGapIsAcknowledgedLikeWhatItStandsFor(t *testing.T) {
	b := newTestInbox()
	for _, e := range []wire.Event{step(1, 0), gap(2, 4, 1)} {
		b.put(&e)
	}
	b.take("t")
	b.took("t")
	b.take("t")
	want := []wire.Position{{Task: "t", Attempt: 1, Run: runA, Next: 2}}
	if got := b.acknowledge(); !slices.Equal(got, want) {
		t.Errorf("acknowledged %+v, want %+v: the application is not done with the gap", got, want)
	}
	b.took("t")
	want[0].Next = 5
	if got := b.acknowledge(); !slices.Equal(got, want) {
		t.Errorf("acknowledged %+v, want %+v", got, want)
	}
}

func TestTheApplicationIsToldOfAGap(t *testing.T) {
	bubble(t, func(t *testing.T, s *server) {
		var told []string
		c, p := s.open(Options{OnEvent: func(_ *Task, e Event) {
			if e.Type == wire.EventGap {
				from, to := missing(t, &e.Event)
				told = append(told, fmt.Sprintf("%d-%d missing", from, to))
				return
			}
			told = append(told, fmt.Sprint(e.Seq))
		}})
		task := p.submit(c)
		p.events(step(1, 0), step(2, 1), gap(2, 4, 1), gap(2, 4, 1), result(5, 4, "7"))
		if value, err := task.Wait(t.Context()); string(value) != "7" || err != nil {
			t.Errorf("Wait = %s, %v", value, err)
		}
		synctest.Wait()
		if want := []string{"1", "2", "3-4 missing", "5"}; !slices.Equal(told, want) {
			t.Errorf("the application got %q, want %q", told, want)
		}
		if got := c.Stats(); got.Events != 3 || got.Gaps != 1 || got.Duplicates != 1 {
			t.Errorf("Stats = %+v, want 3 events, 1 gap and 1 duplicate", got)
		}
	})
}

func TestATaskWhoseEndIsMissingEnds(t *testing.T) {
	bubble(t, func(t *testing.T, s *server) {
		c, p := s.open(Options{})
		task := p.submit(c)
		p.events(step(1, 0), lastGap(2, 9, 1))
		value, err := task.Wait(t.Context())
		if value != nil || !errors.Is(err, ErrEndMissed) || !strings.Contains(err.Error(), "expired") {
			t.Errorf("Wait = %s, %v, want ErrEndMissed with its reason", value, err)
		}
		if len(c.Tasks()) != 0 {
			t.Error("the task is open")
		}
		p.acked(10)
	})
}

// TestReloadWhileEventsWait goes on from the State of a client that held events and a gap which came
// too early: none of them was the application's, so all come again.
func TestReloadWhileEventsWait(t *testing.T) {
	bubble(t, func(t *testing.T, s *server) {
		c, p := s.open(Options{})
		task := p.submit(c)
		p.events(step(1, 0), gap(3, 5, 2), step(6, 5), step(8, 7))
		numbers(t, task, 1)
		synctest.Wait()
		if n := len(c.in.open["t"].late); n != 3 {
			t.Fatalf("%d events wait, want 3", n)
		}
		state := c.State()
		_ = c.stop()
		for m := range p.in {
			if a, ok := m.(*wire.Ack); ok && a.Tasks[0].Next != 2 {
				t.Errorf("acknowledged %+v, which covers what only waits", a.Tasks)
			}
		}

		c = s.start(Options{State: state})
		p = s.next()
		h := p.welcome("two", wire.TaskStatus{Task: "t", State: wire.TaskRunning})
		if want := (wire.Position{Task: "t", Attempt: 1, Run: runA, Next: 2}); h.Tasks[0] != want {
			t.Errorf("hello %+v, want %+v", h.Tasks, want)
		}
		task = c.Tasks()[0]
		p.events(step(2, 1), gap(3, 5, 2), step(6, 5), step(7, 6), step(8, 7), lastGap(9, 12, 8))
		if got := numbers(t, task, 9); got != "2 5 6 7 8 12" {
			t.Errorf("the application got %s after the reload", got)
		}
	})
}
