package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/wscluster/wscluster/bench/bare"
	"github.com/wscluster/wscluster/bench/crowd"
	"github.com/wscluster/wscluster/bench/load"
	"github.com/wscluster/wscluster/internal/rig"
	"github.com/wscluster/wscluster/pkg/amqp"
	"github.com/wscluster/wscluster/pkg/broker"
	"github.com/wscluster/wscluster/pkg/wire"
)

// broadcastChannel is where all figures of this file publish.
const broadcastChannel wire.Channel = "news"

// openNews lets the clients of the figures subscribe to it.
var openNews = []string{"WSCLUSTER_OPEN_CHANNELS=" + string(broadcastChannel)}

// Figures of channels: messages of 256 bytes, published by AMQP to subscribers on two workers.
var (
	// broadcastLast is the time from a publish until the last of 10,000 subscribers has it. The baseline
	// is the same clients on two bare relays (relay.go) on the same broker, in turn with it.
	broadcastLast = figure{
		name: "broadcast-10k-last", unit: "ms", floor: floor{ofRatio: true, limit: 1.3},
		measure: measureBroadcastLast,
	}
	broadcast100 = broadcastP99(100, 20)
	broadcast1k  = broadcastP99(1_000, 10)
	broadcast10k = broadcastP99(10_000, 2)

	// slowSubscriber is the p99 of 1,000 subscribers beside ten that read nothing; the baseline is their p99 without those.
	slowSubscriber = figure{
		name: "broadcast-beside-slow-p99", unit: "ms", floor: floor{ofRatio: true, limit: 2},
		measure: measureSlowSubscriber,
	}
	// slowMemory is what a subscriber that reads nothing costs its worker.
	slowMemory = figure{
		name: "slow-subscriber-memory", unit: "KiB", floor: floor{limit: 1.2 * 1024},
		measure: measureSlowMemory,
	}
)

const (
	broadcastClients = 10_000
	broadcastRounds  = 5
	broadcastEach    = 10 // messages of a round
	broadcastWithin  = 10 * time.Second
)

func measureBroadcastLast(ctx context.Context, l *lab) (rounds []sample, err error) {
	c, err := l.Cluster(ctx, rig.ClusterOptions{Workers: []string{"i1-w1", "i2-w1"}, WorkerSettings: openNews})
	if err != nil {
		return nil, err
	}
	defer l.Stop(c)
	relays, stop, err := startRelays(c)
	if err != nil {
		return nil, err
	}
	defer stop()
	for range broadcastRounds {
		var s sample
		if s.baseline, err = lastDelivery(ctx, c, relays...); err != nil {
			return nil, fmt.Errorf("bare relays: %w", err)
		}
		if s.value, err = lastDelivery(ctx, c, c.Workers[0].Addr, c.Workers[1].Addr); err != nil {
			return nil, err
		}
		l.Logf("  last of %d: bare relays %.1f ms, workers %.1f ms, ratio %.2f", broadcastClients, s.baseline, s.value, s.ratio())
		rounds = append(rounds, s)
	}
	return rounds, nil
}

// startRelays starts two bare relays on the broker of c. Whoever does so calls stop.
func startRelays(c *rig.Cluster) (addrs []string, stop func(), err error) {
	var all []*bare.Relay
	stop = func() {
		for _, r := range all {
			r.Stop()
		}
	}
	for range 2 {
		r, err := bare.StartRelay(c.Rabbit.URL(), "")
		if err != nil {
			stop()
			return nil, nil, err
		}
		all, addrs = append(all, r), append(addrs, r.Addr)
	}
	return addrs, stop, nil
}

// lastDelivery returns the median time in ms until all clients have a message.
func lastDelivery(ctx context.Context, c *rig.Cluster, addrs ...string) (float64, error) {
	a, stop, err := subscribeAll(ctx, c, broadcastClients, addrs...)
	if err != nil {
		return 0, err
	}
	var lasts []time.Duration
	for range broadcastEach {
		last, err := a.broadcast(ctx)
		if err != nil {
			return 0, errors.Join(err, stop())
		}
		lasts = append(lasts, last)
		if err := pause(ctx, 200*time.Millisecond); err != nil {
			return 0, errors.Join(err, stop())
		}
	}
	slices.Sort(lasts)
	return ms(lasts[len(lasts)/2]), stop()
}

