package session

import (
	"encoding/json"
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/wscluster/wscluster/internal/engine"
	"github.com/wscluster/wscluster/pkg/wire"
)

var epochStart = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// event makes the durable event seq of the first run of a task.
func event(task wire.TaskID, seq int64, body string) wire.Event {
	return wire.Event{Task: task, Attempt: 1, Run: "r1", Seq: seq, Prev: seq - 1, Type: wire.EventLog, Durable: true, Body: json.RawMessage(body)}
}

func newRun() wire.RunID { return "plain" }

// sendAll takes everything that may be sent now.
func sendAll(c *core) (seqs []int64) {
	for {
		e, _ := c.next(epochStart)
		if e == nil {
			return seqs
		}
		seqs = append(seqs, e.Seq)
	}
}

func position(task wire.TaskID, next int64) []wire.Position {
	return []wire.Position{{Task: task, Attempt: 1, Run: "r1", Next: next}}
}

func TestAnEventIsHeldUntilTheClientAcknowledgesIt(t *testing.T) {
	var c core
	c.attach(1, 1, epochStart, nil, false)
	for seq := int64(1); seq <= 3; seq++ {
		e := event("t", seq, "{}")
		if v := c.deliver(&e, Ref{Tag: uint64(seq)}, newRun); v != hold {
			t.Fatalf("event %d: verdict %v, want hold", seq, v)
		}
	}
	if got := sendAll(&c); !slices.Equal(got, []int64{1, 2, 3}) {
		t.Fatalf("sent %v, want 1 2 3", got)
	}
	settle := c.ack(position("t", 3), epochStart)
	if len(settle) != 2 || settle[0].Tag != 1 || settle[1].Tag != 2 || c.held != 1 {
		t.Errorf("settled %v with %d held, want tags 1 and 2 with 1 held", settle, c.held)
	}
}

func TestAReturningClientIsSentWhatItDoesNotHave(t *testing.T) {
	var c core
	c.attach(1, 1, epochStart, nil, false)
	for seq := int64(1); seq <= 4; seq++ {
		e := event("t", seq, "{}")
		c.deliver(&e, Ref{Tag: uint64(seq)}, newRun)
	}
	sendAll(&c)
	c.detach(1, epochStart)
	if got := sendAll(&c); got != nil {
		t.Errorf("sent %v to nobody", got)
	}
	a := c.attach(2, 2, epochStart, position("t", 3), false)
	if len(a.settle) != 2 {
		t.Errorf("settled %v on return, want the 2 events that the hello covers", a.settle)
	}
	if got := sendAll(&c); !slices.Equal(got, []int64{3, 4}) {
		t.Errorf("sent %v, want 3 4", got)
	}
}

func TestTheNewestSocketHasTheSession(t *testing.T) {
	var c core
	c.attach(1, 1, epochStart, nil, false)
	if a := c.attach(2, 2, epochStart, nil, false); a.old != 1 {
		t.Errorf("the old socket is %v, want 1", a.old)
	}
	if c.detach(1, epochStart); c.conn != 2 {
		t.Error("the old socket's end took the session from the new one")
	}
}

func TestTheSendWindowBoundsEventsAndBytes(t *testing.T) {
	for _, test := range []struct {
		body string
		want int
	}{{"{}", windowEvents}, {fmt.Sprintf("%064d", 0), windowEvents}, {string(make([]byte, 100<<10)), 2}, {string(make([]byte, windowBytes+1)), 1}} {
		var c core
		c.attach(1, 1, epochStart, nil, false)
		for seq := range int64(windowEvents + 50) {
			e := event("t", seq+1, test.body)
			c.deliver(&e, Ref{Tag: uint64(seq)}, newRun)
		}
		if got := len(sendAll(&c)); got != test.want {
			t.Errorf("%d events of %d bytes sent without an acknowledgement, want %d", got, len(test.body), test.want)
		}
		c.ack(position("t", int64(test.want)+1), epochStart)
		if got := len(sendAll(&c)); got == 0 {
			t.Error("an acknowledgement opened no room")
		}
	}
}

func TestAnEarlierEventPassesLaterOnesThatWereSent(t *testing.T) {
	var c core
	c.attach(1, 1, epochStart, nil, false)
	for _, seq := range []int64{2, 3, 1} {
		e := event("t", seq, string(make([]byte, windowBytes/2)))
		c.deliver(&e, Ref{Tag: uint64(seq)}, newRun)
		if seq == 3 {
			sendAll(&c)
		}
	}
	if got := sendAll(&c); len(got) == 0 || got[0] != 1 {
		t.Errorf("sent %v, want 1 first: the client waits for it", got)
	}
}

