package engine

import (
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gobwas/ws"
)

func TestAStreamGetsEachFrameAsOneEvent(t *testing.T) {
	eachEngine(t, func(t *testing.T, build newEngine) {
		requests := make(chan *Request, 1)
		s := start(t, build, &hooks{
			handshake: func(ConnRef, *Request) Decision { t.Error("a stream has no handshake"); return Decision{} },
			open:      func(_ ConnRef, r *Request) { requests <- r },
		}, Options{HTTP: streams})
		c := connect(t, s.addr)
		header := c.ask(`{"type":"hello"}`, "X-Socket-Meta: token")
		ref := get(t, s.opened, "Open")
		if r := get(t, requests, "request"); !r.Stream || string(r.Body) != `{"type":"hello"}` || r.Target != "/v1/events" || r.Header.Get("X-Socket-Meta") != "token" || !r.Remote.IsValid() {
			t.Errorf("Open was given %+v", r)
		}
		for name, want := range map[string]string{
			"Content-Type": "text/event-stream", "Cache-Control": "no-store", "X-Accel-Buffering": "no", "X-Extra": "of the handler", "Transfer-Encoding": "", "Content-Length": "",
		} {
			if got := header.Get(name); got != want {
				t.Errorf("%s is %q, want %q", name, got, want)
			}
		}
		for _, payload := range []string{"{}", "", "{\"a\":\r\n\t1,\n\"b\":\"\\n\"}", stars(126), stars(70_000)} {
			if err := s.Send(ref, NewText([]byte(payload))); err != nil {
				t.Fatal(err)
			}
			c.wantEvents("data: " + strings.NewReplacer("\r", " ", "\n", " ").Replace(payload))
		}
		if n := s.Stats(); n.Conns != 1 || n.Streams != 1 || n.Plain != 0 {
			t.Errorf("%d connections, %d streams, %d others; want 1, 1, 0", n.Conns, n.Streams, n.Plain)
		}
		_ = c.nc.Close()
		get(t, s.ended, "Closed")
		if n := s.Stats(); n.Conns != 0 || n.Streams != 0 {
			t.Errorf("after the end %d connections, %d streams", n.Conns, n.Streams)
		}
	})
}

func TestAFrameIsEncodedOnceForAllStreams(t *testing.T) {
	f := NewText([]byte(`{"n":1}`))
	var all sync.WaitGroup
	got := make([][]byte, 8)
	for i := range got {
		all.Go(func() { got[i] = f.event() })
	}
	all.Wait()
	for _, b := range got {
		if string(b) != "data: {\"n\":1}\n\n" || &b[0] != &got[0][0] {
			t.Errorf("got %q, at another place than the first: %v", b, &b[0] != &got[0][0])
		}
	}
	if string(f.Payload()) != `{"n":1}` {
		t.Errorf("the payload became %q", f.Payload())
	}
}

func TestSlowStreamFillsItsQueueAndHurtsNobodyElse(t *testing.T) {
	eachEngine(t, func(t *testing.T, build newEngine) {
		writable := make(chan ConnRef, 1000)
		s := start(t, build, &hooks{writable: func(c ConnRef) { writable <- c }}, Options{HTTP: streams, QueueBytes: 100_000})
		slow := listenDeaf(t, s)
		ref := get(t, s.opened, "Open")
		n := fill(t, s, ref, NewText([]byte(stars(4092))))
		if held := s.Stats().HeldBytes; held > 100_000 || held < 90_000 {
			t.Errorf("%d bytes wait, want nearly the 100,000 of the queue", held)
		}
		if err := s.Send(ref, NewText(make([]byte, 100_000))); !errors.Is(err, ErrQueueFull) {
			t.Errorf("a frame longer than the queue: %v", err)
		}
		good := listen(t, s)
		other := get(t, s.opened, "Open")
		for i := range 200 {
			_ = s.Send(ref, NewText([]byte(stars(4092)))) // no room, or a little as the kernel takes some
			if err := s.Send(other, NewText(fmt.Append(nil, i))); err != nil {
				t.Fatal(err)
			}
			good.wantEvents(fmt.Sprintf("data: %d", i))
		}
		for range n {
			slow.wantEvents("data: " + stars(4092))
		}
		if got := get(t, writable, "Writable"); got != ref {
			t.Errorf("Writable for %v, want %v", got, ref)
		}
	})
}

