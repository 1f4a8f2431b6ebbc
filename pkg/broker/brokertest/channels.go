package brokertest

import (
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/wscluster/wscluster/pkg/broker"
	"github.com/wscluster/wscluster/pkg/wire"
)

// postsSlack is how many posts may be on their way to a worker, beside those that wait.
const postsSlack = 500

// channel names a channel that no other test uses.
func (c *testCase) channel() wire.Channel {
	c.count++
	return wire.Channel(fmt.Sprintf("%s.c%d", c.name, c.count))
}

// subscriber joins as a fresh worker and opens its channels.
func (c *testCase) subscriber() (broker.Link, broker.Channels) {
	c.Helper()
	s := c.server()
	l := c.joinAs(c.Broker(), broker.Worker(s))
	ch, err := l.OpenChannels(c.ctx, s)
	if err != nil {
		c.Fatalf("open the channels of %s: %v", s, err)
	}
	return l, ch
}

func (c *testCase) bindNames(ch broker.Channels, names ...wire.Channel) {
	c.Helper()
	if err := ch.Bind(c.ctx, names...); err != nil {
		c.Fatalf("bind: %v", err)
	}
}

func (c *testCase) unbindNames(ch broker.Channels, names ...wire.Channel) {
	c.Helper()
	if err := ch.Unbind(c.ctx, names...); err != nil {
		c.Fatalf("unbind: %v", err)
	}
}

func (c *testCase) bindAll(ch broker.Channels) {
	c.Helper()
	if err := ch.BindAll(c.ctx); err != nil {
		c.Fatalf("bind all: %v", err)
	}
}

func (c *testCase) unbindAll(ch broker.Channels) {
	c.Helper()
	if err := ch.UnbindAll(c.ctx); err != nil {
		c.Fatalf("unbind all: %v", err)
	}
}

// post publishes a small post and wants that outcome.
func (c *testCase) post(l broker.Link, to wire.Channel, id string, want broker.Outcome) {
	c.Helper()
	r := c.publish(l, broker.ToChannel(to), broker.Message{ID: id, Transient: true, Body: []byte(`{}`)})
	if o := c.await(r); o != want {
		c.Fatalf("post %q to %s: %v, want %v", id, to, o, want)
	}
}

// nextPost returns the next post.
func (c *testCase) nextPost(ch broker.Channels) broker.Post {
	c.Helper()
	select {
	case p, ok := <-ch.Posts():
		if !ok {
			c.Fatal("the posts ended")
		}
		return p
	case <-time.After(patience):
		c.Fatal("no post came")
	}
	panic("unreachable")
}

// hears takes posts of a channel with these IDs, in this order.
func (c *testCase) hears(ch broker.Channels, channel wire.Channel, ids ...string) {
	c.Helper()
	for i, id := range ids {
		if p := c.nextPost(ch); p.ID != id || p.Channel != string(channel) {
			c.Fatalf("post %d: got %q of %s, want %q of %s", i+1, p.ID, p.Channel, id, channel)
		}
	}
}

// hearsNothing sees that no post comes for a while.
func (c *testCase) hearsNothing(ch broker.Channels) {
	c.Helper()
	select {
	case p, ok := <-ch.Posts():
		if !ok {
			c.Fatal("the posts ended")
		}
		c.Fatalf("unexpected post %q of %s", p.ID, p.Channel)
	case <-time.After(c.Quiet):
	}
}

func postArrivesAsItWasSent(c *testCase) {
	l := c.join()
	_, ch := c.subscriber()
	channel := c.channel()
	c.bindNames(ch, channel)
	for name, sent := range map[string]broker.Message{
		"nothing in it": {},
		"everything in it": {
			ID: "id", Type: "type", Correlation: "task-1", App: "app", Transient: true,
			Time:    time.Date(2026, 10, 18, 9, 30, 15, 0, time.UTC),
			Headers: map[string]any{"n": int64(1), "s": "x", "b": true},
			Body:    []byte(`{"to":"many"}`),
		},
	} {
		if o := c.await(c.publish(l, broker.ToChannel(channel), sent)); o != broker.Stored {
			c.Fatalf("%s: %v, want stored", name, o)
		}
		p := c.nextPost(ch)
		c.same(name, p.Message, sent)
		if p.Channel != string(channel) {
			c.Errorf("%s: of channel %q, want %q", name, p.Channel, channel)
		}
	}
}

