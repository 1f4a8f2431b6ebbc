package wsclient

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/wscluster/wscluster/pkg/wire"
)

const (
	runA = wire.RunID("01900000-0000-7000-8000-00000000000a")
	runB = wire.RunID("01900000-0000-7000-8000-00000000000b")
)

// event makes a durable event of the task "t"; as a final one if it is a result.
func event(attempt int, run wire.RunID, seq, prev int64, typ wire.EventType) wire.Event {
	return wire.Event{
		Task: "t", Attempt: attempt, Run: run, Seq: seq, Prev: prev, Type: typ,
		Durable: typ != wire.EventProgress, Last: typ == wire.EventResult || typ == wire.EventError,
		Body: json.RawMessage(fmt.Sprintf(`{"seq":%d}`, seq)),
	}
}

func step(seq, prev int64) wire.Event     { return event(1, runA, seq, prev, wire.EventStep) }
func progress(seq, prev int64) wire.Event { return event(1, runA, seq, prev, wire.EventProgress) }

// drain takes all that the application can have of "t", as "seq", "from-seq missing" or "reset seq".
func drain(b *inbox) (got []string) {
	for {
		e, ok := b.take("t")
		if !ok {
			return got
		}
		b.took("t")
		s := fmt.Sprint(e.Seq)
		if e.Type == wire.EventGap {
			var g wire.Gap
			if err := json.Unmarshal(e.Body, &g); err != nil {
				panic(err)
			}
			s = fmt.Sprintf("%d-%d missing", g.FromSeq, e.Seq)
		}
		if e.Reset {
			s = "reset " + s
		}
		got = append(got, s)
	}
}

func newTestInbox() *inbox {
	b := newInbox(100, 1<<20)
	b.begin(wire.Position{Task: "t"})
	return b
}

func TestOrder(t *testing.T) {
	type put struct {
		e    wire.Event
		want verdict
	}
	next := event(1, runB, 1, 0, wire.EventStarted)
	for _, test := range []struct {
		name string
		puts []put
		want []string
	}{
		{"in order", []put{{step(1, 0), inOrder}, {step(2, 1), inOrder}}, []string{"1", "2"}},
		{"numbers of progress leave holes", []put{{step(1, 0), inOrder}, {step(4, 1), inOrder}}, []string{"1", "4"}},
		{"reversed", []put{{step(3, 2), early}, {step(2, 1), early}, {step(1, 0), inOrder}}, []string{"1", "2", "3"}},
		{"one is missing", []put{{step(1, 0), inOrder}, {step(3, 2), early}}, []string{"1"}},
		{"twice", []put{{step(1, 0), inOrder}, {step(1, 0), duplicate}, {step(3, 2), early}, {step(3, 2), duplicate}}, []string{"1"}},
		{"progress does not wait", []put{{progress(5, 4), inOrder}, {step(1, 0), inOrder}}, []string{"5", "1"}},
		{"the latest progress wins", []put{{step(1, 0), inOrder}, {progress(2, 1), inOrder}, {progress(3, 1), inOrder}}, []string{"1", "3"}},
		{"older progress is dropped", []put{{progress(3, 0), inOrder}, {progress(2, 0), stale}, {progress(3, 0), stale}}, []string{"3"}},
		{"progress behind a step is dropped", []put{{step(1, 0), inOrder}, {step(3, 1), inOrder}, {progress(2, 1), stale}}, []string{"1", "3"}},
		{"another run before anything was taken", []put{{step(1, 0), inOrder}, {step(3, 2), early}, {next, inOrder}, {step(2, 1), stale}}, []string{"1"}},
		{"another run by its progress", []put{{step(1, 0), inOrder}, {event(1, runB, 2, 1, wire.EventProgress), inOrder}, {next, inOrder}}, []string{"2", "1"}},
		{"progress of another run", []put{{progress(5, 0), inOrder}, {event(1, runB, 2, 1, wire.EventProgress), inOrder}}, []string{"2"}},
		{"a higher attempt wins over a higher run", []put{{event(2, runA, 1, 0, wire.EventStep), inOrder}, {event(1, runB, 1, 0, wire.EventStep), stale}}, []string{"1"}},
		{"events without a run", []put{{event(0, "", 1, 0, wire.EventStep), inOrder}, {event(0, "", 2, 1, wire.EventResult), inOrder}}, []string{"1", "2"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			b := newTestInbox()
			for _, p := range test.puts {
				if got := b.put(&p.e); got != p.want {
					t.Errorf("put %d/%d = %v, want %v", p.e.Attempt, p.e.Seq, got, p.want)
				}
			}
			if got := drain(b); !slices.Equal(got, test.want) {
				t.Errorf("the application got %q, want %q", got, test.want)
			}
		})
	}
}

