package wsclient

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"

	"github.com/wscluster/wscluster/pkg/socketmeta"
	"github.com/wscluster/wscluster/pkg/wire"
)

// Times of one socket.
const (
	dialWithin    = 10 * time.Second // to connect and be answered with 101
	welcomeWithin = 10 * time.Second // from then to the socket_meta
	writeWithin   = 10 * time.Second // for one write
	byeWithin     = time.Second      // for the last write
	pongWithin    = 2 * time.Second  // for an answer to our ping
	heartbeat     = 15 * time.Second // of a server that names none
)

// socket is one connection.
type socket struct {
	conn  net.Conn      // the writer writes, anybody may close it
	r     wsutil.Reader // the reader's
	began time.Time     // when the handshake ended; set once

	// The rest is guarded by Client.mu.
	opened  time.Time        // when the socket_meta came; zero before
	confirm socketmeta.Epoch // to be sent: of the socket_meta that resumed the session; 0 if not
	heard   time.Time        // when the last frame came
	pinged  time.Time        // when we asked for a pong that has not come; zero if not
	acked   time.Time        // when the last acknowledgement went out; zero if none has
	pong    []ws.Frame       // to be sent: the answer to the server's latest ping, if any
	leave   []wire.Channel   // to be sent: subscriptions that ended
	bye     *wire.Bye        // the server's word before it closes
}

// dial opens a connection and shakes hands. The error may be a *HandshakeError.
func (c *Client) dial(ctx context.Context) (*socket, error) {
	target, header := *c.url, c.o.Header.Clone()
	if header == nil {
		header = http.Header{}
	}
	if route := c.Meta().Route; c.o.Affinity == AffinityRoute && route != "" {
		q := target.Query()
		q.Set("route", route)
		target.RawQuery = q.Encode()
	}
	origin := httpURL(c.url)
	if c.jar != nil {
		r := http.Request{Header: header}
		for _, cookie := range c.jar.Cookies(origin) {
			r.AddCookie(cookie)
		}
	}
	host := header.Get("Host")
	header.Del("Host")
	var cookies []*http.Cookie
	refused := &HandshakeError{}
	conn, early, hs, err := ws.Dialer{
		Timeout:   dialWithin,
		Protocols: []string{wire.Subprotocol},
		Header:    ws.HandshakeHeaderHTTP(header),
		Host:      host,
		NetDial:   c.o.Dial,
		TLSConfig: c.o.TLS,
		OnHeader: func(key, value []byte) error {
			if http.CanonicalHeaderKey(string(key)) == "Set-Cookie" {
				if cookie, err := http.ParseSetCookie(string(value)); err == nil {
					cookies = append(cookies, cookie)
				}
			}
			return nil
		},
		OnStatusError: func(status int, _ []byte, answer io.Reader) {
			refused.Status = status
			if r, err := http.ReadResponse(bufio.NewReader(answer), nil); err == nil {
				cookies = r.Cookies()
				seconds, _ := strconv.ParseUint(r.Header.Get("Retry-After"), 10, 31)
				refused.RetryAfter = time.Duration(seconds) * time.Second
				r.Body.Close()
			}
		},
	}.Dial(ctx, target.String())
	if c.jar != nil && len(cookies) > 0 {
		c.jar.SetCookies(origin, cookies)
	}
	switch {
	case err != nil && refused.Status != 0:
		return nil, refused
	case err != nil:
		return nil, fmt.Errorf("connect: %w", err)
	case hs.Protocol != wire.Subprotocol:
		conn.Close()
		return nil, fmt.Errorf("connect: the server speaks %q, not %s", hs.Protocol, wire.Subprotocol)
	}
	return newSocket(conn, early), nil
}

func httpURL(u *url.URL) *url.URL {
	h := url.URL{Scheme: "http", Host: u.Host, Path: u.Path}
	if u.Scheme == "wss" {
		h.Scheme = "https"
	}
	return &h
}

// newSocket wraps a connection after its handshake. early, if not nil, holds frames that came with it.
func newSocket(conn net.Conn, early *bufio.Reader) *socket {
	var src io.Reader = conn
	if early != nil {
		p, _ := early.Peek(early.Buffered())
		src = io.MultiReader(bytes.NewReader(bytes.Clone(p)), conn)
		ws.PutReader(early)
	}
	now := time.Now()
	return &socket{
		conn: conn, began: now, heard: now,
		r: wsutil.Reader{
			Source: bufio.NewReaderSize(src, 1<<10), State: ws.StateClientSide,
			MaxFrameSize: wire.MaxServerFrame, MaxMessageSize: wire.MaxServerFrame,
		},
	}
}

// next blocks until a whole message is here and returns it. It tells control of each ping and
// pong on the way. The error is a *CloseError if the server sent a close frame.
func (s *socket) next(control func(ws.Header, []byte)) ([]byte, error) {
	read := func(h ws.Header, r io.Reader) error {
		p, err := io.ReadAll(r)
		if err == nil && h.OpCode == ws.OpClose {
			code, reason := ws.ParseCloseFrameData(p)
			return &CloseError{Code: int(cmp.Or(code, ws.StatusNoStatusRcvd)), Reason: reason}
		}
		control(h, p)
		return err
	}
	s.r.OnIntermediate = read
	for {
		h, err := s.r.NextFrame()
		switch {
		case err != nil:
			return nil, err
		case h.OpCode.IsControl():
			if err := read(h, &s.r); err != nil {
				return nil, err
			}
		case h.OpCode == ws.OpText:
			var p bytes.Buffer
			p.Grow(int(h.Length) + bytes.MinRead)
			_, err := p.ReadFrom(&s.r)
			return p.Bytes(), err
		default:
			return nil, errors.New("the server sent a binary message")
		}
	}
}

// write sends frames in one write. It blocks for at most within. Not for two goroutines at once.
func (s *socket) write(within time.Duration, frames []ws.Frame) error {
	if len(frames) == 0 {
		return nil
	}
	var b bytes.Buffer
	for _, f := range frames {
		if err := ws.WriteFrame(&b, ws.MaskFrameInPlace(f)); err != nil {
			return err
		}
	}
	if err := s.conn.SetWriteDeadline(time.Now().Add(within)); err != nil {
		return err
	}
	_, err := s.conn.Write(b.Bytes())
	return err
}

// sayClose sends a close frame.
func (s *socket) sayClose(code ws.StatusCode) error {
	return s.write(byeWithin, []ws.Frame{ws.NewCloseFrame(ws.NewCloseFrameBody(code, ""))})
}
