package channel

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/wscluster/wscluster/pkg/broker"
	"github.com/wscluster/wscluster/pkg/wire"
)

// fakeLink records what is published. Each post waits for answer.
type fakeLink struct {
	broker.Link
	sent    chan *sent
	done    chan struct{}
	blocked chan struct{} // if set, Publish waits for it, as in a memory alarm
}

type sent struct {
	to      broker.Address
	message broker.Message
	done    chan struct{}
	outcome broker.Outcome
}

func newFakeLink() *fakeLink {
	return &fakeLink{sent: make(chan *sent, 100_000), done: make(chan struct{})}
}

func (l *fakeLink) Done() <-chan struct{} { return l.done }

func (l *fakeLink) Err() error {
	select {
	case <-l.done:
		return errors.New("cut")
	default:
		return nil
	}
}

func (l *fakeLink) Publish(ctx context.Context, to broker.Address, m broker.Message) (broker.Receipt, error) {
	select {
	case <-l.blocked:
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	case <-l.done:
		return nil, broker.ErrLinkGone
	default:
		if l.blocked == nil {
			break
		}
		select {
		case <-l.blocked:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		case <-l.done:
			return nil, broker.ErrLinkGone
		}
	}
	s := &sent{to, m, make(chan struct{}), broker.Pending}
	l.sent <- s
	return s, nil
}

func (s *sent) Done() <-chan struct{} { return s.done }

func (s *sent) Outcome() broker.Outcome {
	select {
	case <-s.done:
		return s.outcome
	default:
		return broker.Pending
	}
}

func (s *sent) answer(o broker.Outcome) {
	s.outcome = o
	close(s.done)
}

// took returns the next n publishes as text: channel, number, body.
func (l *fakeLink) took(t *testing.T, n int) (all []*sent, text string) {
	t.Helper()
	var b strings.Builder
	for range n {
		select {
		case s := <-l.sent:
			p, err := wire.DecodePost(s.to.Key, s.message.Type, s.message.Headers, s.message.Body, s.message.Time)
			if err != nil || !s.message.Transient || s.to.Exchange != broker.ExchangeChannels {
				t.Fatalf("published %+v to %v: %v", s.message, s.to, err)
			}
			fmt.Fprintf(&b, "%s %d %s\n", p.Channel, p.Seq, p.Body)
			all = append(all, s)
		default:
			t.Fatalf("%d posts were published, want %d", len(all), n)
		}
	}
	return all, b.String()
}

func publisher(t *testing.T, o Options) *Publisher {
	t.Helper()
	o.Name = "backend"
	p, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func say(t *testing.T, p *Publisher, body any, channels ...wire.Channel) {
	t.Helper()
	if err := p.Publish(Message{Body: asJSON(body)}, channels...); err != nil {
		t.Fatal(err)
	}
}

func asJSON(v any) json.RawMessage {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return b
}
