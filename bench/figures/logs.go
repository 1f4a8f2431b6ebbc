package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"github.com/wscluster/wscluster/bench/report"
	"github.com/wscluster/wscluster/internal/rig"
	"github.com/wscluster/wscluster/pkg/wire"
)

// Figures of logs that are written as fast as a program can, and read by one client from the first line to
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
			return l.longLog(ctx, func(g *growth) float64 { return max(g.worker, g.runner) })
		},
	}
	// logBrokerMemory is the same of RabbitMQ's node. The bound is an eighth of the log: the node's memory swings by itself, by
	// how much is not known, and it would grow by all of a log that it kept.
	logBrokerMemory = figure{
		name: "log-1gib-broker-memory-growth", unit: "MiB", floor: floor{limit: 128},
		measure: func(ctx context.Context, l *lab) ([]sample, error) {
			return l.longLog(ctx, func(g *growth) float64 { return g.broker })
		},
	}
)

// growth is what a log of 1 GiB has cost, in MiB.
type growth struct{ worker, runner, broker float64 }

// longLog has the log written and read, once for both figures, and returns one of them.
func (l *lab) longLog(ctx context.Context, which func(*growth) float64) ([]sample, error) {
	if l.growth == nil {
		g, err := measureLongLog(ctx, l)
		if err != nil {
			return nil, err
		}
		l.growth = g
	}
	return []sample{{value: which(l.growth)}}, nil
}

func measureLongLog(ctx context.Context, l *lab) (*growth, error) {
	const lines = 1 << 30 / 100
	c, err := l.taskCluster(ctx, "r1")
	if err != nil {
		return nil, err
	}
	defer l.Stop(c)
	if _, err := l.readLines(ctx, c, 500_000); err != nil { // what a log costs once is not growth
		return nil, err
	}
	// Its Process is a script, and the node a child of that.
	pid, err := c.Rabbit.Eval(ctx, `io:format("~s", [os:getpid()])`)
	if err != nil {
		return nil, err
	}
	node, err := strconv.Atoi(pid)
	if err != nil {
		return nil, err
	}
	stop := watch(ctx, c.Workers[0].PID(), c.Runners[0].PID(), node)
	took, err := l.readLines(ctx, c, lines)
	most, lost := stop()
	if err := errors.Join(err, lost); err != nil {
		return nil, err
	}
	l.Logf("  %d lines read in %.0f s; worker %+.1f MiB, runner %+.1f MiB, RabbitMQ %+.1f MiB at most", lines, took.Seconds(), most[0], most[1], most[2])
	return &growth{most[0], most[1], most[2]}, nil
}

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

// watch samples the memory of processes until stop, which returns how far each went above its first sample, in MiB. A
// process that has ended is an error.
func watch(ctx context.Context, pids ...int) (stop func() ([]float64, error)) {
	most := make([]float64, len(pids))
	first := make([]int64, len(pids))
	var failed error
	for i, pid := range pids {
		first[i], failed = report.Resident(pid)
		if failed != nil {
			break
		}
	}
	ctx, cancel := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() {
		for failed == nil && pause(ctx, 200*time.Millisecond) == nil {
			for i, pid := range pids {
				now, err := report.Resident(pid)
				if err != nil {
					failed = err
					break
				}
				most[i] = max(most[i], float64(now-first[i])/(1<<20))
			}
		}
	})
	return func() ([]float64, error) { cancel(); wg.Wait(); return most, failed }
}
