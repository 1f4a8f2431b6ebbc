package wsclient

import (
	"context"
	"time"

	"github.com/wscluster/wscluster/pkg/wire"
)

// request takes a request of a backend, and has it done if its turn has come.
func (c *Client) request(r *wire.Request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.o.OnRequest == nil {
		c.say(&wire.Reply{Request: r.ID, Error: "this client answers no requests"})
		return
	}
	if reply := c.answers.ask(r, time.Now()); reply != nil {
		c.say(reply)
	}
	c.answerNext()
}

// answerNext begins the requests whose turn has come, each in a goroutine of its own, for which Run waits. Guarded by c.mu.
func (c *Client) answerNext() {
	for w := c.answers.next(time.Now()); w != nil; w = c.answers.next(time.Now()) {
		c.handlers.Go(func() {
			ctx, cancel := context.WithDeadline(c.running, w.until)
			defer cancel()
			value, err := c.o.OnRequest(ctx, w.request)
			c.mu.Lock()
			defer c.mu.Unlock()
			c.say(c.answers.finish(w, value, err)...)
			if c.running.Err() == nil {
				c.answerNext()
			}
		})
	}
}

// say has replies written, on this socket or the next. Guarded by c.mu.
func (c *Client) say(replies ...*wire.Reply) {
	c.replies = append(c.replies, replies...)
	c.replies = c.replies[max(0, len(c.replies)-maxReplies):]
	c.poke()
}

// reply writes what is to be said. Guarded by c.mu.
func (c *Client) reply(t *turn) {
	for n := 0; len(c.replies) > 0 && n < maxReplyTurn; c.replies = c.replies[1:] {
		t.messages = append(t.messages, c.replies[0])
		n += len(c.replies[0].Body) + len(c.replies[0].Error)
	}
	if len(c.replies) > 0 {
		c.poke()
	}
}
