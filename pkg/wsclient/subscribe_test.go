package wsclient

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wscluster/wscluster/pkg/wire"
)

// subscribe has c subscribe to "news", and p answer with so many posts as its snapshot.
func (p *peer) subscribe(c started, o SubscribeOptions, snapshot int) *Subscription {
	p.t.Helper()
	got := make(chan *Subscription, 1)
	go func() {
		s, err := c.Subscribe(p.t.Context(), "news", o)
		if err != nil {
			p.t.Errorf("subscribe: %v", err)
		}
		got <- s
	}()
	p.subscribed(snapshot)
	return <-got
}

// subscribed takes a subscribe to "news" and answers it.
func (p *peer) subscribed(snapshot int) *wire.Subscribe {
	p.t.Helper()
	m := receive[*wire.Subscribe](p)
	p.send(&wire.Subscribed{ID: m.ID, Channel: m.Channel, Snapshot: snapshot})
	return m
}

// post publishes posts of "news" with these numbers.
func (p *peer) post(seqs ...int64) {
	p.t.Helper()
	for _, seq := range seqs {
		p.send(&wire.Post{Channel: "news", Publisher: "b", Stream: runA, Seq: seq, Time: wire.Time{Time: time.Unix(0, 0)}, Body: []byte("1")})
	}
}

// messages takes n messages of s.
func messages(t *testing.T, s *Subscription, n int) string {
	var got []string
	for m := range s.Messages(t.Context()) {
		if got = append(got, tell(m)); len(got) == n {
			break
		}
	}
	return strings.Join(got, " ")
}

func TestASubscriptionBeginsAgainOnEachConnectionAndSaysSo(t *testing.T) {
	bubble(t, func(t *testing.T, s *server) {
		c, p := s.open(Options{})
		sub := p.subscribe(c, SubscribeOptions{Grant: "g"}, 1)
		p.post(3, 4)
		p.send(&wire.Missed{Channel: "news", Count: 2, Reason: wire.MissedLost})
		p.post(7)
		if got, want := messages(t, sub, 5), "subscribed:1 kept:3 4 missed:2:lost 7"; got != want {
			t.Errorf("told %s, want %s", got, want)
		}
		c.Cut()
		p = s.next()
		p.welcome("two")
		p.post(8) // before the answer: of nobody's subscription
		if m := p.subscribed(1); m.Grant != "g" || m.Channel != "news" {
			t.Errorf("asked again with %+v, want the channel and its grant", m)
		}
		p.post(9, 10)
		if got, want := messages(t, sub, 3), "subscribed:1 kept:9 10"; got != want {
			t.Errorf("told %s after the cut, want %s", got, want)
		}
	})
}

