package hub

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/wscluster/wscluster/internal/engine"
	"github.com/wscluster/wscluster/pkg/wire"
)

// TestEverySubscriberSeesEachPostOnceOrIsToldThatItMissedIt drives the core through random schedules: publishers that
// count and keep, or do neither; a broker that loses its link, drops posts and is slow to bind; questions and
// answers that are lost or late; subscribers that come, go, ask again, and do not read. At the end of each schedule the world
// comes to rest, and every subscription is held against what was published: see (*world).judge.
//
// HUB_SCHEDULES is how many schedules are tried, HUB_SEED the first one's seed.
func TestEverySubscriberSeesEachPostOnceOrIsToldThatItMissedIt(t *testing.T) {
	seed, schedules := number("HUB_SEED", 1), number("HUB_SCHEDULES", schedulesOfATest)
	var total tally
	for s := seed; s < seed+schedules; s++ {
		w := newWorld(rand.New(rand.NewPCG(uint64(s), 5)))
		w.run(20 + w.r.IntN(150))
		if fault := w.judge(&total); fault != "" {
			t.Errorf("HUB_SEED=%d HUB_SCHEDULES=1: %s", s, fault)
			for _, line := range w.story[max(0, len(w.story)-400):] {
				t.Log(line)
			}
			return
		}
	}
	t.Logf("%+v", total)
	if schedules >= schedulesOfATest && (total.subscriptions == 0 || total.tail == 0 || total.exact == 0 || total.unsure == 0 || total.missed == 0 || total.slow == 0 || total.kept == 0 || total.snapshots == 0 || total.bare == 0) {
		t.Errorf("something never happened: %+v", total)
	}
}

const schedulesOfATest = 200

func number(env string, otherwise int) int {
	if n, err := strconv.Atoi(os.Getenv(env)); err == nil {
		return n
	}
	return otherwise
}

// tally counts what happened, so that a world in which nothing does is seen.
type tally struct{ subscriptions, snapshots, tail, missed, slow, exact, unsure, bare, kept int }

// simPost is a post as the world knows it. Those of publishers that do not count have a number too, which only the
// world knows.
type simPost struct {
	*wire.Post
	source string // of the number: a publisher's stream, or a publisher that does not count
	number int64
}

type simPublisher struct {
	name   string
	counts bool
	stream map[wire.Channel]wire.RunID
	seq    map[wire.Channel]int64
	kept   map[wire.Channel][]*wire.Post
	away   bool // does not answer
}

// world is the broker, the publishers and the clients around one core.
type world struct {
	r     *rand.Rand
	now   time.Time
	core  *core
	story []string

	publishers []*simPublisher
	posts      map[string]*simPost // by body
	last       map[string]int64    // by source: the last number
	channels   []wire.Channel

	linked    bool
	bindings  map[wire.Channel]bool
	all       bool
	todo      []order
	transit   []*wire.Post // from the broker to the core
	questions []question   // to the publishers
	answers   []wire.ControlMessage
	asks      int
	streams   int
	life      map[wire.Channel]uint64 // which life of the channel given and began are of

	conns   map[engine.ConnRef]*simConn
	nextRef engine.ConnRef

	// By channel and source: how far the core has been given posts, and from where on it has been without a break.
	given map[wire.Channel]map[string]int64
	began map[wire.Channel]map[string]int64
}

type question struct {
	id       wire.RunID
	channels []wire.Channel
	to       *simPublisher
}

func newWorld(r *rand.Rand) *world {
	w := &world{
		r: r, now: time.Unix(1_700_000_000, 0).UTC(), posts: map[string]*simPost{}, last: map[string]int64{},
		channels: []wire.Channel{"a", "b", "c", "d"}, bindings: map[wire.Channel]bool{},
		conns: map[engine.ConnRef]*simConn{}, nextRef: 1,
		given: map[wire.Channel]map[string]int64{}, began: map[wire.Channel]map[string]int64{}, life: map[wire.Channel]uint64{},
	}
	w.core = newCore(w, "w1", func() wire.RunID { w.asks++; return wire.RunID(fmt.Sprintf("ask-%d", w.asks)) })
	w.core.limits.kept = 6
	if r.IntN(2) == 0 {
		w.core.limits.held = 12
	}
	if r.IntN(3) == 0 {
		w.core.limits.named, w.core.limits.backNamed = 2, 2
	}
	names := []string{"w1", "r.one", "r.two", "r.three"}
	for i, name := range names {
		w.publishers = append(w.publishers, &simPublisher{
			name: name, counts: i < 3 || r.IntN(2) == 0, stream: map[wire.Channel]wire.RunID{}, seq: map[wire.Channel]int64{}, kept: map[wire.Channel][]*wire.Post{},
		})
	}
	if !w.publishers[3].counts {
		names = names[:3]
	}
	w.core.know(names[1:])
	return w
}

