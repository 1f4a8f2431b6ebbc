package channel

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wscluster/wscluster/pkg/broker"
	"github.com/wscluster/wscluster/pkg/broker/memory"
	"github.com/wscluster/wscluster/pkg/wire"
)

// serving runs Serve in a bubble of time; end ends its context and returns its error.
func serving(p *Publisher, link broker.Link) (end func() error) {
	ctx, cancel := context.WithCancel(context.Background())
	result := make(chan error, 1)
	go func() { result <- p.Serve(ctx, link) }()
	synctest.Wait()
	return func() error {
		cancel()
		return <-result
	}
}

func TestPostsGoOutInOrderWithinTheWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, link := publisher(t, Options{Window: 2}), newFakeLink()
		say(t, p, 1, "a", "b")
		say(t, p, 2, "a")
		end := serving(p, link)
		flying, got := link.took(t, 2)
		if want := "a 1 1\nb 1 1\n"; got != want || len(link.sent) != 0 {
			t.Errorf("published %q and %d more, want %q: the window is 2", got, len(link.sent), want)
		}
		flying[1].answer(broker.Stored)
		synctest.Wait()
		if len(link.sent) != 0 {
			t.Error("the window moved on before its oldest post was answered")
		}
		flying[0].answer(broker.Returned) // nobody is subscribed
		synctest.Wait()
		say(t, p, 3, "c")
		synctest.Wait()
		flying, got = link.took(t, 2)
		if want := "a 2 2\nc 1 3\n"; got != want {
			t.Errorf("published %q, want %q", got, want)
		}
		flying[0].answer(broker.Refused)
		flying[1].answer(broker.Stored)
		if err := end(); err != nil {
			t.Errorf("Serve: %v", err)
		}
		if s := p.Stats(); s != (Stats{Channels: 3, KeptBytes: s.KeptBytes, Taken: 4, Stored: 2, Returned: 1, Refused: 1}) {
			t.Errorf("got %+v", s)
		}
	})
}

func TestWhatALinkDidNotAnswerGoesOutAgainUnderTheSameNumbers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, link := publisher(t, Options{}), newFakeLink()
		for i := 1; i <= 3; i++ {
			say(t, p, i, "a")
		}
		end := serving(p, link)
		flying, _ := link.took(t, 3)
		flying[0].answer(broker.Stored)
		synctest.Wait()
		close(link.done)
		flying[1].answer(broker.Unknown)
		flying[2].answer(broker.Unknown)
		if err := end(); !errors.Is(err, broker.ErrLinkGone) {
			t.Errorf("Serve: got %v, want ErrLinkGone", err)
		}
		say(t, p, 4, "a")
		link = newFakeLink()
		end = serving(p, link)
		flying, got := link.took(t, 3)
		if want := "a 2 2\na 3 3\na 4 4\n"; got != want {
			t.Errorf("published %q over the next link, want %q", got, want)
		}
		for _, f := range flying {
			f.answer(broker.Stored)
		}
		if err := end(); err != nil || p.Stats().Again != 2 || p.Stats().Queued != 0 {
			t.Errorf("Serve: %v, %+v; want 2 again and none queued", err, p.Stats())
		}
	})
}

func TestServeEndsWithAnIdleLink(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, link := publisher(t, Options{}), newFakeLink()
		end := serving(p, link)
		close(link.done)
		synctest.Wait()
		if err := end(); !errors.Is(err, broker.ErrLinkGone) {
			t.Errorf("Serve: got %v, want ErrLinkGone", err)
		}
	})
}

func TestTheRestIsPublishedAtTheEndWithinABound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, link := publisher(t, Options{FlushWithin: 3 * time.Second}), newFakeLink()
		link.blocked = make(chan struct{}) // a memory alarm
		for i := range 5 {
			say(t, p, i, "a")
		}
		end := serving(p, link)
		time.AfterFunc(time.Second, func() { close(link.blocked) })
		ended := make(chan error, 1)
		go func() { ended <- end() }()
		time.Sleep(2 * time.Second)
		synctest.Wait()
		flying, _ := link.took(t, 5)
		for _, f := range flying {
			f.answer(broker.Stored)
		}
		if err := <-ended; err != nil || p.Stats().Queued != 0 {
			t.Errorf("Serve: %v with %d queued, want all published after its context", err, p.Stats().Queued)
		}

		link = newFakeLink()
		link.blocked = make(chan struct{})
		say(t, p, 6, "a")
		end = serving(p, link)
		began := time.Now()
		if err := end(); err != nil || time.Since(began) != 3*time.Second || p.Stats().Queued != 1 {
			t.Errorf("Serve: %v after %v with %d queued, want it to give up after 3s", err, time.Since(began), p.Stats().Queued)
		}

		link = newFakeLink() // it takes posts and never answers
		end = serving(p, link)
		began = time.Now()
		if err := end(); err != nil || time.Since(began) != 3*time.Second {
			t.Errorf("Serve: %v after %v, want it to give up after 3s", err, time.Since(began))
		}
	})
}