// postsOfBoundChannelsCome, from the moment that Bind has returned until Unbind has.
func postsOfBoundChannelsCome(c *testCase) {
	l := c.join()
	_, ch := c.subscriber()
	other := c.channel()
	for range 50 {
		channel := c.channel()
		c.post(l, channel, "early", broker.Returned)
		c.bindNames(ch, channel)
		c.bindNames(ch, channel) // which changes nothing
		c.post(l, channel, "1", broker.Stored)
		c.post(l, other, "other", broker.Returned)
		c.post(l, channel, "2", broker.Stored)
		c.hears(ch, channel, "1", "2")
		c.unbindNames(ch, channel)
		c.unbindNames(ch, channel)
		c.post(l, channel, "late", broker.Returned)
	}
	c.bindNames(ch)
	c.unbindNames(ch)
	c.hearsNothing(ch)
}

// manyChannelsAreBoundAtOnce; and what one goroutine publishes comes in its order, whatever the channel.
func manyChannelsAreBoundAtOnce(c *testCase) {
	const many = 1201
	l := c.join()
	_, ch := c.subscriber()
	var names []wire.Channel
	for range many {
		names = append(names, c.channel())
	}
	c.bindNames(ch, names...)
	for i, name := range names {
		c.publish(l, broker.ToChannel(name), broker.Message{ID: strconv.Itoa(i), Transient: true})
	}
	for i, name := range names {
		c.hears(ch, name, strconv.Itoa(i))
	}
	c.unbindNames(ch, names[:many-1]...)
	c.post(l, names[0], "first", broker.Returned)
	c.post(l, names[many-2], "last but one", broker.Returned)
	c.post(l, names[many-1], "last", broker.Stored)
	c.hears(ch, names[many-1], "last")
}

// postComesOnce, however it is bound.
func postComesOnce(c *testCase) {
	l := c.join()
	_, ch := c.subscriber()
	named, other := c.channel(), c.channel()
	c.bindNames(ch, named)
	c.bindAll(ch)
	c.bindAll(ch)
	c.post(l, named, "both", broker.Stored)
	c.post(l, other, "all", broker.Stored)
	c.hears(ch, named, "both")
	c.hears(ch, other, "all")
	c.unbindNames(ch, named)
	c.post(l, named, "only all", broker.Stored)
	c.hears(ch, named, "only all")
	c.bindNames(ch, named)
	c.unbindAll(ch)
	c.unbindAll(ch)
	c.post(l, other, "nobody", broker.Returned)
	c.post(l, named, "only named", broker.Stored)
	c.hears(ch, named, "only named")
	c.hearsNothing(ch)
}

func everyWorkerGetsAPost(c *testCase) {
	_, a := c.subscriber()
	l, b := c.subscriber()
	_, deaf := c.subscriber()
	channel := c.channel()
	c.bindNames(a, channel)
	c.bindAll(b)
	c.post(l, channel, "1", broker.Stored)
	c.hears(a, channel, "1")
	c.hears(b, channel, "1") // also its own
	c.unbindNames(a, channel)
	c.post(l, channel, "2", broker.Stored)
	c.hears(b, channel, "2")
	c.hearsNothing(a)
	c.hearsNothing(deaf)
}

// postOfNobodyIsReturned, and that is no fault.
func postOfNobodyIsReturned(c *testCase) {
	l, ch := c.subscriber()
	channel := c.channel()
	for range 100 {
		c.post(l, channel, "nobody", broker.Returned)
	}
	c.bindNames(ch, channel)
	c.post(l, channel, "somebody", broker.Stored)
	c.hears(ch, channel, "somebody")
	if l.Err() != nil {
		c.Errorf("the link ended: %v", l.Err())
	}
}

