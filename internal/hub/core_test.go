package hub

import (
	"encoding/json"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/wscluster/wscluster/internal/engine"
	"github.com/wscluster/wscluster/pkg/wire"
)

// noted is sockets that keep what they are sent as short texts.
type noted map[engine.ConnRef][]string

func (n noted) Send(c engine.ConnRef, f *engine.Frame) error {
	m, err := wire.DecodeServer(f.Payload())
	if err != nil {
		n[c] = append(n[c], string(f.Payload()))
		return nil
	}
	n[c] = append(n[c], say1(m))
	return nil
}
func (n noted) Offer(c engine.ConnRef, f *engine.Frame) error { return n.Send(c, f) }
func (n noted) Broadcast(f *engine.Frame, cs []engine.ConnRef, failed []engine.Failure) []engine.Failure {
	return offerEach(n, f, cs, failed)
}
func (n noted) CloseConn(engine.ConnRef, engine.StatusCode, string, *engine.Frame) {}

// want compares what a connection was sent since it was asked last.
func (n noted) want(t *testing.T, c engine.ConnRef, want ...string) {
	t.Helper()
	if got := n[c]; !slices.Equal(got, want) {
		t.Errorf("connection %d got %q, want %q", c, got, want)
	}
	n[c] = nil
}

// choosy is noted that may have no room for offers.
type choosy struct {
	noted
	full bool
}

func (s *choosy) Broadcast(f *engine.Frame, cs []engine.ConnRef, failed []engine.Failure) []engine.Failure {
	return offerEach(s, f, cs, failed)
}
func (s *choosy) Offer(c engine.ConnRef, f *engine.Frame) error {
	if s.full {
		return engine.ErrQueueFull
	}
	return s.Send(c, f)
}

// of is a post of a publisher with its own counter.
func of(publisher string, seq int64, key string, at time.Time) *wire.Post {
	return &wire.Post{
		Channel: "a", Publisher: publisher, Stream: stream1, Seq: seq, Key: key, Time: wire.Time{Time: at},
		Body: json.RawMessage(fmt.Sprintf(`"%s%d"`, publisher, seq)),
	}
}

func all(c *core) {
	for c.deliver(batch, time.Time{}) {
	}
}

func TestAStateThatIsFoundLateDoesNotCoverALaterOne(t *testing.T) {
	sockets := noted{}
	c := newCore(sockets, "w1", wire.NewRunID)
	c.know([]string{"r.slow"})
	now := time.Now()
	c.linkUp(now.Add(-time.Minute))
	c.subscribe(1, "a", "", false, now)
	c.bound("a", 1)
	c.tick(now)
	id := c.takeOrders()[1].ask
	c.hear(&wire.ChannelsFound{Ask: id, Name: "w1"}, now)
	c.tick(now.Add(answerWithin))
	all(c)
	c.post(of("x", 1, "k", now))
	all(c)
	sockets.want(t, 1, "subscribed a 0 true", `"x1"`)
	c.hear(&wire.ChannelsFound{Ask: id, Name: "r.slow", Channels: []wire.FoundChannel{{Channel: "a", Kept: []wire.Post{
		*of("y", 1, "k", now.Add(-time.Second)), *of("y", 2, "", now.Add(-time.Second)), *of("z", 1, "k", now.Add(time.Second)),
	}}}}, now.Add(2*answerWithin))
	all(c)
	sockets.want(t, 1, `"y2"`, `"z1"`)
}

func TestABindingOfAnEarlierLifeDoesNotCount(t *testing.T) {
	sockets := noted{}
	c := newCore(sockets, "w1", wire.NewRunID)
	now := time.Now()
	c.linkUp(now.Add(-time.Minute))
	c.subscribe(1, "a", "", false, now)
	c.gone(1, now)
	c.tick(now.Add(lingerFor))
	c.subscribe(2, "a", "", false, now.Add(lingerFor))
	c.bound("a", 1) // it is going to be unbound and bound again
	if ch := c.channels["a"]; ch.phase != opening {
		t.Errorf("phase %d, want opening", ch.phase)
	}
	c.bound("a", 2)
	if ch := c.channels["a"]; ch.phase != asking {
		t.Errorf("phase %d, want asking", ch.phase)
	}
}

