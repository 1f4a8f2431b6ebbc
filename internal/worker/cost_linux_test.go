package worker_test

import (
	"bytes"
	"net/netip"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/wscluster/wscluster/internal/worker"
)

// TestAnIdleClientOfAWorkerCostsLittle counts what a client with a session and without a task costs its whole worker: live heap
// and stacks after a collection, and goroutines. More than half of it is the engine's. The clients are bare descriptors, which
// cost nothing here, and answer no pings. A higher number is a decision: write here what it buys.
func TestAnIdleClientOfAWorkerCostsLittle(t *testing.T) {
	const clients, budget = 8_000, 600
	w := newCluster(t).worker("i1-w1", func(o *worker.Options) {
		o.Engine.PingEvery = time.Hour
		o.MaxHeld = 100 // the broker in memory makes room for so many with each mailbox, adopted ones too
	})
	sit(t, w, make([]int, 500)) // what the first ones cost once
	sockets := make([]int, clients)
	goroutines, before := runtime.NumGoroutine(), live()
	sit(t, w, sockets)
	if n := runtime.NumGoroutine() - goroutines; n > 10 { // the worker adopts what nobody owns meanwhile
		t.Errorf("%d more goroutines with %d clients, want none for each", n, clients)
	}
	each := (live() - before) / clients
	if each > budget {
		t.Errorf("%d bytes for an idle client, want at most %d", each, budget)
	}
	t.Logf("%d bytes for an idle client", each)
}

// sit opens a socket with a new session for each of fds, which then says nothing, until the test ends.
func sit(t *testing.T, w *running, fds []int) {
	t.Helper()
	t.Cleanup(func() {
		for _, fd := range fds {
			_ = unix.Close(fd)
		}
	})
	addr := netip.MustParseAddrPort(w.addr)
	to := &unix.SockaddrInet4{Port: int(addr.Port()), Addr: addr.Addr().As4()}
	upgrade := []byte("GET /v1/ws HTTP/1.1\r\nHost: w\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: wscluster.v1.json\r\n\r\n")
	hello := append([]byte{0x81, 0x80 | 16, 0, 0, 0, 0}, `{"type":"hello"}`...) // masked with zeros
	answer := make([]byte, 4096)
	for i := range fds {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		fds[i] = fd
		if err := unix.Connect(fd, to); err != nil {
			t.Fatal(err)
		}
		for _, step := range []struct {
			say  []byte
			want string
		}{{upgrade, "HTTP/1.1 101 "}, {hello, `"type":"socket_meta"`}} {
			if _, err := unix.Write(fd, step.say); err != nil {
				t.Fatal(err)
			}
			if n, err := unix.Read(fd, answer); err != nil || !bytes.Contains(answer[:n], []byte(step.want)) {
				t.Fatalf("answered with %.200q (%v), want %s", answer[:max(n, 0)], err, step.want)
			}
		}
	}
}

// live is the memory that is in use after the pools are emptied: what heap objects take, and stacks.
func live() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc + m.StackInuse
}
