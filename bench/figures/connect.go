package main

import (
	"context"
	"fmt"
	"path/filepath"
	"time"

	"github.com/wscluster/wscluster/bench/load"
	"github.com/wscluster/wscluster/internal/rig"
)

// connectRate is how many clients a second get a session through HAProxy: dial, handshake, hello,
// socket_meta, 64 at a time, until all are there. The baseline is the same clients on the same
// workers without HAProxy, in turn with it. Clients, HAProxy and workers share the machine's cores.
var connectRate = figure{
	name: "connect-rate-through-haproxy", unit: "1/s",
	floor:   floor{ofRatio: true, atLeast: true, limit: 0.3},
	measure: measureConnectRate,
}

const (
	connectClients = 4_000
	connectRounds  = 5
	emptyWithin    = 30 * time.Second
)

func measureConnectRate(ctx context.Context, l *lab) ([]sample, error) {
	c, err := l.Cluster(ctx, rig.ClusterOptions{
		Workers: []string{"i1-w1", "i2-w1"},
		HAProxy: filepath.Join(l.Root, "deploy/haproxy/haproxy.cfg"),
		// The clients share 32 addresses.
		Proxy: []string{"CONN_PER_IP=100000", "WS_PER_IP=100000", "WS_RATE_PER_IP=100000"},
	})
	if err != nil {
		return nil, err
	}
	defer l.Stop(c)
	direct := []string{c.Workers[0].Addr, c.Workers[1].Addr}
	if _, err := connectAll(ctx, c, direct); err != nil { // the first clients find everything cold
		return nil, err
	}
	var rounds []sample
	for range connectRounds {
		var s sample
		if s.baseline, err = connectAll(ctx, c, direct); err != nil {
			return nil, fmt.Errorf("direct: %w", err)
		}
		if s.value, err = connectAll(ctx, c, []string{c.HAProxy.Addr}); err != nil {
			return nil, fmt.Errorf("through haproxy: %w", err)
		}
		l.Logf("  %d clients: direct %.0f/s, through haproxy %.0f/s, ratio %.2f", connectClients, s.baseline, s.value, s.ratio())
		rounds = append(rounds, s)
	}
	return rounds, nil
}

// connectAll connects all clients and returns their rate. They are gone when it returns.
func connectAll(ctx context.Context, c *rig.Cluster, addrs []string) (float64, error) {
	began := time.Now()
	fleet, err := load.Connect(ctx, connectClients, addrs...)
	took := time.Since(began)
	if err != nil {
		return 0, err
	}
	fleet.Close()
	ctx, cancel := context.WithTimeout(ctx, emptyWithin)
	defer cancel()
	for _, w := range c.Workers {
		if err := awaitEmpty(ctx, w); err != nil {
			return 0, err
		}
	}
	return connectClients / took.Seconds(), nil
}

// awaitEmpty waits until the worker has no connection, which it notices after its clients.
func awaitEmpty(ctx context.Context, w *rig.Member) error {
	for {
		n, err := metric(ctx, w.Internal, "wscluster_connections")
		if err != nil || n == 0 {
			return err
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("%s still has %.0f connections: %w", w.Name, n, context.Cause(ctx))
		}
	}
}