func TestSilentStreamIsSentComments(t *testing.T) {
	inBubble(t, &hooks{}, Options{HTTP: streams}, func(t *testing.T, b *bubble) {
		p := b.listen()
		b.pass(31 * time.Second)
		if got := p.got(); !slices.Equal(got, []string{":", ":"}) || p.times[0] != 15*time.Second {
			t.Errorf("got %q at %v, want a comment every 15 s", got, p.times)
		}
		for range 10 { // what is sent makes comments needless
			if err := b.Send(b.last(), NewText([]byte("x"))); err != nil {
				t.Fatal(err)
			}
			b.pass(14 * time.Second)
		}
		if got := p.got(); len(got) != 12 || slices.Contains(got[2:], ":") {
			t.Errorf("got %q, want ten events without a comment", got)
		}
		b.pass(time.Hour)
		if n := len(p.got()); n != 12+240 {
			t.Errorf("%d events and comments, want 240 comments in an hour", n-12)
		}
		b.wantOpen()
	})
}

func TestStreamThatIsNotReadIsCut(t *testing.T) {
	inBubble(t, &hooks{}, Options{HTTP: streams}, func(t *testing.T, b *bubble) {
		c := b.connect()
		c.ask("")
		synctest.Wait()
		for range 4 {
			if err := b.Send(b.last(), NewText([]byte("x"))); err != nil {
				t.Fatal(err)
			}
		}
		b.pass(19 * time.Second) // slow, but it reads
		c.wantEvents("data: x")
		b.pass(30 * time.Second)
		b.wantEnd(1006, ErrStalled, 19*time.Second+20*time.Second)
		if held := b.Stats().HeldBytes; held != 0 {
			t.Errorf("%d bytes are held after the end", held)
		}
	})
}

// A pipe has no kernel that could miss an acknowledgement: the comment waits in the queue instead.
func TestSilentStreamWithoutAKernelIsCutByItsQueue(t *testing.T) {
	inBubble(t, &hooks{}, Options{HTTP: streams}, func(t *testing.T, b *bubble) {
		c := b.connect()
		c.ask("")
		b.pass(time.Minute)
		b.wantEnd(1006, ErrStalled, 35*time.Second)
	})
}

func TestStreamIsFlushedAndToldBeforeItsEnd(t *testing.T) {
	bye := func(code StatusCode, reason string) *Frame {
		return NewText(fmt.Appendf(nil, "bye %d %s", code, reason))
	}
	eachEngine(t, func(t *testing.T, build newEngine) {
		s := start(t, build, &hooks{}, Options{HTTP: streams, Bye: bye, CloseTime: patience})
		for name, tc := range map[string]struct {
			last *Frame
			want string
		}{
			"with a last frame": {NewText([]byte("adieu")), "data: adieu"},
			"without one":       {nil, "data: bye 4000 replaced"},
		} {
			c := connect(t, s.addr)
			if err := c.nc.(*net.TCPConn).SetReadBuffer(192 << 10); err != nil {
				t.Fatal(err)
			}
			c.ask("")
			ref := get(t, s.opened, "Open")
			n := fill(t, s, ref, NewText([]byte(stars(10_000))))
			s.CloseConn(ref, 4000, "replaced", tc.last)
			s.CloseConn(ref, 1000, "too late", nil)
			if err := s.Send(ref, NewText(nil)); !errors.Is(err, ErrGone) {
				t.Errorf("%s: Send after CloseConn: %v", name, err)
			}
			for range n {
				c.wantEvents("data: " + stars(10_000))
			}
			c.wantEvents(tc.want, "end") // the end comes before the client's own
			_ = c.nc.Close()
			if e := get(t, s.ended, "Closed"); e != (end{ref, 4000, nil}) {
				t.Errorf("%s: got %+v, want 4000 without a cause", name, e)
			}
		}
		c := listen(t, s)
		get(t, s.opened, "Open")
		var all sync.WaitGroup
		all.Go(s.stop)
		c.wantEvents("data: bye 1001 ", "end")
		_ = c.nc.Close()
		all.Wait()
		if e := get(t, s.ended, "Closed"); e.code != 1001 || !errors.Is(e.cause, ErrShutdown) {
			t.Errorf("got %+v, want 1001 and ErrShutdown", e)
		}
	})
}

