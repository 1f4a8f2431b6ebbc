package channel

import (
	"container/list"
	"slices"

	"github.com/wscluster/wscluster/pkg/wire"
)

// shelf is what a publisher remembers of its channels: their counters, and their latest posts. It is pure, and
// bounded in channels and bytes: beyond either, the channels that were used least recently are forgotten.
type shelf struct {
	channels, total, each int // the most that it holds: channels, bytes, and bytes of one channel; total is not below each

	records map[wire.Channel]*list.Element // of *record
	recent  list.List                      // the same, the one used last in front
	bytes   int
}

// record is one channel.
type record struct {
	channel wire.Channel
	stream  wire.RunID
	seq     int64
	posts   []wire.Post // the oldest first
	bytes   int
}

func newShelf(channels, total, each int) shelf {
	return shelf{channels: channels, total: total, each: each, records: map[wire.Channel]*list.Element{}}
}

// of returns the record of a channel, which counts as used.
func (s *shelf) of(c wire.Channel) *record {
	if e := s.records[c]; e != nil {
		s.recent.MoveToFront(e)
		return e.Value.(*record)
	}
	r := &record{channel: c, stream: wire.NewRunID()}
	s.records[c] = s.recent.PushFront(r)
	for s.recent.Len() > s.channels {
		s.forget()
	}
	return r
}

// next is the number of the next post.
func (r *record) next() int64 {
	r.seq++
	return r.seq
}

// keep puts p, which must not be larger than a channel may be, behind what is kept of r, the record used last.
func (s *shelf) keep(r *record, p wire.Post) {
	before := r.bytes
	r.keep(p, s.each)
	for s.bytes += r.bytes - before; s.bytes > s.total; {
		s.forget()
	}
}

// keep forgets the earlier post of p's key, and then the oldest until the rest is within the bounds.
func (r *record) keep(p wire.Post, limit int) {
	if p.Key != "" {
		r.drop(slices.IndexFunc(r.posts, func(q wire.Post) bool { return q.Key == p.Key }))
	}
	r.posts = append(r.posts, p)
	r.bytes += sizeOf(&p)
	for len(r.posts) > wire.MaxKept || r.bytes > limit {
		r.drop(0)
	}
}

// drop forgets one post; none below 0.
func (r *record) drop(i int) {
	if i >= 0 {
		r.bytes -= sizeOf(&r.posts[i])
		r.posts = slices.Delete(r.posts, i, i+1)
	}
}

// forget forgets the channel that was used least recently.
func (s *shelf) forget() {
	r := s.recent.Remove(s.recent.Back()).(*record)
	delete(s.records, r.channel)
	s.bytes -= r.bytes
}

func (s *shelf) kept(c wire.Channel) []wire.Post {
	if e := s.records[c]; e != nil {
		return slices.Clone(e.Value.(*record).posts)
	}
	return nil
}
