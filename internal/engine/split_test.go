package engine

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"testing"

	"github.com/gobwas/ws"
	"pgregory.net/rapid"
)

// account is what became of a stream of frames: all that an application and a client can tell.
type account struct {
	messages []string
	sent     []byte // back to the client
	code     ws.StatusCode
	cause    string // of Closed
}

func (a account) String() string {
	return fmt.Sprintf("%q, sent %.300q, %d %s", a.messages, a.sent, a.code, a.cause)
}

// splitOptions are the limits of these tests; small, so that they are met.
var splitOptions = Options{MessageBytes: 300, Fragments: 8}

// expect is the account of an echo server that gets stream at once, by a parser and RFC 6455 alone; eof stands for a
// stream that ends without a close.
func expect(stream []byte, eof account) account {
	p := parser{maxMessage: splitOptions.MessageBytes, maxFragments: splitOptions.Fragments}
	a, b := eof, slices.Clone(stream)
	for {
		ev, n := p.next(b)
		b = b[n:]
		switch ev.kind {
		case evNone:
			return a
		case evMessage:
			a.messages = append(a.messages, fmt.Sprintf("%x %q", ev.op, ev.payload))
			a.sent = append(a.sent, newFrame(ev.op, ev.payload).wire...)
		case evPing:
			a.sent = append(a.sent, newFrame(ws.OpPong, ev.payload).wire...)
		case evClose:
			a.code, a.cause, a.sent = ev.code, "", append(a.sent, newClose(ev.code, "").wire...)
			return a
		case evViolation:
			a.code, a.cause, a.sent = ev.code, ev.err.Error(), append(a.sent, newClose(ev.code, ev.err.Error()).wire...)
			return a
		}
	}
}

// taker is a line whose socket takes every byte at once.
type taker struct {
	line
	sent *[]byte
}

func (k taker) try(b []byte) (int, error) {
	*k.sent = append(*k.sent, b...)
	return len(b), nil
}

// feeders make a connection whose line has no socket. What they return feeds it as the line does what it has read, and
// ends each pause when the line has left for it.
var feeders = map[string]func(s *service) (c *conn, feed func(b []byte) (more bool)){
	"goroutine": func(s *service) (*conn, func(b []byte) bool) {
		c := &conn{s: s}
		t := &threads{c: c, intake: s.newIntake()}
		c.line, c.in = t, &t.intake
		return c, func(b []byte) bool {
			fed := make(chan struct{})
			defer close(fed)
			go func() {
				for {
					select {
					case <-fed:
						return
					default:
						c.pause(false)
					}
				}
			}()
			return t.feed(b)
		}
	},
}