// broadcastP99 is the p99 of the time from a publish until a subscriber has the message, at so many messages a second. The
// baseline is that of the same clients on two bare relays, in turn with it.
func broadcastP99(clients, rate int) figure {
	return figure{
		name: fmt.Sprintf("broadcast-%d-p99", clients), unit: "ms", floor: floor{limit: 100},
		measure: func(ctx context.Context, l *lab) ([]sample, error) {
			c, err := l.Cluster(ctx, rig.ClusterOptions{Workers: []string{"i1-w1", "i2-w1"}, WorkerSettings: openNews})
			if err != nil {
				return nil, err
			}
			defer l.Stop(c)
			relays, stop, err := startRelays(c)
			if err != nil {
				return nil, err
			}
			defer stop()
			var rounds []sample
			for range 3 {
				var s sample
				if s.baseline, err = steadyP99(ctx, c, clients, rate, relays...); err != nil {
					return nil, fmt.Errorf("bare relays: %w", err)
				}
				if s.value, err = steadyP99(ctx, c, clients, rate, c.Workers[0].Addr, c.Workers[1].Addr); err != nil {
					return nil, err
				}
				l.Logf("  %d subscribers, %d messages a second: p99 of bare relays %.1f ms, of workers %.1f ms, ratio %.2f", clients, rate, s.baseline, s.value, s.ratio())
				rounds = append(rounds, s)
			}
			return rounds, nil
		},
	}
}

// steadyP99 returns the p99 in ms of ten seconds' messages.
func steadyP99(ctx context.Context, c *rig.Cluster, clients, rate int, addrs ...string) (float64, error) {
	a, stop, err := subscribeAll(ctx, c, clients, addrs...)
	if err != nil {
		return 0, err
	}
	p99, err := a.steady(ctx, rate, 10*rate)
	return p99, errors.Join(err, stop())
}

func measureSlowSubscriber(ctx context.Context, l *lab) (rounds []sample, err error) {
	const clients, slow, rate = 1_000, 10, 50
	c, err := l.Cluster(ctx, rig.ClusterOptions{Workers: []string{"i1-w1"}, WorkerSettings: openNews})
	if err != nil {
		return nil, err
	}
	defer l.Stop(c)
	a, stop, err := subscribeAll(ctx, c, clients, c.Workers[0].Addr)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, stop()) }()
	for range 3 {
		var s sample
		if s.baseline, err = a.steady(ctx, rate, 10*rate); err != nil {
			return nil, err
		}
		idle, err := subscribeDeaf(ctx, slow, c.Workers[0].Addr)
		if err != nil {
			return nil, err
		}
		s.value, err = a.steady(ctx, rate, 10*rate)
		idle.Close()
		if err != nil {
			return nil, err
		}
		l.Logf("  p99 %.2f ms alone, %.2f ms beside %d that read nothing, ratio %.2f", s.baseline, s.value, slow, s.ratio())
		rounds = append(rounds, s)
	}
	return rounds, nil
}

func measureSlowMemory(ctx context.Context, l *lab) (rounds []sample, err error) {
	const slow, messages = 100, 8_000 // 2 MiB: more than a socket's queue and buffers take
	for range 3 {
		each, err := slowRound(ctx, l, slow, messages)
		if err != nil {
			return nil, err
		}
		l.Logf("  %d subscribers that read nothing: %.0f KiB each", slow, each)
		rounds = append(rounds, sample{value: each})
	}
	return rounds, nil
}

// slowRound returns the KiB that each of some deaf subscribers costs at most.
func slowRound(ctx context.Context, l *lab, slow, messages int) (each float64, err error) {
	c, err := l.Cluster(ctx, rig.ClusterOptions{Workers: []string{"i1-w1"}, WorkerSettings: openNews})
	if err != nil {
		return 0, err
	}
	defer l.Stop(c)
	a, stop, err := subscribeAll(ctx, c, 1, c.Workers[0].Addr) // it shows that messages pass
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, stop()) }()
	if _, err := a.steady(ctx, 1_000, messages); err != nil { // what channels cost once
		return 0, err
	}
	idle, err := subscribeDeaf(ctx, slow, c.Workers[0].Addr)
	if err != nil {
		return 0, err
	}
	defer idle.Close()
	stopWatch := watch(ctx, c.Workers[0].PID())
	_, err = a.steady(ctx, 1_000, messages)
	most, lost := stopWatch()
	return most[0] * 1024 / float64(slow), errors.Join(err, lost)
}

