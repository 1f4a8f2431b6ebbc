package wsclient

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"

	"github.com/wscluster/wscluster/pkg/wire"
)

// Errors of subscriptions.
var (
	ErrSubscribed   = errors.New("this client is subscribed to the channel already")
	ErrUnsubscribed = errors.New("the subscription was ended by Unsubscribe")
)

// SubscribeOptions are what a subscription may need.
type SubscribeOptions struct {
	Grant string // a ticket that allows it, where not everybody may; shown again on each new connection
}

// Subscription is one channel of one client, until Unsubscribe or the end of Run. After a lost connection it
// subscribes again by itself. Its methods are safe for concurrent use.
type Subscription struct {
	c       *Client
	channel wire.Channel
	grant   string

	begun chan struct{} // closed when the server has subscribed us the first time
	wake  chan struct{} // cap 1: there is a message to take
	taker chan struct{} // cap 1: holds a token while somebody takes the messages
	over  chan struct{} // closed when nothing more will come; err may be read then
	err   error

	// The rest is guarded by Client.mu.
	id      string    // of the question that was sent last
	sent    *socket   // where it was; nil if it is to be sent again at again
	again   time.Time // not sent before
	refused int       // in a row
	on      *socket   // where we are subscribed
	feed    feed
}

// Prefixes of request IDs.
const (
	subscribePrefix = "sub:"
	presencePrefix  = "presence:"
)

// Subscribe asks for the posts of a channel and waits until they come; the snapshot is the first that Messages
// yields. It waits through lost connections. A refusal is a *wire.Error, a second subscription to
// one channel ErrSubscribed. If ctx ends or Run returns first, there is no subscription.
//
// A subscription that is refused on a later connection asks again with the backoff of sockets if the refusal is
// retryable, and is over if it is not, as with a Grant that has expired: Err says so.
func (c *Client) Subscribe(ctx context.Context, channel wire.Channel, o SubscribeOptions) (*Subscription, error) {
	s := &Subscription{
		c: c, channel: channel, grant: o.Grant, feed: feed{channel: channel},
		begun: make(chan struct{}), wake: make(chan struct{}, 1), taker: make(chan struct{}, 1), over: make(chan struct{}),
	}
	if err := c.beginSubscription(s); err != nil {
		return nil, fmt.Errorf("subscribe to %.200s: %w", channel, err)
	}
	var err error
	select {
	case <-s.begun:
		return s, nil
	case <-s.over:
		err = s.err
	case <-c.done:
		err = c.err
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	s.Unsubscribe()
	return nil, fmt.Errorf("subscribe to %s: %w", channel, err)
}

func (c *Client) beginSubscription(s *Subscription) error {
	if err := checkChannel(s.channel, s.grant); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.subs[s.channel] != nil {
		return ErrSubscribed
	}
	c.subs[s.channel] = s
	c.poke()
	return nil
}

func checkChannel(channel wire.Channel, grant string) error {
	if _, err := wire.ParseChannel(string(channel)); err != nil {
		return err
	}
	if len(grant) > wire.MaxToken {
		return fmt.Errorf("the grant has %d bytes and may have %d", len(grant), wire.MaxToken)
	}
	return nil
}

// Channel returns the channel's name.
func (s *Subscription) Channel() wire.Channel { return s.channel }

// Done is closed when nothing more will come.
func (s *Subscription) Done() <-chan struct{} { return s.over }

// Err says why nothing more will come: ErrUnsubscribed, or the refusal of a later connection. It is nil before Done.
func (s *Subscription) Err() error {
	select {
	case <-s.over:
		return s.err
	default:
		return nil
	}
}

// Messages yields what the channel tells, in order. It ends when ctx ends, when the subscription or Run is over
// and nothing is left; another loop goes on where one ended. One loop takes the messages at a time; a second one waits.
//
// What the application has not taken is bounded: 1,000 messages and 4 MiB. Beyond that the oldest are dropped, and
// told as missed.
func (s *Subscription) Messages(ctx context.Context) iter.Seq[Message] {
	return func(yield func(Message) bool) {
		select {
		case s.taker <- struct{}{}:
			defer func() { <-s.taker }()
		case <-ctx.Done():
			return
		}
		for {
			for m, ok := s.take(); ok; m, ok = s.take() {
				if !yield(m) {
					return
				}
			}
			select {
			case <-s.wake:
				continue
			case <-s.over:
			case <-s.c.done:
			case <-ctx.Done():
				return
			}
			select {
			case <-s.wake: // something came before the end
			default:
				return
			}
		}
	}
}

func (s *Subscription) take() (Message, bool) {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	return s.feed.take()
}

// Unsubscribe ends the subscription at once and does not wait for the server: no post of it is added any more.
func (s *Subscription) Unsubscribe() {
	s.c.mu.Lock()
	defer s.c.mu.Unlock()
	s.end(ErrUnsubscribed)
}

// end ends s, if it has not ended, and has the server told if it may think that we are subscribed. Guarded by c.mu.
func (s *Subscription) end(err error) {
	if s.c.subs[s.channel] != s {
		return
	}
	delete(s.c.subs, s.channel)
	s.err = err
	close(s.over)
	if sock := s.c.sock; sock != nil && s.sent == sock {
		sock.leave = append(sock.leave, s.channel)
		s.c.poke()
	}
}

// subscribe says on sock what it has not been told of the subscriptions: first those that ended. Guarded by c.mu.
func (c *Client) subscribe(sock *socket, now time.Time, t *turn) {
	for _, channel := range sock.leave {
		t.messages = append(t.messages, &wire.Unsubscribe{Channel: channel})
	}
	sock.leave = nil
	for _, s := range c.subs {
		switch {
		case s.sent == sock:
		case now.Before(s.again):
			t.wake(s.again)
		default:
			c.asked++
			s.sent, s.id = sock, subscribePrefix+strconv.FormatUint(c.asked, 10)
			t.messages = append(t.messages, &wire.Subscribe{ID: s.id, Channel: s.channel, Grant: s.grant})
		}
	}
}

// subscribed takes the server's answer. One to an earlier question is passed over, and so are posts before ours.
func (c *Client) subscribed(sock *socket, m *wire.Subscribed) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.subs[m.Channel]
	if s == nil || s.sent != sock || s.id != m.ID {
		return
	}
	if s.on == nil {
		close(s.begun)
	}
	s.on, s.refused = sock, 0
	s.feed.subscribed(m)
	s.rouse()
}

// post takes a post or a missed of a channel to which we are subscribed on sock.
func (c *Client) post(sock *socket, channel wire.Channel, put func(*feed)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s := c.subs[channel]; s != nil && s.on == sock {
		put(&s.feed)
		s.rouse()
	}
}

func (s *Subscription) rouse() {
	select {
	case s.wake <- struct{}{}:
	default: // it is awake
	}
}

// unsubscribedBy takes the refusal of a subscribe, and reports whether m is one. Guarded by c.mu.
func (c *Client) unsubscribedBy(sock *socket, m *wire.Refused) bool {
	if !strings.HasPrefix(m.ID, subscribePrefix) {
		return false
	}
	for _, s := range c.subs {
		switch {
		case s.id != m.ID || s.sent != sock:
		case s.on == nil || !m.Retryable:
			s.sent = nil // there is nothing to be ended
			s.end(&m.Error)
		default:
			s.refused++
			s.sent, s.again = nil, time.Now().Add(delay(&c.o, &m.Error, s.refused, rand.Float64()))
			c.poke()
		}
	}
	return true
}