// fed is the account of pieces by a line. A message of "pause" pauses its connection.
func fed(name string, pieces [][]byte) account {
	var a account
	var e *Engine
	var c *conn
	e = New(&hooks{message: func(ref ConnRef, op ws.OpCode, p []byte) {
		a.messages = append(a.messages, fmt.Sprintf("%x %q", op, p))
		if string(p) == "pause" {
			c.pause(true)
		}
		_ = e.Send(ref, newFrame(op, p)) // gone after a close
	}}, splitOptions)
	var feed func(b []byte) bool
	c, feed = feeders[name](&service{e: e})
	c.state = open
	e.table.add(c, 1)
	c.line = taker{c.line, &a.sent}
	for _, b := range pieces {
		b = slices.Clone(b)
		if len(b) > 0 && !feed(b) {
			break
		}
	}
	a.code = c.code
	if c.end != nil && c.end.cause != nil {
		a.cause = c.end.cause.Error()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	held := 0
	if c.in != nil {
		held = c.in.held
	}
	if c.state == open && !c.paused && e.count.held.Load() != int64(held) {
		a.cause = fmt.Sprint("held ", e.count.held.Load(), ", want ", held)
	}
	if c.release(); e.count.held.Load() != 0 {
		a.cause = fmt.Sprint("held in the end: ", e.count.held.Load())
	}
	return a
}

// sameFed says that each line gives the account of the whole stream for it in these pieces.
func sameFed(t interface{ Errorf(string, ...any) }, stream []byte, pieces [][]byte) {
	want := expect(stream, account{})
	for name := range feeders {
		if got := fed(name, pieces); got.String() != want.String() {
			t.Errorf("%s: %d pieces of %q:\n got %v\nwant %v", name, len(pieces), stream, got, want)
		}
	}
}

func seedSplits(f *testing.F) {
	for _, tc := range conformance {
		if len(tc.send) <= 1000 {
			f.Add(tc.send, []byte{1})
			f.Add(tc.send, []byte{3, 1, 7})
			f.Add(tc.send, []byte{})
		}
	}
	paused := join(text("pause"), text("a"), part(ws.OpText, "b"), frame(ws.OpPing, "c"), frame(ws.OpContinuation, "d"), text("pause"), text("e"))
	f.Add(paused, []byte{1})
	f.Add(paused, []byte{15})
	f.Add(paused, []byte{})
	many := slices.Repeat(frame(ws.OpPing, ""), 100) // more than a turn of a loop takes
	f.Add(join(many, part(ws.OpText, "a"), many, closeFrame(4000, "")), []byte{})
	f.Add(join(many, text("pause"), text("b"), masked(0xf1, nil)), []byte{255})
}

// FuzzLinesSplit: any bytes, cut in any way, give each line the account of the bytes at once.
func FuzzLinesSplit(f *testing.F) {
	seedSplits(f)
	f.Fuzz(func(t *testing.T, stream, cuts []byte) {
		sameFed(t, stream, cut(stream, cuts))
	})
}

// frames draws a client's stream: mostly right frames, some that are not, some cut short.
func frames(t *rapid.T) []byte {
	var b []byte
	for range rapid.IntRange(0, 12).Draw(t, "frames") {
		p := rapid.OneOf(
			rapid.SampledFrom([]string{"", "pause", "κ", "\xce", "\xba", "\xff", stars(125), stars(126), stars(300), stars(301)}),
			rapid.StringN(0, 20, 60)).Draw(t, "payload")
		switch rapid.IntRange(0, 11).Draw(t, "kind") {
		case 0, 1, 2, 3:
			b = append(b, text(p)...)
		case 4:
			b = append(b, frame(ws.OpBinary, p)...)
		case 5:
			b = append(b, part(ws.OpText, p)...)
		case 6, 7:
			b = append(b, frame(ws.OpContinuation, p)...)
		case 8:
			b = append(b, part(ws.OpContinuation, p)...)
		case 9:
			b = append(b, frame(ws.OpPing, p)...)
		case 10:
			b = append(b, frame(ws.OpPong, p)...)
		case 11:
			switch rapid.IntRange(0, 4).Draw(t, "seldom") {
			case 0:
				b = append(b, closeFrame(ws.StatusCode(rapid.SampledFrom([]int{999, 1000, 1005, 4999}).Draw(t, "code")), p)...)
			case 1:
				b = append(b, masked(rapid.Byte().Draw(t, "first"), []byte(p))...)
			case 2:
				b = append(b, rapid.SliceOfN(rapid.Byte(), 0, 9).Draw(t, "noise")...)
			}
		}
	}
	return b[:len(b)-rapid.IntRange(0, min(5, len(b))).Draw(t, "cut off")]
}

func TestLinesAgreeHoweverTheFramesAreCut(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		stream := frames(t)
		sameFed(t, stream, cut(stream, rapid.SliceOfN(rapid.ByteMin(1), 0, 8).Draw(t, "cuts")))
	})
}

// FuzzConnectionSplit is FuzzLinesSplit over real sockets: each piece is a write of its own, the first one in the
// packet of the handshake.
func FuzzConnectionSplit(f *testing.F) {
	servers := make(map[string]*server)
	for name, build := range engines {
		var s *server
		s = start(f, build, &hooks{message: func(c ConnRef, op ws.OpCode, p []byte) {
			if string(p) == "pause" {
				s.Pause(c, true)
				go s.Pause(c, false)
			}
			_ = s.Send(c, newFrame(op, p)) // gone after a close
		}}, splitOptions)
		servers[name] = s
	}
	seedSplits(f)
	f.Fuzz(func(t *testing.T, stream, cuts []byte) {
		if len(stream) > 2000 {
			return // the kernel's buffers hold all answers, so that no pong takes another's place
		}
		pieces := slices.DeleteFunc(cut(stream, cuts), func(b []byte) bool { return len(b) == 0 })
		if len(pieces) > 40 {
			pieces = append(pieces[:39], join(pieces[39:]...))
		}
		want := expect(stream, account{code: ws.StatusAbnormalClosure, cause: io.EOF.Error()})
		want.messages = nil
		for name, s := range servers {
			got := overSocket(t, s, pieces)
			e := get(t, s.ended, "Closed")
			if got.code = e.code; e.cause != nil {
				got.cause = e.cause.Error()
			}
			if got.String() != want.String() {
				t.Errorf("%s: %d pieces of %q:\n got %v\nwant %v", name, len(pieces), stream, got, want)
			}
		}
	})
}

// overSocket sends pieces and then the end, and returns what the client got.
func overSocket(t *testing.T, s *server, pieces [][]byte) (a account) {
	c := connect(t, s.addr)
	defer c.nc.Close()
	first := []byte(upgradeRequest())
	if len(pieces) > 0 {
		first, pieces = append(first, pieces[0]...), pieces[1:]
	}
	c.write(first)
	c.response()
	get(t, s.opened, "Open")
	c.write(pieces...)
	if err := c.nc.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	var sent bytes.Buffer
	if _, err := sent.ReadFrom(c.r); err != nil && !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	return account{sent: sent.Bytes()}
}