func (w *world) note(format string, args ...any) {
	w.story = append(w.story, fmt.Sprintf("%6dms ", w.now.Sub(time.Unix(1_700_000_000, 0)).Milliseconds())+fmt.Sprintf(format, args...))
}

func (w *world) run(steps int) {
	if w.r.IntN(4) > 0 {
		w.link()
	}
	for range steps {
		w.step()
		w.work()
	}
	w.rest()
}

func (w *world) channel() wire.Channel { return w.channels[w.r.IntN(len(w.channels))] }

func (w *world) conn() *simConn {
	if len(w.conns) == 0 {
		return nil
	}
	refs := slices.Sorted(maps.Keys(w.conns))
	return w.conns[refs[w.r.IntN(len(refs))]]
}

func (w *world) step() {
	switch n := w.r.IntN(100); {
	case n < 22:
		w.publish(w.publishers[w.r.IntN(len(w.publishers))], w.channel(), w.r.IntN(3) == 0)
	case n < 26:
		p, ch := w.publishers[w.r.IntN(len(w.publishers))], w.channel()
		for range w.r.IntN(30) {
			w.publish(p, ch, w.r.IntN(3) == 0)
			w.arrive()
		}
	case n < 38:
		w.arrive()
	case n < 46:
		w.subscribe()
	case n < 50:
		if c := w.conn(); c != nil {
			ch := w.channel()
			w.note("unsubscribe %d %s", c.ref, ch)
			w.core.unsubscribe(c.ref, ch, "", w.now)
		}
	case n < 52:
		if c := w.conn(); c != nil {
			w.note("conn %d gone", c.ref)
			c.gone = true
			delete(w.conns, c.ref)
			if w.r.IntN(4) > 0 { // else it is found out by sending
				w.core.gone(c.ref, w.now)
			}
		}
	case n < 60:
		if c := w.conn(); c != nil {
			c.read(1 + w.r.IntN(8))
		}
	case n < 62:
		if c := w.conn(); c != nil {
			c.deaf = !c.deaf
		}
	case n < 72:
		w.execute()
	case n < 80:
		w.ask()
	case n < 88:
		w.hear()
	case n < 90:
		w.pass(time.Duration(w.r.IntN(400)) * time.Millisecond)
	case n < 91:
		w.pass(time.Duration(w.r.IntN(40)) * time.Second)
	case n < 94:
		if w.linked {
			w.unlink()
		} else {
			w.link()
		}
	case n < 95:
		w.lose()
	case n < 97:
		p := w.publishers[1+w.r.IntN(len(w.publishers)-1)]
		p.away = !p.away
	case n < 98: // it starts again
		p := w.publishers[1+w.r.IntN(len(w.publishers)-1)]
		w.note("%s starts again", p.name)
		clear(p.stream)
		clear(p.seq)
		clear(p.kept)
	default:
		w.pass(time.Duration(w.r.IntN(60)) * time.Millisecond)
	}
}

// work lets the core deliver some, or all.
func (w *world) work() {
	if w.r.IntN(3) > 0 {
		w.core.deliver(1+w.r.IntN(30), w.now)
	}
	for _, ref := range slices.Sorted(maps.Keys(w.conns)) {
		if c := w.conns[ref]; !c.deaf && w.r.IntN(2) == 0 {
			c.read(100)
		}
	}
	w.todo = append(w.todo, w.core.takeOrders()...)
}

