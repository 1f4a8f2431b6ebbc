package channel

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/wscluster/wscluster/pkg/wire"
)

func TestOptionsThatCannotWorkAreRefused(t *testing.T) {
	for name, o := range map[string]Options{
		"no name":                      {},
		"a name with a space":          {Name: "a b"},
		"a negative queue":             {Name: "a", QueuedPosts: -1},
		"a negative wait":              {Name: "a", FlushWithin: -1},
		"less in all than for a one":   {Name: "a", KeptBytes: 10, KeptChannelBytes: 20},
		"a negative number of channel": {Name: "a", KeptChannels: -1},
	} {
		if _, err := New(o); err == nil {
			t.Errorf("%s: New gave no error", name)
		}
	}
}

func TestOneCallPublishesToSeveralChannelsEachWithItsOwnCount(t *testing.T) {
	p := publisher(t, Options{})
	say(t, p, "one", "a", "b")
	say(t, p, "two", "b", "c", "b")
	want := map[wire.Channel]string{"a": `1 "one"`, "b": `1 "one" 2 "two"`, "c": `1 "two"`}
	streams := map[wire.RunID]bool{}
	for c, want := range want {
		var got []string
		for _, post := range p.Kept(c) {
			if err := post.Check(); err != nil || post.Channel != c || post.Publisher != "backend" {
				t.Errorf("%s: post %+v: %v", c, post, err)
			}
			streams[post.Stream] = true
			got = append(got, fmt.Sprintf("%d %s", post.Seq, post.Body))
		}
		if got := strings.Join(got, " "); got != want {
			t.Errorf("kept of %s: got %s, want %s", c, got, want)
		}
	}
	if s := p.Stats(); len(streams) != 3 || s.Taken != 4 || s.Queued != 4 || s.Channels != 3 {
		t.Errorf("got %d streams and %+v; want one of each channel, and 4 posts", len(streams), s)
	}
}

func TestWhatIsWrongIsRefusedWholeAndTakesNoNumber(t *testing.T) {
	p := publisher(t, Options{})
	many := make([]wire.Channel, MaxChannels+1)
	for i := range many {
		many[i] = wire.Channel(fmt.Sprint("c", i))
	}
	for name, refuse := range map[string]func() error{
		"no channel":          func() error { return p.Publish(Message{Body: asJSON(1)}) },
		"too many channels":   func() error { return p.Publish(Message{Body: asJSON(1)}, many...) },
		"a wildcard":          func() error { return p.Publish(Message{Body: asJSON(1)}, "a", "b*") },
		"no JSON":             func() error { return p.Publish(Message{Body: []byte("{")}, "a") },
		"no body":             func() error { return p.Publish(Message{}, "a") },
		"a name with a space": func() error { return p.Publish(Message{Name: "a b", Body: asJSON(1)}, "a") },
		"a long key": func() error {
			return p.Publish(Message{Key: strings.Repeat("k", wire.MaxChannel+1), Body: asJSON(1)}, "a")
		},
		"to prime what is none": func() error { return p.Prime(Message{Body: []byte("{")}, "a") },
	} {
		if refuse() == nil {
			t.Errorf("%s: no error", name)
		}
	}
	body := asJSON(strings.Repeat("x", wire.MaxPost-2))
	if err := p.Publish(Message{Body: append(body, ' ')}, "a"); !errors.Is(err, wire.ErrTooLarge) {
		t.Errorf("a body of MaxPost and one: got %v, want %v", err, wire.ErrTooLarge)
	}
	if err := p.Publish(Message{Body: body}, "a"); err != nil {
		t.Errorf("a body of MaxPost: %v", err)
	}
	body[1] = 'y'
	if kept := p.Kept("a"); len(kept) != 1 || kept[0].Seq != 1 || bytes.Contains(kept[0].Body, []byte("y")) {
		t.Error("what was refused took a number, or the body was not copied")
	}
}

func TestAFullQueueRefusesAtOnceAndCounts(t *testing.T) {
	p := publisher(t, Options{QueuedPosts: 3})
	say(t, p, 1, "a", "b")
	if err := p.Publish(Message{Body: asJSON(2)}, "a", "b"); !errors.Is(err, ErrFull) {
		t.Errorf("two more of three: got %v, want ErrFull", err)
	}
	say(t, p, 3, "a")
	if err := p.Publish(Message{Body: asJSON(4)}, "a"); !errors.Is(err, ErrFull) {
		t.Errorf("a fourth: got %v, want ErrFull", err)
	}
	if s := p.Stats(); s.Queued != 3 || s.Full != 3 || s.Taken != 3 {
		t.Errorf("got %+v, want 3 queued, 3 not taken", s)
	}
	if kept := p.Kept("a"); len(kept) != 2 || kept[1].Seq != 2 {
		t.Errorf("kept of a: %+v; what was not taken must not be kept, and take no number", kept)
	}

	one := wire.Post{Channel: "a", Body: asJSON(1)}
	p = publisher(t, Options{QueuedBytes: 2 * sizeOf(&one)})
	say(t, p, 1, "a")
	if err := p.Publish(Message{Body: asJSON(22)}, "a"); !errors.Is(err, ErrFull) {
		t.Errorf("a byte too many: got %v, want ErrFull", err)
	}
	say(t, p, 2, "a")
}

