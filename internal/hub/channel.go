package hub

import (
	"time"

	"github.com/wscluster/wscluster/internal/engine"
	"github.com/wscluster/wscluster/pkg/wire"
)

// phase is how a channel stands with the broker.
type phase uint8

const (
	opening phase = iota // its posts do not come yet: it is being bound, or there is no broker
	asking               // it is bound, and it is not yet known what publishers keep: posts that come are held
	live                 // posts are given to subscribers as they come
)

// channel is one channel that has a subscriber, or had one a moment ago.
type channel struct {
	name   wire.Channel
	opened uint64 // distinguishes this life of the name from others
	local  bool   // made by this worker for its own subscribers
	closed bool

	phase   phase
	named   bool // bound by its name, or ordered to be
	synced  bool // a sync has ended: streams say where each publisher stands
	lossy   bool // posts may have passed by since then
	partial bool // the last sync ended without all answers
	due     time.Time
	idle    time.Time // lingers until then
	retries int
	retryAt time.Time

	subs  []sub
	index map[engine.ConnRef]int    // in subs
	ids   map[engine.ConnRef]string // of subscribes that are not answered
	n     uint64                    // the number of the last delivery

	streams   map[stream]position
	used      uint64 // of streams, for their age
	ring      []*kept
	ringBytes int

	held, found           []*wire.Post // during a sync: what came, and what others keep
	heldBytes, foundBytes int
	passed                map[stream]int64 // the last of each that was found and left out, for the room or for a later one with its key
}

// sub is one subscription. It is small: a channel may have tens of thousands.
type sub struct {
	conn    engine.ConnRef // 0: it has ended
	from    uint64         // deliveries up to this number are in its snapshot
	slow    int64          // posts that it has missed and was not told of, because it does not keep up
	lost    int64          // the same, because they were lost
	waiting bool           // for its answer
	bare    bool
	unsure  bool // like lost, and nobody knows how many
}

// behind reports whether s is given nothing before its connection is writable.
func (s *sub) behind() bool { return s.slow > 0 || s.lost > 0 || s.unsure }

// stream names one counter of one publisher.
type stream struct {
	publisher string
	id        wire.RunID
}

// position is how far a stream has come.
type position struct {
	seq  int64
	used uint64
}

func streamOf(p *wire.Post) stream { return stream{p.Publisher, p.Stream} }

// kept is a post as subscribers get it.
type kept struct {
	frame *engine.Frame
	bare  *engine.Frame // made when a bare subscriber needs it
	body  int           // bytes of the body, which ends one before the frame does
	size  int

	stream stream
	seq    int64
	key    string
	at     time.Time
}

// bareFrame is the body as a frame of its own.
func (k *kept) bareFrame() *engine.Frame {
	if k.bare == nil {
		p := k.frame.Payload()
		k.bare = engine.NewText(p[len(p)-1-k.body : len(p)-1])
	}
	return k.bare
}

// keptRoom is what a kept post takes in memory beside its frame, about.
const keptRoom = 256

// encode makes the frame of p that all subscribers share.
func (c *core) encode(p *wire.Post) *kept {
	c.scratch = wire.AppendPostFrame(c.scratch[:0], p)
	k := &kept{frame: engine.NewText(c.scratch), body: len(p.Body), stream: streamOf(p), seq: p.Seq, key: p.Key, at: p.Time.Time}
	k.size = keptRoom + k.frame.Len()
	return k
}

// keep puts k into the ring, in the place of an earlier one with its key.
func (c *core) keep(ch *channel, k *kept) {
	if k.key != "" {
		for i, old := range ch.ring {
			if old.key == k.key {
				c.unkeep(ch, i)
				break
			}
		}
	}
	ch.ring = append(ch.ring, k)
	ch.ringBytes += k.size
	c.rings += k.size
	for len(ch.ring) > 0 && (len(ch.ring) > c.limits.kept || ch.ringBytes > maxRing || c.rings > c.limits.rings) {
		c.unkeep(ch, 0)
	}
}

func (c *core) unkeep(ch *channel, i int) {
	c.rings -= ch.ring[i].size
	ch.ringBytes -= ch.ring[i].size
	copy(ch.ring[i:], ch.ring[i+1:])
	ch.ring[len(ch.ring)-1] = nil
	ch.ring = ch.ring[:len(ch.ring)-1]
}

// take moves the stream of p on. ok is false if p is not new; holes is how many before it never came.
func (ch *channel) take(p *wire.Post) (holes int64, ok bool) {
	if p.Seq == 0 {
		return 0, true
	}
	at, known := ch.streams[streamOf(p)]
	if known && p.Seq <= at.seq {
		return 0, false
	}
	if known {
		holes = p.Seq - at.seq - 1
	}
	ch.moveTo(streamOf(p), p.Seq)
	return holes, true
}

// pass notes that p was found and will not be given to anybody.
func (ch *channel) pass(p *wire.Post) {
	if s := streamOf(p); p.Seq > 0 && (len(ch.passed) < maxStreams || ch.passed[s] > 0) {
		if ch.passed == nil {
			ch.passed = map[stream]int64{}
		}
		ch.passed[s] = max(ch.passed[s], p.Seq)
	}
}

func (ch *channel) moveTo(s stream, seq int64) {
	if ch.streams == nil {
		ch.streams = map[stream]position{}
	}
	ch.used++
	ch.streams[s] = position{seq, ch.used}
	if len(ch.streams) > maxStreams {
		oldest := s
		for s, at := range ch.streams {
			if at.used < ch.streams[oldest].used {
				oldest = s
			}
		}
		delete(ch.streams, oldest)
	}
}

// remove ends the subscription i of ch.
func (c *core) remove(ch *channel, i int, now time.Time) {
	conn := ch.subs[i].conn
	ch.subs[i] = sub{}
	delete(ch.index, conn)
	delete(ch.ids, conn)
	c.subs--
	chs := c.conns[conn]
	for j := range chs {
		if chs[j] == ch {
			chs[j] = chs[len(chs)-1]
			chs[len(chs)-1] = nil
			c.conns[conn] = chs[:len(chs)-1]
			break
		}
	}
	if len(c.conns[conn]) == 0 {
		delete(c.conns, conn)
	}
	if len(ch.index) == 0 {
		c.busy--
		ch.idle = now.Add(lingerFor)
		c.lingering = append(c.lingering, lingerer{ch, ch.idle})
	}
	c.compact(ch)
}

// compact closes the gaps of ended subscriptions, once they are half of all. Those of the channel that is being
// delivered to wait: their places are counted.
func (c *core) compact(ch *channel) {
	if len(ch.subs) < 2*len(ch.index)+16 || c.head < len(c.queue) && c.queue[c.head].ch == ch {
		return
	}
	to := ch.subs[:0]
	for _, s := range ch.subs {
		if s.conn != 0 {
			ch.index[s.conn] = len(to)
			to = append(to, s)
		}
	}
	ch.subs = append([]sub(nil), to...)
}