func TestBeyondItsChannelsAWorkerIsOverloaded(t *testing.T) {
	c := newCore(noted{}, "w1", wire.NewRunID)
	c.limits.channels = 2
	now := time.Now()
	for i, want := range []wire.Code{"", "", wire.CodeOverloaded, ""} {
		err := c.subscribe(1, wire.Channel("abca"[i:i+1]), "", false, now)
		if got := err; (got == nil) != (want == "") || got != nil && got.Code != want {
			t.Errorf("channel %d: %v, want %q", i+1, got, want)
		}
	}
}

func TestRingsAreBoundedInPostsInBytesAndForAllTogether(t *testing.T) {
	ring := func(c *core) (posts, bytes int) {
		for _, ch := range c.channels {
			posts, bytes = posts+len(ch.ring), bytes+ch.ringBytes
		}
		if bytes != c.rings {
			t.Errorf("%d bytes are kept and %d are counted", bytes, c.rings)
		}
		return posts, bytes
	}
	fill := func(c *core, size int) {
		for i := range 3 * wire.MaxKept {
			p := of("p", int64(i+1), "", time.Now())
			p.Body = json.RawMessage(fmt.Sprintf("%*d", size, i))
			c.post(p)
			all(c)
		}
	}
	c := subscribed(t, &sink{}, 1)
	fill(c, 10)
	if posts, _ := ring(c); posts != wire.MaxKept {
		t.Errorf("%d posts are kept, want %d", posts, wire.MaxKept)
	}
	c = subscribed(t, &sink{}, 1)
	fill(c, 10_000)
	if _, bytes := ring(c); bytes > maxRing || bytes < maxRing-12_000 {
		t.Errorf("%d bytes are kept, want up to %d", bytes, maxRing)
	}
	c = subscribed(t, &sink{}, 1)
	c.limits.rings = 50_000
	fill(c, 10_000)
	if _, bytes := ring(c); bytes > 50_000 || bytes < 40_000 {
		t.Errorf("%d bytes of all channels are kept, want up to 50,000", bytes)
	}
	for i := range 50 { // one key: the latest
		p := of("p", int64(10_000+i), "k", time.Now())
		c.post(p)
	}
	if k := c.channels["a"].ring; k[len(k)-1].seq != 10_049 || k[len(k)-2].key == "k" {
		t.Errorf("of one key more than the latest is kept")
	}
}

func TestAFloodOfCountersForgetsTheSilentOnes(t *testing.T) {
	c := subscribed(t, &sink{}, 1)
	for i := range 2 * maxStreams {
		c.post(of(fmt.Sprintf("p%d", i), 1, "", time.Now()))
		c.post(of("steady", int64(i+1), "", time.Now()))
		all(c)
	}
	ch := c.channels["a"]
	if n := len(ch.streams); n != maxStreams {
		t.Errorf("%d counters are remembered, want %d", n, maxStreams)
	}
	if ch.streams[stream{"steady", stream1}].seq != 2*maxStreams {
		t.Error("the one that posts all the time is forgotten")
	}
	if c.count.lost != 0 {
		t.Errorf("%d are counted as lost, want none", c.count.lost)
	}
}

func TestWhatIsHeldAndFoundDuringASyncIsBounded(t *testing.T) {
	c := newCore(&sink{}, "w1", wire.NewRunID)
	c.know([]string{"r.1"})
	now := time.Now()
	c.linkUp(now.Add(-time.Minute))
	c.subscribe(1, "a", "", false, now)
	ch := c.channels["a"]
	for i := range 3 * maxHeld {
		c.post(of("p", int64(i+1), "", now))
		if len(ch.held) > maxHeld {
			t.Fatalf("%d posts are held, want %d at most", len(ch.held), maxHeld)
		}
	}
	c.bound("a", 1)
	c.tick(now)
	id := c.takeOrders()[1].ask
	for n := range 30 {
		f := wire.FoundChannel{Channel: "a"}
		for i := range wire.MaxKept {
			f.Kept = append(f.Kept, *of(fmt.Sprintf("q%d", n), int64(i+1), "", now))
		}
		c.hear(&wire.ChannelsFound{Ask: id, Name: fmt.Sprintf("r.q%d", n), Channels: []wire.FoundChannel{f}}, now)
		if len(ch.found) > maxHeld {
			t.Fatalf("%d posts are found, want %d at most", len(ch.found), maxHeld)
		}
	}
}

