package wsclient

import "github.com/wscluster/wscluster/pkg/wire"

// What one subscription holds for its application, at most.
const (
	maxFed      = 1000
	maxFedBytes = 4 << 20 // of bodies
)

// Message is one thing that a Subscription tells: exactly one of its pointers is set.
type Message struct {
	// Subscribed says that the subscription begins, or begins again after a lost connection: forget what
	// you know of the channel, the posts of a snapshot follow. What was published meanwhile and is not in the
	// snapshot does not come.
	Subscribed *wire.Subscribed

	Post     *wire.Post
	Snapshot bool // Post is one of the snapshot: it tells how things stand, and may have been told before

	// Missed says that posts did not come and will not: that the server could not bring them, or that
	// the application took too slowly what the client held for it (wire.MissedSlow).
	Missed *wire.Missed
}

// feed is what a subscription holds until the application takes it: at most maxFed messages and maxFedBytes of
// bodies, one post always. Beyond that the oldest go: how many posts those were is told as missed, before what is left. That a
// snapshot begins is never dropped. It is pure.
type feed struct {
	channel  wire.Channel
	held     []Message
	bytes    int // of the bodies in held
	snapshot int // posts of the snapshot that have not come

	// What was dropped from the front of held.
	begun   *wire.Subscribed // the latest; nil if none was
	dropped int64            // posts, and those that a dropped Missed counted
	blind   bool             // a dropped Missed did not know its count
}

// subscribed begins the feed, or begins it again.
func (f *feed) subscribed(m *wire.Subscribed) {
	f.snapshot = m.Snapshot
	f.put(Message{Subscribed: m})
}

func (f *feed) post(p *wire.Post) {
	m := Message{Post: p, Snapshot: f.snapshot > 0}
	if m.Snapshot {
		f.snapshot--
	}
	f.put(m)
}

// missed notes posts that did not come. In the midst of a snapshot it is the next ones of that which are missing.
func (f *feed) missed(m *wire.Missed) {
	if f.snapshot = max(0, f.snapshot-int(min(m.Count, wire.MaxKept))); m.Count == 0 {
		f.snapshot = 0
	}
	f.put(Message{Missed: m})
}

func (f *feed) put(m Message) {
	f.held = append(f.held, m)
	f.bytes += size(&m)
	for len(f.held) > maxFed || f.bytes > maxFedBytes && len(f.held) > 1 {
		f.drop()
	}
}

// drop forgets the oldest message.
func (f *feed) drop() {
	switch m := f.pop(); {
	case m.Subscribed != nil:
		f.begun = m.Subscribed
	case m.Post != nil:
		f.dropped++
	case m.Missed.Count == 0:
		f.blind = true
	default:
		f.dropped += m.Missed.Count
	}
}

func (f *feed) pop() Message {
	m := f.held[0]
	f.held[0] = Message{}
	f.held = f.held[1:]
	f.bytes -= size(&m)
	return m
}

// take gives the application the next message, if there is one.
func (f *feed) take() (m Message, ok bool) {
	switch {
	case f.begun != nil:
		m.Subscribed, f.begun = f.begun, nil
	case f.dropped > 0 || f.blind:
		m.Missed = &wire.Missed{Channel: f.channel, Count: f.dropped, Reason: wire.MissedSlow}
		if f.blind {
			m.Missed.Count = 0
		}
		f.dropped, f.blind = 0, false
	case len(f.held) > 0:
		m = f.pop()
	default:
		return m, false
	}
	return m, true
}

func size(m *Message) int {
	if m.Post == nil {
		return 0
	}
	return len(m.Post.Body)
}