func TestOfOneKeyTheLatestIsKept(t *testing.T) {
	p := publisher(t, Options{})
	at := time.Date(2026, 3, 14, 9, 26, 53, 0, time.UTC)
	for i, key := range []string{"x", "", "y", "x", ""} {
		if err := p.Publish(Message{Key: key, Body: asJSON(i), Time: at}, "a"); err != nil {
			t.Fatal(err)
		}
	}
	if got := kept(p, "a"); got != "1 2 3 4" {
		t.Errorf("kept %s, want 1 2 3 4: the first was of a key that came again", got)
	}
	if post := p.Kept("a")[0]; !post.Time.Equal(at) {
		t.Errorf("time %v, want the message's own", post.Time)
	}
	for i := range wire.MaxKept {
		say(t, p, 100+i, "a")
	}
	if got := p.Kept("a"); len(got) != wire.MaxKept || string(got[0].Body) != "100" {
		t.Errorf("kept %d posts from %s on, want the %d latest", len(got), got[0].Body, wire.MaxKept)
	}
}

func TestWhatIsPrimedIsKeptButNotPublished(t *testing.T) {
	p := publisher(t, Options{})
	if err := p.Prime(Message{Key: "k", Body: asJSON("before")}, "a"); err != nil {
		t.Fatal(err)
	}
	primed := p.Kept("a")
	if len(primed) != 1 || primed[0].Seq != 0 || primed[0].Check() != nil || p.Stats().Queued != 0 {
		t.Errorf("kept %+v with %d queued, want one post without a number, and nothing queued", primed, p.Stats().Queued)
	}
	if err := p.Publish(Message{Key: "k", Body: asJSON("now")}, "a"); err != nil {
		t.Fatal(err)
	}
	if got := p.Kept("a"); len(got) != 1 || string(got[0].Body) != `"now"` || got[0].Seq != 1 {
		t.Errorf("kept %+v, want only what was published after", got)
	}
}

func TestTheChannelUsedLeastRecentlyIsForgottenWhole(t *testing.T) {
	p := publisher(t, Options{KeptChannels: 2})
	say(t, p, 1, "a")
	say(t, p, 1, "b")
	first := p.Kept("a")[0].Stream
	say(t, p, 2, "a")
	say(t, p, 1, "c")
	if kept(p, "b") != "" || kept(p, "a") != "1 2" || kept(p, "c") != "1" {
		t.Errorf("kept a: %s, b: %s, c: %s; want b forgotten", kept(p, "a"), kept(p, "b"), kept(p, "c"))
	}
	say(t, p, 2, "b")
	say(t, p, 3, "a")
	if got := p.Kept("a")[0]; got.Seq != 1 || got.Stream == first || p.Stats().Channels != 2 {
		t.Errorf("after it was forgotten: post %+v of %d channels, want 1 of a new stream, and 2 channels", got, p.Stats().Channels)
	}
}

func TestKeptBytesAreBounded(t *testing.T) {
	one := wire.Post{Channel: "a", Body: asJSON(1)}
	size := sizeOf(&one)
	p := publisher(t, Options{KeptChannelBytes: 3 * size, KeptBytes: 5 * size})
	for i := range 4 {
		say(t, p, i, "a")
	}
	if got := kept(p, "a"); got != "1 2 3" {
		t.Errorf("of one channel: kept %s, want the 3 that fit", got)
	}
	say(t, p, 1, "b")
	say(t, p, 2, "b")
	if got := kept(p, "a") + ", " + kept(p, "b"); got != "1 2 3, 1 2" || p.Stats().KeptBytes != 5*size {
		t.Errorf("kept %s in %d bytes, want all of 5 posts in %d", got, p.Stats().KeptBytes, 5*size)
	}
	say(t, p, 3, "b")
	if got := kept(p, "a") + ", " + kept(p, "b"); got != ", 1 2 3" || p.Stats().KeptBytes != 3*size {
		t.Errorf("kept %s in %d bytes, want only b's", got, p.Stats().KeptBytes)
	}
	say(t, p, strings.Repeat("x", 4*size), "c")
	if got := kept(p, "c"); got != "" {
		t.Errorf("kept %s of a post larger than a channel may be", got)
	}
}

// kept is the bodies of what is kept.
func kept(p *Publisher, c wire.Channel) string {
	var all []string
	for _, post := range p.Kept(c) {
		all = append(all, string(post.Body))
	}
	return strings.Join(all, " ")
}