func TestAnotherRunIsToldOnce(t *testing.T) {
	b := newTestInbox()
	put := func(e wire.Event) { b.put(&e) }
	put(step(1, 0))
	drain(b)
	put(step(2, 1))
	put(event(2, runB, 3, 2, wire.EventStep)) // its start comes later
	if got := drain(b); got != nil {
		t.Fatalf("the application got %q of a run that is over", got)
	}
	if p := b.open["t"].had; p != (wire.Position{Task: "t", Attempt: 1, Run: runA, Next: 2}) {
		t.Errorf("it stands at %+v, want where the application is", p)
	}
	put(event(2, runB, 1, 0, wire.EventStarted))
	put(event(2, runB, 2, 1, wire.EventStep))
	if got, want := drain(b), []string{"reset 1", "2", "3"}; !slices.Equal(got, want) {
		t.Errorf("the application got %q, want %q", got, want)
	}
}

func TestAnotherRunIsToldAfterAReload(t *testing.T) {
	b := newInbox(100, 1<<20)
	b.begin(wire.Position{Task: "t", Attempt: 1, Run: runA, Next: 3})
	e := event(2, runB, 1, 0, wire.EventStep)
	b.put(&e)
	if got, want := drain(b), []string{"reset 1"}; !slices.Equal(got, want) {
		t.Errorf("the application got %q, want %q", got, want)
	}
}

func TestNothingIsAcknowledgedBeforeTheApplicationIsDone(t *testing.T) {
	b := newTestInbox()
	for _, e := range []wire.Event{step(1, 0), step(2, 1), step(4, 3), step(2, 1)} {
		b.put(&e)
	}
	b.take("t")
	if got := b.acknowledge(); len(got) != 0 {
		t.Errorf("acknowledged %+v while the application has not said that it is done", got)
	}
	again, _ := b.take("t")
	if again.Seq != 1 {
		t.Errorf("take gave %d, want 1 again: the application was not done with it", again.Seq)
	}
	b.took("t")
	want := []wire.Position{{Task: "t", Attempt: 1, Run: runA, Next: 2}}
	if got := b.acknowledge(); !slices.Equal(got, want) {
		t.Errorf("acknowledged %+v, want %+v: 2 is ready and 4 waits", got, want)
	}
}

func TestADuplicateIsAcknowledgedByTheCurrentPosition(t *testing.T) {
	b := newTestInbox()
	for _, e := range []wire.Event{step(1, 0), step(2, 1)} {
		b.put(&e)
	}
	drain(b)
	b.acknowledge() // lost, say
	e := step(1, 0)
	b.put(&e)
	want := []wire.Position{{Task: "t", Attempt: 1, Run: runA, Next: 3}}
	if got := b.acknowledge(); !slices.Equal(got, want) {
		t.Errorf("acknowledged %+v, want %+v", got, want)
	}
}

