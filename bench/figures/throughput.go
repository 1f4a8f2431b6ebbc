package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/wscluster/wscluster/bench/bare"
	"github.com/wscluster/wscluster/bench/load"
	"github.com/wscluster/wscluster/internal/rig"
	"github.com/wscluster/wscluster/pkg/amqp"
	"github.com/wscluster/wscluster/pkg/batch"
	"github.com/wscluster/wscluster/pkg/broker"
	"github.com/wscluster/wscluster/pkg/socketmeta"
	"github.com/wscluster/wscluster/pkg/wire"
)

// eventsSingle and eventsBatched are how many durable events a second one publisher brings through a real worker to
// 1,000 clients, who acknowledge as docs/PROTOCOL.md says; from the first publish until every client has all of its
// events and the broker has confirmed them. The publisher is the task runner's own (pkg/batch on pkg/amqp). The baseline is
// the same events, published one by one by a bare AMQP client with confirms, to a durable queue of another one, which
// acknowledges each; eventsRelay has the least that brings the same events to as many sockets (bench/bare), one by one by
// the same publisher. All take turns in each round, on one broker.
var (
	eventsSingle = figure{
		name: "events-single", unit: "1/s", floor: floor{ofRatio: true, atLeast: true, limit: 0.8},
		measure: func(ctx context.Context, l *lab) ([]sample, error) {
			return l.eventRates(ctx, func(r eventRates) sample { return sample{r.single, r.raw} })
		},
	}
	eventsRelay = figure{
		name: "events-relay", unit: "1/s", floor: floor{ofRatio: true, atLeast: true, limit: 1},
		measure: func(ctx context.Context, l *lab) ([]sample, error) {
			return l.eventRates(ctx, func(r eventRates) sample { return sample{r.single, r.relay} })
		},
	}
	eventsBatched = figure{
		name: "events-batched", unit: "1/s", floor: floor{ofRatio: true, atLeast: true, limit: 2},
		measure: func(ctx context.Context, l *lab) ([]sample, error) {
			return l.eventRates(ctx, func(r eventRates) sample { return sample{r.batched, r.raw} })
		},
	}
)

const (
	relayServer = socketmeta.ServerID("relay-w1")
	rateClients = 1_000
	rateEvents  = 20_000 // of one kind in a round
	rateRounds  = 5
	rateWithin  = time.Minute
	ackEvery    = 32
	ackPause    = 50 * time.Millisecond
	ackLook     = 5 * time.Millisecond // how exact the pause is
)

// eventRates is one round, events a second.
type eventRates struct{ raw, relay, single, batched float64 }

// eventRates measures the rounds once for both figures.
func (l *lab) eventRates(ctx context.Context, of func(eventRates) sample) (samples []sample, err error) {
	if l.rates == nil {
		if l.rates, err = measureEventRates(ctx, l); err != nil {
			return nil, err
		}
	}
	for _, r := range l.rates {
		samples = append(samples, of(r))
	}
	return samples, nil
}

func measureEventRates(ctx context.Context, l *lab) (rounds []eventRates, err error) {
	err = l.withTakers(ctx, func(ctx context.Context, t *takersOf) error {
		raw, err := dialRaw(t.cluster.Rabbit.URL(), rateEvents)
		if err != nil {
			return err
		}
		defer raw.close()
		relay, err := bare.StartRelay(t.cluster.Rabbit.URL(), relayServer)
		if err != nil {
			return err
		}
		defer relay.Stop()
		others, err := takersAt(ctx, relay.Addr)
		if err != nil {
			return err
		}
		g, ctx := errgroup.WithContext(ctx)
		receiving, stop := context.WithCancel(ctx)
		single, batched := batch.New(t.link, batch.Options{Single: true}), batch.New(t.link, batch.Options{})
		g.Go(func() error {
			return raw.take(receiving, func([]byte, time.Time) (time.Duration, error) { return 0, nil })
		})
		g.Go(func() error { return others.run(receiving) })
		g.Go(func() error { return single.Run(receiving) })
		g.Go(func() error { return batched.Run(receiving) })
		g.Go(func() error {
			defer stop()
			for i := range rateRounds + 1 {
				var r eventRates
				kinds := []func() error{
					func() (err error) { r.raw, err = raw.rate(ctx, t.takers); return err },
					func() (err error) { r.relay, err = others.rate(ctx, single); return err },
					func() (err error) { r.single, err = t.rate(ctx, single); return err },
					func() (err error) { r.batched, err = t.rate(ctx, batched); return err },
				}
				for k := range kinds {
					if err := kinds[(i+k)%len(kinds)](); err != nil {
						return err
					}
				}
				l.Logf("  %d events each: bare AMQP %.0f/s, bare relay %.0f/s (%.2f), single %.0f/s (%.2f), batched %.0f/s (%.2f)", rateEvents,
					r.raw, r.relay, r.relay/r.raw, r.single, r.single/r.raw, r.batched, r.batched/r.raw)
				if i > 0 { // the first warms up
					rounds = append(rounds, r)
				}
			}
			return nil
		})
		return g.Wait()
	})
	return rounds, err
}

