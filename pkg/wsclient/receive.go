package wsclient

import (
	"errors"
	"strings"
	"time"

	"github.com/gobwas/ws"
	"go.uber.org/zap"

	"github.com/wscluster/wscluster/pkg/wire"
)

// Errors of tasks of which nothing more will come. Task.Wait wraps them.
var (
	ErrTaskFinished = errors.New("the final event was acknowledged in an earlier life of this client")
	ErrTaskUnknown  = errors.New("the server does not know the task: it is older than the resume window, or the session is new")
	ErrEndMissed    = errors.New("the task is over, but how it ended was not kept for this client")
)

// read takes messages off s until it ends, and returns why.
func (c *Client) read(s *socket) error {
	for {
		p, err := s.next(func(h ws.Header, p []byte) { c.control(s, h, p) })
		if err != nil {
			return err
		}
		m, err := wire.DecodeServer(p)
		if errors.Is(err, wire.ErrUnknownType) {
			c.heard(s)
			continue
		}
		if err != nil {
			return err
		}
		switch c.o.Faults.receive(m) {
		case Lose:
			continue
		case Cut:
			return errCut
		}
		if err := c.receive(s, m); err != nil {
			return err
		}
	}
}

// control answers the server's ping; only the latest one needs an answer (RFC 6455 section 5.5.3).
func (c *Client) control(s *socket, h ws.Header, p []byte) {
	c.heard(s)
	if h.OpCode == ws.OpPing {
		c.mu.Lock()
		s.pong = []ws.Frame{ws.NewPongFrame(p)}
		c.mu.Unlock()
		c.poke()
	}
}

func (c *Client) heard(s *socket) {
	c.mu.Lock()
	defer c.mu.Unlock()
	s.heard, s.pinged = time.Now(), time.Time{}
}

func (c *Client) receive(s *socket, m wire.ServerMessage) error {
	c.heard(s)
	switch m := m.(type) {
	case *wire.SocketMeta:
		return c.welcome(s, m)
	case *wire.Event:
		c.event(m)
	case *wire.Accepted:
		c.accepted(m)
	case *wire.Canceling:
		c.mu.Lock()
		c.canceled(m.Task, nil)
		c.mu.Unlock()
	case *wire.LogLines:
		c.lines(m.Task, m)
	case *wire.Refused:
		if isLogRefusal(m) {
			c.lines(m.Task, nil)
		} else {
			c.refused(s, m)
		}
	case *wire.Subscribed:
		c.subscribed(s, m)
	case *wire.Post:
		c.post(s, m.Channel, func(f *feed) { f.post(m) })
	case *wire.Missed:
		c.post(s, m.Channel, func(f *feed) { f.missed(m) })
	case *wire.Presence:
		c.mu.Lock()
		c.presence(m.ID, m, nil)
		c.mu.Unlock()
	case *wire.Request:
		c.request(m)
	case *wire.Bye:
		c.mu.Lock()
		s.bye = m
		c.mu.Unlock()
	case *wire.Pong, *wire.Unsubscribed:
	}
	return nil
}

// errOverlooked ends a socket whose welcome does not answer our hello: it came so late that the
// server took us for a client that says nothing. Our session is still there, for the next socket.
var errOverlooked = errors.New("the server did not see the hello in time")

// welcome takes a socket_meta. The first one of a socket opens it, and where it resumes the session it is
// confirmed: only after OnMeta, which may have written the token down, and before all else.
func (c *Client) welcome(s *socket, m *wire.SocketMeta) error {
	c.mu.Lock()
	first := s.opened.IsZero()
	if first && c.meta.Token != "" && !m.Resumed && m.Reason == "" {
		c.mu.Unlock()
		return errOverlooked
	}
	c.meta = *m
	for _, status := range m.Tasks {
		t := c.tasks[status.Task]
		if t == nil {
			continue
		}
		switch status.State {
		case wire.TaskFinished:
			t.err = ErrTaskFinished
			c.end(t)
		case wire.TaskUnknown:
			t.err = ErrTaskUnknown
			c.end(t)
		}
	}
	c.mu.Unlock()
	if c.o.OnMeta != nil {
		c.o.OnMeta(*m)
	}
	c.mu.Lock()
	if first {
		s.opened = s.heard
		c.stats.Sockets++
		if m.Resumed {
			s.confirm = m.Epoch
		}
	}
	c.mu.Unlock()
	c.poke()
	return nil
}

func (c *Client) event(e *wire.Event) {
	c.mu.Lock()
	t := c.tasks[e.Task]
	if t != nil {
		c.began(t)
	}
	idle, dropped := len(c.in.owed) == 0, c.in.room.shed
	what := c.in.put(e)
	c.stats.Dropped += c.in.room.shed - dropped
	switch what {
	case early:
		c.stats.Reordered++
	case duplicate:
		c.stats.Duplicates++
	case unknown:
		c.stats.Unknown++
	}
	if idle && len(c.in.owed) > 0 || c.in.count >= c.o.AckEvery || c.in.starved() {
		c.poke()
	}
	c.mu.Unlock()
	if c.o.Logs {
		c.poke() // there may be lines to be read
	}
	if what == inOrder {
		c.hand(t)
	}
}

// hand gives the application what is ready of t, or tells it that there is something.
func (c *Client) hand(t *Task) {
	if c.o.OnEvent == nil {
		select {
		case t.wake <- struct{}{}:
		default: // it is awake
		}
		return
	}
	for e, ok := c.take(t); ok; e, ok = c.take(t) {
		c.o.OnEvent(t, e)
		c.took(t, &e)
	}
}

func (c *Client) accepted(m *wire.Accepted) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if t := c.tasks[m.Task]; t != nil {
		t.accepted, t.position = true, m.Position
	}
	if a := c.asking(m.ID, m.Task); a != nil {
		c.answered(a, nil)
	}
}

func (c *Client) refused(s *socket, m *wire.Refused) {
	c.mu.Lock()
	known := c.unsubscribedBy(s, m)
	if isPresenceRefusal(m) {
		c.presence(m.ID, nil, &m.Error)
		known = true
	}
	if strings.HasPrefix(m.ID, cancelPrefix) {
		c.canceled(m.Task, &m.Error)
	}
	a := c.asking(m.ID, m.Task)
	var wait time.Duration
	var postponed bool
	if a != nil {
		if wait, postponed = c.postpone(a, &m.Error); !postponed {
			c.answered(a, &m.Error)
		}
	}
	c.mu.Unlock()
	switch {
	case known:
	case a == nil:
		c.o.Log.Warn("the server refused something", zap.String("id", m.ID), zap.Error(&m.Error))
	case postponed:
		c.o.Log.Info("a submit is in doubt and will be sent again", zap.String("task", string(m.Task)), zap.Error(&m.Error), zap.Duration("delay", wait))
	}
}

// asking finds the submit that a reply is for. Guarded by c.mu.
func (c *Client) asking(id string, task wire.TaskID) *ask {
	for _, a := range c.asks {
		if a.msg.ID == id && a.msg.Task == task {
			return a
		}
	}
	return nil
}
