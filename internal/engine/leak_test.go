package engine

import (
	"net"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/gobwas/ws"
)

func TestNothingIsLeftBehind(t *testing.T) {
	eachEngine(t, func(t *testing.T, build newEngine) { leaveNothing(t, build, 2000) })
}

// endings are the ways in which a connection ends; what they do is followed by a close of the client's socket.
var endings = map[string]func(s *server, c *client){
	"closing handshake": func(_ *server, c *client) { c.leave() },
	"unread echo":       func(_ *server, c *client) { c.write(text("unread")) }, // it meets a closed socket
	"violation":         func(_ *server, c *client) { c.write(masked(0xf1, nil)); c.want("close:1002") },
	"reset":             func(_ *server, c *client) { _ = c.nc.(*net.TCPConn).SetLinger(0) },
	"half close": func(_ *server, c *client) {
		_ = c.nc.(*net.TCPConn).CloseWrite() // an error shows below
		c.want("end")
	},
	"middle of a frame": func(_ *server, c *client) { c.write(text(stars(1000))[:500]) },
	"middle of a message, and a reset": func(_ *server, c *client) {
		c.write(part(ws.OpText, stars(1000)))
		_ = c.nc.(*net.TCPConn).SetLinger(0)
	},
	"CloseConn": func(s *server, c *client) { s.CloseConn(c.ref, 4000, "", nil); c.want("close:4000") },
	"CloseConn, and the answer": func(s *server, c *client) {
		s.CloseConn(c.ref, 4000, "", nil)
		c.want("close:4000")
		c.write(closeFrame(4000, ""))
		c.want("end")
	},
	"reset in a pause": func(s *server, c *client) {
		s.Pause(c.ref, true)
		_ = c.nc.(*net.TCPConn).SetLinger(0)
	},
}

// leaveNothing counts goroutines, descriptors, slots and heap around n connections, one after the other, that end in
// each of the ways there are.
func leaveNothing(t *testing.T, build newEngine, n int) {
	const heapSlack = 256 << 10 // less than 2,000 of the smallest conn; three bytes each at 100,000
	s := startEcho(t, build, Options{PingEvery: time.Hour})
	var warm *client
	live := func(do func(s *server, c *client)) {
		nc, err := net.Dial("tcp", s.addr)
		if err != nil {
			t.Fatal(err)
		}
		_ = nc.SetDeadline(time.Now().Add(patience))
		if warm == nil {
			warm = newClient(t, nc)
		}
		c := &client{t: t, nc: nc, r: warm.r} // newClient would keep it until the end of the test
		c.r.Reset(nc)
		c.upgrade()
		c.ref = get(t, s.opened, "Open")
		do(s, c)
		_ = nc.Close()
		if e := get(t, s.ended, "Closed"); e.ref != c.ref {
			t.Fatalf("%#x ended, want %#x", e.ref, c.ref)
		}
	}
	for _, do := range endings {
		live(do)
	}
	fds, goroutines, before := countFDs(t), runtime.NumGoroutine(), heap()
	for i := 0; i < n; {
		for _, do := range endings {
			live(do)
			i++
		}
	}
	settle(t, "goroutines", goroutines, runtime.NumGoroutine)
	settle(t, "descriptors", fds, func() int { return countFDs(t) })
	after := heap()
	t.Logf("the heap held %d bytes before and holds %d", before, after)
	if after > before+heapSlack {
		t.Errorf("the heap has grown from %d to %d bytes", before, after)
	}
	if got := s.Stats(); got.Conns != 0 || got.HeldBytes != 0 || got.Opened < uint64(n) || got.Plain != 0 {
		t.Errorf("got %+v", got)
	}
	tab := &s.face.(*Engine).table
	tab.mu.Lock()
	defer tab.mu.Unlock()
	if tab.used != 0 || len(tab.gens) > 2 || len(tab.free) != len(tab.gens) {
		t.Errorf("the table has %d entries and %d slots, %d of them free, after one connection at a time", tab.used, len(tab.gens), len(tab.free))
	}
}

// heap is what lives on it, in bytes, with the pools emptied.
func heap() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// settle waits for a count that falls to its base within moments.
func settle(t *testing.T, what string, base int, count func() int) {
	t.Helper()
	for end := time.Now().Add(patience); ; {
		n := count()
		if n <= base {
			return
		}
		if time.Now().After(end) {
			t.Errorf("%d %s, want at most %d", n, what, base)
			return
		}
		time.Sleep(time.Millisecond)
	}
}

func countFDs(t *testing.T) int {
	t.Helper()
	d, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(d)
}
