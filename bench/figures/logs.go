package main

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"
	"time"

	"github.com/wscluster/wscluster/bench/report"
	"github.com/wscluster/wscluster/internal/rig"
	"github.com/wscluster/wscluster/pkg/wire"
)

// Two figures of logs that are written as fast as a program can, and read by one client from the first line to
// the last.
var (
	// logThroughput is lines of 100 bytes from the program's start to the client's last.
	logThroughput = figure{
		name: "log-lines", unit: "lines/s", floor: floor{atLeast: true, limit: 50_000},
		measure: func(ctx context.Context, l *lab) (rounds []sample, err error) {
			c, err := l.taskCluster(ctx, "r1")
			if err != nil {
				return nil, err
			}
			defer l.Stop(c)
			for range taskRounds {
				const lines = 200_000
				took, err := l.readLines(ctx, c, lines)
				if err != nil {
					return nil, err
				}
				rounds = append(rounds, sample{value: lines / took.Seconds()})
			}
			return rounds, nil
		},
	}
	// logMemory is how far the memory of the worker, or of the runner, goes above what it was, while a log of
	// 1 GiB is written and read.
	logMemory = figure{
		name: "log-1gib-memory-growth", unit: "MiB", floor: floor{limit: 32},
		measure: func(ctx context.Context, l *lab) ([]sample, error) {
			const lines = 1 << 30 / 100
			c, err := l.taskCluster(ctx, "r1")
			if err != nil {
				return nil, err
			}
			defer l.Stop(c)
			if _, err := l.readLines(ctx, c, 500_000); err != nil { // what a log costs once is not growth
				return nil, err
			}
			watched := []*rig.Member{c.Workers[0], c.Runners[0]}
			stop := watch(ctx, watched)
			took, err := l.readLines(ctx, c, lines)
			most := stop()
			if err != nil {
				return nil, err
			}
			l.Logf("  %d lines read in %.0f s; worker %+.1f MiB, runner %+.1f MiB at most", lines, took.Seconds(), most[0], most[1])
			return []sample{{value: max(most[0], most[1])}}, nil
		},
	}
)

// readLines runs a task that writes so many lines, and checks that a client gets each.
func (l *lab) readLines(ctx context.Context, c *rig.Cluster, lines int) (time.Duration, error) {
	client, stop, err := l.taskClient(ctx, c, nil)
	if err != nil {
		return 0, err
	}
	defer stop()
	began := time.Now()
	task, err := client.Submit(ctx, "lines", map[string]int{"count": lines})
	if err != nil {
		return 0, err
	}
	next := int64(1)
	for e := range task.Events(ctx) {
		if e.Type != wire.EventLog {
			continue
		}
		var body wire.Log
		if err := json.Unmarshal(e.Body, &body); err != nil {
			return 0, err
		}
		if body.FirstLine != next || body.Missing > 0 {
			return 0, fmt.Errorf("lines from %d on, %d missing; want %d", body.FirstLine, body.Missing, next)
		}
		next += int64(len(body.Lines))
	}
	if _, err := task.Wait(ctx); err != nil {
		return 0, err
	}
	if next-1 < int64(lines) { // and the command's own
		return 0, fmt.Errorf("%d lines, want %d", next-1, lines)
	}
	return time.Since(began), nil
}

// watch samples the memory of processes until stop, which returns how far each went above its first sample, in MiB.
func watch(ctx context.Context, members []*rig.Member) (stop func() []float64) {
	most := make([]float64, len(members))
	first := make([]int64, len(members))
	for i, m := range members {
		first[i], _ = report.Resident(m.PID())
	}
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() {
		for pause(ctx, 200*time.Millisecond) == nil {
			for i, m := range members {
				if now, err := report.Resident(m.PID()); err == nil {
					most[i] = max(most[i], float64(now-first[i])/(1<<20))
				}
			}
		}
	})
	return func() []float64 { cancel(); wg.Wait(); return most }
}
