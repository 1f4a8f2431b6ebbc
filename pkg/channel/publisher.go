// Package channel publishes to channels: named streams of small JSON messages that every client which subscribes to
// one gets at once. A Publisher numbers the posts of each channel, queues them, brings them to the broker over
// whatever link there is, and keeps the latest for those who subscribe later.
//
// Channels are for what is worth nothing when it is late. A post reaches the clients that are subscribed when it
// is published; what must arrive is an event of a task (pkg/taskrunner).
package channel

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/wscluster/wscluster/pkg/broker"
	"github.com/wscluster/wscluster/pkg/wire"
)

// ErrFull says that a Publisher's queue has no room: the broker is away, or slower than what is published. Nothing
// was taken; try again later, or let it be.
var ErrFull = errors.New("the queue of posts is full")

// MaxChannels is how many channels one call of Publish may name.
const MaxChannels = 100

// Options of a Publisher. Only Name must be set.
type Options struct {
	Name string // what the publisher is called in its posts: 1 to wire.MaxID bytes of [A-Za-z0-9_.-]; of one process at a time

	QueuedPosts int           // that wait for the broker, those without an answer included; 0 means 10,000
	QueuedBytes int           // of those; 0 means 32 MiB
	Window      int           // posts in flight to the broker; 0 means 256
	FlushWithin time.Duration // what Serve takes to publish the rest once its context has ended; 0 means 2 s

	KeptChannels     int // that are remembered, with their counters; 0 means 10,000
	KeptBytes        int // of all posts that are kept; 0 means 32 MiB
	KeptChannelBytes int // of those of one channel; 0 means 192 KiB, which fit into one control message
}

// Message is what is published.
type Message struct {
	Name string          // what Body is, at most wire.MaxID bytes of [A-Za-z0-9_.-]; may be empty
	Key  string          // of the posts of a channel with one key only the latest is kept; "" keeps all; at most wire.MaxChannel bytes
	Body json.RawMessage // any JSON value, at most wire.MaxPost bytes; it is copied
	Time time.Time       // since when it is so; zero means now
}

// Publisher publishes posts. Its methods are safe for concurrent use and, but for Serve, do not block.
//
// It remembers a bounded number of channels. Those that were not published to for longest are forgotten whole: what
// is kept of them, and their counters. The next post there begins a new stream.
type Publisher struct {
	o    Options
	wake chan struct{} // cap 1: something was queued; never closed

	mu    sync.Mutex
	queue queue // guarded by mu
	shelf shelf // guarded by mu
	stats Stats // guarded by mu
}

// Stats are sums since New, and what is there now.
type Stats struct {
	Queued, QueuedBytes int // now
	Channels, KeptBytes int // now
	Taken               int64
	Stored              int64 // answered by the broker: at least one worker has a subscriber
	Returned            int64 // nobody is subscribed
	Refused             int64 // not taken by the broker, and dropped
	Again               int64 // published once more, for the link had ended before the answer
	Full                int64 // posts that were not taken, for the queue was full
}

// ByOutcome returns the sums of what became of posts, by the names that metrics have.
func (s *Stats) ByOutcome() map[string]int64 {
	return map[string]int64{"stored": s.Stored, "returned": s.Returned, "refused": s.Refused, "republished": s.Again, "full": s.Full}
}