// audition is clients that are subscribed to broadcastChannel, each of which must get every message once, in order.
type audition struct {
	*crowd.Crowd
	link    broker.Link
	clients int
	n       int64 // the number of the last message
}

// subscribeAll connects clients and subscribes them. stop ends them, and says what went wrong.
func subscribeAll(ctx context.Context, c *rig.Cluster, clients int, addrs ...string) (_ *audition, stop func() error, err error) {
	b, err := amqp.New(amqp.Options{URLs: []string{c.Rabbit.URL()}})
	if err != nil {
		return nil, nil, err
	}
	link, err := b.Join(ctx, broker.Runner("figures"))
	if err != nil {
		return nil, nil, err
	}
	leave := func() error {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), broadcastWithin)
		defer cancel()
		return link.Close(ctx)
	}
	a := &audition{link: link, clients: clients}
	a.Crowd, err = crowd.Gather(ctx, subscribers(clients, addrs...), crowd.Options{})
	if err != nil {
		return nil, nil, errors.Join(err, leave())
	}
	return a, func() error { return errors.Join(a.Close(), leave()) }, nil
}

// subscribers are clients of workers that subscribe to broadcastChannel.
func subscribers(clients int, addrs ...string) load.Plan {
	p := load.Plan{Clients: clients, Sources: load.Loopback(clients)}
	for _, addr := range addrs {
		t := load.Worker(addr)
		t.Greet = func(s *load.Socket, _ int) error {
			if err := s.Hello(""); err != nil {
				return err
			}
			return s.Subscribe(&wire.Subscribe{Channel: broadcastChannel})
		}
		p.Targets = append(p.Targets, t)
	}
	return p
}

// subscribeDeaf connects clients that subscribe and never read again.
func subscribeDeaf(ctx context.Context, clients int, addr string) (load.Fleet, error) {
	fleet, err := load.Connect(ctx, clients, addr)
	if err != nil {
		return nil, err
	}
	for _, s := range fleet {
		if err := s.Send(&wire.Subscribe{Channel: broadcastChannel}); err != nil {
			fleet.Close()
			return nil, err
		}
	}
	return fleet, pause(ctx, time.Second)
}

// publish sends the next message.
func (a *audition) publish(ctx context.Context) error {
	a.n++
	m := broker.Message{Body: crowd.Message(crowd.Everybody, a.n, crowd.Now()), Time: time.Now(), Transient: true}
	_, err := a.link.Publish(ctx, broker.ToChannel(broadcastChannel), m)
	return err
}

// broadcast sends a message and returns when all clients have it.
func (a *audition) broadcast(ctx context.Context) (time.Duration, error) {
	if err := a.Expect(int64(a.clients)); err != nil {
		return 0, err
	}
	began := crowd.Now()
	if err := a.publish(ctx); err != nil {
		return 0, err
	}
	t, err := a.all(ctx)
	return time.Duration(t.Last - began), err
}

// steady sends messages at a rate, and returns the p99 in ms when all clients have all of them.
func (a *audition) steady(ctx context.Context, rate, messages int) (float64, error) {
	if err := a.Expect(int64(a.clients) * int64(messages)); err != nil {
		return 0, err
	}
	if err := crowd.Pace(ctx, messages, rate, func(int) error { return a.publish(ctx) }); err != nil {
		return 0, err
	}
	t, err := a.all(ctx)
	if err != nil {
		return 0, err
	}
	return t.Quantile(99), nil
}

// all waits until all clients have all messages, as they must.
func (a *audition) all(ctx context.Context) (crowd.Tally, error) {
	t, err := a.Wait(ctx, broadcastWithin)
	if err == nil && t.Faults != (crowd.Faults{}) {
		err = fmt.Errorf("of %d messages that %d clients should get: %+v", t.Got+t.Lost, a.clients, t.Faults)
	}
	return t, err
}

func ms(d time.Duration) float64 { return d.Seconds() * 1000 }