func (w *world) pass(d time.Duration) {
	for end := w.now.Add(d); w.now.Before(end); {
		w.now = w.now.Add(min(50*time.Millisecond, end.Sub(w.now)))
		if d > time.Second {
			w.now = w.now.Add(2 * time.Second)
		}
		w.core.tick(w.now)
		w.todo = append(w.todo, w.core.takeOrders()...)
	}
}

func (w *world) publish(p *simPublisher, ch wire.Channel, keyed bool) {
	post := &wire.Post{Channel: ch, Time: wire.Time{Time: w.now}}
	if keyed {
		post.Key = string("kl"[w.r.IntN(2)])
	}
	source := p.name + "/" + string(ch)
	if p.counts {
		if p.stream[ch] == "" {
			w.streams++
			p.stream[ch] = wire.RunID(fmt.Sprintf("00000000-0000-7000-8000-%012d", w.streams))
			p.seq[ch] = 0
		}
		p.seq[ch]++
		post.Publisher, post.Stream, post.Seq = p.name, p.stream[ch], p.seq[ch]
		source = p.name + "/" + string(ch) + "/" + strings.TrimLeft(string(post.Stream)[24:], "0")
	}
	w.last[source]++
	post.Body = fmt.Appendf(nil, `"%s %d"`, source, w.last[source])
	w.posts[string(post.Body)] = &simPost{post, source, w.last[source]}
	if p.counts {
		kept := p.kept[ch]
		if post.Key != "" {
			kept = slices.DeleteFunc(slices.Clone(kept), func(o *wire.Post) bool { return o.Key == post.Key })
		}
		kept = append(slices.Clone(kept), post)
		p.kept[ch] = kept[max(0, len(kept)-5):]
	}
	if w.linked && (w.all || w.bindings[ch]) {
		w.transit = append(w.transit, post)
		w.note("%s publishes %s key %q", p.name, post.Body, post.Key)
	} else {
		w.note("%s publishes %s key %q to nobody", p.name, post.Body, post.Key)
	}
}

// gives notes that the core is given a post, or told that it was dropped.
func (w *world) gives(p *wire.Post) {
	s := w.posts[string(p.Body)]
	ch := w.core.channels[p.Channel]
	if ch == nil {
		return
	}
	if w.given[p.Channel] == nil || w.life[p.Channel] != ch.opened {
		w.life[p.Channel] = ch.opened
		w.given[p.Channel], w.began[p.Channel] = map[string]int64{}, map[string]int64{}
	}
	if _, known := w.given[p.Channel][s.source]; !known {
		w.began[p.Channel][s.source] = s.number
	}
	w.given[p.Channel][s.source] = max(w.given[p.Channel][s.source], s.number)
	w.began[p.Channel][s.source] = min(w.began[p.Channel][s.source], s.number)
}

func (w *world) arrive() {
	if len(w.transit) > 0 {
		p := w.transit[0]
		w.transit = w.transit[1:]
		w.note("post %s", p.Body)
		w.gives(p)
		w.core.post(p)
	}
}

// lose drops a post in the broker: nobody says so.
func (w *world) lose() {
	if len(w.transit) > 0 {
		p := w.transit[0]
		s := w.posts[string(p.Body)]
		if _, known := w.given[p.Channel][s.source]; !known || p.Seq == 0 {
			return // that would be a loss that nobody can know of: the beginning of a counter, or one who does not count
		}
		w.note("lost %s", p.Body)
		w.transit = w.transit[1:]
	}
}

func (w *world) link() {
	w.note("link up")
	w.linked = true
	w.core.linkUp(w.now)
	w.todo = w.core.takeOrders()
}

func (w *world) unlink() {
	w.note("link down")
	w.linked, w.all = false, false
	clear(w.bindings)
	w.todo, w.questions, w.answers = nil, nil, nil
	if w.r.IntN(2) == 0 {
		w.transit = nil // else they are here already
	} else if len(w.transit) > 3 {
		w.transit = w.transit[:3]
	}
	w.core.linkDown()
}

