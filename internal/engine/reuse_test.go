package engine

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
)

// TestNoFrameReachesAnotherClient opens and closes connections, so that slots and descriptors are given again
// at once, while others send to every reference there ever was. Each frame bears its receiver's name.
func TestNoFrameReachesAnotherClient(t *testing.T) {
	eachEngine(t, func(t *testing.T, build newEngine) {
		const clients, rounds = 8, 40
		var s *server
		var refs [1 + clients*rounds]atomic.Uint64 // of the living and the dead
		var n atomic.Uint64
		stamp := func(c ConnRef) *Frame { return NewText(fmt.Appendf(nil, "%016x", uint64(c))) }
		s = start(t, build, &hooks{open: func(c ConnRef, _ *Request) {
			_ = s.Send(c, stamp(c))
			refs[n.Add(1)].Store(uint64(c))
		}}, Options{})
		var all, senders sync.WaitGroup
		end := make(chan struct{})
		for range 2 {
			senders.Go(func() {
				for i := 0; ; i++ {
					select {
					case <-end:
						return
					default:
					}
					c := ConnRef(refs[i%len(refs)].Load())
					if err := s.Send(c, stamp(c)); err != nil && !errors.Is(err, ErrGone) && !errors.Is(err, ErrQueueFull) {
						t.Errorf("Send: %v", err)
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
						if got := c.read(); got != own {
							t.Errorf("%q came to the client of %q", got, own)
						}
					}
					if (i+k)%2 == 0 {
						c.write(closeFrame(1000, ""))
					}
					_ = c.nc.Close()
				}
			})
		}
		all.Wait()
		close(end)
		senders.Wait()
		for range clients * rounds {
			get(t, s.ended, "Closed")
		}
	})
}