// A server sends so much before it is acknowledged and no more: what is dropped must not fill that.
func TestARunThatIsReplacedIsAcknowledgedByTheBeginningOfTheNext(t *testing.T) {
	begin, ahead := event(2, runB, 1, 0, wire.EventStarted), event(2, runB, 3, 2, wire.EventStep)
	one, two, moving := step(1, 0), step(2, 1), event(2, runB, 2, 1, wire.EventProgress)
	for _, test := range []struct {
		name string
		puts []*wire.Event
		want int64 // of runB; 0 for nothing at all
	}{
		{"its events come late", []*wire.Event{&ahead, &one}, 1},
		{"its events come late, of the other one only progress is here", []*wire.Event{&moving, &one}, 1},
		{"its events are ready", []*wire.Event{&one, &ahead}, 1},
		{"its events wait", []*wire.Event{&two, &moving}, 1},
		{"there was none", []*wire.Event{&ahead, &moving}, 0},
		{"the application has some of the next", []*wire.Event{&begin, nil, &ahead, &one}, 2},
	} {
		t.Run(test.name, func(t *testing.T) {
			b := newTestInbox()
			for _, e := range test.puts {
				if e != nil {
					b.put(e)
					continue
				}
				drain(b)
				b.acknowledge()
			}
			var want []wire.Position
			if test.want > 0 {
				want = []wire.Position{{Task: "t", Attempt: 2, Run: runB, Next: test.want}}
			}
			if got := b.acknowledge(); !slices.Equal(got, want) {
				t.Errorf("acknowledged %+v, want %+v", got, want)
			}
		})
	}
}

func TestEventsOfOtherTasksAreAcknowledgedByName(t *testing.T) {
	b := newTestInbox()
	final := event(1, runA, 1, 0, wire.EventResult)
	b.put(&final)
	drain(b)
	b.acknowledge()
	stranger := step(7, 6)
	stranger.Task = "s"
	second := event(2, runB, 1, 0, wire.EventResult)
	for e, want := range map[*wire.Event]verdict{&final: duplicate, &second: duplicate, &stranger: unknown} {
		for range 2 {
			if got := b.put(e); got != want {
				t.Errorf("put %s/%d = %v, want %v", e.Task, e.Attempt, got, want)
			}
		}
	}
	if len(b.ended.order) != 2 {
		t.Errorf("remembers %v, want each task once", b.ended.order)
	}
	want := []wire.Position{{Task: "s", Attempt: 1, Run: runA, Next: 8}, {Task: "t", Attempt: 2, Run: runB, Next: 2}}
	if got := b.acknowledge(); !slices.Equal(got, want) {
		t.Errorf("acknowledged %+v, want %+v", got, want)
	}
	if got := drain(b); got != nil {
		t.Errorf("the application got %q after the final event", got)
	}
}

func TestADuplicateOfAnEndedTaskIsAcknowledgedByItsEnd(t *testing.T) {
	b := newTestInbox()
	first, final := step(1, 0), event(1, runA, 2, 1, wire.EventResult)
	b.put(&first)
	b.put(&final)
	drain(b)
	b.acknowledge()
	b.put(&first)
	want := []wire.Position{{Task: "t", Attempt: 1, Run: runA, Next: 3}}
	if got := b.acknowledge(); !slices.Equal(got, want) {
		t.Errorf("acknowledged %+v, want %+v", got, want)
	}
}

func TestARunThatBeganDuringTheFinalEventIsAcknowledged(t *testing.T) {
	start, ahead := event(2, runB, 1, 0, wire.EventStarted), event(2, runB, 4, 3, wire.EventStep)
	for next, begun := range map[int64][]wire.Event{2: {start}, 5: {start, ahead}} {
		b := newTestInbox()
		final := event(1, runA, 1, 0, wire.EventResult)
		b.put(&final)
		b.take("t")
		for _, e := range begun {
			b.put(&e)
		}
		if !b.took("t") {
			t.Fatal("the task is not over after its final event")
		}
		want := []wire.Position{{Task: "t", Attempt: 2, Run: runB, Next: next}}
		if got := b.acknowledge(); !slices.Equal(got, want) {
			t.Errorf("acknowledged %+v, want %+v", got, want)
		}
		if b.room != (room{events: 100, bytes: 1 << 20}) {
			t.Errorf("room %+v is left", b.room)
		}
	}
}

