package engine

import (
	"net"
	"net/http"
	"net/netip"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// awaitGuests waits until so many sockets are plain.
func awaitGuests(t *testing.T, s *server, want int64) {
	t.Helper()
	for end := time.Now().Add(patience); s.Stats().Plain != want; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d sockets wait, want %d", s.Stats().Plain, want)
		}
	}
}

// guests is how many sockets wait in the loops of s for more of their header.
func guests(s *server) func() int { return func() int { return int(s.Stats().Plain) } }

func TestHalfAHeaderCostsNoGoroutine(t *testing.T) {
	const n = 200
	s := start(t, epolls, &hooks{}, Options{HandshakeTime: time.Second, sweep: tick})
	dial(t, s).leave() // what comes once
	goroutines := runtime.NumGoroutine()
	clients := make([]*client, n)
	for i := range clients {
		clients[i] = connect(t, s.addr)
		clients[i].write([]byte(upgradeRequest()[:20+i%60]))
	}
	awaitGuests(t, s, n)
	if got := runtime.NumGoroutine(); got > goroutines {
		t.Errorf("%d goroutines for %d half-sent headers, want none", got-goroutines, n)
	}
	for _, c := range clients {
		if got := c.read(); got != "end" {
			t.Errorf("got %q, want the end", got)
		}
	}
	settle(t, "sockets that wait", 0, guests(s))
}

func TestADecisionThatComesLaterCostsNoGoroutine(t *testing.T) {
	const n = 50
	asked := make(chan ConnRef, n)
	s := start(t, epolls, &hooks{handshake: func(c ConnRef, _ *Request) Decision {
		asked <- c
		return Decision{Later: true}
	}}, Options{HandshakeTime: patience})
	first := connect(t, s.addr) // what comes once
	first.write([]byte(upgradeRequest()))
	get(t, asked, "Handshake")
	goroutines := runtime.NumGoroutine()
	clients := make([]*client, n)
	refs := make([]ConnRef, n)
	for i := range clients {
		clients[i] = connect(t, s.addr)
		clients[i].write([]byte(upgradeRequest()))
		refs[i] = get(t, asked, "Handshake")
	}
	if got := runtime.NumGoroutine(); got > goroutines {
		t.Errorf("%d goroutines for %d decisions that are awaited, want none", got-goroutines, n)
	}
	for i, c := range clients {
		s.Decide(refs[i], Decision{})
		if got := c.response().StatusCode; got != 101 {
			t.Errorf("got %d, want 101", got)
		}
	}
}

func TestAcceptedSocketsHaveTheirOptions(t *testing.T) {
	for _, multipath := range []bool{false, true} {
		var listen net.ListenConfig
		listen.SetMultipathTCP(multipath)
		ln, err := listen.Listen(t.Context(), "tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		s := startOn(t, ln, epolls, &hooks{}, Options{SendBuffer: 8 << 10, StallTime: 7 * time.Second})
		for range 3 { // the first may have come before the listener had them
			c := dial(t, s)
			p := polledFor(t, s, get(t, s.opened, "Open"))
			for _, o := range []struct {
				name                string
				level, option, want int
			}{
				{"SO_SNDBUF", unix.SOL_SOCKET, unix.SO_SNDBUF, 16 << 10}, {"TCP_NODELAY", unix.IPPROTO_TCP, unix.TCP_NODELAY, 1},
				{"TCP_USER_TIMEOUT", unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, 14_000},
			} {
				if got, err := unix.GetsockoptInt(int(p.fd), o.level, o.option); got != o.want || err != nil {
					t.Errorf("%s is %d (%v), want %d", o.name, got, err, o.want)
				}
			}
			flags, err := unix.FcntlInt(uintptr(p.fd), unix.F_GETFL, 0)
			if err != nil || flags&unix.O_NONBLOCK == 0 {
				t.Errorf("the socket may block: flags %#x, %v", flags, err)
			}
			flags, err = unix.FcntlInt(uintptr(p.fd), unix.F_GETFD, 0)
			if err != nil || flags&unix.FD_CLOEXEC == 0 {
				t.Errorf("the socket is inherited by programs: flags %#x, %v", flags, err)
			}
			c.leave()
		}
	}
}

// With no descriptor left new clients are told so at once, those that are there live on, and all is well when there are some again.
func TestClientsAreTurnedAwayWithoutDescriptors(t *testing.T) {
	s := startEcho(t, epolls, Options{sweep: tick})
	old := dial(t, s)
	addr := netip.MustParseAddrPort(s.addr)
	fds := make([]int, 5)
	for i := range fds {
		var err error
		if fds[i], err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0); err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fds[i])
	}
	restore := limitFDs(t, highestFD(t))
	fillFDs(t)
	answer := make([]byte, 1024)
	for _, fd := range fds {
		if err := unix.Connect(fd, &unix.SockaddrInet4{Port: int(addr.Port()), Addr: addr.Addr().As4()}); err != nil {
			t.Fatal(err)
		}
		if _, err := unix.Write(fd, []byte(upgradeRequest())); err != nil {
			t.Fatal(err)
		}
		if n, err := unix.Read(fd, answer); err != nil || string(answer[:n]) != string(noRoom) {
			t.Errorf("got %q, %v; want 503 with Retry-After", answer[:max(0, n)], err)
		}
	}
	old.write(text("x"))
	old.want("text:x")
	restore()
	if got := s.Stats().Refused; got != uint64(len(fds)) {
		t.Errorf("%d are refused, want %d", got, len(fds))
	}
	c := dial(t, s)
	c.write(text("x"))
	c.want("text:x")
}