func TestStreamThatIsClosedAndNotLeftIsCut(t *testing.T) {
	eachEngine(t, func(t *testing.T, build newEngine) {
		s := start(t, build, &hooks{}, Options{HTTP: streams, CloseTime: 10 * tick, sweep: tick})
		for _, full := range []bool{false, true} {
			c := listenDeaf(t, s)
			ref := get(t, s.opened, "Open")
			if full {
				fill(t, s, ref, NewText(make([]byte, 10_000)))
			}
			s.CloseConn(ref, 4000, "", nil)
			if e := get(t, s.ended, "Closed"); e != (end{ref, 4000, nil}) {
				t.Errorf("got %+v", e)
			}
			_ = c.nc.Close()
		}
	})
	inBubble(t, &hooks{}, Options{HTTP: streams}, func(t *testing.T, b *bubble) {
		p := b.listen() // where one side cannot be ended alone, both are at once
		b.CloseConn(b.last(), 4000, "", NewText([]byte("bye")))
		b.wantEnd(4000, nil, 0)
		if got := p.got(); !slices.Equal(got, []string{"data: bye", "end"}) {
			t.Errorf("got %q", got)
		}
	})
}

func TestStreamsClosedSaysWhatHappened(t *testing.T) {
	eachEngine(t, func(t *testing.T, build newEngine) {
		s := start(t, build, &hooks{message: func(ConnRef, ws.OpCode, []byte) { t.Error("a stream has sent a message") }},
			Options{HTTP: streams, MessageBytes: 1000, CloseTime: 20 * tick, sweep: tick})
		for _, tc := range []struct {
			name  string
			do    func(c *client)
			code  ws.StatusCode
			cause error
			by    string
		}{
			{"the client leaves", func(c *client) {}, 1005, nil, "peer"},
			{"its end of it", func(c *client) { _ = c.nc.(*net.TCPConn).CloseWrite(); c.wantEvents("end") }, 1005, nil, "peer"},
			{"more bytes", func(c *client) { c.write(make([]byte, 999)); s.Pause(c.ref, true) }, 1005, nil, "peer"},
			{"too many bytes", func(c *client) { c.write(make([]byte, 2000)); c.wantEvents("end") }, 1002, ErrProtocol, "protocol"},
		} {
			before := s.Stats().Closes[tc.by]
			c := listen(t, s)
			c.ref = get(t, s.opened, "Open")
			tc.do(c)
			_ = c.nc.Close()
			e := get(t, s.ended, "Closed")
			if e.ref != c.ref || e.code != tc.code || !errors.Is(e.cause, tc.cause) {
				t.Errorf("%s: got %+v, want %d, %v", tc.name, e, tc.code, tc.cause)
			}
			if got := s.Stats().Closes[tc.by]; got != before+1 {
				t.Errorf("%s is not counted as %s", tc.name, tc.by)
			}
		}
		c := listen(t, s)
		get(t, s.opened, "Open")
		_ = c.nc.(*net.TCPConn).SetLinger(0)
		_ = c.nc.Close()
		if e := get(t, s.ended, "Closed"); e.code != 1006 || e.cause == nil {
			t.Errorf("a reset: got %+v, want 1006 and a cause", e)
		}
	})
}

func TestStreamsAreRefused(t *testing.T) {
	eachEngine(t, func(t *testing.T, build newEngine) {
		s := start(t, build, &hooks{}, Options{HTTP: streams, MaxConns: 1})
		c := connect(t, s.addr)
		c.write([]byte("DELETE /v1/events HTTP/1.1\r\nHost: example.test\r\n\r\n"))
		if res := c.response(); res.StatusCode != 405 || res.Header.Get("Allow") != "GET, POST" {
			t.Errorf("DELETE: got %s, Allow %q", res.Status, res.Header.Get("Allow"))
		}
		c.ask("") // on the same connection
		get(t, s.opened, "Open")
		res := connect(t, s.addr).request("")
		if res.StatusCode != 503 || res.Header.Get("Retry-After") == "" || res.Header.Get("Content-Type") != "application/problem+json" {
			t.Errorf("over MaxConns: got %s %v", res.Status, res.Header)
		}
		if w := connect(t, s.addr); true {
			w.write([]byte(upgradeRequest()))
			if res := w.response(); res.StatusCode != 503 {
				t.Errorf("a WebSocket over MaxConns: %s", res.Status)
			}
		}
		_ = c.nc.Close()
		get(t, s.ended, "Closed")
	})
}

