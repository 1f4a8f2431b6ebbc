package session

import (
	"encoding/json"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/wscluster/wscluster/pkg/socketmeta"
	"github.com/wscluster/wscluster/pkg/wire"
)

// These are the rules of one session, one sentence each. What comes of them together is tried by
// the simulator of internal/mailbox.

// start is when the tests begin, in Unix milliseconds.
const start = 1_767_225_600_000

// event makes the durable event seq of the first run of a task.
func event(task wire.TaskID, seq int64, body string) wire.Event {
	return wire.Event{Task: task, Attempt: 1, Run: "r1", Seq: seq, Prev: seq - 1, Type: wire.EventLog, Durable: true, Body: json.RawMessage(body)}
}

func position(task wire.TaskID, next int64) []wire.Position {
	return []wire.Position{{Task: task, Attempt: 1, Run: "r1", Next: next}}
}

// trial is one session with the effects of the last step.
type trial struct {
	*testing.T
	*core
	fx Effects
}

func newTrial(t *testing.T, o Options) *trial {
	o.Server, o.NewRun = "i1-w1", func() wire.RunID { return "plain" }
	r := New(o)
	return &trial{T: t, core: &core{o: &r.options, client: socketmeta.NewClientID(), heard: start}}
}

// here begins with an attached client.
func here(t *testing.T, o Options) *trial {
	c := newTrial(t, o)
	c.come(1, nil)
	return c
}

func (c *trial) come(epoch socketmeta.Epoch, positions []wire.Position) {
	c.Helper()
	c.fx = Effects{}
	if _, ok := c.attach(c.conn+1, epoch, false, positions, start, &c.fx); !ok {
		c.Fatalf("the session was not given to a socket in epoch %d", epoch)
	}
}

func (c *trial) leave() {
	c.fx = Effects{}
	c.detach(c.conn, start, &c.fx)
}

func (c *trial) put(e wire.Event, tag uint64) verdict {
	c.fx = Effects{}
	return c.deliver(&e, Ref{Mailbox: "i1-w1", Life: 1, Tag: tag, Bytes: len(e.Body)}, start, &c.fx)
}

func (c *trial) says(positions []wire.Position) {
	c.fx = Effects{}
	c.ack(positions, start, &c.fx)
}

// sends takes everything that may be sent now.
func (c *trial) sends() (seqs []int64) {
	for {
		e, _ := c.next(start)
		if e == nil {
			return seqs
		}
		seqs = append(seqs, e.Seq)
	}
}

func (c *trial) settled() (tags []uint64) {
	for _, r := range c.fx.Settle {
		tags = append(tags, r.Tag)
	}
	return tags
}

func TestAnEventIsHeldUntilTheClientAcknowledgesIt(t *testing.T) {
	c := here(t, Options{})
	for seq := int64(1); seq <= 3; seq++ {
		if v := c.put(event("t", seq, "{}"), uint64(seq)); v != kept {
			t.Fatalf("event %d: verdict %v, want kept", seq, v)
		}
	}
	if got := c.sends(); !slices.Equal(got, []int64{1, 2, 3}) {
		t.Fatalf("sent %v, want 1 2 3", got)
	}
	if c.says(position("t", 3)); !slices.Equal(c.settled(), []uint64{1, 2}) || c.held != 1 {
		t.Errorf("settled %v with %d held, want tags 1 and 2 with 1 held", c.settled(), c.held)
	}
}

func TestAReturningClientIsSentWhatItDoesNotHave(t *testing.T) {
	c := here(t, Options{})
	for seq := int64(1); seq <= 4; seq++ {
		c.put(event("t", seq, "{}"), uint64(seq))
	}
	c.sends()
	c.leave()
	if got := c.sends(); got != nil {
		t.Errorf("sent %v to nobody", got)
	}
	if c.come(2, position("t", 3)); !slices.Equal(c.settled(), []uint64{1, 2}) {
		t.Errorf("settled %v on return, want the 2 events that the hello covers", c.settled())
	}
	if got := c.sends(); !slices.Equal(got, []int64{3, 4}) {
		t.Errorf("sent %v, want 3 4", got)
	}
}

func TestTheNewestSocketHasTheSession(t *testing.T) {
	c := here(t, Options{})
	if old, ok := c.attach(7, 2, false, nil, start, &c.fx); !ok || old != 1 {
		t.Errorf("the old socket is %v, want 1", old)
	}
	if c.detach(1, start, &c.fx); c.conn != 7 {
		t.Error("the old socket's end took the session from the new one")
	}
	if _, ok := c.attach(8, 2, false, nil, start, &c.fx); ok || c.conn != 7 {
		t.Error("a socket in an epoch that is not higher took the session")
	}
}

