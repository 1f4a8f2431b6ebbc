package engine

import (
	"io"
	"net"
	"net/netip"
	"runtime"
	"testing"

	"github.com/gobwas/ws"
	"golang.org/x/sys/unix"
)

// TestSendAndMessageAllocateNothing counts over a real socket: a message in, a shared frame out.
func TestSendAndMessageAllocateNothing(t *testing.T) {
	eachEngine(t, func(t *testing.T, build newEngine) {
		var s *server
		out := NewText([]byte(stars(256)))
		s = start(t, build, &hooks{message: func(c ConnRef, _ ws.OpCode, _ []byte) {
			if err := s.Send(c, out); err != nil {
				t.Errorf("Send: %v", err)
			}
		}}, Options{})
		c := dial(t, s)
		in, got := text(stars(256)), make([]byte, out.Len())
		allocs := testing.AllocsPerRun(500, func() {
			c.write(in)
			if _, err := io.ReadFull(c.nc, got); err != nil {
				t.Fatal(err)
			}
		})
		// Under the race detector a pool drops a part of what it is given.
		if allocs > 1 {
			t.Errorf("%v allocations for a message and a Send, want 0", allocs)
		}
	})
}

// overEngines runs a benchmark for each engine, so that one run gives their ratios.
func overEngines(b *testing.B, bench func(b *testing.B, build newEngine)) {
	for name, build := range engines {
		b.Run(name, func(b *testing.B) { bench(b, build) })
	}
}

func BenchmarkEcho(b *testing.B) {
	overEngines(b, func(b *testing.B, build newEngine) {
		var s *server
		out := NewText([]byte(stars(256)))
		s = start(b, build, &hooks{message: func(c ConnRef, _ ws.OpCode, _ []byte) { _ = s.Send(c, out) }}, Options{})
		c := dial(b, s)
		in, got := text(stars(256)), make([]byte, out.Len())
		b.ReportAllocs()
		for b.Loop() {
			c.write(in)
			if _, err := io.ReadFull(c.nc, got); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// BenchmarkSend is the cost of one frame to one of 100 connections whose clients read.
func BenchmarkSend(b *testing.B) {
	overEngines(b, func(b *testing.B, build newEngine) {
		s := start(b, build, &hooks{}, Options{})
		var refs []ConnRef
		for range 100 {
			c := dial(b, s)
			refs = append(refs, <-s.opened)
			go func() { _, _ = io.Copy(io.Discard, c.nc) }()
		}
		f := NewText([]byte(stars(256)))
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			for s.Send(refs[i%len(refs)], f) != nil {
				runtime.Gosched() // the client is behind
			}
		}
	})
}

func BenchmarkHandshake(b *testing.B) {
	overEngines(b, func(b *testing.B, build newEngine) {
		s := start(b, build, &hooks{}, Options{})
		request := []byte(upgradeRequest())
		answer := make([]byte, len(acceptResponse(testKey, "", nil)))
		b.ReportAllocs()
		for b.Loop() {
			nc, err := net.Dial("tcp", s.addr)
			if err != nil {
				b.Fatal(err)
			}
			if _, err := nc.Write(request); err != nil {
				b.Fatal(err)
			}
			if _, err := io.ReadFull(nc, answer); err != nil {
				b.Fatal(err)
			}
			_ = nc.(*net.TCPConn).SetLinger(0)
			_ = nc.Close()
			<-s.opened
			<-s.ended
		}
	})
}

// BenchmarkIdleMemory reports the user-space bytes that one idle connection takes: heap and
// stacks after a collection, at 5,000 connections. The clients are bare descriptors, so nearly
// all of it is the engine's.
func BenchmarkIdleMemory(b *testing.B) {
	const n = 5000
	overEngines(b, func(b *testing.B, build newEngine) {
		for b.Loop() {
			s := start(b, build, &hooks{}, Options{})
			before := inUse()
			leave := idle(b, s, make([]int, n))
			b.ReportMetric(float64(inUse()-before)/n, "B/conn")
			leave()
			s.stop()
		}
	})
}

// idle opens a WebSocket for each of fds, as a bare descriptor that costs no memory here. leave closes them
// and waits until the engine has done so too.
func idle(t testing.TB, s *server, fds []int) (leave func()) {
	t.Helper()
	for i := range fds {
		var err error
		if fds[i], err = upgraded(s.addr); err != nil {
			t.Fatal(err)
		}
		<-s.opened
	}
	return func() {
		for _, fd := range fds {
			_ = unix.Close(fd)
		}
		for range fds {
			<-s.ended
		}
	}
}

// upgraded opens one WebSocket at host:port.
func upgraded(addr string) (fd int, err error) {
	to := netip.MustParseAddrPort(addr)
	if fd, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0); err != nil {
		return 0, err
	}
	if err = unix.Connect(fd, &unix.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().As4()}); err == nil {
		_, err = unix.Write(fd, []byte(upgradeRequest()))
	}
	if err == nil {
		_, err = unix.Read(fd, make([]byte, 1024))
	}
	return fd, err
}

// inUse is the memory of heap and stacks that is in use, after the pools are emptied.
func inUse() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapInuse + m.StackInuse + m.MSpanInuse + m.MCacheInuse + m.OtherSys
}
