package main

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/wscluster/wscluster/bench/report"
	"github.com/wscluster/wscluster/internal/auth"
	"github.com/wscluster/wscluster/internal/config"
	"github.com/wscluster/wscluster/internal/worker"
	"github.com/wscluster/wscluster/pkg/broker/memory"
	"github.com/wscluster/wscluster/pkg/socketmeta"
)

// startCluster starts a worker in this process on an in-memory broker; grant allows to publish anywhere.
func startCluster(t *testing.T) (url, internal, grant string) {
	t.Helper()
	keys, err := socketmeta.ParseKeys([]byte(grantKeys))
	if err != nil {
		t.Fatal(err)
	}
	grants, err := auth.NewGrants(keys, []string{"bench"})
	if err != nil {
		t.Fatal(err)
	}
	grant, err = auth.SignGrant(keys, auth.Grant{Publish: []string{"*"}, Expires: time.Now().Add(time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	w, err := worker.New(worker.Options{Server: "i1-w1", Broker: memory.New(memory.Options{}), Keys: keys, RouteKeys: keys, Grants: grants, DrainWindow: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	var lns [2]net.Listener
	for i := range lns {
		if lns[i], err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- w.Run(ctx, lns[0], lns[1]) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("the worker ended with %v", err)
		}
	})
	for w.Ready() != nil {
		time.Sleep(time.Millisecond)
	}
	return "http://" + lns[0].Addr().String(), "http://" + lns[1].Addr().String(), grant
}

func TestBenchMeasuresARunningCluster(t *testing.T) {
	url, internal, grant := startCluster(t)
	out := filepath.Join(t.TempDir(), "lines")
	code, stdout, stderr := execute(t, "bench", "--url", url, "--internal", internal, "--clients", "40", "--duration", "200ms", "--rate", "100", "--rounds", "2",
		"--grant-file", file(t, grant), "--out", out)
	if code != config.ExitOK {
		t.Fatalf("exit code %d: %s\n%s", code, stderr, stdout)
	}
	f, err := os.Open(out)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	run, rounds, err := report.Read(f)
	if err != nil || len(run.Command) == 0 || run.Machine.Cores == 0 {
		t.Errorf("%+v, %v", run, err)
	}
	var order []string
	for _, r := range rounds {
		order = append(order, r.Scenario)
		if len(r.Values) == 0 || r.Clients != 40 {
			t.Errorf("%+v", r)
		}
		for name, want := range map[string]float64{"alive": 40, "resumed": 40} {
			if v, ok := r.Values[name]; ok && v != want {
				t.Errorf("%s: %s is %v", r.Scenario, name, v)
			}
		}
	}
	if got := strings.Join(order, " "); got != "idle connect echo broadcast reconnect idle connect echo broadcast reconnect" {
		t.Errorf("the rounds are %s", got)
	}
	for _, want := range []string{"connects_per_s", "rss_bytes_per_client", "deliveries_per_s", "p99_ms", "all_back_s", "misrouted"} {
		if !strings.Contains(stdout, want) {
			t.Errorf("the table does not tell %s:\n%s", want, stdout)
		}
	}
	if !strings.Contains(stderr, "connect [##############################] 40 of 40") {
		t.Errorf("there is no bar:\n%s", stderr)
	}
}

func TestBenchRefusesWhatItCannotMeasure(t *testing.T) {
	const url = "http://127.0.0.1:1"
	t.Setenv(grantVariable, "")
	for _, tt := range []struct{ args, want string }{
		{"walk --url " + url, `there is no scenario "walk": idle, connect, echo, broadcast, reconnect`},
		{"idle --url https://example.org", `--url "https://example.org" must be as http://127.0.0.1:9001`},
		{"idle --url ws://127.0.0.1:1", "must be as http://127.0.0.1:9001"},
		{"idle --clients 1000001 --url " + url, "--clients 1 to 1000000"},
		{"echo --rate 0 --url " + url, "--rate 1 to"},
		{"idle --duration 1ms --url " + url, "--duration 100ms to"},
		{"idle --channel a*b --url " + url, "a*b"},
		{"broadcast --url " + url, "a grant is needed"},
	} {
		if code, _, stderr := execute(t, append([]string{"bench"}, strings.Fields(tt.args)...)...); code != config.ExitUsage || !strings.Contains(strings.ReplaceAll(stderr, `"url"`, "--url"), tt.want) {
			t.Errorf("%s: exit code %d, %q, want %q", tt.args, code, stderr, tt.want)
		}
	}
	if code, _, stderr := execute(t, "bench", "connect", "--url", url, "--clients", "3"); code != config.ExitFailed || !strings.Contains(stderr, "connection refused") {
		t.Errorf("of nobody: exit code %d, %q", code, stderr)
	}
}

func TestTheClientsAreNotForPeople(t *testing.T) {
	if _, stdout, _ := execute(t, "--help"); strings.Contains(stdout, clientsName) {
		t.Errorf("help shows them:\n%s", stdout)
	}
}
