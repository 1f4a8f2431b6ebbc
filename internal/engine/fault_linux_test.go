package engine

import (
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/gobwas/ws"
	"golang.org/x/sys/unix"
)

// The socket is found not ready after each byte, in both ways.
func TestEveryByteMayFindTheSocketNotReady(t *testing.T) {
	var mu sync.Mutex
	turn := make(map[string]int)
	s := startEcho(t, epolls, Options{sys: tamper(func(call string, fd int) (int, error) {
		mu.Lock()
		defer mu.Unlock()
		key := fmt.Sprint(call, fd)
		if turn[key]++; turn[key]%2 == 0 && (call == "read" || call == "write") {
			return 0, unix.EAGAIN
		}
		return 1, nil
	})})
	c := dial(t, s)
	c.stream(join(text(stars(300)), part(ws.OpText, "κό"), frame(ws.OpPing, "p"), frame(ws.OpContinuation, "σμε"), text("")))
	c.want("text:"+stars(300), "pong:p", "text:κόσμε", "text:")
	c.leave()
	_ = c.nc.Close()
	if e := get(t, s.ended, "Closed"); e.code != 1000 || e.cause != nil {
		t.Errorf("got %+v, want 1000 without a cause", e)
	}
}

// Each call is interrupted by a signal 50 times before it is made.
func TestAStormOfSignalsIsNoticedByNobody(t *testing.T) {
	var mu sync.Mutex
	turn := make(map[string]int)
	s := startEcho(t, epolls, Options{sys: tamper(func(call string, fd int) (int, error) {
		mu.Lock()
		defer mu.Unlock()
		key := fmt.Sprint(call, fd)
		if turn[key]++; turn[key]%50 != 0 && (call == "read" || call == "write" || call == "wait") {
			return 0, unix.EINTR
		}
		return 0, nil
	})})
	c := dialDeaf(t, s)
	ref := get(t, s.opened, "Open")
	n := fill(t, s, ref, NewText([]byte(stars(4092)))) // so that frames go out by writev too
	for range n {
		c.want("text:" + stars(4092))
	}
	for i := range 20 {
		c.write(text(fmt.Sprint(i)))
		c.want(fmt.Sprintf("text:%d", i))
	}
	c.leave()
}

// TestAFailedCallEndsOneConnection has one call of one connection fail, again and again, and looks at both ends of it,
// at what it leaves behind and at another connection.
func TestAFailedCallEndsOneConnection(t *testing.T) {
	send := func(t *testing.T, s *server, ref ConnRef, _ *client) {
		if err := s.Send(ref, NewText([]byte("x"))); !errors.Is(err, ErrGone) {
			t.Errorf("Send: got %v, want ErrGone", err)
		}
	}
	speak := func(_ *testing.T, _ *server, _ ConnRef, c *client) { c.write(text("x")) }
	for _, tc := range []struct {
		call  string
		errno error
		do    func(t *testing.T, s *server, ref ConnRef, c *client)
		code  ws.StatusCode
		by    string
	}{
		{"read", unix.ECONNRESET, speak, 1006, "lost"},
		{"read", unix.ETIMEDOUT, speak, 1006, "lost"},
		{"read", unix.ENOMEM, speak, 1006, "lost"},
		{"write", unix.EPIPE, send, 1006, "lost"},
		{"write", unix.ECONNRESET, send, 1006, "lost"},
		{"write", unix.ENOBUFS, send, 1006, "lost"},
		{"write", unix.ENOMEM, send, 1006, "lost"},
		{"mod", unix.ENOMEM, func(_ *testing.T, s *server, ref ConnRef, _ *client) { s.Pause(ref, true) }, 1006, "lost"},
		{"mod", unix.ENOSPC, func(_ *testing.T, s *server, ref ConnRef, _ *client) {
			for s.Send(ref, NewText([]byte(stars(4092)))) == nil { // until epoll must wait for the socket
			}
		}, 1006, "lost"},
	} {
		t.Run(tc.call+" "+unix.ErrnoName(tc.errno.(unix.Errno)), func(t *testing.T) {
			var fails script
			s := startEcho(t, epolls, Options{sys: tamper(fails.judge)})
			good := dial(t, s)
			get(t, s.opened, "Open")
			good.write(text("before"))
			good.want("text:before")
			fds := countFDs(t)
			c := dialDeaf(t, s)
			ref := get(t, s.opened, "Open")
			fails.set(tc.call, settled(t, s, ref), tc.errno)
			tc.do(t, s, ref, c)
			e := get(t, s.ended, "Closed")
			if e.ref != ref || e.code != tc.code || !errors.Is(e.cause, tc.errno) {
				t.Errorf("got %+v, want %d and %v", e, tc.code, tc.errno)
			}
			if n := s.Stats().Closes[tc.by]; n != 1 {
				t.Errorf("%d closes by %s, want 1", n, tc.by)
			}
			if fails.clear() == 0 {
				t.Error("no call failed")
			}
			for got := ""; got != "end"; { // of what was sent before
				if got = c.read(); strings.HasPrefix(got, "error:") && !strings.Contains(got, "reset") {
					t.Fatalf("the client read %.100q, want its end", got)
				} else if strings.HasPrefix(got, "error:") {
					break
				}
			}
			_ = c.nc.Close()
			good.write(text("after"))
			good.want("text:after")
			settle(t, "descriptors", fds, func() int { return countFDs(t) })
			good.leave()
		})
	}
}