// execute carries out the next order.
func (w *world) execute() {
	if !w.linked || len(w.todo) == 0 {
		return
	}
	o := w.todo[0]
	w.todo = w.todo[1:]
	w.note("order %d %s", o.verb, o.channel)
	switch o.verb {
	case bind:
		w.bindings[o.channel] = true
		w.core.bound(o.channel, o.opened)
	case unbind:
		delete(w.bindings, o.channel)
	case bindAll:
		w.all = true
		w.core.allIsBound()
	case unbindAll:
		w.all = false
	case find:
		for _, p := range w.publishers {
			if p.counts {
				w.questions = append(w.questions, question{o.ask, o.channels, p})
			}
		}
	}
}

// ask brings a question to a publisher, or loses it.
func (w *world) ask() {
	if len(w.questions) == 0 {
		return
	}
	i := w.r.IntN(len(w.questions))
	q := w.questions[i]
	w.questions = slices.Delete(w.questions, i, i+1)
	if q.to.away || w.r.IntN(15) == 0 {
		w.note("%s does not hear %s", q.to.name, q.id)
		return
	}
	m := &wire.ChannelsFound{Ask: q.id, Name: q.to.name}
	for _, ch := range q.channels {
		f := wire.FoundChannel{Channel: ch}
		for _, p := range q.to.kept[ch] {
			f.Kept = append(f.Kept, *p)
		}
		m.Channels = append(m.Channels, f)
	}
	w.answers = append(w.answers, m)
}

// hear brings an answer to the core.
func (w *world) hear() {
	if len(w.answers) == 0 {
		return
	}
	i := w.r.IntN(len(w.answers))
	m := w.answers[i].(*wire.ChannelsFound)
	w.answers = slices.Delete(w.answers, i, i+1)
	if w.core.asks[m.Ask] != nil {
		for _, f := range m.Channels {
			for j := range f.Kept {
				w.gives(&f.Kept[j])
			}
			w.note("%s answers %s: %s %d kept", m.Name, m.Ask, f.Channel, len(f.Kept))
		}
	}
	w.core.hear(m, w.now)
}

func (w *world) subscribe() {
	c := w.conn()
	if c == nil || w.r.IntN(3) == 0 {
		c = &simConn{w: w, ref: w.nextRef, deaf: w.r.IntN(5) == 0, subs: map[wire.Channel]*simSub{}}
		c.bare = w.r.IntN(6) == 0
		w.nextRef++
		w.conns[c.ref] = c
	}
	ch := w.channel()
	if c.bare {
		if c.of == "" {
			c.of = ch
		}
		ch = c.of
	}
	w.note("subscribe %d to %s (bare %v)", c.ref, ch, c.bare)
	if err := w.core.subscribe(c.ref, ch, "", c.bare, w.now); err != nil {
		panic(err)
	}
}

// rest lets everything that is under way come to its end, and has each publisher publish once more, so that what was
// lost before shows.
func (w *world) rest() {
	w.note("--- rest")
	if !w.linked {
		w.link()
	}
	for _, p := range w.publishers {
		p.away = false
	}
	settle := func() {
		for range 40 {
			for len(w.todo) > 0 {
				w.execute()
				w.todo = append(w.todo, w.core.takeOrders()...)
			}
			for len(w.questions) > 0 {
				w.ask()
			}
			for len(w.answers) > 0 {
				w.hear()
			}
			for len(w.transit) > 0 {
				w.arrive()
			}
			w.now = w.now.Add(500 * time.Millisecond)
			w.core.tick(w.now)
			for w.core.deliver(7, w.now) {
				for _, c := range w.conns {
					c.read(1000)
				}
			}
			for _, c := range w.conns {
				c.read(1000)
			}
			w.todo = append(w.todo, w.core.takeOrders()...)
		}
	}
	settle()
	for _, p := range w.publishers {
		for _, ch := range w.channels {
			w.publish(p, ch, false)
		}
	}
	settle()
}

