package hub

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/wscluster/wscluster/internal/engine"
	"github.com/wscluster/wscluster/pkg/broker"
	"github.com/wscluster/wscluster/pkg/broker/memory"
	"github.com/wscluster/wscluster/pkg/socketmeta"
	"github.com/wscluster/wscluster/pkg/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// place is one worker's hub on a broker in memory, with sockets that keep what they are sent.
type place struct {
	*Hub
	t      *testing.T
	broker *memory.Broker
	stop   func()

	mu    sync.Mutex
	ready bool
	link  broker.Link
	kept  map[wire.Channel][]wire.Post
	deaf  chan struct{} // if not nil: it does not answer before this is closed
	got   map[engine.ConnRef][]wire.ServerMessage
	calls []string // to the broker's channels
}

// spied notes the calls to a worker's channels.
type spied struct {
	broker.Link
	p *place
}

type spiedChannels struct {
	broker.Channels
	p *place
}

func (l spied) OpenChannels(ctx context.Context, s socketmeta.ServerID) (broker.Channels, error) {
	c, err := l.Link.OpenChannels(ctx, s)
	return spiedChannels{c, l.p}, err
}

func (c spiedChannels) call(format string, args ...any) {
	c.p.mu.Lock()
	defer c.p.mu.Unlock()
	c.p.calls = append(c.p.calls, fmt.Sprintf(format, args...))
}

func (c spiedChannels) Bind(ctx context.Context, names ...wire.Channel) error {
	c.call("bind %v", names)
	return c.Channels.Bind(ctx, names...)
}

func (c spiedChannels) Unbind(ctx context.Context, names ...wire.Channel) error {
	c.call("unbind %v", names)
	return c.Channels.Unbind(ctx, names...)
}

func (c spiedChannels) BindAll(ctx context.Context) error {
	c.call("bind all")
	return c.Channels.BindAll(ctx)
}

func (c spiedChannels) UnbindAll(ctx context.Context) error {
	c.call("unbind all")
	return c.Channels.UnbindAll(ctx)
}

// start runs a hub as a worker does, within a bubble.
func start(t *testing.T, b *memory.Broker, id socketmeta.ServerID) *place {
	p := &place{t: t, broker: b, ready: true, kept: map[wire.Channel][]wire.Post{}, got: map[engine.ConnRef][]wire.ServerMessage{}}
	p.Hub = New(Options{
		Server: id, Socket: p, Say: p.say,
		Status: func() Status {
			p.mu.Lock()
			defer p.mu.Unlock()
			return Status{Ready: p.ready, Connections: 1, Sessions: 2}
		},
		Kept: func(ch wire.Channel) []wire.Post {
			p.mu.Lock()
			posts, deaf := p.kept[ch], p.deaf
			p.mu.Unlock()
			if deaf != nil {
				<-deaf
			}
			return posts
		},
	})
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := p.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	wg.Go(func() {
		_ = broker.Keep(ctx, b, broker.Worker(id), broker.KeepOptions{}, func(ctx context.Context, l broker.Link) error {
			p.mu.Lock()
			p.link = l
			p.mu.Unlock()
			var hearing sync.WaitGroup
			defer hearing.Wait()
			hearing.Go(func() {
				for {
					select {
					case m := <-l.Inbox():
						if c, err := wire.DecodeControl(m.Type, m.Body); err == nil {
							p.Hear(c)
						}
					case <-ctx.Done():
						return
					}
				}
			})
			return p.Serve(ctx, spied{l, p})
		})
	})
	p.stop = sync.OnceFunc(func() { cancel(); wg.Wait() })
	t.Cleanup(p.stop)
	synctest.Wait()
	return p
}

func (p *place) say(to broker.Address, m wire.ControlMessage) {
	p.mu.Lock()
	l := p.link
	p.mu.Unlock()
	if l != nil {
		_, _ = l.Publish(context.Background(), to, broker.Message{Type: m.ControlType(), Body: wire.EncodeControl(m), Transient: true})
	}
}

