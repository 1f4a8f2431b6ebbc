package load

import (
	"context"
	"fmt"
	"net"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
)

// Fleet is many sockets. The place of a socket in it is the client's number, less that of the first.
type Fleet []*Socket

// Plan says which sockets to open.
type Plan struct {
	Clients int
	First   int           // the number of the first client, where other processes have those before
	Targets []Target      // client i takes the i-th, and begins anew behind the last
	Sources []net.IP      // to dial from, likewise; nil leaves it to the kernel
	AtOnce  int           // how many are being opened at one time; 0 means 64
	Retry   time.Duration // after a dial that failed, until ctx ends; 0 gives all up at the first
	Opened  func()        // called for each socket that is ready, from several goroutines; may be nil
}

const dialers = 64

// Connect opens the sockets as fast as it goes. After an error none is left open.
func (p Plan) Connect(ctx context.Context) (Fleet, error) {
	fleet := make(Fleet, p.Clients)
	g, ctx := errgroup.WithContext(ctx)
	var next atomic.Int64
	if p.AtOnce == 0 {
		p.AtOnce = dialers
	}
	for range min(p.AtOnce, p.Clients) {
		g.Go(func() error {
			for {
				i := int(next.Add(1)) - 1
				if i >= p.Clients {
					return nil
				}
				s, err := p.dial(ctx, p.First+i)
				for err != nil && p.Retry > 0 && ctx.Err() == nil {
					time.Sleep(p.Retry)
					s, err = p.dial(ctx, p.First+i)
				}
				if err != nil {
					return fmt.Errorf("client %d: %w", p.First+i, err)
				}
				fleet[i] = s
				if p.Opened != nil {
					p.Opened()
				}
			}
		})
	}
	if err := g.Wait(); err != nil {
		fleet.Close()
		return nil, err
	}
	return fleet, nil
}

func (p Plan) dial(ctx context.Context, client int) (*Socket, error) {
	var source net.IP
	if len(p.Sources) > 0 {
		source = p.Sources[client%len(p.Sources)]
	}
	return dial(ctx, p.Targets[client%len(p.Targets)], source, client)
}

// Connect opens n sockets with sessions to the workers at addrs in turn, from loopback, 64 at a
// time and as fast as it goes. After an error none is left open.
func Connect(ctx context.Context, n int, addrs ...string) (Fleet, error) {
	p := Plan{Clients: n, Sources: Loopback(n)}
	for _, addr := range addrs {
		p.Targets = append(p.Targets, Worker(addr))
	}
	return p.Connect(ctx)
}

// Close cuts all connections.
func (f Fleet) Close() {
	for _, s := range f {
		if s != nil {
			s.Close()
		}
	}
}