// New returns a Publisher whose posts wait for Serve. The error says which option is wrong.
func New(o Options) (*Publisher, error) {
	o.QueuedPosts = cmp.Or(o.QueuedPosts, 10_000)
	o.QueuedBytes = cmp.Or(o.QueuedBytes, 32<<20)
	o.Window = cmp.Or(o.Window, 256)
	o.FlushWithin = cmp.Or(o.FlushWithin, 2*time.Second)
	o.KeptChannels = cmp.Or(o.KeptChannels, 10_000)
	o.KeptBytes = cmp.Or(o.KeptBytes, 32<<20)
	o.KeptChannelBytes = cmp.Or(o.KeptChannelBytes, 192<<10)
	probe := wire.Post{Channel: "c", Publisher: o.Name, Stream: wire.NewRunID(), Seq: 1, Body: json.RawMessage("0")}
	var errs []error
	if err := probe.Check(); err != nil {
		errs = append(errs, fmt.Errorf("channel: Name %.80q must have 1 to %d bytes of [A-Za-z0-9_.-]", o.Name, wire.MaxID))
	}
	if min(o.QueuedPosts, o.QueuedBytes, o.Window, o.KeptChannels) < 1 || o.FlushWithin < 0 {
		errs = append(errs, errors.New("channel: a bound is below 1"))
	}
	if o.KeptChannelBytes < 1 || o.KeptBytes < o.KeptChannelBytes {
		errs = append(errs, fmt.Errorf("channel: KeptBytes %d must not be less than KeptChannelBytes %d, and neither less than 1", o.KeptBytes, o.KeptChannelBytes))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	return &Publisher{
		o: o, wake: make(chan struct{}, 1), queue: queue{posts: o.QueuedPosts, bytes: o.QueuedBytes},
		shelf: newShelf(o.KeptChannels, o.KeptBytes, o.KeptChannelBytes),
	}, nil
}

// Publish queues m for each of the channels, and keeps it: all of them or, after an error, none. Two calls by one
// goroutine are published in their order. nil means that m goes to the broker as soon as there is one; that nobody is
// subscribed is no error, and nobody is told. ErrFull if the queue has no room for all of them; else the error says what is
// wrong with m or with a channel (wire.ErrTooLarge, wire.ErrID).
func (p *Publisher) Publish(m Message, channels ...wire.Channel) error {
	posts, err := makePosts(m, channels)
	if err != nil {
		return err
	}
	p.mu.Lock()
	if !p.queue.fits(posts) {
		p.stats.Full += int64(len(posts))
		p.mu.Unlock()
		return fmt.Errorf("%w: it holds %d posts or %d bytes", ErrFull, p.o.QueuedPosts, p.o.QueuedBytes)
	}
	for i := range posts {
		post := &posts[i]
		r := p.shelf.of(post.Channel)
		post.Publisher, post.Stream, post.Seq = p.o.Name, r.stream, r.next()
		p.shelf.keep(r, *post)
		p.queue.put(post)
	}
	p.stats.Taken += int64(len(posts))
	p.mu.Unlock()
	select {
	case p.wake <- struct{}{}:
	default:
	}
	return nil
}

// Prime keeps m as the latest of a channel without publishing it: for a publisher that has started again and knows
// what was. Its post has no number.
func (p *Publisher) Prime(m Message, channel wire.Channel) error {
	posts, err := makePosts(m, []wire.Channel{channel})
	if err != nil {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.shelf.keep(p.shelf.of(channel), posts[0])
	return nil
}

// Kept returns what is kept of a channel, the oldest first: at most wire.MaxKept posts, of those with one key the
// latest. Asking does not count as use. The bodies must not be changed.
func (p *Publisher) Kept(channel wire.Channel) []wire.Post {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.shelf.kept(channel)
}

// Stats returns the sums.
func (p *Publisher) Stats() Stats {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.stats
	s.Queued, s.QueuedBytes = p.queue.len(), p.queue.size
	s.Channels, s.KeptBytes = p.shelf.recent.Len(), p.shelf.bytes
	return s
}

// makePosts checks what is published, and returns it for each channel without its number. They share one copy of the body.
func makePosts(m Message, channels []wire.Channel) ([]wire.Post, error) {
	if len(channels) == 0 || len(channels) > MaxChannels {
		return nil, fmt.Errorf("publish: %d channels are named; 1 to %d may be", len(channels), MaxChannels)
	}
	posts := make([]wire.Post, 0, len(channels))
	for i, c := range channels {
		if slices.Contains(channels[:i], c) {
			continue
		}
		posts = append(posts, wire.Post{Channel: c, Name: m.Name, Key: m.Key, Time: wire.Time{Time: m.Time}, Body: m.Body})
		if i == 0 { // all else is the same
			if err := posts[0].Check(); err != nil {
				return nil, fmt.Errorf("publish: %w", err)
			}
		} else if _, err := wire.ParseChannel(string(c)); err != nil {
			return nil, fmt.Errorf("publish: %w", err)
		}
	}
	body, now := slices.Clone(m.Body), time.Now()
	for i := range posts {
		posts[i].Body = body
		if m.Time.IsZero() {
			posts[i].Time = wire.Time{Time: now}
		}
	}
	return posts, nil
}

var _ func(context.Context, broker.Link) error = (*Publisher)(nil).Serve
