package memory

import (
	"context"
	"fmt"
	"slices"

	"github.com/wscluster/wscluster/pkg/broker"
	"github.com/wscluster/wscluster/pkg/socketmeta"
	"github.com/wscluster/wscluster/pkg/wire"
)

// Subscriber is the posts that wait for one worker, and what it has bound.
type Subscriber struct {
	server socketmeta.ServerID
	wake   func()
	names  map[string]bool
	all    bool
	posts  []broker.Post // at most broker.MaxWaitingPosts
	bytes  int           // of their bodies, at most broker.MaxWaitingPostBytes
}

// Subscribe makes the place where posts for server wait: ErrLocked if there is one. wake is called when a post was
// put into an empty one; it must neither block nor call the store.
func (s *Store) Subscribe(server socketmeta.ServerID, wake func()) (*Subscriber, error) {
	if slices.ContainsFunc(s.subscribers, func(sub *Subscriber) bool { return sub.server == server }) {
		return nil, broker.ErrLocked
	}
	sub := &Subscriber{server: server, wake: wake, names: map[string]bool{}}
	s.subscribers = append(s.subscribers, sub)
	return sub, nil
}

// Unsubscribe ends it, with all that waits. Doing it again does nothing.
func (s *Store) Unsubscribe(sub *Subscriber) {
	s.subscribers = slices.DeleteFunc(s.subscribers, func(other *Subscriber) bool { return other == sub })
	sub.posts, sub.bytes = nil, 0
}

// spread gives m to all that have bound its channel: Returned if there is none.
func (s *Store) spread(channel string, m broker.Message) broker.Outcome {
	out := broker.Returned
	for _, sub := range s.subscribers {
		if sub.all || sub.names[channel] {
			sub.put(broker.Post{Message: m, Channel: channel})
			out = broker.Stored
		}
	}
	return out
}

func (sub *Subscriber) put(p broker.Post) {
	sub.posts = append(sub.posts, p)
	sub.bytes += len(p.Body)
	for len(sub.posts) > broker.MaxWaitingPosts || sub.bytes > broker.MaxWaitingPostBytes {
		sub.Take()
	}
	if len(sub.posts) == 1 {
		sub.wake()
	}
}

// Take takes the oldest post that waits; false if there is none.
func (sub *Subscriber) Take() (p broker.Post, ok bool) {
	if len(sub.posts) == 0 {
		return broker.Post{}, false
	}
	p = sub.posts[0]
	sub.posts[0] = broker.Post{}
	sub.posts = sub.posts[1:]
	sub.bytes -= len(p.Body)
	return p, true
}

// channels is a subscriber within a link.
type channels struct {
	l   *link
	sub *Subscriber
	out chan broker.Post

	giving bool // guarded by l.b.mu: somebody gives out posts, and closes out when the link ends
}

var _ broker.Channels = (*channels)(nil)

func (l *link) OpenChannels(ctx context.Context, s socketmeta.ServerID) (broker.Channels, error) {
	c := &channels{l: l, out: make(chan broker.Post)}
	err := l.call(ctx, func() (err error) {
		if c.sub, err = l.b.store.Subscribe(s, c.wake); err == nil {
			l.channels = append(l.channels, c)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("open the channels of %s: %w", s, err)
	}
	return c, nil
}

func (c *channels) Posts() <-chan broker.Post { return c.out }

func (c *channels) Bind(ctx context.Context, names ...wire.Channel) error {
	return c.l.call(ctx, func() error {
		for _, name := range names {
			c.sub.names[string(name)] = true
		}
		return nil
	})
}

func (c *channels) Unbind(ctx context.Context, names ...wire.Channel) error {
	return c.l.call(ctx, func() error {
		for _, name := range names {
			delete(c.sub.names, string(name))
		}
		return nil
	})
}

func (c *channels) BindAll(ctx context.Context) error   { return c.bindAll(ctx, true) }
func (c *channels) UnbindAll(ctx context.Context) error { return c.bindAll(ctx, false) }

func (c *channels) bindAll(ctx context.Context, on bool) error {
	return c.l.call(ctx, func() error {
		c.sub.all = on
		return nil
	})
}

// wake sees to it that somebody gives out what waits. b.mu is held.
func (c *channels) wake() {
	if !c.giving && !c.l.stopped {
		c.giving = true
		c.l.answering.Go(c.give)
	}
}

// give gives out posts until none waits.
func (c *channels) give() {
	for {
		p, ok := c.next()
		if !ok {
			return
		}
		select {
		case c.out <- p:
		case <-c.l.stop:
		}
	}
}

func (c *channels) next() (p broker.Post, ok bool) {
	c.l.b.mu.Lock()
	defer c.l.b.mu.Unlock()
	if c.l.stopped {
		close(c.out)
		return p, false
	}
	p, ok = c.sub.Take()
	c.giving = ok
	return p, ok
}

// closed ends it with its link. b.mu is held.
func (c *channels) closed() {
	c.l.b.store.Unsubscribe(c.sub)
	if !c.giving {
		close(c.out)
	}
}