// TestAThousandGoroutines publishes from many goroutines to shared and own channels, over a link that is cut at times.
func TestAThousandGoroutines(t *testing.T) {
	const writers, each = 1000, 2
	p := publisher(t, Options{QueuedPosts: 5000})
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var mu sync.Mutex
	seen := map[string][]int64{} // numbers by channel, in the order of their first coming
	take := func(link *fakeLink, over <-chan struct{}) {
		for cut := false; ; {
			select {
			case s := <-link.sent:
				mu.Lock()
				seq, _ := s.message.Headers["seq"].(int64)
				all := seen[s.to.Key]
				fresh := !cut && (len(all) == 0 || all[len(all)-1] < seq)
				if fresh {
					seen[s.to.Key] = append(all, seq)
				}
				mu.Unlock()
				if fresh && s.to.Key == "all" && seq%1500 == 0 {
					cut = true
					close(link.done)
				}
				if cut {
					s.answer(broker.Unknown)
				} else {
					s.answer(broker.Stored)
				}
			case <-over:
				return
			}
		}
	}
	var work sync.WaitGroup
	work.Go(func() {
		for ctx.Err() == nil {
			link, over := newFakeLink(), make(chan struct{})
			var taking sync.WaitGroup
			taking.Go(func() { take(link, over) })
			_ = p.Serve(ctx, link)
			close(over)
			taking.Wait()
		}
	})
	var writing sync.WaitGroup
	for w := range writers {
		writing.Go(func() {
			own := wire.Channel(fmt.Sprint("own-", w))
			for i := range each {
				for {
					err := p.Publish(Message{Key: string(own), Body: json.RawMessage(fmt.Sprint(i))}, "all", own)
					if err == nil {
						break
					}
					if !errors.Is(err, ErrFull) {
						t.Error(err)
						return
					}
					time.Sleep(20 * time.Millisecond)
				}
				_ = p.Kept("all")
			}
		})
	}
	writing.Wait()
	for p.Stats().Queued > 0 {
		time.Sleep(time.Millisecond)
	}
	cancel()
	work.Wait()
	if got := len(seen["all"]); got != writers*each {
		t.Errorf("%d posts of the shared channel came in order, want %d", got, writers*each)
	}
	for i, seq := range seen["all"] {
		if seq != int64(i+1) {
			t.Fatalf("post %d of the shared channel has the number %d", i+1, seq)
		}
	}
	if p.Stats().Again == 0 {
		t.Error("no link was cut with posts in flight: the test shows less than it says")
	}
	if len(seen) != writers+1 || p.Stats().Taken != 2*writers*each {
		t.Errorf("%d channels and %+v, want %d channels", len(seen), p.Stats(), writers+1)
	}
}

func TestOverTheMemoryBrokerNobodyIsNoError(t *testing.T) {
	b := memory.New(memory.Options{})
	link, err := b.Join(t.Context(), broker.Runner("backend"))
	if err != nil {
		t.Fatal(err)
	}
	defer link.Close(context.Background())
	p := publisher(t, Options{})
	say(t, p, 1, "a")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := p.Serve(ctx, link); err != nil || p.Stats().Returned != 1 {
		t.Errorf("Serve: %v, %+v; want one post that was returned", err, p.Stats())
	}
}

func TestAnAnswerWithEverythingThatIsKeptFits(t *testing.T) {
	p := publisher(t, Options{})
	var channels []wire.FoundChannel
	for i := range wire.MaxAskedChannels {
		c := wire.Channel(fmt.Sprintf("%s%03d", strings.Repeat("c", wire.MaxChannel-3), i))
		for range 4 {
			say(t, p, strings.Repeat(`\<`, 100+i), c) // takes more bytes than it has
		}
		say(t, p, i, c)
		channels = append(channels, wire.FoundChannel{Channel: c, Subscribers: 1 << 40, Kept: p.Kept(c)})
	}
	fitted := Fit(channels)
	found := &wire.ChannelsFound{Ask: wire.NewRunID(), Name: strings.Repeat("n", 2*wire.MaxID), Channels: fitted}
	encoded := wire.EncodeControl(found)
	if len(encoded) > wire.MaxControl || len(encoded) < wire.MaxControl/2 {
		t.Errorf("the answer has %d bytes, want at most %d and most of that", len(encoded), wire.MaxControl)
	}
	if _, err := wire.DecodeControl(found.ControlType(), encoded); err != nil {
		t.Error(err)
	}
	for i, c := range fitted {
		if len(c.Kept) == 0 || string(c.Kept[len(c.Kept)-1].Body) != fmt.Sprint(i) {
			t.Errorf("channel %d: %d posts, want at least its latest", i, len(c.Kept))
		}
	}
}

func TestAnAnswerAboutOneChannelIsWhole(t *testing.T) {
	p := publisher(t, Options{})
	for i := range 3 {
		say(t, p, strings.Repeat("x", 60_000), "a")
		say(t, p, i, "a")
	}
	whole := p.Kept("a")
	if fitted := Fit([]wire.FoundChannel{{Channel: "a", Kept: whole}}); len(fitted[0].Kept) != len(whole) || len(whole) != 6 {
		t.Errorf("%d of %d posts are in the answer, want all", len(fitted[0].Kept), len(whole))
	}
}
