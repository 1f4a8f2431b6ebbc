package main

import (
	"context"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/wscluster/wscluster/internal/rig"
)

// Figures that Go benchmarks of this repository measure: each is the ratio of two metrics that they report.
var (
	// handshakeGorilla and handshakeCoder are the processor time of a server for one handshake. The baseline is that of the engine.
	// handshakeBare is the engine's; the baseline is the four system calls that no server can do without.
	handshakes       = benchmark{"bench/peers", "BenchmarkHandshakeCPU/tcp", "7x"}
	handshakeGorilla = handshakes.figure("handshake-cpu-gorilla", "us", floor{ofRatio: true, atLeast: true, limit: 3}, "gorilla-us", "engine-us")
	handshakeCoder   = handshakes.figure("handshake-cpu-coder", "us", floor{ofRatio: true, atLeast: true, limit: 4.5}, "coder-us", "engine-us")
	handshakeBare    = handshakes.figure("handshake-cpu-bare", "us", floor{ofRatio: true, limit: 1.5}, "engine-us", "bare-us")

	// broadcastCPU is the processor time of Engine.Broadcast for each of 2,000 sockets. The baseline is a bare loop of writes.
	broadcastCPU = benchmark{"internal/engine", "BenchmarkBroadcast", "20x"}.
			figure("broadcast-cpu", "ns", floor{ofRatio: true, limit: 1.15}, "broadcast-ns/msg", "bare-ns/msg")
	// broadcastCPU16 is that of each of 16 frames in one write. The baseline is the same frames in a bare write each.
	broadcastCPU16 = benchmark{"internal/engine", "BenchmarkSendBatch", "20x"}.
			figure("broadcast-cpu-16", "ns", floor{ofRatio: true, limit: 0.15}, "batch-ns/msg", "bare-ns/msg")

	// halfFrames is the p99 of an echo beside 10,000 connections with half a frame each. The baseline is that without them.
	halfFrames = benchmark{"internal/engine", "BenchmarkEchoBesideHalfFrames/epoll", "10000x"}.
			figure("half-frames-p99", "us", floor{ofRatio: true, limit: 2}, "us-attacked-p99", "us-alone-p99")
)

// benchmark is one that a package has.
type benchmark struct {
	dir  string // of the package, below the repository; it may be a module of its own
	name string // with all its parts
	time string // of a round, as -benchtime has it
}

// metrics are what a benchmark reports in one round, by unit.
type metrics map[string]float64

const benchmarkRounds = 5

// figure is two of its metrics, in every round.
func (b benchmark) figure(name, unit string, f floor, value, baseline string) figure {
	return figure{name, unit, f, func(ctx context.Context, l *lab) (samples []sample, err error) {
		if l.benchmarks[b] == nil {
			if l.benchmarks[b], err = b.run(ctx, l); err != nil {
				return nil, fmt.Errorf("%s of %s: %w", b.name, b.dir, err)
			}
		}
		for _, m := range l.benchmarks[b] {
			s := sample{m[value], m[baseline]}
			if s.value == 0 || s.baseline == 0 {
				return nil, fmt.Errorf("%s of %s reports no %s or no %s", b.name, b.dir, value, baseline)
			}
			l.Logf("  %s %.4g, %s %.4g, ratio %.2f", value, s.value, baseline, s.baseline, s.ratio())
			samples = append(samples, s)
		}
		return samples, nil
	}}
}

// run runs the rounds, and returns when nothing of them runs any more.
func (b benchmark) run(ctx context.Context, l *lab) ([]metrics, error) {
	out, err := runGo(ctx, filepath.Join(l.Root, b.dir), "test", "-run", "^$",
		"-bench", "^"+strings.ReplaceAll(b.name, "/", "$/^")+"$", "-benchtime", b.time, "-count", strconv.Itoa(benchmarkRounds))
	if err != nil {
		return nil, err
	}
	return parseBenchmark(out, b.name)
}

// runGo runs the go command in a folder, and returns the end of what it printed, when nothing of it runs any more.
func runGo(ctx context.Context, dir string, args ...string) (tail string, err error) {
	running, err := rig.Start(rig.Program{Path: "go", Dir: dir, Name: "go " + args[0], Args: args})
	if err != nil {
		return "", err
	}
	select {
	case <-running.Done():
	case <-ctx.Done():
		running.Kill()
	}
	if code := running.ExitCode(); code != 0 {
		return "", fmt.Errorf("go %s: exit code %d:\n%s", args[0], code, running.Tail())
	}
	return running.Tail(), nil
}

// parseBenchmark takes the rounds of one benchmark out of what go test printed: "name[-procs] iterations", then pairs of
// value and unit. There must be all of them.
func parseBenchmark(out, name string) (rounds []metrics, err error) {
	for line := range strings.Lines(out) {
		fields := strings.Fields(line)
		if len(fields) < 4 {
			continue
		}
		if procs, ok := strings.CutPrefix(fields[0], name); !ok || procs != "" && procs[0] != '-' {
			continue
		}
		m := metrics{}
		for pairs := fields[2:]; len(pairs) > 1; pairs = pairs[2:] {
			if m[pairs[1]], err = strconv.ParseFloat(pairs[0], 64); err != nil {
				return nil, fmt.Errorf("%q: %w", line, err)
			}
		}
		rounds = append(rounds, m)
	}
	if len(rounds) != benchmarkRounds {
		return nil, fmt.Errorf("%d rounds, want %d, in\n%s", len(rounds), benchmarkRounds, out)
	}
	return rounds, nil
}