func TestAnEventPublishedTwiceIsSentOnce(t *testing.T) {
	var c core
	c.attach(1, 1, epochStart, nil, false)
	e := event("t", 1, "{}")
	again := e
	if first, second := c.deliver(&e, Ref{Tag: 1}, newRun), c.deliver(&again, Ref{Tag: 2}, newRun); first != hold || second != drop {
		t.Errorf("verdicts %v and %v, want hold and drop", first, second)
	}
	if got := sendAll(&c); !slices.Equal(got, []int64{1}) {
		t.Errorf("sent %v, want 1 once", got)
	}
}

func TestAFinishedTaskTakesNoMoreEvents(t *testing.T) {
	var c core
	c.attach(1, 1, epochStart, nil, false)
	last := event("t", 1, "{}")
	last.Last = true
	c.deliver(&last, Ref{Tag: 1}, newRun)
	sendAll(&c)
	c.ack(position("t", 2), epochStart)
	again := event("t", 1, "{}")
	again.Attempt, again.Last = 2, true // a crash between the final event and its note ran the task again
	if v := c.deliver(&again, Ref{Tag: 2}, newRun); v != drop {
		t.Errorf("the second final event: verdict %v, want drop", v)
	}
	a := c.attach(2, 2, epochStart, position("t", 0), false)
	if a.states[0].State != wire.TaskFinished {
		t.Errorf("state %q, want finished", a.states[0].State)
	}
}

func TestProgressIsSentOrDroppedButNeverHeld(t *testing.T) {
	var c core
	e := event("t", 1, "{}")
	e.Durable = false
	if v := c.deliver(&e, Ref{}, newRun); v != drop {
		t.Errorf("for an absent client: verdict %v, want drop", v)
	}
	c.attach(1, 1, epochStart, nil, false)
	if v := c.deliver(&e, Ref{}, newRun); v != pass || c.held != 0 {
		t.Errorf("for a present client: verdict %v with %d held, want pass with none", v, c.held)
	}
}

func TestEventsWithoutNumbersAreGivenSome(t *testing.T) {
	var c core
	c.attach(1, 1, epochStart, nil, false)
	for range 3 {
		e := wire.Event{Task: "t", Type: wire.EventResult, Durable: true, Body: json.RawMessage("{}")}
		c.deliver(&e, Ref{}, newRun)
	}
	if got := sendAll(&c); !slices.Equal(got, []int64{1, 2, 3}) {
		t.Errorf("sent %v, want 1 2 3", got)
	}
	if settle := c.ack([]wire.Position{{Task: "t", Run: "plain", Next: 4}}, epochStart); len(settle) != 3 {
		t.Errorf("settled %d, want 3", len(settle))
	}
}

func TestASessionRemembersABoundedNumberOfTasks(t *testing.T) {
	var c core
	c.attach(1, 1, epochStart, nil, false)
	for i := range 3 * maxRecords {
		task := wire.TaskID(fmt.Sprint("t", i))
		e := event(task, 1, "{}")
		e.Last = true
		c.deliver(&e, Ref{}, newRun)
		sendAll(&c)
		c.ack(position(task, 2), epochStart)
	}
	if len(c.tasks) > maxRecords || len(c.order) > maxRecords || c.open != 0 {
		t.Errorf("%d tasks, %d in order, %d open; want at most %d and none open", len(c.tasks), len(c.order), c.open, maxRecords)
	}
}

// TestNothingIsLostDoubledOrMisordered drives one session through random schedules of a broker
// that redelivers and a client that comes, goes, reads, acknowledges late and forgets, and holds
// it to the promise: everything reaches the application once and in order, and nothing is
// settled with the broker before that.
func TestNothingIsLostDoubledOrMisordered(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld()
		steps := rapid.IntRange(1, 120).Draw(t, "steps")
		for range steps {
			w.step(t, rapid.IntRange(0, 9).Draw(t, "what"))
		}
		w.settleDown(t)
	})
}

// world is one session between a broker and a client.
type world struct {
	c          core
	generation uint64
	conn       engine.ConnRef
	now        time.Time
	stored     []wire.Event            // published, not settled
	given      int                     // of stored: delivered in this generation
	published  map[wire.TaskID]int64   // the last seq
	applied    map[wire.TaskID][]int64 // what the application has
	onWire     []wire.Event            // sent to the present socket and not yet read
}

func newWorld() *world {
	return &world{generation: 1, now: epochStart, published: map[wire.TaskID]int64{}, applied: map[wire.TaskID][]int64{}}
}

