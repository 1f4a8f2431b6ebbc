package engine

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"runtime"
	"sync"
	"testing"
	"time"

	"github.com/gobwas/ws"
	"golang.org/x/sys/unix"
)

// These tests put a server under attack and then ask for progress of healthy clients, whatever it takes; how soon is a
// benchmark's matter. The engine's times are not waited for: later says that they have passed.

// later has the engine judge its connections as it will d from now.
func (s *server) later(d time.Duration) {
	e := s.face.(*Engine)
	for c := range e.table.all() {
		c.tick(e.now() + d)
	}
}

// wantHealthy says that a client from before the attack and a new one get their echoes.
func wantHealthy(t *testing.T, s *server, old *client, echoes int) {
	t.Helper()
	fresh := dial(t, s)
	for i := range echoes {
		for _, c := range []*client{old, fresh} {
			c.write(text(fmt.Sprint("healthy ", i)))
			got := c.read()
			for got == "ping:" {
				got = c.read()
			}
			if want := fmt.Sprint("text:healthy ", i); got != want {
				t.Fatalf("a healthy client read %.100q, want %q", got, want)
			}
		}
	}
	fresh.leave()
	_ = fresh.nc.Close()
}

// halfHeaders opens n sockets that send half of a handshake, and closes them at the end of the test.
func halfHeaders(t *testing.T, s *server, n int) {
	t.Helper()
	for i := range n {
		connect(t, s.addr).write([]byte(upgradeRequest()[:1+i%100]))
	}
	for s.Stats().Plain < int64(n) {
		runtime.Gosched()
	}
}

func TestAThousandHalfHeadersStarveNobody(t *testing.T) {
	eachEngine(t, func(t *testing.T, build newEngine) {
		s := startEcho(t, build, Options{CloseTime: 10 * tick})
		old := dial(t, s)
		halfHeaders(t, s, 1000)
		wantHealthy(t, s, old, 30)
	})
}

// Frames that come a byte at a time, of which no end is to be seen.
func TestAThousandUnfinishedFramesStarveNobody(t *testing.T) {
	eachEngine(t, func(t *testing.T, build newEngine) {
		const n = 1000
		s := startEcho(t, build, Options{})
		old := dial(t, s)
		get(t, s.opened, "Open")
		fds, b := make([]int, n), text(stars(60_000))
		leave := idle(t, s, fds)
		sent := make([]int, n)
		drip := func() {
			for i, fd := range fds {
				size := 1
				if sent[i] == 0 {
					size += i % 14 // inside the header, or behind it
				}
				if _, err := unix.Write(fd, b[sent[i]:sent[i]+size]); err != nil {
					t.Fatal(err)
				}
				sent[i] += size
			}
		}
		for range 3 {
			drip()
			wantHealthy(t, s, old, 30)
			get(t, s.opened, "Open")
			get(t, s.ended, "Closed")
		}
		if held := s.Stats().HeldBytes; held > n*16 {
			t.Errorf("%d unfinished frames hold %d bytes", n, held)
		}
		s.later(14 * time.Second) // they are within MessageTime
		drip()
		s.later(15 * time.Second)
		s.later(21 * time.Second) // they did not answer the close
		for range n {
			if e := get(t, s.ended, "Closed"); e.code != 1008 || !errors.Is(e.cause, ErrSlowFrame) {
				t.Fatalf("got %+v, want 1008 and ErrSlowFrame", e)
			}
		}
		wantHealthy(t, s, old, 30)
		_ = leave
		for _, fd := range fds {
			_ = unix.Close(fd)
		}
	})
}

func TestPeersThatDoNotReadStarveNobody(t *testing.T) {
	eachEngine(t, func(t *testing.T, build newEngine) {
		const n, queue = 100, 1 << 20
		s := startEcho(t, build, Options{QueueBytes: queue})
		old := dial(t, s)
		get(t, s.opened, "Open")
		f := NewText([]byte(stars(4092)))
		for range n {
			dialDeaf(t, s)
			fill(t, s, get(t, s.opened, "Open"), f)
		}
		if held := s.Stats().HeldBytes; held > n*queue {
			t.Errorf("%d peers that do not read hold %d bytes", n, held)
		}
		wantHealthy(t, s, old, 30)
		get(t, s.ended, "Closed")
		s.later(20 * time.Second)
		for range n {
			if e := get(t, s.ended, "Closed"); e.code != 1006 || !errors.Is(e.cause, ErrStalled) {
				t.Fatalf("got %+v, want 1006 and ErrStalled", e)
			}
		}
		wantHealthy(t, s, old, 30)
	})
}

// Flooders send all that the server takes: small messages, large ones, pings, and what they do not read the echo of.
func TestFloodersStarveNobody(t *testing.T) {
	eachEngine(t, func(t *testing.T, build newEngine) {
		s := startEcho(t, build, Options{})
		old := dial(t, s)
		var floods sync.WaitGroup
		defer floods.Wait()
		for _, flood := range []struct {
			frame []byte
			reads bool
		}{{text("x"), true}, {text(stars(60_000)), false}, {frame(ws.OpPing, ""), true}, {frame(ws.OpPing, "x"), false}} {
			c := dial(t, s)
			defer c.nc.Close()
			if flood.reads {
				floods.Go(func() { _, _ = io.Copy(io.Discard, c.nc) })
			}
			many := bytes.Repeat(flood.frame, max(1, readSize/len(flood.frame)))
			floods.Go(func() {
				for {
					if _, err := c.nc.Write(many); err != nil {
						return
					}
				}
			})
		}
		before := s.Stats().BytesIn
		for s.Stats().BytesIn-before < 1<<20 { // the flood is on
			runtime.Gosched()
		}
		wantHealthy(t, s, old, 10)
	})
}