// settled is the descriptor of c once the loop serves it.
func settled(t *testing.T, s *server, c ConnRef) int {
	t.Helper()
	p := polledFor(t, s, c)
	for {
		p.c.mu.Lock()
		fd, joined := p.fd, p.joined
		p.c.mu.Unlock()
		if joined {
			return int(fd)
		}
		runtime.Gosched()
	}
}

// What waits in a queue meets a failing write, of one frame and of many.
func TestAFailedWriteOfWhatWaitsEndsTheConnection(t *testing.T) {
	for _, frames := range []int{1, 10} {
		var fails script
		s := start(t, epolls, &hooks{}, Options{sys: tamper(fails.judge)})
		dial(t, s)
		ref := get(t, s.opened, "Open")
		fd := settled(t, s, ref)
		fails.set("write", fd, unix.EAGAIN)
		for range frames {
			if err := s.Send(ref, NewText([]byte("waits"))); err != nil {
				t.Fatal(err)
			}
		}
		fails.set("write", fd, unix.ENOBUFS)
		if e := get(t, s.ended, "Closed"); e.code != 1006 || !errors.Is(e.cause, unix.ENOBUFS) {
			t.Errorf("%d frames: got %+v, want 1006 and ENOBUFS", frames, e)
		}
	}
}

// A connection that epoll does not take ends after its Open, and so does one whose first write fails.
func TestAConnectionThatCannotBeginIsOpenedAndClosed(t *testing.T) {
	for call, errno := range map[string]error{"add": unix.ENOSPC, "write": unix.EPIPE} {
		var fails script
		s := startEcho(t, epolls, Options{sys: tamper(fails.judge)})
		good := dial(t, s)
		get(t, s.opened, "Open")
		fds := countFDs(t)
		for range 3 {
			fails.set(call, 0, errno)
			c := connect(t, s.addr)
			c.write([]byte(upgradeRequest()))
			ref := get(t, s.opened, "Open")
			if e := get(t, s.ended, "Closed"); e.ref != ref || e.code != 1006 || !errors.Is(e.cause, errno) {
				t.Errorf("%s: got %+v, want 1006 and %v", call, e, errno)
			}
			fails.clear()
			_ = c.nc.Close()
		}
		good.write(text("after"))
		good.want("text:after")
		settle(t, "descriptors", fds, func() int { return countFDs(t) })
	}
}

// With no descriptor left, a socket that net/http has is served all the same.
func TestASocketThatCannotBeDuplicatedKeepsAGoroutine(t *testing.T) {
	for _, errno := range []error{unix.EMFILE, unix.ENFILE} {
		var fails script
		fails.set("dup", 0, errno)
		s := startEcho(t, epolls, Options{sys: tamper(fails.judge)})
		c := connect(t, s.addr)
		c.write([]byte("GET / HTTP/1.1\r\nHost: a\r\n\r\n"))
		c.response()
		c.upgrade()
		if _, ok := s.face.(*Engine).table.get(get(t, s.opened, "Open")).line.(*threads); !ok {
			t.Error("a socket has a line without a descriptor of its own")
		}
		c.write(text("hello"))
		c.want("text:hello")
		c.leave()
	}
}

