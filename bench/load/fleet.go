package load

import (
	"context"
	"fmt"
	"sync/atomic"

	"golang.org/x/sync/errgroup"
)

// Fleet is many sockets. The place of a socket in it is the client's number.
type Fleet []*Socket

// dialers is how many sockets are being opened at one time.
const dialers = 64

// Connect opens n sockets to the addresses in turn, 64 at a time and as fast as it goes. After an
// error none is left open.
func Connect(ctx context.Context, n int, addrs ...string) (Fleet, error) {
	fleet := make(Fleet, n)
	g, ctx := errgroup.WithContext(ctx)
	var next atomic.Int64
	for range min(dialers, n) {
		g.Go(func() error {
			for {
				i := int(next.Add(1)) - 1
				if i >= n {
					return nil
				}
				s, err := Dial(ctx, addrs[i%len(addrs)], Source(i))
				if err != nil {
					return fmt.Errorf("client %d of %d: %w", i, n, err)
				}
				fleet[i] = s
			}
		})
	}
	if err := g.Wait(); err != nil {
		fleet.Close()
		return nil, err
	}
	return fleet, nil
}

// Close cuts all connections.
func (f Fleet) Close() {
	for _, s := range f {
		if s != nil {
			s.Close()
		}
	}
}