func TestTheSendWindowBoundsEventsAndBytes(t *testing.T) {
	const most, bytes = 256, 256 << 10
	for _, test := range []struct {
		body string
		want int
	}{{"{}", most}, {fmt.Sprintf("%064d", 0), most}, {string(make([]byte, 100<<10)), 2}, {string(make([]byte, bytes+1)), 1}} {
		c := here(t, Options{})
		for seq := range int64(most + 50) {
			c.put(event("t", seq+1, test.body), uint64(seq))
		}
		if got := len(c.sends()); got != test.want {
			t.Errorf("%d events of %d bytes sent without an acknowledgement, want %d", got, len(test.body), test.want)
		}
		c.says(position("t", int64(test.want)+1))
		if got := len(c.sends()); got == 0 {
			t.Error("an acknowledgement opened no room")
		}
	}
}

func TestAnEarlierEventPassesLaterOnesThatWereSent(t *testing.T) {
	c := here(t, Options{})
	for _, seq := range []int64{2, 3, 1} {
		c.put(event("t", seq, string(make([]byte, 128<<10))), uint64(seq))
		if seq == 3 {
			c.sends()
		}
	}
	if got := c.sends(); len(got) == 0 || got[0] != 1 {
		t.Errorf("sent %v, want 1 first: the client waits for it", got)
	}
}

func TestAnEventPublishedTwiceIsSentOnce(t *testing.T) {
	c := here(t, Options{})
	first, second := c.put(event("t", 1, "{}"), 1), c.put(event("t", 1, "{}"), 2)
	if first != kept || second != done || !slices.Equal(c.settled(), []uint64{2}) {
		t.Errorf("verdicts %v and %v with %v settled, want kept, done and the second settled", first, second, c.settled())
	}
	if got := c.sends(); !slices.Equal(got, []int64{1}) {
		t.Errorf("sent %v, want 1 once", got)
	}
}

func TestAFinishedTaskTakesNoMoreEvents(t *testing.T) {
	c := here(t, Options{})
	last := event("t", 1, "{}")
	last.Last = true
	c.put(last, 1)
	c.sends()
	c.says(position("t", 2))
	again := last
	again.Attempt = 2 // a crash between the final event and its note ran the task again
	if v := c.put(again, 2); v != done {
		t.Errorf("the second final event: verdict %v, want done", v)
	}
	if got := c.states(position("t", 0), false); got[0].State != wire.TaskFinished {
		t.Errorf("state %q, want finished", got[0].State)
	}
}

func TestWhatIsQueuedBehindAFinalEventIsSettledWithIt(t *testing.T) {
	c := here(t, Options{})
	last := event("t", 1, "{}")
	last.Last = true
	c.put(last, 1)
	later := event("t", 1, "{}")
	later.Attempt = 2
	c.put(later, 2)
	c.sends()
	if c.says(position("t", 2)); !slices.Equal(c.settled(), []uint64{1, 2}) || c.held != 0 || c.sent != 0 {
		t.Errorf("settled %v, %d held, %d sent; want both settled: nobody will acknowledge the later one", c.settled(), c.held, c.sent)
	}
}

func TestProgressIsSentOrDroppedButNeverHeld(t *testing.T) {
	c := newTrial(t, Options{})
	e := event("t", 1, "{}")
	e.Durable = false
	if v := c.put(e, 1); v != done || c.fx.Dropped != 1 || len(c.fx.Settle) != 1 {
		t.Errorf("for an absent client: verdict %v and %+v, want it settled and counted", v, c.fx)
	}
	c.come(1, nil)
	if v := c.put(e, 2); v != pass || c.work != nil || len(c.fx.Settle) != 1 {
		t.Errorf("for a present client: verdict %v, work %v; want pass with nothing kept", v, c.work)
	}
}

func TestEventsWithoutNumbersAreGivenSome(t *testing.T) {
	c := here(t, Options{})
	for tag := range uint64(3) {
		c.put(wire.Event{Task: "t", Type: wire.EventResult, Durable: true, Body: json.RawMessage("{}")}, tag)
	}
	if got := c.sends(); !slices.Equal(got, []int64{1, 2, 3}) {
		t.Errorf("sent %v, want 1 2 3", got)
	}
	if c.says([]wire.Position{{Task: "t", Run: "plain", Next: 4}}); len(c.fx.Settle) != 3 {
		t.Errorf("settled %d, want 3", len(c.fx.Settle))
	}
}

func TestASessionRemembersABoundedNumberOfTasks(t *testing.T) {
	c := here(t, Options{})
	for i := range 3 * maxRecords {
		task := wire.TaskID(fmt.Sprint("t", i))
		e := event(task, 1, "{}")
		e.Last = true
		c.put(e, uint64(i))
		c.sends()
		c.says(position(task, 2))
	}
	if len(c.tasks) > maxRecords || len(c.order) > maxRecords || c.open != 0 {
		t.Errorf("%d tasks, %d in order, %d open; want at most %d and none open", len(c.tasks), len(c.order), c.open, maxRecords)
	}
}