func TestUnsubscribeEndsAtOnceAndMayBeFollowedByASubscribe(t *testing.T) {
	bubble(t, func(t *testing.T, s *server) {
		c, p := s.open(Options{})
		sub := p.subscribe(c, SubscribeOptions{}, 0)
		if _, err := c.Subscribe(t.Context(), "news", SubscribeOptions{}); !errors.Is(err, ErrSubscribed) {
			t.Errorf("a second subscription: %v, want ErrSubscribed", err)
		}
		old := sub.id
		p.post(1)
		synctest.Wait()
		sub.Unsubscribe()
		sub.Unsubscribe()
		p.post(2)
		if got := messages(t, sub, 9); got != "subscribed:0 1" || !errors.Is(sub.Err(), ErrUnsubscribed) {
			t.Errorf("told %q, %v, want what came before Unsubscribe", got, sub.Err())
		}
		if m := receive[*wire.Unsubscribe](p); m.Channel != "news" {
			t.Errorf("unsubscribed %+v", m)
		}
		go func() {
			time.Sleep(time.Second)
			p.send(&wire.Subscribed{ID: old, Channel: "news"})
			p.post(3) // of the old subscription
			if m := p.subscribed(0); m.ID == old {
				t.Errorf("both questions have the ID %s", old)
			}
			p.post(4)
		}()
		again, err := c.Subscribe(t.Context(), "news", SubscribeOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if got := messages(t, again, 2); got != "subscribed:0 4" {
			t.Errorf("told %s, want nothing of the old subscription", got)
		}
	})
}

func TestASubscribeThatIsRefusedOrGivenUpLeavesNothing(t *testing.T) {
	bubble(t, func(t *testing.T, s *server) {
		c, p := s.open(Options{})
		if _, err := c.Subscribe(t.Context(), "no channel", SubscribeOptions{}); !errors.Is(err, wire.ErrID) {
			t.Errorf("a bad name: %v, want ErrID", err)
		}
		go func() {
			m := receive[*wire.Subscribe](p)
			p.send(&wire.Refused{ID: m.ID, Error: *wire.Errorf(wire.CodeTooManyChannels, "100")})
		}()
		_, err := c.Subscribe(t.Context(), "news", SubscribeOptions{})
		if codeOf(err) != wire.CodeTooManyChannels {
			t.Errorf("refused: %v, want too_many_channels", err)
		}
		p.silent()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := c.Subscribe(ctx, "news", SubscribeOptions{}); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("no answer: %v, want the deadline", err)
		}
		receive[*wire.Subscribe](p)
		receive[*wire.Unsubscribe](p)
		c.Cut()
		p = s.next()
		p.welcome("two")
		p.silent()
	})
}

func TestARefusalOnALaterConnectionWaitsOrEndsTheSubscription(t *testing.T) {
	bubble(t, func(t *testing.T, s *server) {
		c, p := s.open(Options{})
		sub := p.subscribe(c, SubscribeOptions{}, 0)
		c.Cut()
		p = s.next()
		p.welcome("two")
		m := receive[*wire.Subscribe](p)
		asked := time.Now()
		refusal := *wire.Errorf(wire.CodeOverloaded, "later")
		refusal.RetryAfterMS = 3000
		p.send(&wire.Refused{ID: m.ID, Error: refusal})
		m = receive[*wire.Subscribe](p)
		if waited := time.Since(asked); waited < 3*time.Second || waited > 4*time.Second {
			t.Errorf("asked again after %v, want some 3 s", waited)
		}
		p.send(&wire.Refused{ID: m.ID, Error: *wire.Errorf(wire.CodeForbidden, "the grant has expired")})
		if got := messages(t, sub, 9); got != "subscribed:0" {
			t.Errorf("told %s", got)
		}
		if codeOf(sub.Err()) != wire.CodeForbidden {
			t.Errorf("Err = %v, want forbidden", sub.Err())
		}
		<-sub.Done()
		p.silent()
	})
}

func TestPresenceIsAskedUntilItIsAnswered(t *testing.T) {
	bubble(t, func(t *testing.T, s *server) {
		c, p := s.open(Options{})
		go func() {
			receive[*wire.AskPresence](p)
			c.Cut()
			p = s.next()
			p.welcome("two")
			m := receive[*wire.AskPresence](p)
			p.send(&wire.Presence{ID: m.ID, Channel: m.Channel, Subscribers: 3, Partial: true})
			m = receive[*wire.AskPresence](p)
			p.send(&wire.Refused{ID: m.ID, Error: *wire.Errorf(wire.CodeForbidden, "no")})
		}()
		got, err := c.Presence(t.Context(), "news", SubscribeOptions{})
		if err != nil || got.Subscribers != 3 || !got.Partial {
			t.Errorf("Presence = %+v, %v", got, err)
		}
		_, err = c.Presence(t.Context(), "news", SubscribeOptions{})
		if codeOf(err) != wire.CodeForbidden {
			t.Errorf("Presence = %v, want forbidden", err)
		}
		if err := c.stop(); err != nil {
			t.Error(err)
		}
		if _, err = c.Presence(t.Context(), "news", SubscribeOptions{}); !errors.Is(err, ErrStopped) {
			t.Errorf("Presence after Run = %v, want ErrStopped", err)
		}
	})
}
