package main

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/wscluster/wscluster/internal/chaos"
)

// brokerKills is how many durable events that the broker had confirmed are lost when it is killed
// with SIGKILL ten times or more under load: wsctl chaos with nothing but that. Confirmed is what
// the publishers' journals say, which were on disk before anybody acted upon it.
var brokerKills = figure{
	name: "broker-kills-lost", unit: "events", floor: floor{limit: 0},
	measure: measureBrokerKills,
}

const (
	brokerKillsLeast = 10
	brokerKillEvery  = 16 * time.Second // on average: one takes 4 to 12 s to be back, and then there must be load again
)

func measureBrokerKills(ctx context.Context, l *lab) ([]sample, error) {
	bin, err := l.Programs(ctx)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(l.Dir, "chaos-")
	if err != nil {
		return nil, err
	}
	report, err := chaos.Run(ctx, chaos.Options{
		Bin: bin, Dir: dir, Seed: 1, Kinds: []chaos.Kind{chaos.BrokerKill},
		Duration: 26 * brokerKillEvery, Every: brokerKillEvery, Settle: 90 * time.Second,
		Clients: 100, Workers: 4, Runners: 1, Publishers: 2, Rate: 500, Nodes: 1, Task: chaos.Params{Events: 100, Bytes: 200},
		Status: func(string) {}, Note: func(what string) { l.Logf("  %s", what) },
	})
	if err != nil {
		return nil, err
	}
	kills := report.Faults[chaos.BrokerKill]
	l.Logf("  %d kills, %d events confirmed, %d delivered, %d of them although a kill struck on their way; %d lost",
		kills, report.Confirmed, report.Delivered, report.Recovered, len(report.Lost))
	if err := report.Check(); err != nil {
		l.Logf("%v", report)
	}
	if kills < brokerKillsLeast {
		return nil, fmt.Errorf("only %d kills struck while events were in flight, want %d", kills, brokerKillsLeast)
	}
	return []sample{{value: float64(len(report.Lost) + len(report.Unfinished) + report.Misordered + report.Duplicates)}}, nil
}