// judge says what is wrong with what the subscribers saw.
func (w *world) judge(total *tally) string {
	for _, ref := range slices.Sorted(maps.Keys(w.conns)) {
		c := w.conns[ref]
		if c.fault != "" {
			return fmt.Sprintf("connection %d: %s", ref, c.fault)
		}
		if c.bare {
			if c.of == "" || w.core.channels[c.of] == nil {
				continue
			}
			if _, subscribed := w.core.channels[c.of].index[ref]; !subscribed {
				continue
			}
			last := string(w.core.channels[c.of].ring[len(w.core.channels[c.of].ring)-1].bareFrame().Payload())
			if c.last != last {
				return fmt.Sprintf("bare connection %d: the last body is %s, want %s", ref, c.last, last)
			}
			total.bare++
			continue
		}
		if c.slow {
			total.slow++
		}
		for ch, s := range c.subs {
			if s.snapshot != 0 {
				return fmt.Sprintf("connection %d, channel %s: %d posts of the snapshot did not come", ref, ch, s.snapshot)
			}
			total.subscriptions++
			total.snapshots += s.had
			total.missed += int(s.missed)
			var unseen int64
			for source, last := range w.last {
				if p := w.posts[fmt.Sprintf(`"%s %d"`, source, last)]; p.Channel != ch {
					continue
				}
				// Nobody can know of a counter of which no post ever came, of what was before the first that came, and
				// of what was lost at its end.
				from, to := s.base[source], w.given[ch][source]
				if from == 0 && to > 0 {
					from = w.began[ch][source] - 1
				}
				for n := from + 1; n <= to; n++ {
					if !s.seen[source][n] {
						unseen++
					} else {
						total.tail++
					}
				}
			}
			if fault := w.judgeKept(ch, s, total); fault != "" {
				return fmt.Sprintf("connection %d, channel %s: %s", ref, ch, fault)
			}
			switch {
			case s.unsure:
				total.unsure++
			case unseen != s.missed:
				return fmt.Sprintf("connection %d, channel %s: it did not see %d posts and was told of %d", ref, ch, unseen, s.missed)
			default:
				total.exact++
			}
		}
		if len(c.queue) > 0 {
			return fmt.Sprintf("connection %d: %d frames wait in the end", ref, len(c.queue))
		}
	}
	return ""
}

// judgeKept says what a subscriber that keeps up lacks of what publishers keep: after a loss of the link it gets that too.
func (w *world) judgeKept(ch wire.Channel, s *simSub, total *tally) string {
	if s.counted || s.partial || w.core.channels[ch].partial || w.core.limits.held < maxHeld {
		return ""
	}
	for _, p := range w.publishers {
		for _, k := range p.kept[ch] {
			post := w.posts[string(k.Body)]
			if post.number <= s.base[post.source] || post.Key != "" { // of a key another publisher may have a later one
				continue
			}
			if total.kept++; !s.seen[post.source][post.number] {
				return fmt.Sprintf("it did not get %s, which its publisher keeps", k.Body)
			}
		}
	}
	return ""
}

// simConn is a client and its queue, of maxQueue frames. A subscribed and the snapshot fit into its upper half.
type simConn struct {
	w     *world
	ref   engine.ConnRef
	queue []*engine.Frame
	full  bool
	deaf  bool
	gone  bool
	bare  bool
	slow  bool         // it was told that it is
	of    wire.Channel // bare
	last  string       // bare: the last body
	subs  map[wire.Channel]*simSub
	fault string
}

// simSub is a subscription as its client sees it. At is how it stands when the frames that say so are sent, for that is when the
// core decided.
type simSub struct {
	base     map[string]int64 // by source: the last number given to the core before the answer
	seen     map[string]map[int64]bool
	last     map[string]int64
	snapshot int // posts of the snapshot that are to come
	had      int
	missed   int64
	gaps     int64 // posts that it saw to be missing
	counted  bool  // it was told of some that it will not get
	partial  bool
	unsure   bool
}

const maxQueue = 20

func (w *world) Send(ref engine.ConnRef, f *engine.Frame) error {
	c := w.conns[ref]
	if c == nil || c.gone {
		return engine.ErrGone
	}
	if len(c.queue) >= maxQueue {
		c.full = true
		return engine.ErrQueueFull
	}
	c.queue = append(c.queue, f)
	c.full = c.full || len(c.queue) > maxQueue/2
	if !c.bare {
		c.sent(f)
	}
	return nil
}

func (w *world) Broadcast(f *engine.Frame, cs []engine.ConnRef, failed []engine.Failure) []engine.Failure {
	return offerEach(w, f, cs, failed)
}

