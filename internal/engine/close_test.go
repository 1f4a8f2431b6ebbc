package engine

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/gobwas/ws"
)

// tick is a short sweep for tests over real sockets, where time cannot be faked.
const tick = 5 * time.Millisecond

func TestCloseConnFlushesThenSaysLastThenCloses(t *testing.T) {
	eachEngine(t, func(t *testing.T, build newEngine) {
		s := start(t, build, &hooks{message: func(ConnRef, ws.OpCode, []byte) {
			t.Error("a message reached the handler after CloseConn")
		}}, Options{CloseTime: patience})
		c := dial(t, s)
		ref := get(t, s.opened, "Open")
		n := fill(t, s, ref, NewText([]byte(stars(10_000)))) // the queue is full
		s.CloseConn(ref, 1012, "drain", NewText([]byte("bye")))
		s.CloseConn(ref, 1000, "too late", nil)
		if err := s.Send(ref, NewText(nil)); !errors.Is(err, ErrGone) {
			t.Errorf("Send after CloseConn: got %v, want ErrGone", err)
		}
		c.write(text("ignored"))
		for range n {
			c.want("text:" + stars(10_000))
		}
		c.want("text:bye", "close:1012 drain")
		select {
		case e := <-s.ended:
			t.Fatalf("closed before the peer answered: %+v", e)
		default:
		}
		c.write(closeFrame(1012, ""))
		c.want("end")
		_ = c.nc.Close()
		if e := get(t, s.ended, "Closed"); e != (end{ref, 1012, nil}) {
			t.Errorf("got %+v, want 1012 without a cause", e)
		}
		if got := s.Stats().Closes["local"]; got != 1 {
			t.Errorf("%d closes by local, want 1", got)
		}
	})
}

func TestCloseReasonIsCutAndAWrongCodeIsLeftOut(t *testing.T) {
	eachEngine(t, func(t *testing.T, build newEngine) {
		s := start(t, build, &hooks{}, Options{})
		for _, tc := range []struct {
			code         ws.StatusCode
			reason, want string
		}{
			{4208, stars(122) + "é", "close:4208 " + stars(122)},
			{1006, "not on the wire", "close"},
		} {
			c := dial(t, s)
			s.CloseConn(get(t, s.opened, "Open"), tc.code, tc.reason, nil)
			c.want(tc.want)
			_ = c.nc.Close()
			if e := get(t, s.ended, "Closed"); e.code != tc.code {
				t.Errorf("Closed with %d, want %d", e.code, tc.code)
			}
		}
	})
}