// limitFDs has nothing opened from the n-th descriptor on, until restore or the end of the test.
func limitFDs(t *testing.T, n int) (restore func()) {
	t.Helper()
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	restore = sync.OnceFunc(func() {
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(restore)
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: uint64(n), Max: limit.Max}); err != nil {
		t.Fatal(err)
	}
	return restore
}

// highestFD is above each descriptor of this process.
func highestFD(t *testing.T) int {
	t.Helper()
	fd, err := unix.FcntlInt(0, unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		t.Fatal(err)
	}
	highest := fd
	_ = unix.Close(fd)
	for n := range 4096 {
		if _, err := unix.FcntlInt(uintptr(n), unix.F_GETFD, 0); err == nil {
			highest = max(highest, n)
		}
	}
	return highest + 1
}

// fillFDs takes every descriptor that is left until the test ends.
func fillFDs(t *testing.T) {
	t.Helper()
	for {
		fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
		if err != nil {
			return
		}
		t.Cleanup(func() { _ = unix.Close(fd) })
	}
}

// While somebody else has taken even the spare descriptor, the loops do not spin, and go on afterwards.
func TestALoopWithoutASpareDescriptorRests(t *testing.T) {
	var accepts atomic.Int64
	counting := kernel
	counting.accept = func(ln int) (int, syscall.Sockaddr, error) {
		accepts.Add(1)
		return kernel.accept(ln)
	}
	s := start(t, epolls, &hooks{}, Options{sweep: tick, sys: &counting})
	dial(t, s) // before it the loops might not have their own descriptors
	c := connect(t, s.addr)
	restore := limitFDs(t, 3) // nothing can be opened, whatever is closed
	accepts.Store(0)
	c.write([]byte(upgradeRequest()))
	time.Sleep(200 * tick)
	got, most := accepts.Load(), int64(2*min(runtime.GOMAXPROCS(0), runtime.NumCPU()))
	restore()
	// Each loop is told of the socket once, has no descriptor for it, nor one that it could give up.
	if got < 2 || got > most {
		t.Errorf("accept4 was called %d times in 200 sweeps, want 2 to %d", got, most)
	}
	if got := c.response().StatusCode; got != 101 {
		t.Errorf("got %d when there are descriptors again, want 101", got)
	}
}

// A socket that net/http cannot be given, for want of a descriptor, is told so.
func TestAPlainRequestWithoutADescriptorIsRefused(t *testing.T) {
	s := startEcho(t, epolls, Options{HTTP: plain, sweep: tick})
	c := connect(t, s.addr)
	c.write([]byte("GET /a HTT"))
	awaitGuests(t, s, 1)
	restore := limitFDs(t, 3)
	c.write([]byte("P/1.1\r\nHost: a\r\n\r\n"))
	got := c.response().StatusCode
	restore()
	if got != http.StatusServiceUnavailable {
		t.Errorf("got %d, want 503", got)
	}
	settle(t, "plain sockets", 0, guests(s))
}

// Connections go to all loops in turn, whichever accepted them.
func TestLoopsShareTheConnections(t *testing.T) {
	if runtime.GOMAXPROCS(0) < 2 || runtime.NumCPU() < 2 {
		t.Skip("there is one loop")
	}
	s := start(t, epolls, &hooks{}, Options{})
	per := make(map[*loop]int)
	for range 20 {
		dial(t, s)
		per[polledFor(t, s, get(t, s.opened, "Open")).l]++
	}
	for l, n := range per {
		if n > 10+1 {
			t.Errorf("loop %p has %d of 20 connections", l, n)
		}
	}
}

// The suite must not pass because net/http does all.
func TestAPlainUpgradeNeverReachesNetHTTP(t *testing.T) {
	s := start(t, epolls, &hooks{handshake: func(ConnRef, *Request) Decision {
		stack := make([]byte, 64<<10)
		if strings.Contains(string(stack[:runtime.Stack(stack, false)]), "net/http.(*conn).serve") {
			t.Error("net/http serves the handshake")
		}
		return Decision{}
	}}, Options{})
	dial(t, s).leave()
}
