package engine

import (
	"net"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/gobwas/ws"
	"golang.org/x/sys/unix"
)

func init() { engines["epoll"] = epolls }

func epolls(h Handler, o Options) face { return New(h, o) }

// The budget of an idle connection: 0 goroutines and at most 200 bytes of heap.
func TestIdleConnectionOfALoopIsSmallAndHasNoGoroutine(t *testing.T) {
	const n, budget = 2000, 200
	s := start(t, epolls, &hooks{}, Options{})
	fds := make([]int, n)
	idle(t, s, fds[:10])() // what comes once
	goroutines, before := runtime.NumGoroutine(), heap()
	leave := idle(t, s, fds)
	settle(t, "goroutines", goroutines, runtime.NumGoroutine)
	each := (int(heap()) - int(before)) / n
	t.Logf("%d bytes of heap for each idle connection", each)
	if each > budget {
		t.Errorf("%d bytes of heap for each idle connection, the budget is %d", each, budget)
	}
	leave()
}

// polledFor is the line of c as a loop has it.
func polledFor(t *testing.T, s *server, c ConnRef) *polled {
	t.Helper()
	return polledOf(s.face.(*Engine).table.get(c))
}

func TestALoopWaitsToWriteOnlyWhileFramesAreQueued(t *testing.T) {
	s := start(t, epolls, &hooks{}, Options{})
	c := dialDeaf(t, s)
	p := polledFor(t, s, get(t, s.opened, "Open"))
	mask := func() int {
		p.c.mu.Lock()
		defer p.c.mu.Unlock()
		return int(p.mask)
	}
	settle(t, "mask before a frame is queued", unix.EPOLLIN, mask)
	n := fill(t, s, p.c.ref, NewText([]byte(stars(4092))))
	if got := mask(); got != unix.EPOLLIN|unix.EPOLLOUT {
		t.Errorf("epoll waits for %#x while frames are queued, want %#x", got, unix.EPOLLIN|unix.EPOLLOUT)
	}
	s.Pause(p.c.ref, true)
	if got := mask(); got != unix.EPOLLOUT {
		t.Errorf("epoll waits for %#x in a pause, want %#x", got, unix.EPOLLOUT)
	}
	s.Pause(p.c.ref, false)
	for range n {
		c.want("text:" + stars(4092))
	}
	settle(t, "mask after all was read", unix.EPOLLIN, mask)
	c.leave()
}

// A connection has a parser of its own while a frame is unfinished, and no longer.
func TestOnlyAnUnfinishedFrameHasAParserOfItsOwn(t *testing.T) {
	var s *server
	own := make(chan bool, 3)
	s = start(t, epolls, &hooks{message: func(c ConnRef, op ws.OpCode, p []byte) {
		k := s.face.(*Engine).table.get(c)
		own <- k.in != &polledOf(k).l.intake
		_ = s.Send(c, newFrame(op, p))
	}}, Options{})
	c := dial(t, s)
	get(t, s.opened, "Open")
	bytes := s.Stats().BytesIn
	for i, want := range []bool{false, true, false} {
		b := text("hello")
		if want {
			c.write(b[:7])
			for s.Stats().BytesIn < bytes+7 {
				runtime.Gosched()
			}
			b = b[7:]
		}
		c.write(b)
		c.want("text:hello")
		if got := get(t, own, "Message"); got != want {
			t.Errorf("message %d was read by a parser of its own: %v, want %v", i, got, want)
		}
		bytes = s.Stats().BytesIn
	}
	c.leave()
}

// A paused socket that was reset is not waited for again and again.
func TestResetInAPauseEndsTheConnection(t *testing.T) {
	s := start(t, epolls, &hooks{}, Options{PingEvery: time.Hour}) // a ping would find it too
	c := dial(t, s)
	ref := get(t, s.opened, "Open")
	s.Pause(ref, true)
	_ = c.nc.(*net.TCPConn).SetLinger(0)
	_ = c.nc.Close()
	if e := get(t, s.ended, "Closed"); e.ref != ref || e.code != 1006 || e.cause == nil {
		t.Errorf("got %+v, want 1006 and a cause", e)
	}
	if got := s.Stats().Closes["lost"]; got != 1 {
		t.Errorf("%d closes by loss, want 1", got)
	}
}

func TestSocketsWithoutADescriptorHaveGoroutinesBesideLoops(t *testing.T) {
	var s *server
	ln := &pipes{queue: make(chan net.Conn), end: make(chan struct{})}
	s = startOn(t, ln, epolls, echo(&s), Options{})
	near, far := net.Pipe()
	ln.queue <- far
	if err := near.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	c := newClient(t, near)
	c.upgrade()
	if _, ok := s.face.(*Engine).table.get(get(t, s.opened, "Open")).line.(*threads); !ok {
		t.Error("a pipe is not served by goroutines")
	}
	c.write(text("hello"))
	c.want("text:hello")
	c.write(closeFrame(1000, ""))
	c.want("close:1000")
	get(t, s.ended, "Closed")
}

func TestServeGivesItsLoopsBack(t *testing.T) {
	before, goroutines := countFDs(t), runtime.NumGoroutine()
	for range 20 {
		s := start(t, epolls, &hooks{}, Options{})
		c := dial(t, s)
		c.leave()
		_ = c.nc.Close()
		s.stop()
	}
	settle(t, "descriptors", before, func() int { return countFDs(t) })
	settle(t, "goroutines", goroutines, runtime.NumGoroutine)
}

func init() {
	feeders["epoll"] = func(s *service) (*conn, func(b []byte) bool) {
		p := &polled{c: conn{s: s}, l: &loop{e: s.e}}
		c := &p.c
		c.line = p
		return c, func(b []byte) bool {
			for b := range slices.Chunk(b, readSize) {
				if p.done {
					break
				}
				c.arrived(len(b))
				p.feed(p.l.buf[:copy(p.l.buf[:], b)], nil)
				clear(p.l.buf[:]) // another's turn
				for c.pause(false); c.in != nil && len(c.in.rest) > 0; c.pause(false) {
					rest := c.in.rest
					c.in.rest = nil
					p.feed(rest, rest)
				}
			}
			return !p.done
		}
	}
}