func (w *world) step(t *rapid.T, what int) {
	w.now = w.now.Add(time.Millisecond)
	switch what {
	case 0, 1, 2: // a runner publishes, sometimes twice
		task := wire.TaskID(rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "task"))
		w.published[task]++
		e := event(task, w.published[task], "{}")
		w.stored = append(w.stored, e)
		if rapid.IntRange(0, 5).Draw(t, "twice") == 0 {
			w.stored = append(w.stored, e)
		}
	case 3, 4:
		w.deliver(t)
	case 5: // the client reads
		w.read(rapid.IntRange(0, len(w.onWire)).Draw(t, "read"))
	case 6: // the client acknowledges
		if w.c.conn != 0 {
			w.settle(t, w.c.ack(w.positions(), w.now))
		}
	case 7: // a new socket; the old one may still be there
		w.conn++
		w.onWire = nil
		w.settle(t, w.c.attach(w.conn, 1, w.now, w.positions(), false).settle)
	case 8:
		w.c.detach(w.conn, w.now)
		w.onWire = nil
	case 9: // the link is lost: the broker delivers again
		w.c.forget(w.generation)
		w.generation++
		w.given = 0
	}
	w.send()
	if w.c.sent > windowEvents || w.c.held > w.given || w.c.sent > w.c.held || w.c.bytes < 0 {
		t.Fatalf("counts are off: %d sent, %d held, %d bytes, %d given", w.c.sent, w.c.held, w.c.bytes, w.given)
	}
}

func (w *world) deliver(t *rapid.T) {
	if w.given == len(w.stored) {
		return
	}
	e := w.stored[w.given]
	w.given++
	tag := w.tag(e)
	if w.c.deliver(&e, Ref{Generation: w.generation, Tag: tag}, newRun) == drop {
		w.given--
		w.stored = slices.Delete(w.stored, w.given, w.given+1)
		if !w.has(e) && !slices.ContainsFunc(w.stored, func(o wire.Event) bool { return o.Task == e.Task && o.Seq == e.Seq }) {
			t.Fatalf("the only copy of %s/%d was settled before the application had it", e.Task, e.Seq)
		}
	}
}

func (w *world) tag(e wire.Event) uint64 { return uint64(e.Task[0])<<32 | uint64(e.Seq) }

func (w *world) settle(t *rapid.T, refs []Ref) {
	for _, r := range refs {
		if r.Generation != w.generation {
			t.Fatalf("a delivery of generation %d was settled in %d", r.Generation, w.generation)
		}
		at := slices.IndexFunc(w.stored[:w.given], func(e wire.Event) bool { return w.tag(e) == r.Tag })
		if at < 0 {
			t.Fatalf("tag %x was settled twice", r.Tag)
		}
		if !w.has(w.stored[at]) {
			t.Fatalf("%s/%d was settled before the application had it", w.stored[at].Task, w.stored[at].Seq)
		}
		w.stored = slices.Delete(w.stored, at, at+1)
		w.given--
	}
}

func (w *world) has(e wire.Event) bool { return slices.Contains(w.applied[e.Task], e.Seq) }

func (w *world) send() {
	for {
		e, _ := w.c.next(w.now)
		if e == nil {
			return
		}
		w.onWire = append(w.onWire, *e)
	}
}

// read is the client: what is next in order goes to the application, what it has is dropped.
func (w *world) read(n int) {
	for _, e := range w.onWire[:n] {
		if e.Seq == int64(len(w.applied[e.Task]))+1 {
			w.applied[e.Task] = append(w.applied[e.Task], e.Seq)
		}
	}
	w.onWire = w.onWire[n:]
}

func (w *world) positions() (out []wire.Position) {
	for task, seqs := range w.applied {
		out = append(out, position(task, int64(len(seqs))+1)...)
	}
	return out
}

// settleDown lets everybody do their part; then nothing may be left.
func (w *world) settleDown(t *rapid.T) {
	w.step(t, 7)
	for range 2 + len(w.stored) {
		for w.given < len(w.stored) {
			w.step(t, 3)
			if w.given > 0 && len(w.stored) > 1000 {
				t.Fatal("deliveries do not end")
			}
		}
		w.send()
		w.read(len(w.onWire))
		w.step(t, 6)
	}
	for task, last := range w.published {
		if got := w.applied[task]; int64(len(got)) != last {
			t.Fatalf("task %s: the application has %v of %d events", task, got, last)
		}
	}
	if len(w.stored) != 0 || w.c.held != 0 || w.c.sent != 0 || w.c.bytes != 0 {
		t.Fatalf("left over: %d in the broker, %d held, %d sent, %d bytes", len(w.stored), w.c.held, w.c.sent, w.c.bytes)
	}
}