func TestATaskThatWaitsStarvesNoOther(t *testing.T) {
	b := newInbox(1, 1<<20)
	b.begin(wire.Position{Task: "t"})
	b.begin(wire.Position{Task: "s"})
	waits, other := step(2, 1), step(1, 0)
	other.Task = "s"
	b.put(&waits)
	if got := b.put(&other); got != shed {
		t.Fatalf("put = %v, want shed: the room is full", got)
	}
	b.restart()
	if got := b.put(&other); got != inOrder {
		t.Errorf("put = %v after a restart, want in order", got)
	}
}

func TestOneAcknowledgementHoldsSoManyPositions(t *testing.T) {
	b := newInbox(10, 1<<20)
	for i := range wire.MaxPositions + 1 {
		e := step(1, 0)
		e.Task = wire.TaskID(fmt.Sprintf("t%03d", i))
		b.put(&e)
	}
	if n := len(b.acknowledge()); n != wire.MaxPositions {
		t.Errorf("the first one has %d, want %d", n, wire.MaxPositions)
	}
	if n := len(b.acknowledge()); n != 1 {
		t.Errorf("the second one has %d, want 1", n)
	}
}

func TestEndedTasksAreForgottenOldestFirst(t *testing.T) {
	var m endedTasks
	for i := range maxEnded + 1 {
		m.add(wire.Position{Task: wire.TaskID(fmt.Sprint(i))})
	}
	_, first := m.position("0")
	_, second := m.position("1")
	if first || !second || len(m.at) != maxEnded {
		t.Errorf("remembers the first %v, the second %v, in all %d; want false, true, %d", first, second, len(m.at), maxEnded)
	}
}

func TestFullRoomDropsTheHighest(t *testing.T) {
	b := newInbox(3, 1<<20)
	b.begin(wire.Position{Task: "t"})
	for _, p := range []struct {
		e    wire.Event
		want verdict
	}{
		{step(9, 8), early}, {step(5, 4), early}, {step(4, 3), early},
		{step(10, 9), shed}, // higher than all that wait
		{step(3, 2), early}, // 9 makes way
		{step(1, 0), inOrder},
		{step(2, 1), inOrder},
	} {
		if got := b.put(&p.e); got != p.want {
			t.Errorf("put %d = %v, want %v", p.e.Seq, got, p.want)
		}
	}
	if b.starved() {
		t.Error("starved, while the application has something to take")
	}
	if got, want := drain(b), []string{"1", "2", "3"}; !slices.Equal(got, want) {
		t.Errorf("the application got %q, want %q", got, want)
	}
	if !b.starved() {
		t.Error("not starved: 4, 5, 9 and 10 come only with another socket")
	}
	b.restart()
	if b.starved() || b.room != (room{events: 3, bytes: 1 << 20}) {
		t.Errorf("after a restart: starved %v, room %+v", b.starved(), b.room)
	}
}

func TestRoomIsCountedInBytesToo(t *testing.T) {
	b := newInbox(100, 20)
	b.begin(wire.Position{Task: "t"})
	big := step(1, 0)
	big.Body = json.RawMessage(`{"bytes":"21......."}`)
	if got := b.put(&big); got != shed || len(big.Body) != 21 {
		t.Errorf("put of %d bytes into 20 = %v, want shed", len(big.Body), got)
	}
}

// TestAnySchedule plays any schedule of duplicates, reordering, runs that end early, cuts, reloads,
// evictions and slow applications against a server that keeps what is neither acknowledged nor given
// up, and at last sends it, a window at a time. The application must see one complete run, each
// durable event once and in order or else named in a gap, every acknowledgement must be true, and
// none may be missing that the window waits for.
func TestAnySchedule(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld(t)
		for range rapid.IntRange(0, 60).Draw(t, "steps") {
			switch rapid.IntRange(0, 12).Draw(t, "do") {
			case 0:
				w.b.restart()
			case 1:
				w.acknowledge()
			case 2, 3:
				w.take()
			case 4:
				w.b.take("t") // an application that dies on the event
			case 5:
				w.reload()
			case 6, 7:
				w.evict()
			default: // also what was given up meanwhile may still be on its way
				e := rapid.SampledFrom(w.events).Draw(t, "event")
				if !w.settled[e.name()] {
					w.b.put(&e.Event)
				}
			}
		}
		w.connect() // and the server plays fair from now on
		for round := 0; !w.over; round++ {
			if round > 2*len(w.events)+3 {
				t.Fatalf("the task does not end; the application has %v", w.seen)
			}
			w.deliver()
			for w.take() {
			}
			w.acknowledge()
			if w.b.starved() {
				w.connect()
			}
		}
		for w.deliver() { // what is left is of a task that is over
			w.acknowledge()
		}
		for _, e := range w.events {
			if e.Durable && !w.dead[e.name()] && !w.settled[e.name()] {
				t.Errorf("the server is left with %s", e.name())
			}
		}
		if w.b.room.events != w.events0 {
			t.Errorf("room for %d events is left of %d", w.b.room.events, w.events0)
		}
	})
}