// takersOf are takers of a private cluster of one worker, and a runner's link to its broker.
type takersOf struct {
	*takers
	cluster *rig.Cluster
	link    broker.Link
}

// withTakers calls measure while takers receive and acknowledge.
func (l *lab) withTakers(ctx context.Context, measure func(context.Context, *takersOf) error) error {
	c, err := l.Cluster(ctx, rig.ClusterOptions{Workers: []string{"i1-w1"}})
	if err != nil {
		return err
	}
	defer l.Stop(c)
	rabbit, err := amqp.New(amqp.Options{URLs: []string{c.Rabbit.URL()}, Window: bare.PublishWindow})
	if err != nil {
		return err
	}
	link, err := rabbit.Join(ctx, broker.Runner("figures"))
	if err != nil {
		return err
	}
	defer link.Close(context.WithoutCancel(ctx))
	all, err := takersAt(ctx, c.Workers[0].Addr)
	if err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	receiving, stop := context.WithCancel(ctx)
	g.Go(func() error { return all.run(receiving) })
	g.Go(func() error {
		defer stop()
		return measure(ctx, &takersOf{all, c, link})
	})
	return g.Wait()
}

// takers are the clients: each has one task, whose events must come to it alone, once each and in order.
type takers struct {
	fleet load.Fleet
	send  func(client int, m wire.ClientMessage) error
	tasks []wire.Event // the publisher's: the last event that was published to each client
	got   int          // of who receives: events of this round
	all   chan struct{}

	mu    sync.Mutex
	mates []mate // guarded by mu
}

// mate is where one client is.
type mate struct {
	want    []byte        // how the frame of the next event begins, up to its seq
	had     wire.Position // behind the last that came
	unacked int
	acked   time.Time // when the last acknowledgement went out
}

// due reports whether it is time to acknowledge, by docs/PROTOCOL.md.
func (m *mate) due(now time.Time) bool {
	return m.unacked >= ackEvery || m.unacked > 0 && now.Sub(m.acked) >= ackPause
}

// takersAt connects them. They are closed when run returns.
func takersAt(ctx context.Context, addr string) (*takers, error) {
	fleet, err := load.Connect(ctx, rateClients, addr)
	if err != nil {
		return nil, err
	}
	if err := fleet.Detach(); err != nil { // two goroutines acknowledge
		fleet.Close()
		return nil, err
	}
	return newTakers(fleet), nil
}

// run receives and acknowledges until ctx ends.
func (c *takers) run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return c.fleet.Serve(ctx, c.receive) })
	g.Go(func() error { return c.acknowledgeLate(ctx) })
	return g.Wait()
}

func newTakers(fleet load.Fleet) *takers {
	c := &takers{fleet: fleet, all: make(chan struct{}, 1)}
	c.send = func(client int, m wire.ClientMessage) error { return fleet[client].Send(m) }
	for _, s := range fleet {
		e := wire.Event{
			Client: s.Meta.Client, Home: s.Meta.Server, Epoch: s.Meta.Epoch,
			Task: wire.NewTaskID(), Attempt: 1, Run: wire.NewRunID(), Type: wire.EventStep, Durable: true, Body: stamp(began),
		}
		c.tasks = append(c.tasks, e)
		frame := wire.AppendEventFrame(nil, &e)
		c.mates = append(c.mates, mate{
			want: frame[:bytes.Index(frame, seqName)+len(seqName)],
			had:  wire.Position{Task: e.Task, Attempt: e.Attempt, Run: e.Run, Next: 1},
		})
	}
	return c
}

