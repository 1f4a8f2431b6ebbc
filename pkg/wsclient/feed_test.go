package wsclient

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/wscluster/wscluster/pkg/wire"
)

// told writes down all that a feed has.
func (f *feed) told() string {
	var all []string
	for m, ok := f.take(); ok; m, ok = f.take() {
		all = append(all, tell(m))
	}
	return strings.Join(all, " ")
}

func tell(m Message) string {
	switch {
	case m.Subscribed != nil:
		return fmt.Sprintf("subscribed:%d", m.Subscribed.Snapshot)
	case m.Missed != nil:
		return fmt.Sprintf("missed:%d:%s", m.Missed.Count, m.Missed.Reason)
	case m.Snapshot:
		return fmt.Sprintf("kept:%d", m.Post.Seq)
	}
	return fmt.Sprint(m.Post.Seq)
}

func TestAFeedSaysWhichPostsAreOfTheSnapshot(t *testing.T) {
	var f feed
	f.subscribed(&wire.Subscribed{Snapshot: 2})
	for seq := range int64(4) {
		f.post(&wire.Post{Seq: seq + 1})
	}
	f.subscribed(&wire.Subscribed{Snapshot: 3})
	f.missed(&wire.Missed{Count: 2, Reason: wire.MissedSlow}) // of the snapshot
	f.post(&wire.Post{Seq: 7})
	f.post(&wire.Post{Seq: 8})
	if got, want := f.told(), "subscribed:2 kept:1 kept:2 3 4 subscribed:3 missed:2:slow kept:7 8"; got != want {
		t.Errorf("told %s, want %s", got, want)
	}
}

func TestAFullFeedDropsTheOldestAndSaysHowMany(t *testing.T) {
	f := feed{channel: "c"}
	f.subscribed(&wire.Subscribed{Snapshot: 1})
	f.missed(&wire.Missed{Count: 5, Reason: wire.MissedLost})
	for seq := range int64(maxFed + 2) {
		f.post(&wire.Post{Seq: seq + 1})
	}
	if len(f.held) != maxFed {
		t.Errorf("%d are held, want %d", len(f.held), maxFed)
	}
	if got := f.told(); !strings.HasPrefix(got, "subscribed:1 missed:7:slow 3 4 ") {
		t.Errorf("told %.80s, want that 5 + 2 are missing", got)
	}
	f.missed(&wire.Missed{Reason: wire.MissedLost})
	big := bytes.Repeat([]byte("1"), wire.MaxPost)
	for seq := range int64(maxFedBytes/wire.MaxPost + 1) {
		f.post(&wire.Post{Seq: seq + 1, Body: big})
	}
	if f.bytes > maxFedBytes {
		t.Errorf("%d bytes are held, want %d at most", f.bytes, maxFedBytes)
	}
	if got := f.told(); !strings.HasPrefix(got, "missed:0:slow 2 3 ") {
		t.Errorf("told %.80s, want that nobody knows how many are missing", got)
	}
}

// TestAFeedAccountsForEveryPost: of what came, each post is taken, in order, or counted as missed before the
// next that is taken; and that a snapshot begins is always told.
func TestAFeedAccountsForEveryPost(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f := feed{channel: "c"}
		var came, taken, missed int64
		begun, told := 0, 0
		take := func() {
			m, ok := f.take()
			switch {
			case !ok:
			case m.Subscribed != nil:
				told = int(m.Subscribed.Snapshot)
			case m.Missed != nil:
				missed += m.Missed.Count
			default:
				taken++
				if m.Post.Seq != taken+missed {
					t.Fatalf("post %d was taken after %d posts and %d missed", m.Post.Seq, taken-1, missed)
				}
			}
		}
		t.Repeat(map[string]func(*rapid.T){
			"post": func(t *rapid.T) {
				for range rapid.IntRange(1, maxFed).Draw(t, "n") {
					came++
					f.post(&wire.Post{Seq: came})
				}
			},
			"begin": func(*rapid.T) { begun++; f.subscribed(&wire.Subscribed{Snapshot: begun}) },
			"take": func(t *rapid.T) {
				for range rapid.IntRange(1, maxFed).Draw(t, "n") {
					take()
				}
			},
			"": func(t *rapid.T) {
				if len(f.held) > maxFed {
					t.Fatalf("%d are held", len(f.held))
				}
			},
		})
		for len(f.held) > 0 || f.begun != nil || f.dropped > 0 {
			take()
		}
		if taken+missed != came || told != begun {
			t.Fatalf("%d came, %d were taken and %d missed; the last snapshot told is %d of %d", came, taken, missed, told, begun)
		}
	})
}
