package engine

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/gobwas/ws"
)

// client is a WebSocket client that can break every rule: it writes bytes.
type client struct {
	ref ConnRef // where a test needs it
	t   testing.TB
	nc  net.Conn
	r   *bufio.Reader
}

const testKey = "dGhlIHNhbXBsZSBub25jZQ=="

// upgradeRequest is a right handshake with more header lines at its end.
func upgradeRequest(more ...string) string {
	lines := append([]string{
		"GET /v1/ws?x=1 HTTP/1.1", "Host: example.test", "Upgrade: websocket", "Connection: keep-alive, Upgrade",
		"Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: " + testKey,
	}, more...)
	return strings.Join(lines, "\r\n") + "\r\n\r\n"
}

// connect opens a TCP connection and sends nothing.
func connect(t testing.TB, addr string) *client {
	t.Helper()
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	if err := nc.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	return newClient(t, nc)
}

func newClient(t testing.TB, nc net.Conn) *client {
	t.Cleanup(func() { _ = nc.Close() })
	return &client{t: t, nc: nc, r: bufio.NewReader(nc)}
}

// dial opens a WebSocket.
func dial(t testing.TB, s *server, more ...string) *client {
	t.Helper()
	c := connect(t, s.addr)
	c.upgrade(more...)
	return c
}

func (c *client) upgrade(more ...string) http.Header {
	c.t.Helper()
	c.write([]byte(upgradeRequest(more...)))
	res := c.response()
	if res.StatusCode != http.StatusSwitchingProtocols {
		c.t.Fatalf("the handshake was answered with %s", res.Status)
	}
	return res.Header
}

func (c *client) response() *http.Response {
	c.t.Helper()
	res, err := http.ReadResponse(c.r, nil)
	if err != nil {
		c.t.Fatalf("reading a response: %v", err)
	}
	if res.StatusCode != http.StatusSwitchingProtocols {
		body, _ := io.ReadAll(res.Body)
		res.Body = io.NopCloser(bytes.NewReader(body))
	}
	return res
}

func (c *client) write(b ...[]byte) {
	c.t.Helper()
	for _, b := range b {
		if _, err := c.nc.Write(b); err != nil {
			c.t.Fatalf("client write: %v", err)
		}
	}
}

// stream writes from a goroutine of its own, for as long as the server takes it.
func (c *client) stream(b ...[]byte) {
	go func() {
		for _, b := range b {
			if _, err := c.nc.Write(b); err != nil {
				return
			}
		}
	}()
}

// read returns the next frame as "text:...", "close:1000 reason" and so on, or "end" when the
// server has ended the connection.
func (c *client) read() string {
	h, err := ws.ReadHeader(c.r)
	payload := make([]byte, h.Length)
	if err == nil {
		_, err = io.ReadFull(c.r, payload)
	}
	if err != nil {
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed) {
			return "end"
		}
		return "error:" + err.Error()
	}
	names := map[ws.OpCode]string{ws.OpText: "text", ws.OpBinary: "binary", ws.OpPing: "ping", ws.OpPong: "pong"}
	switch {
	case h.Masked:
		return "error:the server's frame is masked"
	case !h.Fin:
		return "error:the server's frame is not final"
	case h.OpCode == ws.OpClose && len(payload) == 0:
		return "close"
	case h.OpCode == ws.OpClose:
		code, reason := ws.ParseCloseFrameData(payload)
		return strings.TrimSuffix(fmt.Sprintf("close:%d %s", code, reason), " ")
	}
	return names[h.OpCode] + ":" + string(payload)
}

// want reads frames and compares them; a wanted "close:1002" does not look at the reason.
func (c *client) want(frames ...string) {
	c.t.Helper()
	for _, want := range frames {
		got := c.read()
		if got != want && !(strings.HasPrefix(want, "close:") && strings.HasPrefix(got, want+" ")) {
			c.t.Fatalf("the client read %.200q, want %.200q", got, want)
		}
	}
}

