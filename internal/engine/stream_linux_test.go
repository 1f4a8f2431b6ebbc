package engine

import (
	"errors"
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// vanish makes the kernel throw away whatever comes for nc, without an answer: to the peer this end is
// gone, as when a cable is cut.
func vanish(t *testing.T, nc net.Conn) {
	t.Helper()
	raw, err := nc.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	nothing := unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K}
	if err := raw.Control(func(fd uintptr) {
		err = unix.SetsockoptSockFprog(int(fd), unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: 1, Filter: &nothing})
	}); err != nil {
		t.Fatal(err)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestHalfOpenStreamIsFound(t *testing.T) {
	eachEngine(t, func(t *testing.T, build newEngine) {
		s := start(t, build, &hooks{}, Options{HTTP: streams, PingEvery: 200 * time.Millisecond, PongTime: 500 * time.Millisecond, sweep: tick})
		good := listen(t, s)
		get(t, s.opened, "Open")
		c := listen(t, s)
		ref := get(t, s.opened, "Open")
		c.wantEvents(":")
		vanish(t, c.nc)
		began := time.Now()
		e := get(t, s.ended, "Closed")
		if e.ref != ref || e.code != 1006 || !errors.Is(e.cause, ErrPeerSilent) {
			t.Errorf("got %+v, want 1006 and ErrPeerSilent", e)
		}
		if took := time.Since(began); took > 3*time.Second { // 0.7 s on a machine that does nothing else
			t.Errorf("it took %v, want some 700 ms", took)
		}
		if got := s.Stats().Closes["silent"]; got != 1 {
			t.Errorf("%d closes by silence, want 1", got)
		}
		good.wantEvents(":", ":", ":") // who acknowledges lives on
	})
}
