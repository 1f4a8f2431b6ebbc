package engine

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"runtime"
	"sync"
	"testing"

	"github.com/gobwas/ws"
)

func TestNoFrameReachesAnotherClient(t *testing.T) {
	eachEngine(t, func(t *testing.T, build newEngine) { storm(t, build, 8, 40) })
}

// storm opens and closes connections, clients at a time, so that slots and descriptors are given again at once, while
// others send to every reference there ever was and close some. Each frame bears its receiver's name. The clients'
// sockets are of the same process: a frame that went to one of them as a descriptor would reach the server, which
// would call it a violation, because it is not masked.
func storm(t *testing.T, build newEngine, clients, rounds int) {
	var s *server
	var mu sync.Mutex
	var refs []ConnRef // of the living and the dead
	closed := make(map[ConnRef]int)
	stamp := func(c ConnRef) *Frame { return NewText(fmt.Appendf(nil, "%016x", uint64(c))) }
	any := func(recent int) ConnRef {
		mu.Lock()
		defer mu.Unlock()
		if n := len(refs); n > 0 {
			return refs[n-1-rand.IntN(min(n, recent))]
		}
		return 0
	}
	s = start(t, build, &hooks{
		open: func(c ConnRef, _ *Request) {
			<-s.opened // the one before: nobody else reads it
			_ = s.Send(c, stamp(c))
			mu.Lock()
			refs = append(refs, c)
			mu.Unlock()
		},
		closed: func(c ConnRef, _ ws.StatusCode, _ error) {
			mu.Lock()
			closed[c]++
			mu.Unlock()
		},
	}, Options{})
	s.opened <- 0
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for range clients * rounds {
			get(t, s.ended, "Closed")
		}
	}()
	end := make(chan struct{})
	var all, senders sync.WaitGroup
	for k := range 3 {
		senders.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-end:
					return
				default:
				}
				c := any([]int{2 * clients, 4 * clients, 1 << 30}[k]) // the youngest are those whose places are taken next
				if i%500 == 0 {
					s.CloseConn(c, 4000, "", stamp(c))
				}
				if err := s.Send(c, stamp(c)); err != nil && !errors.Is(err, ErrGone) && !errors.Is(err, ErrQueueFull) {
					t.Errorf("Send: %v", err)
				}
				if i%64 == 0 {
					runtime.Gosched()
				}
			}
		})
	}
	for k := range clients {
		all.Go(func() {
			for i := range rounds {
				c := dial(t, s)
				own := c.read()
				for range 20 {
					got := c.read()
					if got == "close:4000" || got == "end" {
						break
					}
					if got != own {
						t.Errorf("%q came to the client of %q", got, own)
					}
				}
				switch (i + k) % 4 {
				case 0:
					c.stream(closeFrame(1000, ""))
				case 1:
					_ = c.nc.(*net.TCPConn).SetLinger(0) // a reset
				case 2:
					c.stream(text("half")[:7])
				}
				_ = c.nc.Close()
			}
		})
	}
	all.Wait()
	close(end)
	senders.Wait()
	<-ended
	s.stop()
	for c, n := range closed {
		if n != 1 {
			t.Errorf("%d calls of Closed for %#x", n, c)
		}
	}
	if len(refs) != clients*rounds || len(closed) != clients*rounds {
		t.Errorf("%d opened and %d closed, want %d", len(refs), len(closed), clients*rounds)
	}
	if n := s.Stats().Closes["protocol"]; n != 0 {
		t.Errorf("%d violations by clients that made none", n)
	}
}
