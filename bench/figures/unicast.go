package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	"golang.org/x/sync/errgroup"

	"github.com/wscluster/wscluster/bench/bare"
	"github.com/wscluster/wscluster/bench/load"
	"github.com/wscluster/wscluster/internal/rig"
	"github.com/wscluster/wscluster/pkg/broker"
	"github.com/wscluster/wscluster/pkg/wire"
)

// unicastP50 is the time from a publish to the client's socket, for durable events through a real
// worker that acknowledges to the broker once the client has. The baseline is the same messages,
// published by the same code on the same broker to a queue of the same kind, and consumed with
// manual acknowledgement by a bare AMQP client; unicastRelay has the least that brings them to as many sockets (bench/bare).
// All take turns, message by message.
var (
	unicastP50 = figure{
		name: "unicast-p50", unit: "us", floor: floor{ofRatio: true, limit: 1.25},
		measure: func(ctx context.Context, l *lab) ([]sample, error) {
			return l.unicastTimes(ctx, func(t unicastTimes) sample { return sample{t.worker, t.raw} })
		},
	}
	unicastRelay = figure{
		name: "unicast-relay-p50", unit: "us", floor: floor{ofRatio: true, limit: 1.15},
		measure: func(ctx context.Context, l *lab) ([]sample, error) {
			return l.unicastTimes(ctx, func(t unicastTimes) sample { return sample{t.worker, t.relay} })
		},
	}
)

const (
	unicastClients  = 1_000
	unicastRounds   = 5
	unicastMessages = 800                  // each way in a round
	unicastEvery    = 5 * time.Millisecond // each way: 200/s
	arriveWithin    = 10 * time.Second     // after the last publish
)

// unicastTimes are the medians of one round, in microseconds.
type unicastTimes struct{ raw, relay, worker float64 }

// unicastTimes measures the rounds once for both figures.
func (l *lab) unicastTimes(ctx context.Context, of func(unicastTimes) sample) (samples []sample, err error) {
	if l.unicast == nil {
		if l.unicast, err = measureUnicast(ctx, l); err != nil {
			return nil, err
		}
	}
	for _, t := range l.unicast {
		samples = append(samples, of(t))
	}
	return samples, nil
}

// measureUnicast runs the rounds beside what receives, which ends with them.
func measureUnicast(ctx context.Context, l *lab) (rounds []unicastTimes, err error) {
	c, err := l.Cluster(ctx, rig.ClusterOptions{Workers: []string{"i1-w1"}})
	if err != nil {
		return nil, err
	}
	defer l.Stop(c)
	raw, err := dialRaw(c.Rabbit.URL(), unicastMessages)
	if err != nil {
		return nil, err
	}
	defer raw.close()
	relay, err := bare.StartRelay(c.Rabbit.URL(), relayServer)
	if err != nil {
		return nil, err
	}
	defer relay.Stop()
	g, ctx := errgroup.WithContext(ctx)
	receiving, stop := context.WithCancel(ctx)
	defer stop()
	var sockets []*receivers
	for _, addr := range []string{c.Workers[0].Addr, relay.Addr} {
		fleet, err := load.Connect(ctx, unicastClients, addr)
		if err != nil {
			stop()
			return nil, errors.Join(err, g.Wait())
		}
		r := newReceivers(fleet)
		g.Go(func() error { return fleet.Serve(receiving, r.receive) })
		sockets = append(sockets, r)
	}
	g.Go(func() error { return raw.consume(receiving) })
	g.Go(func() error {
		defer stop()
		for range unicastRounds {
			t, err := unicastRound(ctx, l, raw, sockets[0], sockets[1])
			if err != nil {
				return err
			}
			rounds = append(rounds, t)
		}
		return nil
	})
	return rounds, g.Wait()
}