type named struct{ wire.Event }

func (e named) name() string {
	if e.Type == wire.EventGap {
		return fmt.Sprintf("%d/%s/%d-%d given up", e.Attempt, e.Run[len(e.Run)-1:], e.Prev, e.Seq)
	}
	return fmt.Sprintf("%d/%s/%d", e.Attempt, e.Run[len(e.Run)-1:], e.Seq)
}

// within reports whether g, a gap from the seq from, stands in for e.
func (e named) within(g *wire.Event, from int64) bool {
	return e.Durable && e.Type != wire.EventGap && compareRuns(e.Position(), g.Position()) == 0 && from <= e.Seq && e.Seq <= g.Seq
}

// world is a server with all that a task's runs ever publish, and an application.
type world struct {
	*rapid.T
	b       *inbox
	events0 int
	events  []named
	settled map[string]bool
	dead    map[string]bool // given up: it is not sent any more
	sent    map[string]bool // on this socket, once the server plays fair
	window  int             // durable events that are sent and not settled, at most

	seen   []named         // by the application, done
	missed map[string]bool // named to the application in a gap
	last   *wire.Position  // the run of which the application was told last
	over   bool
}

func newWorld(t *rapid.T) *world {
	w := &world{
		T: t, settled: map[string]bool{}, dead: map[string]bool{}, missed: map[string]bool{},
		events0: rapid.IntRange(1, 12).Draw(t, "room"), window: rapid.IntRange(1, 4).Draw(t, "window"),
	}
	w.begin(wire.Position{Task: "t"})
	runs := rapid.IntRange(1, 4).Draw(t, "runs")
	attempt := 1
	for r := range runs {
		if r > 0 && rapid.Bool().Draw(t, "another attempt") {
			attempt++
		}
		run := wire.RunID(fmt.Sprintf("01900000-0000-7000-8000-%012x", r))
		n := rapid.IntRange(1, 9).Draw(t, "events")
		final := r == runs-1 || rapid.Bool().Draw(t, "final")
		prev := int64(0)
		for seq := int64(1); seq <= int64(n); seq++ {
			typ := rapid.SampledFrom([]wire.EventType{wire.EventStep, wire.EventLog, wire.EventProgress}).Draw(t, "type")
			if final && seq == int64(n) {
				typ = wire.EventResult
			}
			e := event(attempt, run, seq, prev, typ)
			w.events = append(w.events, named{e})
			if e.Durable {
				prev = seq
			}
		}
	}
	return w
}

func (w *world) begin(p wire.Position) {
	w.b = newInbox(w.events0, 1<<20)
	w.b.begin(p)
}

// reload has another client go on from where the application stands.
func (w *world) reload() {
	if w.over {
		return
	}
	had := w.b.open["t"].had
	w.begin(had)
	if w.last = nil; had.Next > 0 {
		w.last = &had
	}
}

// connect gives the client another socket, on which everything is sent again.
func (w *world) connect() {
	w.b.restart()
	w.sent = map[string]bool{}
}