// A half-close that fails, and a close that says it failed, end the connection with the code that was told.
func TestFailuresAtTheEndChangeNothing(t *testing.T) {
	for call, errno := range map[string]error{"shutdown": unix.ENOTCONN, "close": unix.EINTR} {
		var fails script
		s := startEcho(t, epolls, Options{sys: tamper(fails.judge)})
		c := dial(t, s)
		ref := get(t, s.opened, "Open")
		fails.set(call, 0, errno)
		c.write(closeFrame(4321, ""))
		c.want("close:4321", "end")
		_ = c.nc.Close()
		if e := get(t, s.ended, "Closed"); e != (end{ref, 4321, nil}) {
			t.Errorf("%s: got %+v, want 4321 without a cause", call, e)
		}
	}
}

// A socket that is never ready again is found by the times there are.
func TestASocketThatIsNeverReadyIsFound(t *testing.T) {
	o := Options{StallTime: 5 * tick, PingEvery: 10 * tick, PongTime: 10 * tick, sweep: tick}
	for call, want := range map[string]error{"read": ErrPeerSilent, "write": ErrStalled} {
		var fails script
		o.sys = tamper(fails.judge)
		s := start(t, epolls, &hooks{}, o)
		c := dial(t, s)
		ref := get(t, s.opened, "Open")
		fails.set(call, settled(t, s, ref), unix.EAGAIN)
		c.write(text("unheard"))
		if e := get(t, s.ended, "Closed"); e.ref != ref || e.code != 1006 || !errors.Is(e.cause, want) {
			t.Errorf("%s: got %+v, want 1006 and %v", call, e, want)
		}
	}
}

// The kernel gave up on the peer of a stream: that is silence.
func TestATimeoutOfTheKernelIsAStreamsSilence(t *testing.T) {
	for _, call := range []string{"read", "write"} {
		var fails script
		s := start(t, epolls, &hooks{}, Options{HTTP: streams, sys: tamper(fails.judge)})
		c := listen(t, s)
		ref := get(t, s.opened, "Open")
		fails.set(call, settled(t, s, ref), unix.ETIMEDOUT)
		c.write([]byte("x"))
		_ = s.Send(ref, NewText([]byte("x")))
		if e := get(t, s.ended, "Closed"); e.ref != ref || e.code != 1006 || !errors.Is(e.cause, ErrPeerSilent) {
			t.Errorf("%s: got %+v, want 1006 and ErrPeerSilent", call, e)
		}
	}
}

// Events that the kernel had ready for closed connections come after their slot and descriptor are another's.
func TestALateEventFindsNobody(t *testing.T) {
	var mu sync.Mutex
	var late []unix.EpollEvent
	waits := make(map[int]int) // that gave events, by epoll instance
	tardy := kernel
	tardy.wait = func(epfd int, events []unix.EpollEvent) (int, error) {
		n, err := kernel.wait(epfd, events)
		mu.Lock()
		defer mu.Unlock()
		if n > 0 {
			waits[epfd]++
			n += copy(events[n:], late)
		}
		return n, err
	}
	s := startEcho(t, epolls, Options{MaxConns: 1, sys: &tardy})
	for range 20 {
		c := dial(t, s)
		ref := get(t, s.opened, "Open")
		s.Pause(ref, true) // an error in a pause ends a connection unread
		l := polledFor(t, s, ref).l
		count := func() int {
			mu.Lock()
			defer mu.Unlock()
			return waits[l.fd]
		}
		for range 2 { // at the second event all of the first are done with
			before := count()
			l.ring()
			for count() == before {
				runtime.Gosched()
			}
		}
		s.Pause(ref, false)
		c.write(text("hello"))
		c.want("text:hello")
		c.leave()
		_ = c.nc.Close()
		if e := get(t, s.ended, "Closed"); e != (end{ref, 1000, nil}) {
			t.Fatalf("got %+v, want 1000 without a cause", e)
		}
		mu.Lock()
		late = append(late, unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLOUT | unix.EPOLLERR | unix.EPOLLHUP,
			Fd: int32(uint32(ref)), Pad: int32(uint32(ref >> 32))})
		mu.Unlock()
	}
}
