package crowd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"sync/atomic"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/wscluster/wscluster/bench/load"
	"github.com/wscluster/wscluster/pkg/wire"
)

// child is the other end of a part: the clients of one process.
type child struct {
	crowd  *Crowd
	tokens []string // of the sessions that were cut
	out    *json.Encoder
}

// openedEvery is how often a child says how many of its clients are connected.
const openedEvery = 200 * time.Millisecond

// Serve carries out the orders of Many that come from in, until in ends: then it closes its clients. Its
// answers go to out.
func Serve(ctx context.Context, in io.Reader, out io.Writer) error {
	c := &child{out: json.NewEncoder(out)}
	defer func() { c.cut() }()
	for orders := json.NewDecoder(in); ; {
		var o order
		if err := orders.Decode(&o); err != nil {
			if errors.Is(err, io.EOF) || errors.Is(err, io.ErrClosedPipe) {
				return nil
			}
			return fmt.Errorf("read an order: %w", err)
		}
		t, err := c.do(ctx, o)
		var r report
		if err != nil {
			r.Error = err.Error()
		} else {
			r.Sums = pack(t)
		}
		if err := c.out.Encode(r); err != nil {
			return fmt.Errorf("answer %s: %w", o.Do, err)
		}
	}
}

func (c *child) do(ctx context.Context, o order) (Tally, error) {
	if o.Do == "connect" {
		t := newTally()
		err := c.connect(ctx, o)
		if err == nil {
			t.Got = c.resumed()
		}
		return t, err
	}
	if c.crowd == nil {
		return newTally(), fmt.Errorf("%s before connect", o.Do)
	}
	switch o.Do {
	case "expect":
		return newTally(), c.crowd.Expect(o.Expect)
	case "wait":
		return c.crowd.Wait(ctx, o.Within)
	case "echo":
		return c.crowd.Echo(ctx, o.Pings, o.Rate)
	case "cut":
		return newTally(), c.cut()
	}
	return newTally(), fmt.Errorf("there is no order %q", o.Do)
}

func (c *child) connect(ctx context.Context, o order) error {
	p := load.Plan{Clients: o.Spec.Clients, First: o.First, AtOnce: o.Spec.AtOnce}
	for _, s := range o.Spec.Sources {
		ip := net.ParseIP(s)
		if ip == nil {
			return fmt.Errorf("%q is no address to dial from", s)
		}
		p.Sources = append(p.Sources, ip)
	}
	for _, addr := range o.Spec.Addrs {
		t := load.Worker(addr)
		t.Greet = func(s *load.Socket, client int) error {
			token := ""
			if c.tokens != nil {
				token = c.tokens[client-o.First]
			}
			if err := s.Hello(token); err != nil || o.Spec.Channel == "" {
				return err
			}
			return s.Subscribe(&wire.Subscribe{Channel: wire.Channel(o.Spec.Channel), Grant: o.Spec.Grant})
		}
		p.Targets = append(p.Targets, t)
	}
	var opened atomic.Int64
	p.Opened = func() { opened.Add(1) }
	connected := make(chan error, 1)
	go func() {
		var err error
		c.crowd, err = Gather(ctx, p, Options{})
		connected <- err
	}()
	tick := time.NewTicker(openedEvery)
	defer tick.Stop()
	for {
		select {
		case err := <-connected:
			if err == nil {
				err = c.out.Encode(report{Opened: o.Spec.Clients})
			}
			return err
		case <-tick.C:
			n := int(opened.Load())
			if n == 0 {
				continue
			}
			if err := c.out.Encode(report{Opened: n}); err != nil {
				return errors.Join(err, <-connected)
			}
		}
	}
}

// resumed is how many clients have the session that they had before.
func (c *child) resumed() (n int64) {
	for _, s := range c.crowd.Fleet {
		if s.Meta.Resumed {
			n++
		}
	}
	return n
}

// cut ends the clients and keeps their tokens.
func (c *child) cut() error {
	if c.crowd == nil {
		return nil
	}
	c.tokens = make([]string, len(c.crowd.Fleet))
	for i, s := range c.crowd.Fleet {
		c.tokens[i] = s.Meta.Token
	}
	err := c.crowd.Close()
	c.crowd = nil
	return err
}

func pack(t Tally) *sums {
	ages, err := t.Ages.Encode(hdrhistogram.V2CompressedEncodingCookieBase)
	if err != nil {
		panic(err) // one of ours
	}
	return &sums{t.Faults, t.Got, t.First, t.Last, ages}
}

func (s *sums) tally() (Tally, error) {
	ages, err := hdrhistogram.Decode(s.Ages)
	if err != nil {
		return Tally{}, fmt.Errorf("ages of messages: %w", err)
	}
	return Tally{s.Faults, s.Got, s.First, s.Last, ages}, nil
}