func TestAClientThatMovedIsPassedOnAndAnOldClaimChangesNothing(t *testing.T) {
	c := here(t, Options{})
	c.put(event("t", 1, "{}"), 1)
	c.fx = Effects{}
	if old := c.move(place{9, "i1-w2"}, start, &c.fx); old != 1 {
		t.Errorf("the socket to be closed is %d, want 1", old)
	}
	c.put(event("t", 2, "{}"), 2)
	if len(c.fx.Jobs) != 1 || c.fx.Jobs[0].Purpose != Forward || c.fx.Jobs[0].Steps[0][0].To.Key != "i1-w2" || c.fx.Jobs[0].Steps[0][0].Event.Hops != 1 {
		t.Fatalf("the next event: %+v, want it passed on to i1-w2", c.fx.Jobs)
	}
	c.move(place{3, "i1-w3"}, start, &c.fx)
	if c.put(event("t", 3, "{}"), 3); c.fx.Jobs[0].Steps[0][0].To.Key != "i1-w2" {
		t.Error("an older claim took the session")
	}
	loop := event("t", 4, "{}")
	loop.Epoch = 9 // it came from there
	if v := c.put(loop, 4); v != kept || len(c.fx.Jobs) != 0 {
		t.Errorf("an event of the claim's own epoch: verdict %v, %d jobs; want it held: else it goes round", v, len(c.fx.Jobs))
	}
}

func TestWhatWaitsTooLongIsPublishedAgain(t *testing.T) {
	c := newTrial(t, Options{RefreshAfter: time.Minute})
	c.put(event("t", 1, "{}"), 1)
	if c.fx = (Effects{}); c.sweep(start+59_999, &c.fx) || len(c.fx.Jobs) != 0 {
		t.Error("refreshed too early")
	}
	if c.sweep(start+60_000, &c.fx); len(c.fx.Jobs) != 1 || c.fx.Jobs[0].Purpose != Refresh || c.held != 0 {
		t.Errorf("after a minute: %d jobs, %d held; want one refresh", len(c.fx.Jobs), c.held)
	}
}

// TestARefusedGapStandsForAllThatItNamed is two gaps with the number of one event: one stands for it
// alone, the other, which another worker did not take, for what came before it too.
func TestARefusedGapStandsForAllThatItNamed(t *testing.T) {
	gap := func(from, to int64) wire.Event {
		e := event("t", to, fmt.Sprintf(`{"from_seq":%d,"reason":"caps"}`, from))
		e.Type, e.Prev = wire.EventGap, from-1
		return e
	}
	c := newTrial(t, Options{})
	c.move(place{9, "i1-w2"}, start, &c.fx)
	c.put(gap(2, 2), 1)
	narrow := c.fx.Jobs[0]
	c.put(gap(1, 2), 2)
	wide := c.fx.Jobs[0]
	c.fx = Effects{}
	c.over(narrow, Refused, start, &c.fx)
	c.over(wide, Refused, start, &c.fx)
	if q := c.tasks["t"].queue; len(q) != 1 || q[0].ref.Tag != 2 || !slices.Equal(c.settled(), []uint64{1}) {
		t.Errorf("held %+v and settled %v, want the gap of both events held", q, c.settled())
	}
}

// putPart delivers an event that came in a batch.
func (c *trial) putPart(e wire.Event, part uint8, at int64) {
	c.fx = Effects{}
	c.deliver(&e, Ref{Mailbox: "i1-w1", Life: 1, Tag: 1, Part: part}, at, &c.fx)
}

// refreshed lists what goes to its mailbox again, alone.
func (c *trial) refreshed() (seqs []int64) {
	for _, j := range c.fx.Jobs {
		if j.Purpose == Refresh && len(j.Steps) == 1 && len(j.Steps[0]) == 1 && len(j.Refs) == 1 {
			seqs = append(seqs, j.Steps[0][0].Event.Seq)
		}
	}
	return seqs
}

func TestWhatWaitsInABatchLeavesItAloneAndWhatWasSentLater(t *testing.T) {
	c := here(t, Options{MaxSent: 2})
	for seq := int64(1); seq <= 4; seq++ {
		c.putPart(event("t", seq, `{}`), uint8(seq), start+seq)
	}
	c.put(event("t", 5, `{}`), 9) // alone
	c.sends()
	for _, step := range []struct {
		waiting, sent int64
		want          []int64
	}{
		{start + 2, start - 1, nil}, // they were sent
		{start + 3, start - 1, []int64{3}},
		{start + 9, start + 1, []int64{1, 4}},
		{start + 9, start + 9, []int64{2}},
	} {
		c.fx = Effects{}
		c.unpin(step.waiting, step.sent, &c.fx)
		if got := c.refreshed(); !slices.Equal(got, step.want) {
			t.Errorf("waiting since %d, sent since %d: %v leave, want %v", step.waiting-start, step.sent-start, got, step.want)
		}
	}
}

func TestAnEventOfABatchForAnAbsentClientLeavesItAtOnce(t *testing.T) {
	c := newTrial(t, Options{})
	c.putPart(event("t", 1, `{}`), 1, start)
	if got := c.refreshed(); !slices.Equal(got, []int64{1}) || len(c.fx.Seek) != 1 {
		t.Errorf("%v leave, %d sought", got, len(c.fx.Seek))
	}
	c.put(event("t", 1, `{}`), 2)
	if c.held != 1 || len(c.fx.Jobs) != 0 {
		t.Errorf("alone: %d held, %d jobs", c.held, len(c.fx.Jobs))
	}
}
