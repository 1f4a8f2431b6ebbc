package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"github.com/wscluster/wscluster/bench/report"
)

// liveClients is how many clients at a time have a session and a subscription on real workers of one machine, and answer a
// ping after three broadcasts that each of them has got, byte for byte: what make bench-million does, once.
var liveClients = figure{
	name: "live-clients", unit: "clients",
	floor:   floor{atLeast: true, limit: liveWanted},
	measure: measureLive,
}

const liveWanted = 200_000

func measureLive(ctx context.Context, l *lab) ([]sample, error) {
	out, err := os.MkdirTemp(l.Dir, "live-")
	if err != nil {
		return nil, err
	}
	if _, err := runGo(ctx, l.Root, "run", "./bench/compare", "-million", strconv.Itoa(liveWanted), "-out", out); err != nil {
		return nil, err // so it is if a broadcast did not come to one of them as it was sent
	}
	f, err := os.Open(filepath.Join(out, "million.jsonl"))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	_, rounds, err := report.Read(f)
	if err != nil {
		return nil, err
	}
	if len(rounds) != 1 {
		return nil, fmt.Errorf("%s has %d rounds, want one", f.Name(), len(rounds))
	}
	v := rounds[0].Values
	l.Logf("  %.0f clients on %.0f workers, connected in %.1f s; %.0f B of the workers' each; the last has a broadcast after %.0f ms",
		v["alive"], v["workers"], v["connect_s"], v["bytes_per_client"], v["last_ms"])
	return []sample{{value: v["alive"]}}, nil
}
