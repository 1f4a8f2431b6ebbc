package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/wscluster/wscluster/bench/load"
	"github.com/wscluster/wscluster/bench/report"
	"github.com/wscluster/wscluster/internal/rig"
)

// idleMemory is what one idle client costs its worker in user space, everything included: socket,
// session, timers, and what the runtime keeps of the garbage that their arrival made. The
// kernel's part (4.2 to 4.4 KB an end) is not in it.
//
// The baseline is a bare relay, measured on 2026-11-21 on 2 cores: a goroutine with its stack and
// buffers a connection, no session.
var idleMemory = figure{
	name: "idle-memory-per-connection", unit: "B",
	floor: floor{limit: 768},
	measure: func(ctx context.Context, l *lab) ([]sample, error) {
		return l.idleRounds(ctx, func(r idleRound) sample { return sample{r.bytes, bareRelay} })
	},
}

// idleGoroutines is how many goroutines all of them together add to it.
var idleGoroutines = figure{
	name: "idle-goroutines", unit: "goroutines",
	floor: floor{limit: 0},
	measure: func(ctx context.Context, l *lab) ([]sample, error) {
		return l.idleRounds(ctx, func(r idleRound) sample { return sample{value: r.goroutines} })
	},
}

const (
	idleClients  = 18_000 // each end is a process with 20,000 files at most
	idleFleets   = 6
	bareRelay    = 4_300 // bytes
	memoryRounds = 3

	// From the last connect to the measurement: longer than the 15 s after which the worker pings
	// an idle client, for the answer is part of the cost.
	idleFor = 18 * time.Second

	// What the Go runtime gets to give free pages back to the kernel, which it does bit by bit.
	giveBackFor = 10 * time.Second
)

// idleRound is what the idle clients cost in one round.
type idleRound struct {
	bytes      float64 // each
	goroutines float64 // all
}

// idleRounds measures the rounds once for both figures.
func (l *lab) idleRounds(ctx context.Context, of func(idleRound) sample) (samples []sample, err error) {
	for len(l.idle) < memoryRounds {
		r, err := measureIdle(ctx, l)
		if err != nil {
			return nil, err
		}
		l.idle = append(l.idle, r)
	}
	for _, r := range l.idle {
		samples = append(samples, of(r))
	}
	return samples, nil
}

// measureIdle takes a fresh worker: one that has had clients keeps memory for the next.
func measureIdle(ctx context.Context, l *lab) (r idleRound, err error) {
	c, err := l.Cluster(ctx, rig.ClusterOptions{Workers: []string{"i1-w1"}})
	if err != nil {
		return r, err
	}
	defer l.Stop(c)
	w := c.Workers[0]
	before, err := footprintOf(ctx, w)
	if err != nil {
		return r, err
	}
	serving, stop := context.WithCancel(ctx)
	served, serving := errgroup.WithContext(serving)
	defer func() {
		stop()
		err = errors.Join(err, served.Wait())
	}()
	for range idleFleets { // the first ones must answer pings before the last ones are there
		fleet, err := load.Connect(ctx, idleClients/idleFleets, w.Addr)
		if err != nil {
			return r, err
		}
		served.Go(func() error { return fleet.Serve(serving, func(int, []byte) error { return nil }) })
	}
	if err := pause(ctx, idleFor); err != nil {
		return r, err
	}
	conns, err := metric(ctx, w.Internal, "wscluster_connections")
	if err != nil {
		return r, err
	}
	if conns != idleClients {
		return r, fmt.Errorf("the worker has %.0f connections, want %d", conns, idleClients)
	}
	after, err := footprintOf(ctx, w)
	if err != nil {
		return r, err
	}
	l.Logf("  %d clients: resident %d B each (worker %.1f -> %.1f MB), heap and stacks in use %d B each, goroutines %.0f -> %.0f",
		idleClients, (after.resident-before.resident)/idleClients, float64(before.resident)/1e6, float64(after.resident)/1e6,
		(after.inUse-before.inUse)/idleClients, before.goroutines, after.goroutines)
	r.bytes = float64(max(after.resident-before.resident, after.inUse-before.inUse)) / idleClients
	r.goroutines = after.goroutines - before.goroutines
	return r, nil
}

// footprint is what a worker has: memory in bytes, and goroutines.
type footprint struct {
	resident   int // anonymous pages: what no other process shares and no file backs
	inUse      int // spans of the heap and stacks that are in use, as the runtime counts them
	goroutines float64
}

// footprintOf has the worker collect its garbage and give back what it does not need, and looks.
// An idle Go program collects by itself, but only every two minutes.
func footprintOf(ctx context.Context, w *rig.Member) (f footprint, err error) {
	for range 2 { // what finalizers and pools let go of falls with the second
		page, err := internal(ctx, w.Internal, "/debug/pprof/heap?gc=1")
		if err != nil {
			return f, err
		}
		_, err = io.Copy(io.Discard, page)
		page.Close()
		if err != nil {
			return f, err
		}
	}
	if err := pause(ctx, giveBackFor); err != nil {
		return f, err
	}
	heap, err := metric(ctx, w.Internal, "go_memstats_heap_inuse_bytes")
	if err != nil {
		return f, err
	}
	stacks, err := metric(ctx, w.Internal, "go_memstats_stack_inuse_bytes")
	if err != nil {
		return f, err
	}
	f.inUse = int(heap + stacks)
	if f.goroutines, err = goroutines(ctx, w); err != nil {
		return f, err
	}
	resident, err := report.Resident(w.PID())
	f.resident = int(resident)
	return f, err
}

// goroutines is the median of 31 looks at a worker's: each has some that make the answer, mostly as many.
func goroutines(ctx context.Context, w *rig.Member) (float64, error) {
	var looks [31]float64
	for i := range looks {
		var err error
		if looks[i], err = metric(ctx, w.Internal, "go_goroutines"); err != nil {
			return 0, err
		}
	}
	slices.Sort(looks[:])
	return looks[len(looks)/2], nil
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
