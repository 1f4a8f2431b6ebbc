package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/wscluster/wscluster/internal/rig"
)

// Three figures of one run: 200 clients on eight workers behind HAProxy, each with a task that
// tells of something durable five times a second, and one worker after the other killed with
// SIGKILL and started again under its ID. Every task is homed where its client is, so that all that
// comes after the kill comes through the dead worker's mailbox.
var (
	// adoption is from the first of the dead worker's clients that is welcome elsewhere until the
	// first of them gets an event again: the mailbox was missed, adopted, and read.
	adoption = figure{
		name: "adoption-p99", unit: "ms", floor: floor{limit: 1000},
		measure: func(ctx context.Context, l *lab) ([]sample, error) {
			return l.killed(ctx, func(k *kills) *hdrhistogram.Histogram { return k.adoption })
		},
	}
	// handBack is from when the returned worker has joined the broker until its mailbox is its own.
	handBack = figure{
		name: "hand-back-p99", unit: "ms", floor: floor{limit: 1000},
		measure: func(ctx context.Context, l *lab) ([]sample, error) {
			return l.killed(ctx, func(k *kills) *hdrhistogram.Histogram { return k.handBack })
		},
	}
	// killGap is from the kill until an application gets the next event, over all clients of the dead.
	killGap = figure{
		name: "gap-after-kill-p99", unit: "ms", floor: floor{limit: 3000},
		measure: func(ctx context.Context, l *lab) ([]sample, error) {
			return l.killed(ctx, func(k *kills) *hdrhistogram.Histogram { return k.gap })
		},
	}
)

const (
	killRounds  = 24
	killClients = 200
	killEvery   = 200 * time.Millisecond // between two events of a task
	killWithin  = 30 * time.Second       // for all of the dead worker's clients to get an event again
)

// eight is all workers that the shipped HAProxy has places for.
var eight = []string{"i1-w1", "i1-w2", "i1-w3", "i1-w4", "i2-w1", "i2-w2", "i2-w3", "i2-w4"}

// kills is what the run measured, in microseconds.
type kills struct{ adoption, handBack, gap *hdrhistogram.Histogram }

// killed runs the kills, once for all three figures, and returns the 99th percentile of one of them.
func (l *lab) killed(ctx context.Context, which func(*kills) *hdrhistogram.Histogram) ([]sample, error) {
	if l.kills == nil {
		k, err := measureKills(ctx, l)
		if err != nil {
			return nil, err
		}
		l.kills = k
	}
	return []sample{{value: float64(which(l.kills).ValueAtQuantile(99)) / 1e3}}, nil
}

func measureKills(ctx context.Context, l *lab) (*kills, error) {
	c, err := l.Cluster(ctx, rig.ClusterOptions{
		Workers: eight, HAProxy: filepath.Join(l.Root, "deploy/haproxy/haproxy.cfg"), Proxy: manyClients,
		Settings: []string{"WSCLUSTER_LOG_LEVEL=info"}, // the hand-back is timed from a line
	})
	if err != nil {
		return nil, err
	}
	defer l.Stop(c)
	a, stop, err := gather(ctx, l, c, killClients, killEvery)
	if err != nil {
		return nil, err
	}
	defer stop()
	histogram := func() *hdrhistogram.Histogram { return hdrhistogram.New(1, int64(time.Minute/time.Microsecond), 3) }
	k := &kills{histogram(), histogram(), histogram()}
	for round := range killRounds {
		if err := a.begin(ctx); err != nil {
			return nil, err
		}
		if err := k.round(ctx, a, c, c.Workers[round%len(c.Workers)]); err != nil {
			return nil, err
		}
		if lost, err := a.end(ctx); err != nil || lost > 0 {
			return nil, errors.Join(fmt.Errorf("%d events are lost", lost), err)
		}
	}
	for name, h := range map[string]*hdrhistogram.Histogram{"adoption": k.adoption, "hand-back": k.handBack, "gap": k.gap} {
		l.Logf("  %s, %d times: p50 %.0f ms, p99 %.0f ms, most %.0f ms", name, h.TotalCount(),
			float64(h.ValueAtQuantile(50))/1e3, float64(h.ValueAtQuantile(99))/1e3, float64(h.Max())/1e3)
	}
	return k, nil
}

// manyClients lifts HAProxy's limits for each address, of which the clients here have few.
var manyClients = []string{"CONN_PER_IP=100000", "WS_PER_IP=100000", "WS_RATE_PER_IP=100000", "SLOWSTART=" + slowStart.String()}

var joined = regexp.MustCompile("joined the broker")

// round kills one worker, and starts it again when all of its clients get events.
func (k *kills) round(ctx context.Context, a *audience, c *rig.Cluster, w *rig.Member) error {
	victims := a.on(w.Name)
	if len(victims) == 0 {
		return fmt.Errorf("no client is on %s", w.Name)
	}
	began := time.Now()
	w.Kill()
	var first, heard time.Time // of all victims
	waiting, cancel := context.WithTimeout(ctx, killWithin)
	defer cancel()
	for _, m := range victims {
		arrived, got, err := m.since(waiting, began)
		if err != nil {
			return fmt.Errorf("after the death of %s: %w", w.Name, err)
		}
		if err := k.gap.RecordValue(got.Sub(began).Microseconds()); err != nil {
			return err
		}
		if first.IsZero() || arrived.Before(first) {
			first = arrived
		}
		if heard.IsZero() || got.Before(heard) {
			heard = got
		}
	}
	if err := k.adoption.RecordValue(max(1, heard.Sub(first).Microseconds())); err != nil {
		return err
	}
	if err := w.Start(); err != nil {
		return err
	}
	if _, err := w.WaitLine(waiting, joined); err != nil {
		return err
	}
	began = time.Now()
	if err := w.Await(waiting); err != nil {
		return err
	}
	if err := k.handBack.RecordValue(max(1, time.Since(began).Microseconds())); err != nil {
		return err
	}
	return c.HAProxy.Await(waiting, "UP", w.Name)
}

// since waits until the client has arrived somewhere and then had an event, both after began.
func (m *member) since(ctx context.Context, began time.Time) (arrived, got time.Time, err error) {
	for {
		m.mu.Lock()
		arrived, got = after(m.arrivals, began), time.Time{}
		if !arrived.IsZero() {
			got = after(m.events, arrived)
		}
		m.mu.Unlock()
		if !got.IsZero() {
			return arrived, got, nil
		}
		if !rest(ctx, 5*time.Millisecond) {
			return arrived, got, fmt.Errorf("a client has not had an event again: %w", context.Cause(ctx))
		}
	}
}

// after returns the first of times, which rise, that is after t; zero if there is none.
func after(times []time.Time, t time.Time) time.Time {
	for _, at := range times {
		if at.After(t) {
			return at
		}
	}
	return time.Time{}
}
