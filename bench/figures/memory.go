package main

import (
	"context"
	"errors"
	"fmt"
	"io"
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
	floor:   floor{limit: 768},
	measure: measureIdleMemory,
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

func measureIdleMemory(ctx context.Context, l *lab) (rounds []sample, err error) {
	for range memoryRounds {
		s, err := memoryRound(ctx, l)
		if err != nil {
			return nil, err
		}
		rounds = append(rounds, s)
	}
	return rounds, nil
}

// memoryRound takes a fresh worker: one that has had clients keeps memory for the next.
func memoryRound(ctx context.Context, l *lab) (_ sample, err error) {
	c, err := l.Cluster(ctx, rig.ClusterOptions{Workers: []string{"i1-w1"}})
	if err != nil {
		return sample{}, err
	}
	defer l.Stop(c)
	w := c.Workers[0]
	before, err := footprintOf(ctx, w)
	if err != nil {
		return sample{}, err
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
			return sample{}, err
		}
		served.Go(func() error { return fleet.Serve(serving, func(int, []byte) error { return nil }) })
	}
	if err := pause(ctx, idleFor); err != nil {
		return sample{}, err
	}
	conns, err := metric(ctx, w.Internal, "wscluster_connections")
	if err != nil {
		return sample{}, err
	}
	if conns != idleClients {
		return sample{}, fmt.Errorf("the worker has %.0f connections, want %d", conns, idleClients)
	}
	after, err := footprintOf(ctx, w)
	if err != nil {
		return sample{}, err
	}
	l.Logf("  %d clients: resident %d B each (worker %.1f -> %.1f MB), heap and stacks in use %d B each",
		idleClients, (after.resident-before.resident)/idleClients, float64(before.resident)/1e6, float64(after.resident)/1e6,
		(after.inUse-before.inUse)/idleClients)
	each := float64(max(after.resident-before.resident, after.inUse-before.inUse)) / idleClients
	return sample{each, bareRelay}, nil
}

// footprint is the memory of a worker in bytes.
type footprint struct {
	resident int // anonymous pages: what no other process shares and no file backs
	inUse    int // spans of the heap and stacks that are in use, as the runtime counts them
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
	resident, err := report.Resident(w.PID())
	f.resident = int(resident)
	return f, err
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
