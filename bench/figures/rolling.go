package main

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"time"

	"github.com/wscluster/wscluster/internal/rig"
)

// Two figures of one run: 2,000 clients with a task each on eight workers behind HAProxy, and all
// workers restarted in good order, one after the other.
var (
	// rollingLost is how many durable events did not reach their applications.
	rollingLost = figure{
		name: "rolling-deploy-lost", unit: "events", floor: floor{limit: 0},
		measure: func(ctx context.Context, l *lab) ([]sample, error) {
			r, err := l.rolled(ctx)
			return []sample{{value: float64(r.lost)}}, err
		},
	}
	// rollingPeak is the reconnects in the worst second. The baseline is their mean over the drain
	// windows.
	rollingPeak = figure{
		name: "rolling-deploy-reconnect-peak", unit: "1/s", floor: floor{ofRatio: true, limit: 3},
		measure: func(ctx context.Context, l *lab) ([]sample, error) {
			r, err := l.rolled(ctx)
			return []sample{{float64(r.peak), r.mean}}, err
		},
	}
)

const (
	rollingClients = 2_000
	rollingEvery   = 4 * time.Second // between two events of a task
	rollingWindow  = 8 * time.Second // in which a worker leads its clients away
	rollingWithin  = time.Minute     // for one worker to end and return
)

// rolling is what the run measured.
type rolling struct {
	lost int
	peak int     // reconnects in the worst second
	mean float64 // a second, over all drain windows
}

// rolled runs the deploy, once for both figures.
func (l *lab) rolled(ctx context.Context) (rolling, error) {
	if l.rolling == nil {
		r, err := measureRolling(ctx, l)
		if err != nil {
			return rolling{}, err
		}
		l.rolling = &r
	}
	return *l.rolling, nil
}

func measureRolling(ctx context.Context, l *lab) (r rolling, err error) {
	c, err := l.Cluster(ctx, rig.ClusterOptions{
		Workers: eight, HAProxy: filepath.Join(l.Root, "deploy/haproxy/haproxy.cfg"), Proxy: manyClients,
		WorkerSettings: []string{"WSCLUSTER_DRAIN_WINDOW=" + rollingWindow.String()},
	})
	if err != nil {
		return r, err
	}
	defer l.Stop(c)
	a, stop, err := gather(ctx, l, c, rollingClients, rollingEvery)
	if err != nil {
		return r, err
	}
	defer stop()
	if err := a.begin(ctx); err != nil {
		return r, err
	}
	began := time.Now()
	for _, w := range c.Workers {
		if err := redeploy(ctx, c, w); err != nil {
			return r, err
		}
	}
	took := time.Since(began)
	perSecond := make([]int, int(took.Seconds())+1)
	total := 0
	for _, m := range a.members {
		m.mu.Lock()
		for _, at := range m.arrivals {
			if s := int(at.Sub(began).Seconds()); at.After(began) && s < len(perSecond) {
				perSecond[s]++
				total++
			}
		}
		m.mu.Unlock()
	}
	r.peak = slices.Max(perSecond)
	r.mean = float64(total) / (float64(len(eight)) * rollingWindow.Seconds())
	r.lost, err = a.end(ctx)
	l.Logf("  %d clients, %d reconnects in %.0f s, %d in the worst second, %d events lost: %v", rollingClients, total, took.Seconds(), r.peak, r.lost, perSecond)
	return r, err
}

// redeploy ends one worker in good order, starts it again and returns when HAProxy sees it.
func redeploy(ctx context.Context, c *rig.Cluster, w *rig.Member) error {
	ctx, cancel := context.WithTimeout(ctx, rollingWithin)
	defer cancel()
	for _, step := range []func() error{
		func() error { return w.Drain(ctx) },
		func() error { return w.Restart(ctx) },
		func() error { return c.HAProxy.Await(ctx, "UP", w.Name) },
	} {
		if err := step(); err != nil {
			return fmt.Errorf("redeploy %s: %w", w.Name, err)
		}
	}
	return nil
}