func postsKeepTheirPublishersOrder(c *testCase) {
	const publishers, each = 8, 300
	_, ch := c.subscriber()
	links := []broker.Link{c.join(), c.join()}
	channel := c.channel()
	c.bindNames(ch, channel)
	c.bindAll(ch)
	var wg sync.WaitGroup
	defer wg.Wait() // also when the test fails before
	for p := range publishers {
		wg.Go(func() {
			for i := range each {
				_, err := links[p%2].Publish(c.ctx, broker.ToChannel(channel), broker.Message{
					Transient: true, Headers: map[string]any{"p": int64(p), "i": int64(i)},
				})
				if err != nil {
					c.Errorf("publisher %d: %v", p, err)
					return
				}
			}
		})
	}
	var next [publishers]int64
	for range publishers * each {
		got := c.nextPost(ch)
		p, i := got.Headers["p"].(int64), got.Headers["i"].(int64)
		if i != next[p] {
			c.Fatalf("publisher %d: post %d, want %d", p, i, next[p])
		}
		next[p]++
	}
	wg.Wait()
	c.hearsNothing(ch)
}

// unreadPostsDropTheOldest, and hold up nothing else of the link.
func unreadPostsDropTheOldest(c *testCase) {
	const sent = broker.MaxWaitingPosts + 2*postsSlack
	l := c.join()
	reader, ch := c.subscriber()
	s := c.server()
	m := c.own(reader, s, 10)
	channel := c.channel()
	c.bindNames(ch, channel)
	var last broker.Receipt
	for i := range sent {
		last = c.publish(l, broker.ToChannel(channel), broker.Message{ID: strconv.Itoa(i), Transient: true})
	}
	if o := c.await(last); o != broker.Stored {
		c.Fatalf("the last post: %v, want stored", o)
	}
	c.store(l, broker.ToMailbox(s), ids("m", 1, 100)...)
	for _, id := range ids("m", 1, 100) {
		c.ack(m, c.expect(m, id)...)
	}

	got, number := 0, -1
	for number < sent-1 {
		n, err := strconv.Atoi(c.nextPost(ch).ID)
		if err != nil || n <= number {
			c.Fatalf("post %d after post %d: %v", n, number, err)
		}
		if n > number+1 && n < sent-broker.MaxWaitingPosts {
			c.Fatalf("post %d came, and %d before it did not: the oldest go first", n, number+1)
		}
		got, number = got+1, n
	}
	if got < broker.MaxWaitingPosts || got > broker.MaxWaitingPosts+postsSlack {
		c.Errorf("%d of %d posts came, want %d and at most %d on their way", got, sent, broker.MaxWaitingPosts, postsSlack)
	}
	c.post(l, channel, "next", broker.Stored)
	c.hears(ch, channel, "next")
}

func unreadPostsAreBoundedInBytes(c *testCase) {
	const fit = broker.MaxWaitingPostBytes / wire.MaxPost
	const sent = fit + fit/2
	l := c.join()
	_, ch := c.subscriber()
	channel := c.channel()
	c.bindNames(ch, channel)
	body := make([]byte, wire.MaxPost)
	for i := range sent {
		r := c.publish(l, broker.ToChannel(channel), broker.Message{ID: strconv.Itoa(i), Transient: true, Body: body})
		if i%32 == 31 {
			c.await(r)
		}
	}
	got := 1
	for c.nextPost(ch).ID != strconv.Itoa(sent-1) {
		got++
	}
	if got < fit || got > fit+postsSlack || got == sent {
		c.Errorf("%d of %d posts of %d bytes came, want %d and at most %d on their way", got, sent, len(body), fit, postsSlack)
	}
}

