package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/wscluster/wscluster/bench/crowd"
	"github.com/wscluster/wscluster/bench/report"
)

// scenario measures one system once.
type scenario struct {
	name     string
	baseline string // what the others' ratios are to
	once     bool   // in the first round only: it takes long, and machines that are busy do not change it much
	measure  func(ctx context.Context, o options, s server) (values map[string]float64, _ crowd.Faults, err error)
}

// options of a run.
type options struct {
	clients  int
	messages int           // of a round of throughput
	seconds  float64       // of publishing or pinging at a rate
	fill     int           // messages that fill the buffers of a client that reads nothing: the kernel takes some 2.6 MB
	idle     time.Duration // from the last connect to the look at the memory
}

// count is how many messages, at a rate a second, take the time.
func (o options) count(rate int) int { return max(1, int(o.seconds*float64(rate))) }

// errNoSuch says that a system has nothing like that: it is left out.
var errNoSuch = errors.New("it has nothing like that")

var scenarios = []scenario{
	{name: "idle", baseline: "bare-relay", once: true, measure: measureIdle},
	{name: "connect", baseline: "bare-relay", measure: measureConnect},
	{name: "echo", baseline: "bare-loop", measure: measureEcho},
	{name: "unicast-latency", baseline: "raw-amqp", measure: measureLatency},
	{name: "unicast-throughput", baseline: "raw-amqp", measure: measureThroughput},
	{name: "broadcast", baseline: "bare-loop", measure: measureBroadcast},
	{name: "slow-readers", measure: measureSlow},
	{name: "reconnect", measure: measureReconnect},
}

const (
	publishers  = 16   // goroutines that publish, for throughput
	inFlight    = 2000 // messages that are published and have not come, for throughput
	latencyRate = 200  // messages a second
	echoRate    = 500
	broadcasts  = 7
	deaf        = 10 // clients that read nothing
	slowRate    = 20 // messages a second

	quiet        = time.Second      // between two measurements
	arriveWithin = 20 * time.Second // from the last publish
	backWithin   = 90 * time.Second // from the kill until all clients are back
	retryAfter   = 20 * time.Millisecond
)

// measureIdle has fresh processes, and compares their private memory with and without clients.
func measureIdle(ctx context.Context, o options, s server) (_ map[string]float64, _ crowd.Faults, err error) {
	if len(s.holders()) == 0 {
		return nil, crowd.Faults{}, errNoSuch
	}
	s.kill()
	if err := s.revive(ctx); err != nil {
		return nil, crowd.Faults{}, err
	}
	if err := pause(ctx, o.idle/3); err != nil {
		return nil, crowd.Faults{}, err
	}
	before, err := resident(s)
	if err != nil {
		return nil, crowd.Faults{}, err
	}
	c, err := gather(ctx, s, o.clients, true)
	if err != nil {
		return nil, crowd.Faults{}, err
	}
	defer closing(c, &err)
	if err := pause(ctx, o.idle); err != nil {
		return nil, crowd.Faults{}, err
	}
	after, err := resident(s)
	return map[string]float64{"bytes_per_client": float64(after-before) / float64(o.clients), "base_mb": float64(before) / 1e6}, crowd.Faults{}, err
}

func resident(s server) (sum int64, err error) {
	for _, pid := range s.holders() {
		n, err := report.Resident(pid)
		if err != nil {
			return 0, err
		}
		sum += n
	}
	return sum, nil
}

// measureConnect counts TCP, handshake, what the protocol greets with, and a subscription.
func measureConnect(ctx context.Context, o options, s server) (_ map[string]float64, _ crowd.Faults, err error) {
	if len(s.holders()) == 0 {
		return nil, crowd.Faults{}, errNoSuch
	}
	began := time.Now()
	c, err := gather(ctx, s, o.clients, true)
	took := time.Since(began)
	if err != nil {
		return nil, crowd.Faults{}, err
	}
	defer closing(c, &err)
	return map[string]float64{"connects_per_s": float64(o.clients) / took.Seconds()}, crowd.Faults{}, nil
}

// measureEcho is for those that answer a wire.Ping.
func measureEcho(ctx context.Context, o options, s server) (_ map[string]float64, f crowd.Faults, err error) {
	switch s.(type) {
	case *ours, *relayServer:
	default:
		return nil, f, errNoSuch
	}
	c, err := gather(ctx, s, o.clients, true)
	if err != nil {
		return nil, f, err
	}
	defer closing(c, &err)
	t, err := c.Echo(ctx, o.count(echoRate), echoRate)
	return percentiles(t), t.Faults, err
}