func TestPeerThatDoesNotAnswerTheCloseIsCut(t *testing.T) {
	eachEngine(t, func(t *testing.T, build newEngine) {
		s := start(t, build, &hooks{}, Options{CloseTime: 10 * tick, sweep: tick})
		for _, full := range []bool{false, true} {
			c := dial(t, s)
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
}

func TestClosedSaysWhatHappened(t *testing.T) {
	eachEngine(t, func(t *testing.T, build newEngine) {
		s := startEcho(t, build, Options{MessageTime: 10 * tick, sweep: tick, CloseTime: 20 * tick})
		for _, tc := range []struct {
			name  string
			do    func(c *client)
			code  ws.StatusCode
			cause error
			by    string
		}{
			{"a close frame", func(c *client) { c.leave() }, 1000, nil, "peer"},
			{"an empty close frame", func(c *client) { c.write(masked(0x88, nil)); c.want("close", "end") }, 1005, nil, "peer"},
			{"the end of the stream", func(c *client) {}, 1006, io.EOF, "lost"},
			{"a violation", func(c *client) { c.write(masked(0xf1, nil)); c.want("close:1002", "end") }, 1002, ErrProtocol, "protocol"},
			{"a long message", func(c *client) { c.write(text(stars(70_000))[:20]); c.want("close:1009", "end") }, 1009, ErrTooLarge, "too_large"},
			{"half a frame", func(c *client) { c.write(text("abc")[:7]); c.want("close:1008") }, 1008, ErrSlowFrame, "slow"},
			{"half a message", func(c *client) { c.write(part(ws.OpText, "abc")); c.want("close:1008") }, 1008, ErrSlowFrame, "slow"},
		} {
			before := s.Stats().Closes[tc.by]
			c := dial(t, s)
			ref := get(t, s.opened, "Open")
			tc.do(c)
			_ = c.nc.Close()
			e := get(t, s.ended, "Closed")
			if e.ref != ref || e.code != tc.code || !errors.Is(e.cause, tc.cause) {
				t.Errorf("%s: got %+v, want %d, %v", tc.name, e, tc.code, tc.cause)
			}
			if got := s.Stats().Closes[tc.by]; got != before+1 {
				t.Errorf("%s is not counted as %s", tc.name, tc.by)
			}
		}
	})
}

func TestPauseStopsReading(t *testing.T) {
	eachEngine(t, func(t *testing.T, build newEngine) {
		var s *server
		got := make(chan string, 4096)
		s = start(t, build, &hooks{message: func(c ConnRef, _ ws.OpCode, p []byte) {
			got <- string(p)
			if string(p) == "pause" {
				s.Pause(c, true)
			}
		}}, Options{})
		c := dial(t, s)
		ref := get(t, s.opened, "Open")
		c.write(join(text("pause"), text("behind"))) // in one packet
		if m := get(t, got, "Message"); m != "pause" {
			t.Fatalf("got %q", m)
		}
		// The peer can write until the buffers are full, and no further.
		_ = c.nc.SetWriteDeadline(time.Now().Add(300 * time.Millisecond))
		message := text(stars(60_000))
		wrote, rest := 0, []byte(nil)
		for {
			n, err := c.nc.Write(message)
			wrote++
			if errors.Is(err, os.ErrDeadlineExceeded) {
				rest = message[n:]
				break
			}
			if err != nil || wrote > 10_000 {
				t.Fatalf("%d messages were taken from a paused peer: %v", wrote, err)
			}
		}
		if len(got) != 0 {
			t.Fatal("a message came in the pause")
		}
		if err := s.Send(ref, NewText([]byte("still"))); err != nil {
			t.Errorf("Send in the pause: %v", err)
		}
		c.want("text:still")
		s.Pause(ref, true) // twice is once
		s.Pause(ref, false)
		s.Pause(ref, false)
		_ = c.nc.SetWriteDeadline(time.Now().Add(patience))
		c.write(rest)
		if m := get(t, got, "Message"); m != "behind" {
			t.Errorf("got %.20q first after the pause, want %q", m, "behind")
		}
		for range wrote {
			if m := get(t, got, "Message"); m != stars(60_000) {
				t.Fatalf("got %.20q", m)
			}
		}
		c.leave()
	})
}

func TestClosingEndsAPause(t *testing.T) {
	eachEngine(t, func(t *testing.T, build newEngine) {
		s := start(t, build, &hooks{}, Options{})
		c := dial(t, s)
		ref := get(t, s.opened, "Open")
		s.Pause(ref, true)
		s.CloseConn(ref, 1000, "", nil)
		c.want("close:1000")
		c.write(closeFrame(1000, ""))
		c.want("end")
	})
}

func TestShutdownClosesEverySocket(t *testing.T) {
	eachEngine(t, func(t *testing.T, build newEngine) {
		const n = 1000
		inFlight := make(chan struct{})
		s := start(t, build, &hooks{}, Options{CloseTime: 200 * time.Millisecond, sweep: tick,
			HTTP: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				close(inFlight)
				<-r.Context().Done() // ends after CloseTime
			})})
		conns := make([]*client, n)
		for i := range conns {
			conns[i] = dial(t, s)
			ref := get(t, s.opened, "Open")
			switch i {
			case 0:
				fill(t, s, ref, NewText(make([]byte, 1000))) // one that does not read
			case 1:
				s.Pause(ref, true)
			case 2:
				s.CloseConn(ref, 4001, "told", nil)
			}
		}
		plain := connect(t, s.addr)
		plain.write([]byte("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n")) // and nobody waits for its body
		get(t, inFlight, "request")
		var wg sync.WaitGroup
		for i, c := range conns[3:] {
			wg.Go(func() {
				if got := c.read(); got != "close:1001" {
					t.Errorf("client %d read %.50q, want close:1001", i, got)
				}
				if i%10 != 0 { // some do not answer
					c.stream(closeFrame(1001, ""))
				}
			})
		}
		s.stop()
		wg.Wait()
		codes := make(map[ws.StatusCode]int)
		for range n {
			e := get(t, s.ended, "Closed")
			codes[e.code]++
			if e.code == 1001 && !errors.Is(e.cause, ErrShutdown) {
				t.Errorf("got cause %v, want ErrShutdown", e.cause)
			}
		}
		if codes[1001] != n-1 || codes[4001] != 1 {
			t.Errorf("got codes %v, want 999 times 1001 and once 4001", codes)
		}
		if got := s.Stats(); got.Conns != 0 || got.Plain != 0 || got.HeldBytes != 0 {
			t.Errorf("got %+v, want nothing left", got)
		}
	})
}

func TestServeEndsWithItsListener(t *testing.T) {
	eachEngine(t, func(t *testing.T, build newEngine) {
		opened, ended := make(chan ConnRef, 1), make(chan end, 1)
		e := build(&hooks{
			open:   func(c ConnRef, _ *Request) { opened <- c },
			closed: func(c ConnRef, code ws.StatusCode, cause error) { ended <- end{c, code, cause} },
		}, Options{CloseTime: 10 * tick, sweep: tick})
		var serves sync.WaitGroup
		ctx, cancel := context.WithCancel(t.Context())
		defer serves.Wait()
		defer cancel()
		listen := func() net.Listener {
			ln, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			return ln
		}
		one, two := listen(), listen()
		failed := make(chan error, 1)
		serves.Go(func() { failed <- e.Serve(ctx, one) })
		serves.Go(func() {
			if err := e.Serve(ctx, two); err != nil {
				t.Errorf("Serve of the second listener: %v", err)
			}
		})
		a, b := connect(t, one.Addr().String()), connect(t, two.Addr().String())
		a.upgrade()
		ref := get(t, opened, "Open")
		b.upgrade()
		get(t, opened, "Open")
		_ = one.Close()
		a.want("close:1001")
		_ = a.nc.Close()
		if err := get(t, failed, "error of Serve"); err == nil {
			t.Error("Serve of a closed listener returned nil")
		}
		if got := get(t, ended, "Closed"); got.ref != ref {
			t.Errorf("Closed for %v, want %v", got.ref, ref)
		}
		if n := e.Conns(); n != 1 { // the other listener's
			t.Errorf("%d connections, want 1", n)
		}
	})
}