func channelsAreOpenedOnce(c *testCase) {
	b, s := c.Broker(), c.server()
	l := c.joinAs(b, broker.Worker(s))
	ch, err := l.OpenChannels(c.ctx, s)
	if err != nil {
		c.Fatal(err)
	}
	for name, l := range map[string]broker.Link{"this": l, "another": c.join()} {
		if _, err := l.OpenChannels(c.ctx, s); !errors.Is(err, broker.ErrLocked) {
			c.Errorf("opened by %s link again: %v, want ErrLocked", name, err)
		}
	}
	channel := c.channel()
	c.bindNames(ch, channel)
	c.post(l, channel, "1", broker.Stored)
	c.hears(ch, channel, "1")
	c.closeLink(l)

	again := c.joinAs(b, broker.Worker(s))
	c.soon("open the channels again", broker.ErrLocked, func() error {
		ch, err = again.OpenChannels(c.ctx, s)
		return err
	})
	c.post(again, channel, "2", broker.Returned)
	c.bindNames(ch, channel)
	c.post(again, channel, "3", broker.Stored)
	c.hears(ch, channel, "3")
}

func channelsEndWithTheirLink(c *testCase) {
	l := c.join()
	for name, end := range map[string]func(broker.Link){"close": c.closeLink, "cut": c.cut} {
		idle, quiet := c.subscriber()
		end(idle)
		drained(c, "posts of an idle one after "+name, quiet.Posts())
		ending, ch := c.subscriber()
		channel := c.channel()
		c.bindNames(ch, channel)
		c.bindAll(ch)
		for _, id := range ids("unread", 1, 10) {
			c.post(l, channel, id, broker.Stored)
		}
		end(ending)
		drained(c, "posts after "+name, ch.Posts())
		for what, call := range map[string]func() error{
			"bind":       func() error { return ch.Bind(c.ctx, channel) },
			"unbind":     func() error { return ch.Unbind(c.ctx, channel) },
			"bind all":   func() error { return ch.BindAll(c.ctx) },
			"unbind all": func() error { return ch.UnbindAll(c.ctx) },
			"open": func() error {
				_, err := ending.OpenChannels(c.ctx, c.server())
				return err
			},
		} {
			if err := call(); !errors.Is(err, broker.ErrLinkGone) {
				c.Errorf("%s after %s: got %v, want ErrLinkGone", what, name, err)
			}
		}
		stored := errors.New("still stored")
		c.soon("posts to a worker that left", stored, func() error {
			if c.outcome(l, broker.ToChannel(channel), "late") == broker.Stored {
				return stored
			}
			return nil
		})
		if _, err := ending.Publish(c.ctx, broker.ToChannel(channel), broker.Message{}); !errors.Is(err, broker.ErrLinkGone) {
			c.Errorf("post after %s: got %v, want ErrLinkGone", name, err)
		}
	}
}

// channelsAreSafeForConcurrentUse: each goroutine binds, posts and unbinds channels of its own.
func channelsAreSafeForConcurrentUse(c *testCase) {
	const goroutines, rounds = 20, 10
	l, ch := c.subscriber()
	var names [goroutines]wire.Channel
	for g := range names {
		names[g] = c.channel()
	}
	var wg sync.WaitGroup
	defer wg.Wait() // also when the test fails before
	for g, name := range names {
		wg.Go(func() {
			for i := range rounds {
				if err := ch.Bind(c.ctx, name); err != nil {
					c.Errorf("bind: %v", err)
				}
				for id, want := range []broker.Outcome{broker.Stored, broker.Returned} {
					r, err := l.Publish(c.ctx, broker.ToChannel(name), broker.Message{ID: strconv.Itoa(2*i + id), Transient: true})
					if err != nil {
						c.Errorf("post: %v", err)
						return
					}
					if o, err := broker.Await(c.ctx, r); o != want {
						c.Errorf("goroutine %d, round %d: %v, %v, want %v", g, i, o, err, want)
					}
					if err := ch.Unbind(c.ctx, name); err != nil {
						c.Errorf("unbind: %v", err)
					}
				}
			}
		})
	}
	next := map[string]int{}
	for range goroutines * rounds {
		p := c.nextPost(ch)
		if want := strconv.Itoa(2 * next[p.Channel]); p.ID != want {
			c.Errorf("%s: post %q, want %q", p.Channel, p.ID, want)
		}
		next[p.Channel]++
	}
	wg.Wait()
	c.hearsNothing(ch)
}