func percentiles(t crowd.Tally) map[string]float64 {
	if t.Got == 0 {
		return nil
	}
	return map[string]float64{"p50_ms": t.Quantile(50), "p99_ms": t.Quantile(99)}
}

// measureLatency publishes to the clients in turn, at a rate that loads nothing.
func measureLatency(ctx context.Context, o options, s server) (_ map[string]float64, f crowd.Faults, err error) {
	c, err := gather(ctx, s, o.clients, false)
	if err != nil {
		return nil, f, err
	}
	defer closing(c, &err)
	count := o.count(latencyRate)
	if err := c.Expect(int64(count)); err != nil {
		return nil, f, err
	}
	err = crowd.Pace(ctx, count, latencyRate, func(i int) error { return send(ctx, s, i%o.clients, int64(i/o.clients+1)) })
	if err != nil {
		return nil, f, err
	}
	t, err := c.Wait(ctx, arriveWithin)
	return percentiles(t), t.Faults, err
}

// send publishes the n-th message to one client, or to everybody, now.
func send(ctx context.Context, s server, to int, n int64) error {
	return s.publish(ctx, to, n, crowd.Message(to, n, crowd.Now()))
}

// measureThroughput publishes as fast as it goes, one call a message, with at most inFlight on their way. Each
// client's messages are one goroutine's, so that they have an order.
func measureThroughput(ctx context.Context, o options, s server) (_ map[string]float64, f crowd.Faults, err error) {
	c, err := gather(ctx, s, o.clients, false)
	if err != nil {
		return nil, f, err
	}
	defer closing(c, &err)
	each := max(1, o.messages/o.clients)
	total := int64(each * o.clients)
	if err := c.Expect(total); err != nil {
		return nil, f, err
	}
	before := processors(s)
	began := crowd.Now()
	var sent atomic.Int64
	g, publishing := errgroup.WithContext(ctx)
	for p := range publishers {
		g.Go(func() error {
			for n := range each {
				for to := p; to < o.clients; to += publishers {
					for sent.Load()-c.Got() >= inFlight {
						if crowd.Now()-began > int64(throughputWithin) {
							return nil // what is missing counts as lost
						}
						if err := pause(publishing, 200*time.Microsecond); err != nil {
							return err
						}
					}
					sent.Add(1)
					if err := send(publishing, s, to, int64(n+1)); err != nil {
						return err
					}
				}
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return nil, f, err
	}
	t, err := c.Wait(ctx, arriveWithin)
	if err != nil || t.Got == 0 {
		return nil, t.Faults, err
	}
	return map[string]float64{
		"messages_per_s": float64(t.Got) / (float64(t.Last-began) / 1e9),
		"cpu_s_per_100k": (processors(s) - before) / float64(t.Got) * 100_000,
	}, t.Faults, nil
}

const throughputWithin = time.Minute

// processors is the processor time in seconds of all of a system, its broker included.
func processors(s server) (sum float64) {
	for _, pid := range append(s.holders(), s.others()...) {
		n, _ := report.CPU(pid) // it may have ended
		sum += n
	}
	return sum
}

// measureBroadcast is from the publish until the last client has it.
func measureBroadcast(ctx context.Context, o options, s server) (_ map[string]float64, f crowd.Faults, err error) {
	c, err := gather(ctx, s, o.clients, true)
	if err != nil {
		return nil, f, err
	}
	defer closing(c, &err)
	var lasts []float64
	for n := range broadcasts {
		if err := pause(ctx, 100*time.Millisecond); err != nil {
			return nil, f, err
		}
		if err := c.Expect(int64(o.clients)); err != nil {
			return nil, f, err
		}
		began := crowd.Now()
		if err := send(ctx, s, crowd.Everybody, int64(n+1)); err != nil {
			return nil, f, err
		}
		t, err := c.Wait(ctx, arriveWithin)
		if err != nil {
			return nil, f, err
		}
		f.Add(t.Faults)
		lasts = append(lasts, float64(t.Last-began)/1e6)
	}
	return map[string]float64{"last_ms": report.Median(lasts)}, f, nil
}

// measureSlow is the p99 of those that read: beside some that do not, whose buffers in the kernel were filled before, and
// then without those. The bare ones are not asked: they stand still behind the first that does not read.
func measureSlow(ctx context.Context, o options, s server) (_ map[string]float64, f crowd.Faults, err error) {
	if _, ok := s.(*relayServer); ok {
		return nil, f, errNoSuch
	}
	plan, _, err := s.clients(deaf, true)
	if err != nil {
		return nil, f, err
	}
	plan.First = o.clients // each has a name of its own, where the protocol has names
	fleet, err := plan.Connect(ctx)
	if err != nil {
		return nil, f, err
	}
	defer fleet.Close()
	if err := fill(ctx, o.fill, s); err != nil {
		return nil, f, fmt.Errorf("fill the buffers of those that read nothing: %w", err)
	}
	c, err := gather(ctx, s, o.clients, true)
	if err != nil {
		return nil, f, err
	}
	defer closing(c, &err)
	count := o.count(slowRate)
	steady := func(from int) (float64, error) {
		if err := c.Expect(int64(o.clients * count)); err != nil {
			return 0, err
		}
		if err := crowd.Pace(ctx, count, slowRate, func(i int) error { return send(ctx, s, crowd.Everybody, int64(from+i+1)) }); err != nil {
			return 0, err
		}
		t, err := c.Wait(ctx, arriveWithin)
		f.Add(t.Faults)
		if err != nil || t.Got == 0 {
			return 0, err
		}
		return t.Quantile(99), nil
	}
	beside, err := steady(0)
	if err != nil {
		return nil, f, err
	}
	fleet.Close()
	if err := pause(ctx, quiet); err != nil {
		return nil, f, err
	}
	alone, err := steady(count)
	return map[string]float64{"p99_alone_ms": alone, "p99_beside_ms": beside}, f, err
}

// fill publishes messages to those that read nothing, and returns when one that reads, too, has got all of them or was
// left out: what is published next waits behind none.
func fill(ctx context.Context, messages int, s server) error {
	c, err := gather(ctx, s, 1, true)
	if err != nil {
		return err
	}
	if err := c.Expect(1); err != nil {
		return errors.Join(err, c.Close())
	}
	for range messages {
		if err := s.publish(ctx, crowd.Everybody, 0, filler); err != nil {
			return errors.Join(err, c.Close())
		}
	}
	if err := send(ctx, s, crowd.Everybody, 1); err != nil {
		return errors.Join(err, c.Close())
	}
	t, err := c.Wait(ctx, filledWithin)
	if err == nil && t.Got == 0 {
		err = fmt.Errorf("the last of %d messages has not come after %v", messages, filledWithin)
	}
	return errors.Join(err, c.Close())
}

const filledWithin = time.Minute

// filler has the size of a message, and is none.
var filler = bytes.Replace(crowd.Message(0, 0, 0), []byte(`"to"`), []byte(`"no"`), 1)

// measureReconnect kills what holds the connections, starts it again at once, and waits until each client is back.
func measureReconnect(ctx context.Context, o options, s server) (_ map[string]float64, _ crowd.Faults, err error) {
	switch s.(type) {
	case *relayServer, *rawServer: // a relay comes back at another address
		return nil, crowd.Faults{}, errNoSuch
	}
	c, err := gather(ctx, s, o.clients, true)
	if err != nil {
		return nil, crowd.Faults{}, err
	}
	began := time.Now()
	s.kill()
	_ = c.Close() // it has just been cut
	ctx, cancel := context.WithTimeoutCause(ctx, backWithin, fmt.Errorf("not all clients are back after %v", backWithin))
	defer cancel()
	var first atomic.Int64
	g, back := errgroup.WithContext(ctx)
	g.Go(func() error { return s.revive(back) })
	g.Go(func() error {
		plan, options, err := s.clients(o.clients, true)
		if err == nil {
			plan.Retry, plan.Opened = retryAfter, func() { first.CompareAndSwap(0, int64(time.Since(began))) }
			c, err = crowd.Gather(ctx, plan, options)
		}
		return err
	})
	err = g.Wait()
	took := time.Since(began)
	if err != nil {
		return nil, crowd.Faults{}, errors.Join(err, context.Cause(ctx))
	}
	defer closing(c, &err)
	return map[string]float64{"all_back_s": took.Seconds(), "first_back_s": time.Duration(first.Load()).Seconds()}, crowd.Faults{}, nil
}

// closing ends the clients of a measurement, and joins how they ended to its error.
func closing(c *crowd.Crowd, err *error) { *err = errors.Join(*err, c.Close()) }

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