func (p *place) Send(c engine.ConnRef, f *engine.Frame) error {
	m, err := wire.DecodeServer(f.Payload())
	if err != nil {
		p.t.Errorf("a frame cannot be read: %v", err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.got[c] = append(p.got[c], m)
	return nil
}

func (p *place) Offer(c engine.ConnRef, f *engine.Frame) error { return p.Send(c, f) }

func (p *place) Broadcast(f *engine.Frame, cs []engine.ConnRef, failed []engine.Failure) []engine.Failure {
	return offerEach(p, f, cs, failed)
}

func (p *place) CloseConn(engine.ConnRef, engine.StatusCode, string, *engine.Frame) {}

// took returns what a connection was sent since it was asked last.
func (p *place) took(c engine.ConnRef) []wire.ServerMessage {
	p.mu.Lock()
	defer p.mu.Unlock()
	got := p.got[c]
	p.got[c] = nil
	return got
}

// say1 is a message as a short text.
func say1(m wire.ServerMessage) string {
	switch m := m.(type) {
	case *wire.Subscribed:
		return fmt.Sprintf("subscribed %s %d %v", m.Channel, m.Snapshot, m.Partial)
	case *wire.Post:
		return string(m.Body)
	case *wire.Missed:
		return fmt.Sprintf("missed %d %s", m.Count, m.Reason)
	}
	return fmt.Sprintf("%T", m)
}

// want compares what a connection was sent.
func (p *place) want(c engine.ConnRef, want ...string) {
	p.t.Helper()
	var got []string
	for _, m := range p.took(c) {
		got = append(got, say1(m))
	}
	if !slices.Equal(got, want) {
		p.t.Errorf("connection %d got %q, want %q", c, got, want)
	}
}

// keeps sets what the worker's own publisher keeps of a channel.
func (p *place) keeps(ch wire.Channel, posts ...wire.Post) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.kept[ch] = posts
}

// publish publishes as a publisher that counts would.
func publish(t *testing.T, b *memory.Broker, posts ...wire.Post) {
	t.Helper()
	l, err := b.Join(t.Context(), broker.Runner("publisher"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close(context.Background())
	for _, p := range posts {
		if _, err := l.Publish(t.Context(), broker.ToChannel(p.Channel), broker.Message{Type: p.Name, Headers: p.Headers(), Body: p.Body}); err != nil {
			t.Fatal(err)
		}
	}
	synctest.Wait()
}

var stream1 = wire.NewRunID()

func counted(ch wire.Channel, seq int64) wire.Post {
	return wire.Post{Channel: ch, Publisher: "p", Stream: stream1, Seq: seq, Time: wire.Time{Time: time.Now()}, Body: json.RawMessage(fmt.Sprint(seq))}
}

func after(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// inBubble runs a test with a broker, in a world whose workers have known each other for a while.
func inBubble(t *testing.T, test func(t *testing.T, b *memory.Broker)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { test(t, memory.New(memory.Options{})) })
}

func TestASubscriptionBindsItsChannelAndLingers(t *testing.T) {
	inBubble(t, func(t *testing.T, b *memory.Broker) {
		p := start(t, b, "i1-w1")
		after(newLink)
		p.Subscribe(1, &wire.Subscribe{Channel: "a"})
		synctest.Wait()
		p.want(1, "subscribed a 0 false") // nobody else is there: nobody is waited for
		publish(t, b, counted("a", 1), counted("b", 1))
		p.want(1, "1")
		p.Gone(1)
		after(lingerFor - time.Second)
		p.Subscribe(2, &wire.Subscribe{Channel: "a"})
		p.want(2, "subscribed a 1 false", "1")
		p.Unsubscribe(2, &wire.Unsubscribe{Channel: "a"})
		after(lingerFor + time.Second)
		if got, want := p.calls, []string{"bind [a]", "unbind [a]"}; !slices.Equal(got, want) {
			t.Errorf("calls %q, want %q", got, want)
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		if n := len(p.core.channels) + len(p.core.conns) + p.core.subs + p.core.rings + p.core.named + p.core.busy; n != 0 {
			t.Errorf("something is left: %+v", p.core)
		}
	})
}

func TestASnapshotIsWhatAllPublishersKeep(t *testing.T) {
	inBubble(t, func(t *testing.T, b *memory.Broker) {
		p1, p2 := start(t, b, "i1-w1"), start(t, b, "i1-w2")
		after(newLink)
		now := time.Now()
		kept := func(publisher string, seq int64, key, body string, ago time.Duration) wire.Post {
			return wire.Post{Channel: "a", Publisher: publisher, Stream: stream1, Seq: seq, Key: key, Time: wire.Time{Time: now.Add(-ago)}, Body: json.RawMessage(body)}
		}
		p1.keeps("a", kept("i1-w1", 4, "", `"own"`, 2*time.Second), kept("i1-w1", 9, "k", `"newer"`, time.Second))
		p2.keeps("a", kept("i1-w2", 1, "k", `"older"`, 3*time.Second), kept("i1-w2", 2, "", `"other"`, 0))
		p1.Subscribe(1, &wire.Subscribe{Channel: "a"})
		synctest.Wait()
		p1.want(1, "subscribed a 3 false", `"own"`, `"newer"`, `"other"`)
	})
}

func TestAPublisherThatDoesNotAnswerIsAskedAgain(t *testing.T) {
	inBubble(t, func(t *testing.T, b *memory.Broker) {
		p1, p2 := start(t, b, "i1-w1"), start(t, b, "i1-w2")
		after(newLink)
		deaf := make(chan struct{})
		p2.keeps("a", counted("a", 3))
		p2.mu.Lock()
		p2.deaf = deaf
		p2.mu.Unlock()
		p1.Subscribe(1, &wire.Subscribe{Channel: "a"})
		after(answerWithin - tickEvery)
		p1.want(1)
		after(2 * tickEvery)
		p1.want(1, "subscribed a 0 true")
		close(deaf)
		synctest.Wait()
		p1.want(1, "3") // late, and of use
		after(retryAfter[0])
		p1.Subscribe(2, &wire.Subscribe{Channel: "a"})
		p1.want(2, "subscribed a 1 false", "3")
	})
}

func TestWithoutABrokerASubscriberIsAnsweredAllTheSame(t *testing.T) {
	inBubble(t, func(t *testing.T, b *memory.Broker) {
		b.Down(true)
		p := start(t, b, "i1-w1")
		p.keeps("a", counted("a", 1))
		p.Subscribe(1, &wire.Subscribe{Channel: "a"})
		after(bindWithin - tickEvery)
		p.want(1)
		after(2 * tickEvery)
		p.want(1, "subscribed a 0 true")
		b.Down(false)
		after(6 * time.Second)
		p.want(1, "missed 0 lost", "1")
	})
}

func TestALostLinkIsToldAndWhatPublishersKeepIsMerged(t *testing.T) {
	inBubble(t, func(t *testing.T, b *memory.Broker) {
		p := start(t, b, "i1-w1")
		after(newLink)
		p.Subscribe(1, &wire.Subscribe{Channel: "a"})
		synctest.Wait()
		publish(t, b, counted("a", 1), counted("a", 2))
		p.want(1, "subscribed a 0 false", "1", "2")
		b.Cut(broker.Worker("i1-w1"))
		synctest.Wait()
		publish(t, b, counted("a", 3), counted("a", 4))
		p.keeps("a", counted("a", 2), counted("a", 4))
		after(5 * time.Second)
		p.want(1, "missed 0 lost", "4")
		publish(t, b, counted("a", 4), counted("a", 5), counted("a", 7))
		p.want(1, "5", "missed 1 lost", "7")
	})
}

func TestBeyondItsLimitAWorkerIsBoundToAllChannels(t *testing.T) {
	inBubble(t, func(t *testing.T, b *memory.Broker) {
		p := start(t, b, "i1-w1")
		after(newLink)
		p.do(func(c *core) { c.limits.named, c.limits.backNamed = 3, 2 })
		for i := range 5 {
			p.Subscribe(engine.ConnRef(i+1), &wire.Subscribe{Channel: wire.Channel("abcde"[i : i+1])})
			synctest.Wait()
		}
		publish(t, b, counted("a", 1), counted("e", 1), counted("f", 1))
		p.want(1, "subscribed a 0 false", "1")
		p.want(5, "subscribed e 0 false", "1")
		for i := range 4 {
			p.Gone(engine.ConnRef(i + 1))
		}
		after(lingerFor + time.Second)
		publish(t, b, counted("e", 2), counted("a", 2))
		p.want(5, "2")
		last := p.calls[len(p.calls)-1]
		slices.Sort(p.calls[:len(p.calls)-1])
		if want := []string{"bind [a]", "bind [b]", "bind [c]", "bind [e]", "bind all"}; !slices.Equal(p.calls[:5], want) || !slices.Contains(p.calls, "unbind all") {
			t.Errorf("calls %q, ..., %q; want those, and unbind all", p.calls, last)
		}
	})
}

func TestWorkersTellEachOtherThatTheyAreThere(t *testing.T) {
	inBubble(t, func(t *testing.T, b *memory.Broker) {
		p1 := start(t, b, "i1-w1")
		after(10 * time.Second)
		p2 := start(t, b, "i1-w2")
		servers := func(p *place) (names []string) {
			for _, w := range p.Engine(t.Context()).Workers {
				names = append(names, fmt.Sprintf("%s %v", w.Server, w.Ready))
			}
			return names
		}
		both := []string{"i1-w1 true", "i1-w2 true"}
		if a, b := servers(p1), servers(p2); !slices.Equal(a, both) || !slices.Equal(b, both) {
			t.Errorf("at once: %v and %v, want both", a, b)
		}
		p2.mu.Lock()
		p2.ready = false
		p2.mu.Unlock()
		after(lookEvery)
		if got := servers(p1); !slices.Equal(got, []string{"i1-w1 true", "i1-w2 false"}) {
			t.Errorf("after one is not ready: %v", got)
		}
		p2.Leave()
		after(hereEvery)
		if got := servers(p1); !slices.Equal(got, []string{"i1-w1 true"}) {
			t.Errorf("after one has left: %v", got)
		}
		p3 := start(t, b, "i1-w3")
		p3.stop() // without a word
		if got := servers(p1); len(got) != 2 {
			t.Errorf("with a third: %v", got)
		}
		after(forgetAfter + time.Second)
		if got := servers(p1); len(got) != 1 {
			t.Errorf("long after the third died: %v", got)
		}
	})
}

func TestPresenceWaitsForAllWorkersAndSaysIfOneIsSilent(t *testing.T) {
	inBubble(t, func(t *testing.T, b *memory.Broker) {
		p1, p2 := start(t, b, "i1-w1"), start(t, b, "i1-w2")
		after(newLink)
		p1.Subscribe(1, &wire.Subscribe{Channel: "a"})
		p2.Subscribe(1, &wire.Subscribe{Channel: "a"})
		p2.Subscribe(2, &wire.Subscribe{Channel: "a"})
		synctest.Wait()
		began := time.Now()
		if n, partial, err := p1.Presence(t.Context(), "a"); n != 3 || partial || err != nil || time.Since(began) > 0 {
			t.Errorf("%d, partial %v, %v after %v; want 3 at once", n, partial, err, time.Since(began))
		}
		p2.stop()
		began = time.Now()
		if n, partial, err := p1.Presence(t.Context(), "a"); n != 1 || !partial || err != nil || time.Since(began) != answerWithin {
			t.Errorf("with a worker that died: %d, partial %v, %v after %v; want 1, partial, after %v", n, partial, err, time.Since(began), answerWithin)
		}
		b.Down(true)
		synctest.Wait()
		if n, partial, err := p1.Presence(t.Context(), "a"); n != 1 || !partial || err != nil {
			t.Errorf("without a broker: %d, partial %v, %v; want 1, partial", n, partial, err)
		}
	})
}

func TestPresenceDoesNotAskForPosts(t *testing.T) {
	inBubble(t, func(t *testing.T, b *memory.Broker) {
		p := start(t, b, "i1-w1")
		p.keeps("a", counted("a", 1))
		if m := p.found(wire.NewRunID(), []wire.Channel{"a"}, true); len(m.Channels) != 0 {
			t.Errorf("count_only: %+v, want nothing", m.Channels)
		}
		if m := p.found(wire.NewRunID(), []wire.Channel{"a"}, false); len(m.Channels) != 1 || len(m.Channels[0].Kept) != 1 {
			t.Errorf("%+v, want the post that is kept", m.Channels)
		}
	})
}

func TestAPostThatCannotBeReadIsCountedAndPassedOver(t *testing.T) {
	inBubble(t, func(t *testing.T, b *memory.Broker) {
		p := start(t, b, "i1-w1")
		after(newLink)
		p.Subscribe(1, &wire.Subscribe{Channel: "a"})
		synctest.Wait()
		bad := counted("a", 1)
		bad.Body = json.RawMessage("{")
		publish(t, b, bad, counted("a", 2))
		p.want(1, "subscribed a 0 false", "2")
		if n := p.bad.Load(); n != 1 {
			t.Errorf("%d bad posts are counted, want 1", n)
		}
	})
}