func TestQuestionsAreBatchedAndBounded(t *testing.T) {
	c := newCore(&sink{}, "w1", wire.NewRunID)
	c.know([]string{"r.silent"})
	now := time.Now()
	c.limits.named, c.limits.channels = 1<<20, 1<<20
	c.linkUp(now.Add(-time.Minute))
	const channels = (maxAsks + 10) * wire.MaxAskedChannels
	for i := range channels {
		c.subscribe(engine.ConnRef(1+i), wire.Channel(fmt.Sprint(i)), "", false, now)
	}
	for _, o := range c.takeOrders() {
		c.bound(o.channel, o.opened)
	}
	c.tick(now)
	asked := func() (questions, channels int) {
		for _, o := range c.takeOrders() {
			if o.verb == find {
				questions++
				channels += len(o.channels)
			}
		}
		return questions, channels
	}
	if q, n := asked(); q != maxAsks || n != maxAsks*wire.MaxAskedChannels {
		t.Errorf("at once %d questions of %d channels, want %d of %d", q, n, maxAsks, maxAsks*wire.MaxAskedChannels)
	}
	c.tick(now.Add(answerWithin))
	if q, n := asked(); q != 10 || n != 10*wire.MaxAskedChannels {
		t.Errorf("then %d questions of %d channels, want the other 10 of %d", q, n, 10*wire.MaxAskedChannels)
	}
}

func TestAFollowerThatWasTooSlowForTheLastPostGetsItOnceItHasRoom(t *testing.T) {
	sockets := &choosy{noted: noted{}}
	c := subscribed(t, sockets, 1)
	if err := c.subscribe(2, "a", "", true, time.Now()); err != nil {
		t.Fatal(err)
	}
	sockets.noted[1] = nil
	c.post(of("p", 1, "k", time.Now()))
	all(c)
	sockets.full = true
	c.post(of("p", 2, "k", time.Now()))
	c.post(of("p", 3, "k", time.Now()))
	all(c)
	sockets.full = false
	c.post(of("p", 4, "k", time.Now())) // there is room, but it has not been told what is missing
	all(c)
	c.writable(1)
	c.writable(2)
	c.post(of("p", 5, "k", time.Now()))
	all(c)
	sockets.want(t, 1, `"p1"`, "missed 3 slow", `"p5"`)
	sockets.want(t, 2, `"p1"`, `"p4"`, `"p5"`)
}

// offerEach is what Broadcast is for a socket of a test.
func offerEach(s Socket, f *engine.Frame, cs []engine.ConnRef, failed []engine.Failure) []engine.Failure {
	for i, c := range cs {
		if err := s.Offer(c, f); err != nil {
			failed = append(failed, engine.Failure{At: i, Err: err})
		}
	}
	return failed
}

// picky is noted without room for some, and without others.
type picky struct {
	noted
	errs map[engine.ConnRef]error
}

func (s *picky) Offer(c engine.ConnRef, f *engine.Frame) error {
	if err := s.errs[c]; err != nil {
		return err
	}
	return s.Send(c, f)
}

func (s *picky) Broadcast(f *engine.Frame, cs []engine.ConnRef, failed []engine.Failure) []engine.Failure {
	return offerEach(s, f, cs, failed)
}

func TestWhoInACrowdHasNoRoomIsToldAndWhoIsGoneLeaves(t *testing.T) {
	s := &picky{noted: noted{}, errs: map[engine.ConnRef]error{}}
	c := subscribed(t, s, 2*batch) // more than one turn
	clear(s.noted)
	slow, gone := engine.ConnRef(batch+3), engine.ConnRef(5)
	s.errs[slow], s.errs[gone] = engine.ErrQueueFull, engine.ErrGone
	now := time.Now()
	c.post(of("x", 1, "", now))
	all(c)
	delete(s.errs, slow)
	c.post(of("x", 2, "", now))
	all(c)
	c.writable(slow)
	c.post(of("x", 3, "", now))
	all(c)
	for conn := engine.ConnRef(1); conn <= 2*batch; conn++ {
		switch conn {
		case slow:
			s.want(t, conn, "missed 2 slow", `"x3"`)
		case gone:
			s.want(t, conn)
		default:
			s.want(t, conn, `"x1"`, `"x2"`, `"x3"`)
		}
	}
	if n := c.subscribers("a"); n != 2*batch-1 {
		t.Errorf("%d subscribers are left, want all but the one that is gone", n)
	}
	if want := (counts{posts: 3, sent: 3*(2*batch-2) + 1, slow: 2}); c.count != want {
		t.Errorf("counted %+v, want %+v", c.count, want)
	}
}