// ask asks for an event stream, with a body if it is not empty, and returns the header of the answer.
func (c *client) ask(body string, more ...string) http.Header {
	c.t.Helper()
	res := c.request(body, more...)
	if res.StatusCode != http.StatusOK {
		c.t.Fatalf("the request for a stream was answered with %s", res.Status)
	}
	return res.Header
}

// request asks for an event stream and returns the head of the answer.
func (c *client) request(body string, more ...string) *http.Response {
	c.t.Helper()
	lines := append([]string{"GET /v1/events HTTP/1.1", "Host: example.test"}, more...)
	if body != "" {
		lines[0] = "POST /v1/events HTTP/1.1"
		lines = append(lines, fmt.Sprint("Content-Length: ", len(body)))
	}
	c.write([]byte(strings.Join(lines, "\r\n") + "\r\n\r\n" + body))
	res, err := http.ReadResponse(c.r, nil)
	if err != nil {
		c.t.Fatalf("reading a response: %v", err)
	}
	return res
}

// listen opens an event stream.
func listen(t testing.TB, s *server) *client {
	t.Helper()
	c := connect(t, s.addr)
	c.ask("")
	return c
}

// listenDeaf is dialDeaf for a stream.
func listenDeaf(t testing.TB, s *server) *client {
	t.Helper()
	c := connect(t, s.addr)
	if err := c.nc.(*net.TCPConn).SetReadBuffer(192 << 10); err != nil {
		t.Fatal(err)
	}
	c.ask("")
	return c
}

// event reads the next event of a stream: its lines without the last, empty one, or "end".
func (c *client) event() string {
	var lines []string
	for {
		line, err := c.r.ReadString('\n')
		switch {
		case errors.Is(err, io.EOF) && line == "" && lines == nil || errors.Is(err, net.ErrClosed):
			return "end"
		case err != nil:
			return "error:" + err.Error()
		case line == "\n":
			return strings.Join(lines, "\n")
		}
		lines = append(lines, strings.TrimSuffix(line, "\n"))
	}
}

// wantEvents reads events of a stream and compares them.
func (c *client) wantEvents(events ...string) {
	c.t.Helper()
	for _, want := range events {
		if got := c.event(); got != want {
			c.t.Fatalf("the client read %.200q, want %.200q", got, want)
		}
	}
}

// dialDeaf opens a WebSocket of a client that is not going to read for a while: its receive
// buffer is of fixed size, so that what the kernel holds for it settles at once. A buffer below
// the loopback's segment of 64 KiB would make each later read wait for a timer.
func dialDeaf(t testing.TB, s *server) *client {
	t.Helper()
	c := connect(t, s.addr)
	if err := c.nc.(*net.TCPConn).SetReadBuffer(192 << 10); err != nil {
		t.Fatal(err)
	}
	c.upgrade()
	return c
}

// leave closes properly from the client's side.
func (c *client) leave() {
	c.t.Helper()
	c.write(closeFrame(1000, ""))
	c.want("close:1000", "end")
}

// masked is one frame of a client. b0 is its first byte, so that every bit can be wrong.
func masked(b0 byte, payload []byte) []byte {
	b := appendHeader(nil, 0, len(payload))
	b[0], b[1] = b0, b[1]|maskBit
	mask := [4]byte{0x37, 0xfa, 0x21, 0x3d}
	b = append(b, mask[:]...)
	at := len(b)
	b = append(b, payload...)
	ws.Cipher(b[at:], mask, 0)
	return b
}

func frame(op ws.OpCode, payload string) []byte { return masked(finBit|byte(op), []byte(payload)) }
func part(op ws.OpCode, payload string) []byte  { return masked(byte(op), []byte(payload)) }
func text(payload string) []byte                { return frame(ws.OpText, payload) }

func closeFrame(code ws.StatusCode, reason string) []byte {
	return masked(finBit|byte(ws.OpClose), append([]byte{byte(code >> 8), byte(code)}, reason...))
}

func join(b ...[]byte) []byte { return bytes.Join(b, nil) }