func TestPanicClosesOneStream(t *testing.T) {
	eachEngine(t, func(t *testing.T, build newEngine) {
		bad := make(chan bool, 2)
		s := start(t, build, &hooks{open: func(ConnRef, *Request) {
			if <-bad {
				panic("a bug in open")
			}
		}}, Options{HTTP: streams, Bye: func(code StatusCode, _ string) *Frame { return NewText(fmt.Append(nil, code)) }})
		bad <- false
		good := listen(t, s)
		ref := get(t, s.opened, "Open")
		bad <- true
		c := listen(t, s)
		c.wantEvents("data: 1011", "end")
		_ = c.nc.Close()
		if e := get(t, s.ended, "Closed"); e.code != 1011 || !errors.Is(e.cause, ErrHandler) {
			t.Errorf("got %+v", e)
		}
		if err := s.Send(ref, NewText([]byte("alive"))); err != nil {
			t.Error(err)
		}
		good.wantEvents("data: alive")
	})
}

// TestReceiveIsSerialWithOtherCalls gives one connection messages from many sides.
func TestReceiveIsSerialWithOtherCalls(t *testing.T) {
	eachEngine(t, func(t *testing.T, build newEngine) {
		var s *server
		counts := make(map[ConnRef]int) // without a lock: each value is touched by one connection's calls
		var mu sync.Mutex
		running := make(map[ConnRef]bool)
		s = start(t, build, &hooks{message: func(c ConnRef, op ws.OpCode, p []byte) {
			mu.Lock()
			if running[c] || op != OpText {
				t.Errorf("Message %v while another one runs: %v", op, running[c])
			}
			running[c] = true
			counts[c]++
			mu.Unlock()
			if string(p) == "panic" {
				panic("a bug in message")
			}
			runtime.Gosched()
			mu.Lock()
			running[c] = false
			mu.Unlock()
		}}, Options{HTTP: streams})
		socket, stream := dial(t, s), (*client)(nil)
		socketRef := get(t, s.opened, "Open")
		stream = listen(t, s)
		streamRef := get(t, s.opened, "Open")
		var all sync.WaitGroup
		for range 4 {
			all.Go(func() {
				for range 100 {
					for _, ref := range []ConnRef{socketRef, streamRef} {
						if err := s.Receive(ref, []byte("x")); err != nil {
							t.Errorf("Receive: %v", err)
						}
					}
				}
			})
		}
		all.Wait()
		socket.leave()
		mu.Lock()
		if counts[socketRef] != 400 || counts[streamRef] != 400 {
			t.Errorf("got %v, want 400 messages each", counts)
		}
		mu.Unlock()
		if err := s.Receive(streamRef, []byte("panic")); err != nil {
			t.Errorf("Receive: %v", err)
		}
		stream.wantEvents("end")
		for _, ref := range []ConnRef{0, socketRef, streamRef} {
			if err := s.Receive(ref, []byte("x")); !errors.Is(err, ErrGone) {
				t.Errorf("Receive for %#x: got %v, want ErrGone", ref, err)
			}
		}
	})
}

func TestSendToAStreamAllocatesNothing(t *testing.T) {
	eachEngine(t, func(t *testing.T, build newEngine) {
		s := start(t, build, &hooks{}, Options{HTTP: streams})
		c := listen(t, s)
		ref := get(t, s.opened, "Open")
		out := NewText([]byte(stars(256)))
		got := make([]byte, len(out.event()))
		allocs := testing.AllocsPerRun(500, func() {
			if err := s.Send(ref, out); err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(c.nc, got); err != nil {
				t.Fatal(err)
			}
		})
		if allocs > 1 { // as for sockets
			t.Errorf("%v allocations for a Send, want 0", allocs)
		}
	})
}