var seqName = []byte(`"seq":`)

// next is the next event of a client.
func (c *takers) next(client int) *wire.Event {
	e := c.tasks[client]
	e.Seq, e.Prev = e.Seq+1, e.Seq
	c.tasks[client] = e
	return &e
}

// rate publishes a round to the clients in turn, and waits until all is there.
func (c *takers) rate(ctx context.Context, p *batch.Publisher) (float64, error) {
	receipts := make([]broker.Receipt, 0, rateEvents)
	start := time.Now()
	for i := range rateEvents {
		e := c.next(i % len(c.tasks))
		r, err := p.Publish(ctx, e.Home, e, "")
		if err != nil {
			return 0, err
		}
		receipts = append(receipts, r)
	}
	for _, r := range receipts {
		if outcome, err := broker.Await(ctx, r); outcome != broker.Stored {
			return 0, fmt.Errorf("an event was not stored: %v, %w", outcome, err)
		}
	}
	select {
	case <-c.all:
		return rateEvents / time.Since(start).Seconds(), nil
	case <-time.After(rateWithin):
		return 0, errors.New("not every event came within a minute")
	case <-ctx.Done():
		return 0, context.Cause(ctx)
	}
}

// receive takes one message of a client's socket, and acknowledges as docs/PROTOCOL.md says.
func (c *takers) receive(client int, p []byte) error {
	if !bytes.HasPrefix(p, []byte(`{"type":"event"`)) {
		return nil // a fresh token
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	m := &c.mates[client]
	rest, ok := bytes.CutPrefix(p, m.want)
	digits, _, _ := bytes.Cut(rest, []byte(","))
	seq, err := strconv.ParseInt(string(digits), 10, 64)
	if !ok || err != nil {
		return fmt.Errorf("client %d got %.200s", client, p)
	}
	if seq < m.had.Next {
		return nil // it waited in a batch for longer than a second
	}
	if seq != m.had.Next {
		return fmt.Errorf("client %d got event %d after %d", client, seq, m.had.Next-1)
	}
	m.had.Next++
	if c.got++; c.got == rateEvents {
		c.got = 0
		c.all <- struct{}{}
	}
	m.unacked++
	return c.acknowledge(client, time.Now())
}

// acknowledgeLate acknowledges what was not due when it came, until ctx ends or the sockets are closed.
func (c *takers) acknowledgeLate(ctx context.Context) error {
	look := time.NewTicker(ackLook)
	defer look.Stop()
	for {
		select {
		case <-look.C:
		case <-ctx.Done():
			return nil
		}
		if err := c.acknowledgeAll(time.Now()); errors.Is(err, net.ErrClosed) {
			return nil // who receives tells why
		} else if err != nil {
			return err
		}
	}
}

func (c *takers) acknowledgeAll(now time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for client := range c.mates {
		if err := c.acknowledge(client, now); err != nil {
			return err
		}
	}
	return nil
}

// acknowledge says what a client has, if it is due. Guarded by c.mu.
func (c *takers) acknowledge(client int, now time.Time) error {
	m := &c.mates[client]
	if !m.due(now) {
		return nil
	}
	m.unacked, m.acked = 0, now
	return c.send(client, &wire.Ack{Tasks: []wire.Position{m.had}})
}

// rate publishes a round one by one, and waits until the bare consumer has all of it.
func (r *rawClient) rate(ctx context.Context, c *takers) (float64, error) {
	e := c.tasks[0]
	start := time.Now()
	for range rateEvents {
		e.Seq, e.Prev = e.Seq+1, e.Seq
		if err := r.publish(ctx, broker.ToMailbox(rawServer), e); err != nil {
			return 0, err
		}
	}
	ctx, cancel := context.WithTimeoutCause(ctx, rateWithin, errors.New("not every event came to the bare consumer, and was confirmed, within a minute"))
	defer cancel()
	for range rateEvents {
		select {
		case <-r.arrivals:
		case <-ctx.Done():
			return 0, context.Cause(ctx)
		}
	}
	if err := r.publisher.Settle(ctx); err != nil {
		return 0, err
	}
	return rateEvents / time.Since(start).Seconds(), nil
}
