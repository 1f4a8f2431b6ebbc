package wsclient

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/gobwas/ws"

	"github.com/wscluster/wscluster/pkg/wire"
)

// connect lives one socket: it blocks until the socket has ended, and returns when it was welcomed
// (zero if it was not) and why it ended.
func (c *Client) connect(ctx context.Context) (opened time.Time, err error) {
	hello := new(wire.Hello)
	if c.o.Auth != nil {
		if hello.Auth, err = c.o.Auth(ctx); err != nil {
			return opened, fmt.Errorf("auth: %w", err)
		}
	}
	s, err := c.dial(ctx)
	if err != nil {
		return opened, err
	}
	c.mu.Lock()
	c.sock = s
	c.in.restart()
	hello.Token, hello.Tasks = c.meta.Token, c.positions()
	c.mu.Unlock()

	var readErr error
	gone := make(chan struct{}) // closed when the reader has returned
	var wg sync.WaitGroup
	wg.Go(func() {
		defer close(gone)
		readErr = c.read(s)
	})
	err = c.write(ctx, s, hello, gone)
	select {
	case <-gone:
		if _, ok := errors.AsType[*CloseError](readErr); ok && ctx.Err() == nil {
			_ = s.sayClose(ws.StatusNormalClosure) // the server waits for an answer
		}
	default:
	}
	s.conn.Close()
	wg.Wait()

	c.mu.Lock()
	defer c.mu.Unlock()
	c.sock = nil
	switch {
	case errors.Is(err, errStarved):
	case s.bye != nil:
		err = &CloseError{Code: s.bye.Code, Reason: s.bye.Reason, RetryAfter: time.Duration(s.bye.RetryAfterMS) * time.Millisecond}
	case err == nil:
		err = readErr
	}
	return s.opened, err
}

// positions tells where the application stands in each task that the server has: as many as a
// hello takes, which is more than a server lets anybody have. Guarded by c.mu.
func (c *Client) positions() []wire.Position {
	var ps []wire.Position
	for id, t := range c.tasks {
		if t.accepted && len(ps) < wire.MaxPositions {
			ps = append(ps, c.in.open[id].had)
		}
	}
	return ps
}

// write says all that the client has to say, first of all hello. It returns nil when ctx ends or
// the reader is gone.
func (c *Client) write(ctx context.Context, s *socket, hello *wire.Hello, gone <-chan struct{}) error {
	if err := c.send(s, turn{messages: []wire.ClientMessage{hello}}); err != nil {
		return err
	}
	timer := time.NewTimer(welcomeWithin)
	defer timer.Stop()
	for open := false; ; {
		select {
		case <-c.wake:
		case <-timer.C:
		case <-gone:
			return nil
		case <-ctx.Done():
			c.leave(s, gone)
			return nil
		}
		t, err := c.turn(s, time.Now())
		if err != nil {
			return err
		}
		if t.open && !open {
			open = true
			c.status(Status{Phase: Open})
		}
		if err := c.send(s, t); err != nil {
			return err
		}
		timer.Reset(time.Until(t.next))
	}
}

// turn is what a socket's writer has to send now, and when to look again if nothing happens.
type turn struct {
	messages []wire.ClientMessage
	pong     []ws.Frame
	open     bool
	next     time.Time
}

// wake has the writer look again at when, if not earlier.
func (t *turn) wake(when time.Time) {
	if when.Before(t.next) {
		t.next = when
	}
}

func (c *Client) turn(s *socket, now time.Time) (t turn, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	t.pong, s.pong = s.pong, nil
	if t.open = !s.opened.IsZero(); !t.open {
		t.next = s.began.Add(welcomeWithin)
		if !now.Before(t.next) {
			err = fmt.Errorf("no socket_meta came within %v", welcomeWithin)
		}
		return t, err
	}
	if c.in.starved() {
		return t, errStarved
	}
	s.sayConfirm(&t)
	if err := c.watch(s, now, &t); err != nil {
		return t, err
	}
	c.submit(s, now, &t)
	c.cancelTasks(s, now, &t)
	c.readLogs(s, now, &t)
	c.subscribe(s, now, &t)
	c.askPresence(s, &t)
	c.reply(&t)
	c.acknowledge(s, now, &t)
	return t, nil
}

// submit sends what s has not been asked and whose time has come. Guarded by c.mu.
func (c *Client) submit(s *socket, now time.Time, t *turn) {
	for _, a := range c.asks {
		switch {
		case a.sent == s:
		case now.Before(a.again):
			t.wake(a.again)
		default:
			a.sent, a.task.sent = s, true
			t.messages = append(t.messages, a.msg)
		}
	}
}

// sayConfirm says that the socket_meta which resumed the session is here and kept, once. The worker
// takes nothing but a ping before it. Guarded by Client.mu.
func (s *socket) sayConfirm(t *turn) {
	if s.confirm != 0 {
		t.messages = append(t.messages, &wire.Confirm{Epoch: s.confirm})
		s.confirm = 0
	}
}

// watch asks a silent server for a sign of life. Guarded by c.mu.
func (c *Client) watch(s *socket, now time.Time, t *turn) error {
	silence := 2 * heartbeat
	if ms := c.meta.HeartbeatMS; ms > 0 {
		silence = 2 * time.Duration(ms) * time.Millisecond
	}
	switch t.next = s.heard.Add(silence); {
	case !s.pinged.IsZero():
		t.next = s.pinged.Add(pongWithin)
		if !now.Before(t.next) {
			return fmt.Errorf("the server has been silent for %v", now.Sub(s.heard))
		}
	case !now.Before(t.next):
		s.pinged, t.next = now, now.Add(pongWithin)
		t.messages = append(t.messages, new(wire.Ping))
	}
	return nil
}

// acknowledge says what the application has, if it is time. Guarded by c.mu.
func (c *Client) acknowledge(s *socket, now time.Time, t *turn) {
	if len(c.in.owed) == 0 {
		return
	}
	if again := s.acked.Add(c.o.AckDelay); c.in.count < c.o.AckEvery && now.Before(again) {
		t.wake(again)
		return
	}
	s.acked = now
	for len(c.in.owed) > 0 {
		t.messages = append(t.messages, &wire.Ack{Tasks: c.in.acknowledge()})
		c.stats.Acks++
	}
}

// send writes a turn, or what Faults leave of it.
func (c *Client) send(s *socket, t turn) error {
	frames := t.pong
	for _, m := range t.messages {
		switch c.o.Faults.send(m) {
		case Lose:
		case Cut:
			return errCut
		default:
			frames = append(frames, ws.NewTextFrame(wire.EncodeClient(m)))
		}
	}
	return s.write(writeWithin, frames)
}

var errCut = errors.New("cut by Options.Faults")

// leave acknowledges what the application has and says goodbye. It waits a moment for the server's
// own goodbye: closed earlier, the kernel could take back what was sent last.
func (c *Client) leave(s *socket, gone <-chan struct{}) {
	var t turn
	c.mu.Lock()
	if !s.opened.IsZero() {
		s.sayConfirm(&t)
		s.acked = time.Time{}
		c.acknowledge(s, time.Now(), &t)
	}
	c.mu.Unlock()
	if c.send(s, t) != nil || s.sayClose(ws.StatusGoingAway) != nil {
		return
	}
	late := time.NewTimer(byeWithin)
	defer late.Stop()
	select {
	case <-gone:
	case <-late.C:
	}
}