// deliver sends what the window has room for, in order, and then the progress. It reports whether
// it had anything durable to send.
func (w *world) deliver() (some bool) {
	queue := slices.SortedStableFunc(slices.Values(w.events), func(a, b named) int { // a gap where the first event was that it stands for
		return cmp.Or(compareRuns(a.Position(), b.Position()), cmp.Compare(a.Prev, b.Prev))
	})
	open := 0
	for _, e := range queue {
		if !e.Durable || w.settled[e.name()] || w.dead[e.name()] {
			continue
		}
		if open++; open > w.window {
			break
		}
		if !w.sent[e.name()] {
			w.sent[e.name()] = true
			w.b.put(&e.Event)
			some = true
		}
	}
	for _, e := range queue {
		if !e.Durable {
			w.b.put(&e.Event)
		}
	}
	return some
}

// evict gives up neighbours of a run that are not settled, or only some copies of them, for a gap.
func (w *world) evict() {
	var chain []named
	for i := rapid.IntRange(0, len(w.events)-1).Draw(w.T, "evict from"); i < len(w.events); i++ {
		e := w.events[i]
		if !e.Durable || e.Type == wire.EventGap {
			continue
		}
		n := len(chain)
		if w.settled[e.name()] || n > 0 && (compareRuns(chain[n-1].Position(), e.Position()) != 0 || rapid.Bool().Draw(w.T, "no more")) {
			break
		}
		chain = append(chain, e)
	}
	if len(chain) == 0 {
		return
	}
	first, end := chain[0], chain[len(chain)-1]
	g := gap(first.Seq, end.Seq, first.Prev)
	g.Attempt, g.Run, g.Last = end.Attempt, end.Run, end.Last
	for _, e := range chain {
		if rapid.Bool().Draw(w.T, "the only copy") {
			w.dead[e.name()] = true
		}
	}
	at := rapid.IntRange(0, len(w.events)).Draw(w.T, "the gap comes")
	w.events = slices.Insert(w.events, at, named{g})
}

// take has the application take an event and be done with it.
func (w *world) take() bool {
	e, ok := w.b.take("t")
	if !ok {
		return false
	}
	now := named{e.Event}
	if w.over {
		w.Fatalf("%s after the final event", now.name())
	}
	reset := false
	if w.last != nil {
		c := compareRuns(now.Position(), *w.last)
		if c < 0 {
			w.Fatalf("%s after %+v", now.name(), *w.last)
		}
		reset = c > 0
	}
	if e.Reset != reset {
		w.Errorf("%s after %v says reset %v", now.name(), w.seen, e.Reset)
	}
	from := e.Seq
	if e.Type == wire.EventGap {
		from, _ = missing(w.T, &e.Event)
	}
	for _, o := range w.events { // all before it is told, and nothing of it
		told := w.missed[o.name()] || w.saw(o)
		switch {
		case o.Type == wire.EventGap || !o.Durable || compareRuns(o.Position(), now.Position()) != 0:
		case e.Durable && o.Seq < from && !told:
			w.Fatalf("%s came before %s", now.name(), o.name())
		case e.Durable && from <= o.Seq && o.Seq <= e.Seq && told, !e.Durable && o.Seq > e.Seq && told:
			w.Fatalf("%s, from %d, came after %s", now.name(), from, o.name())
		case e.Type == wire.EventGap && o.within(&e.Event, from):
			w.missed[o.name()] = true
		}
	}
	w.over = w.b.took("t")
	w.seen = append(w.seen, now)
	w.last = new(now.Position())
	if w.over != e.Last {
		w.Errorf("%s: over %v", now.name(), w.over)
	}
	return true
}

// saw reports whether the application was given e.
func (w *world) saw(e named) bool {
	return slices.ContainsFunc(w.seen, func(s named) bool { return s.name() == e.name() })
}

// acknowledge settles at the server what the client says that it has, which must be true.
func (w *world) acknowledge() {
	for _, p := range w.b.acknowledge() {
		for _, e := range w.events {
			if !covers(p, &e.Event) {
				continue
			}
			w.settled[e.name()] = true
			lower := compareRuns(e.Position(), p) < 0
			if e.Durable && e.Type != wire.EventGap && !lower && !w.over && !w.saw(e) && !w.missed[e.name()] {
				w.Fatalf("acknowledged %+v, but the application does not have %s", p, e.name())
			}
		}
	}
}
