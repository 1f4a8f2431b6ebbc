// Package crowd is clients by the thousand and a check of what they get: every message once, in order, byte for
// byte, and nobody else's. A Crowd is the clients of one process, Many are as many as it takes.
package crowd

import (
	"bytes"
	"context"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/wscluster/wscluster/bench/load"
	"github.com/wscluster/wscluster/pkg/wire"
)

// Crowd is clients of this process. Its methods may be called by any goroutine, one at a time.
type Crowd struct {
	Fleet load.Fleet // to send by, and for what their socket_metas say

	first  int // set once, as all up to mu
	o      Options
	cancel context.CancelFunc
	ended  chan struct{} // closed once nobody reads any more
	enough chan struct{} // cap 1: all that is expected has come

	mu       sync.Mutex
	seqs     []sequence // guarded by mu, as all below
	expected int64
	tally    Tally
	err      error // how the sockets ended
}

// Options are what a Crowd does with what comes. The zero value only counts and checks.
type Options struct {
	Each   func(s *load.Socket, frame []byte) error        // takes what holds no message: pings of the protocol, for one
	Answer func(s *load.Socket, client int, n int64) error // acknowledges the n-th message of a client
}

// Gather connects the clients of p and reads from them until Close.
func Gather(ctx context.Context, p load.Plan, o Options) (*Crowd, error) {
	fleet, err := p.Connect(ctx)
	if err != nil {
		return nil, err
	}
	if err := fleet.Detach(); err != nil { // now they may be sent by
		fleet.Close()
		return nil, err
	}
	c := Listen(p.Clients, p.First, o)
	c.Fleet = fleet
	ctx, c.cancel = context.WithCancel(ctx)
	go func() {
		defer close(c.ended)
		err := fleet.Serve(ctx, func(i int, frame []byte) error { return c.Take(p.First+i, frame) })
		c.mu.Lock()
		c.err = err
		c.mu.Unlock()
		c.signal()
	}()
	return c, nil
}

// Listen is a Crowd without sockets, which is given what comes by Take.
func Listen(clients, first int, o Options) *Crowd {
	return &Crowd{first: first, o: o, ended: make(chan struct{}), enough: make(chan struct{}, 1),
		seqs: make([]sequence, clients), tally: newTally()}
}

// Take is called with each frame that comes to a client.
func (c *Crowd) Take(client int, frame []byte) error {
	to, n, at, found, err := find(frame)
	if err != nil {
		return fmt.Errorf("%w: %.400q", err, frame)
	}
	if !found {
		if at, ok := pongOf(frame); ok {
			c.mu.Lock()
			now := Now()
			c.count(now, now-at)
			c.mu.Unlock()
			return nil
		}
		if c.o.Each != nil {
			return c.o.Each(c.socket(client), frame)
		}
		return nil
	}
	now := Now()
	c.mu.Lock()
	if to != Everybody && to != client {
		c.tally.Misrouted++
		c.mu.Unlock()
		return nil
	}
	if c.seqs[client-c.first].take(n, &c.tally.Faults) {
		c.count(now, now-at)
	}
	c.mu.Unlock()
	if c.o.Answer != nil {
		return c.o.Answer(c.socket(client), client, n)
	}
	return nil
}

// socket is a client's; nil in a Crowd without.
func (c *Crowd) socket(client int) *load.Socket {
	if c.Fleet == nil {
		return nil
	}
	return c.Fleet[client-c.first]
}

// count notes something that is expected. It is called with mu held.
func (c *Crowd) count(now, age int64) {
	if c.tally.Got == 0 {
		c.tally.First = now
	}
	c.tally.Got++
	c.tally.Last = now
	record(c.tally.Ages, age)
	if c.tally.Got == c.expected {
		c.signal()
	}
}

func (c *Crowd) signal() {
	select {
	case c.enough <- struct{}{}:
	default:
	}
}

// Expect begins a batch of so many messages, those of all clients together.
func (c *Crowd) Expect(messages int64) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	select {
	case <-c.enough:
	default:
	}
	c.expected, c.tally = messages, newTally()
	if c.err != nil || messages == 0 {
		c.signal()
	}
	return c.err
}

// Got is how many messages of the batch have come.
func (c *Crowd) Got() int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.tally.Got
}

// Wait returns when all messages of the batch have come, or after within: then the others are lost.
// The error is how a socket ended, or ctx's.
func (c *Crowd) Wait(ctx context.Context, within time.Duration) (Tally, error) {
	select {
	case <-c.enough:
	case <-time.After(within):
	case <-ctx.Done():
		return Tally{}, context.Cause(ctx)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	t := c.tally
	t.Lost = c.expected - t.Got
	c.tally = newTally()
	return t, c.err
}

// Close ends the clients, and returns how they had ended before, if they had.
func (c *Crowd) Close() error {
	if c.cancel == nil {
		return nil
	}
	c.cancel()
	<-c.ended
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.err
}

// Echo has the clients of workers ping in turn, so many times a second, and returns how long the pongs took.
func (c *Crowd) Echo(ctx context.Context, pings, rate int) (Tally, error) {
	if err := c.Expect(int64(pings)); err != nil {
		return Tally{}, err
	}
	err := Pace(ctx, pings, rate, func(i int) error {
		return c.Fleet[i%len(c.Fleet)].Send(&wire.Ping{ID: strconv.FormatInt(Now(), 10)})
	})
	if err != nil {
		return Tally{}, err
	}
	return c.Wait(ctx, echoWithin)
}

// pongOf reads when the ping that a frame answers was sent.
func pongOf(frame []byte) (at int64, ok bool) {
	id, ok := bytes.CutPrefix(frame, []byte(`{"type":"pong","id":"`))
	if !ok {
		return 0, false
	}
	at, err := strconv.ParseInt(string(bytes.TrimSuffix(id, []byte(`"}`))), 10, 64)
	return at, err == nil
}

const echoWithin = 10 * time.Second // from the last ping to the last pong

// Pace calls f n times, rate times a second on the whole: what is late is made up for.
func Pace(ctx context.Context, n, rate int, f func(i int) error) error {
	began := time.Now()
	for i := range n {
		due := began.Add(time.Duration(i) * time.Second / time.Duration(rate))
		if wait := time.Until(due); wait > 0 {
			select {
			case <-time.After(wait):
			case <-ctx.Done():
			}
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err := f(i); err != nil {
			return err
		}
	}
	return nil
}