// unicastRound publishes in turn to a client of the worker, to one of the relay and to the bare consumer, and waits for all of it.
func unicastRound(ctx context.Context, l *lab, raw *rawClient, worker, relay *receivers) (unicastTimes, error) {
	turn := time.NewTicker(unicastEvery / 3)
	defer turn.Stop()
	for i := range 3 * unicastMessages {
		select {
		case <-turn.C:
		case <-ctx.Done():
			return unicastTimes{}, context.Cause(ctx)
		}
		e := worker.next()
		to := broker.ToMailbox(rawServer)
		switch i % 3 {
		case 0:
			worker.sent(e)
			to = broker.ToMailbox(e.Home)
		case 1:
			e = relay.next()
			relay.sent(e)
			to = broker.ToMailbox(e.Home)
		}
		if err := raw.publish(ctx, to, e); err != nil {
			return unicastTimes{}, err
		}
	}
	sent := time.Now()
	var p50, p99 [3]float64
	for i, way := range []struct {
		where    string
		arrivals <-chan time.Duration
	}{{"bare consumer", raw.arrivals}, {"clients of the relay", relay.arrivals}, {"clients", worker.arrivals}} {
		h, err := collect(ctx, way.arrivals, sent)
		if err != nil {
			return unicastTimes{}, fmt.Errorf("at the %s: %w", way.where, err)
		}
		p50[i], p99[i] = float64(h.ValueAtQuantile(50))/1e3, float64(h.ValueAtQuantile(99))/1e3
	}
	l.Logf("  %d messages each: socket p50 %.0f us, p99 %.0f us; of a bare relay %.0f us (%.2f), %.0f us; bare AMQP %.0f us (%.2f), %.0f us", unicastMessages,
		p50[2], p99[2], p50[1], p50[2]/p50[1], p99[1], p50[0], p50[2]/p50[0], p99[0])
	return unicastTimes{p50[0], p50[1], p50[2]}, nil
}

// collect takes a round's latencies into a histogram of nanoseconds.
func collect(ctx context.Context, arrivals <-chan time.Duration, sent time.Time) (*hdrhistogram.Histogram, error) {
	h := hdrhistogram.New(1_000, int64(time.Minute), 3)
	late := time.After(time.Until(sent.Add(arriveWithin)))
	for got := range unicastMessages {
		select {
		case took := <-arrivals:
			if err := h.RecordValue(int64(took)); err != nil {
				return nil, err
			}
		case <-late:
			return nil, fmt.Errorf("%d of %d messages came within %v of the last publish", got, unicastMessages, arriveWithin)
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
	return h, nil
}

// receivers are the clients: each has one task, whose events must come to it alone, once each and
// in order.
type receivers struct {
	fleet    load.Fleet
	arrivals chan time.Duration // room for a round

	mu    sync.Mutex
	tasks []wire.Event // guarded by mu: the last event that was published to each client
	got   []int64      // guarded by mu: the seq of the last that came
	turn  int          // whose the next event is; the publisher's
}

func newReceivers(fleet load.Fleet) *receivers {
	r := &receivers{fleet: fleet, arrivals: make(chan time.Duration, unicastMessages), got: make([]int64, len(fleet))}
	for _, s := range fleet {
		r.tasks = append(r.tasks, wire.Event{
			Client: s.Meta.Client, Home: s.Meta.Server, Epoch: s.Meta.Epoch,
			Task: wire.NewTaskID(), Attempt: 1, Run: wire.NewRunID(), Type: wire.EventStep, Durable: true,
		})
	}
	return r
}

// next is the next event for the client whose turn it is, without a body.
func (r *receivers) next() wire.Event {
	r.mu.Lock()
	defer r.mu.Unlock()
	e := r.tasks[r.turn]
	e.Seq, e.Prev = e.Seq+1, e.Seq
	return e
}

// sent notes that e is on its way; the next client has its turn.
func (r *receivers) sent(e wire.Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.tasks[r.turn] = e
	r.turn = (r.turn + 1) % len(r.tasks)
}

// receive takes one message of a client's socket and acknowledges the event in it.
func (r *receivers) receive(client int, p []byte) error {
	now := time.Now()
	m, err := wire.DecodeServer(p)
	if err != nil {
		return err
	}
	e, ok := m.(*wire.Event)
	if !ok {
		return nil // a fresh token
	}
	r.mu.Lock()
	want := r.got[client] + 1
	right := e.Task == r.tasks[client].Task && e.Seq == want
	r.got[client] = e.Seq
	r.mu.Unlock()
	if !right {
		return fmt.Errorf("event %d of task %s came, want event %d of task %s", e.Seq, e.Task, want, r.tasks[client].Task)
	}
	took, err := age(e.Body, now)
	if err != nil {
		return err
	}
	select {
	case r.arrivals <- took:
	default:
		return errors.New("more events came than were published")
	}
	return r.fleet[client].Send(&wire.Ack{Tasks: []wire.Position{e.Position()}})
}
