package wsclient

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/wscluster/wscluster/pkg/wire"
)

// question is an AskPresence that waits for its answer. It is sent on each new socket until it has one.
type question struct {
	msg    *wire.AskPresence
	done   chan struct{} // closed when the answer is here; answer and err may be read then
	answer *wire.Presence
	err    error

	sent *socket // guarded by Client.mu: where it was sent last
}

// Presence asks how many are subscribed to a channel in the whole cluster, by what Subscribe would need. It waits
// through lost connections. A refusal is a *wire.Error; if ctx ends or Run returns first, the error
// wraps ctx's cause or what Run returned.
func (c *Client) Presence(ctx context.Context, channel wire.Channel, o SubscribeOptions) (wire.Presence, error) {
	if err := checkChannel(channel, o.Grant); err != nil {
		return wire.Presence{}, fmt.Errorf("presence in %.200s: %w", channel, err)
	}
	c.mu.Lock()
	c.asked++
	q := &question{
		msg:  &wire.AskPresence{ID: presencePrefix + strconv.FormatUint(c.asked, 10), Channel: channel, Grant: o.Grant},
		done: make(chan struct{}),
	}
	c.questions[q.msg.ID] = q
	c.mu.Unlock()
	c.poke()
	var err error
	select {
	case <-q.done:
		if q.err == nil {
			return *q.answer, nil
		}
		err = q.err
	case <-c.done:
		err = c.err
	case <-ctx.Done():
		err = context.Cause(ctx)
	}
	c.mu.Lock()
	delete(c.questions, q.msg.ID)
	c.mu.Unlock()
	return wire.Presence{}, fmt.Errorf("presence in %s: %w", channel, err)
}

// askPresence sends the questions that s has not been asked. Guarded by c.mu.
func (c *Client) askPresence(s *socket, t *turn) {
	for _, q := range c.questions {
		if q.sent != s {
			q.sent = s
			t.messages = append(t.messages, q.msg)
		}
	}
}

// presence takes the answer to a question: m, or the refusal err. Guarded by c.mu.
func (c *Client) presence(id string, m *wire.Presence, err error) {
	if q := c.questions[id]; q != nil {
		delete(c.questions, id)
		q.answer, q.err = m, err
		close(q.done)
	}
}

// isPresenceRefusal reports whether m refuses an AskPresence.
func isPresenceRefusal(m *wire.Refused) bool { return strings.HasPrefix(m.ID, presencePrefix) }