func (w *world) Offer(ref engine.ConnRef, f *engine.Frame) error {
	if c := w.conns[ref]; c != nil && len(c.queue) > maxQueue/2 {
		return engine.ErrQueueFull
	}
	return w.Send(ref, f)
}

func (w *world) CloseConn(ref engine.ConnRef, _ engine.StatusCode, _ string, _ *engine.Frame) {
	if c := w.conns[ref]; c != nil {
		w.note("conn %d is closed: it is full", ref)
		c.gone = true
		delete(w.conns, ref)
	}
}

// guestsBase sets where a subscription begins among the posts of those that do not count: behind what is not on its way,
// for nobody can know of what was lost before.
func (w *world) guestsBase(ch wire.Channel, s *simSub) {
	for source, last := range w.last {
		if p := w.posts[fmt.Sprintf(`"%s %d"`, source, last)]; p.Channel == ch && p.Seq == 0 {
			if s.base == nil {
				s.base = map[string]int64{}
			}
			s.base[source] = max(s.base[source], last)
			for _, t := range slices.Backward(w.transit) {
				if t := w.posts[string(t.Body)]; t.source == source {
					s.base[source] = t.number - 1
				}
			}
		}
	}
}

// read takes frames off the queue, and tells the core once it is low.
func (c *simConn) read(n int) {
	n = min(n, len(c.queue))
	if c.bare && n > 0 {
		c.last = string(c.queue[n-1].Payload())
	}
	c.queue = c.queue[n:]
	if c.full && len(c.queue) <= maxQueue/4 {
		c.full = false
		c.w.core.writable(c.ref)
	}
}

// sent judges a frame when it is put into the queue, which nothing can leave but in order.
func (c *simConn) sent(f *engine.Frame) {
	m, err := wire.DecodeServer(f.Payload())
	if err != nil {
		c.fault = err.Error()
		return
	}
	switch m := m.(type) {
	case *wire.Subscribed:
		c.w.note("  to %d: subscribed %s snapshot %d partial %v", c.ref, m.Channel, m.Snapshot, m.Partial)
		c.subs[m.Channel] = &simSub{
			base: maps.Clone(c.w.given[m.Channel]), seen: map[string]map[int64]bool{}, last: map[string]int64{}, snapshot: m.Snapshot, had: m.Snapshot,
		}
		c.w.guestsBase(m.Channel, c.subs[m.Channel])
		if s := c.subs[m.Channel]; m.Partial { // what is found and held is yet to come
			for source := range s.base {
				s.base[source] = 0
			}
			s.unsure, s.partial = true, true
		}
	case *wire.Unsubscribed:
		delete(c.subs, m.Channel)
	case *wire.Missed:
		c.w.note("  to %d: missed %d %s of %s", c.ref, m.Count, m.Reason, m.Channel)
		s := c.subs[m.Channel]
		if s == nil {
			c.fault = fmt.Sprintf("missed of channel %s, to which it is not subscribed", m.Channel)
			return
		}
		s.missed += m.Count
		c.slow = c.slow || m.Reason == wire.MissedSlow
		s.counted = s.counted || m.Count > 0
		s.unsure = s.unsure || m.Count == 0
	case *wire.Post:
		s, p := c.subs[m.Channel], c.w.posts[string(m.Body)]
		switch {
		case s == nil:
			c.fault = fmt.Sprintf("post %s without a subscription", m.Body)
			return
		case s.snapshot > 0:
			s.snapshot--
			s.last[p.source] = max(s.last[p.source], p.number)
			return
		}
		c.w.note("  to %d: %s", c.ref, m.Body)
		if before := max(s.last[p.source], s.base[p.source]); before > 0 && p.number > before {
			s.gaps += p.number - before - 1
		}
		if s.gaps > s.missed && !s.unsure {
			c.fault = fmt.Sprintf("before post %s it was told that it missed %d, and it missed %d", m.Body, s.missed, s.gaps)
		}
		if p.number <= s.last[p.source] {
			c.fault = fmt.Sprintf("post %s came after number %d", m.Body, s.last[p.source])
		}
		s.last[p.source] = p.number
		if s.seen[p.source] == nil {
			s.seen[p.source] = map[int64]bool{}
		}
		s.seen[p.source][p.number] = true
	}
}
