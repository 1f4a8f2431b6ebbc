package engine

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"time"

	"github.com/gobwas/ws"
)

// This file is what an event stream has of its own: how it begins, what is read from it, its signs of
// life and its end. Frames, queue, limits and Handler calls are those of any connection.

// Stream answers r, from within Options.HTTP, with an event stream, or refuses it: 405, or 503 at
// MaxConns and in the shutdown. Open is the Handler's first call, soon after; there is no Handshake.
// The response has the fields of w.Header(), but for those that the stream itself sets, and is
// delimited by its end. body is handed on to Open; r's own must have been read, for what else the
// client sends is thrown away, and ends the stream beyond MessageBytes. w and r are not to be used any
// more afterwards.
//
// Each frame goes out as one event, a line of data. A comment goes out when nothing else did for
// PingEvery. A peer that ends its side ends the stream.
func (e *Engine) Stream(w http.ResponseWriter, r *http.Request, body []byte) {
	s, ok := r.Context().Value(serviceKey{}).(*service)
	if !ok || s.e != e {
		panic("engine: Stream was called for a request of somebody else's")
	}
	s.conns.Add(1) // before the socket leaves plain, so that Serve misses nobody
	defer s.conns.Done()
	if bad := s.stream(w, r, body); bad != nil {
		s.refuse(w, bad)
	}
}

func (s *service) stream(w http.ResponseWriter, r *http.Request, body []byte) *refusal {
	if r.Method != http.MethodGet && r.Method != http.MethodPost {
		return &refusal{status: http.StatusMethodNotAllowed, reason: "an event stream is asked for by GET or POST",
			header: http.Header{"Allow": {"GET, POST"}}}
	}
	req := newRequest(r)
	req.Stream, req.Body = true, body
	c, bad := s.newConn(&intro{req: req, hello: streamResponse(w.Header())})
	if bad != nil {
		return bad
	}
	if bad = c.takeOver(w); bad != nil {
		s.e.table.remove(c)
	}
	return bad
}

// streamResponse is the header of the answer. It has no length and no chunks: what is sent to one
// stream is then the same bytes as to any other.
func streamResponse(extra http.Header) []byte {
	var b bytes.Buffer
	b.WriteString("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-store\r\n" +
		"X-Accel-Buffering: no\r\nConnection: close\r\nDate: " + time.Now().UTC().Format(http.TimeFormat) + "\r\n")
	// Writing to a buffer does not fail.
	_ = extra.WriteSubset(&b, map[string]bool{
		"Content-Type": true, "Cache-Control": true, "X-Accel-Buffering": true, "Connection": true, "Date": true,
		"Content-Length": true, "Transfer-Encoding": true, "Upgrade": true,
	})
	b.WriteString("\r\n")
	return b.Bytes()
}

// comment is what a stream is sent in place of a ping.
var comment = []byte(":\n\n")

// checkStream sends a sign of life to a stream that was silent. That the peer's host acknowledges what
// it was sent is the kernel's business (setUserTimeout), and that the peer reads it the queue's. mu is held.
func (c *conn) checkStream(now time.Duration) {
	if c.q.empty() && now-c.lastPing >= c.s.e.o.PingEvery {
		c.write(comment)
	}
}

// scrap throws away n bytes that a stream's peer sent, and judges them and the error of the read. It
// returns false when nothing more is to be read.
func (c *conn) scrap(n int, err error) bool {
	if n > 0 && c.in == nil {
		c.in = new(intake)
	}
	thrown := 0
	if c.in != nil {
		c.in.thrown += n
		thrown = c.in.thrown
	}
	c.s.e.count.bytesIn.Add(uint64(n))
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case errors.Is(err, io.EOF):
		c.drop(byPeer, nil)
	case err != nil:
		c.drop(byLoss, err)
	case thrown > c.s.e.o.MessageBytes:
		c.shut(byProtocol, ws.StatusProtocolError, "nothing is read from a stream", ErrProtocol, nil)
	}
	return err == nil && (c.state == open || thrown <= c.s.e.o.MessageBytes)
}

// endStream ends our side of a stream that is closing once all of it is out. mu is held.
func (c *conn) endStream() {
	if c.stream && c.state == closing && c.q.empty() {
		c.line.halve()
	}
}
