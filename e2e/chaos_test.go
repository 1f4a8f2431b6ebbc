package e2e

import (
	"context"
	"os/exec"
	"testing"
	"time"

	"github.com/wscluster/wscluster/internal/chaos"
)

// TestNothingIsLostInHalfAMinuteOfChaos is a short `make chaos`: every kind of fault that fits into
// 30 s, on a whole cluster under load.
func TestNothingIsLostInHalfAMinuteOfChaos(t *testing.T) {
	build := exec.Command("go", "build", "-o", bin+"/", "./cmd/wsctl") // whose publishers it needs
	build.Dir = root
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build wsctl: %v\n%s", err, out)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	report, err := chaos.Run(ctx, chaos.Options{
		Bin: bin, Dir: t.TempDir(), Seed: 1, Duration: 30 * time.Second, Settle: 90 * time.Second, Every: 1200 * time.Millisecond,
		Kinds: chaos.Kinds(), Clients: 40, Workers: 4, Runners: 2, Publishers: 2, Nodes: 1, Rate: 800,
		Task: chaos.Params{Events: 60, Bytes: 200}, Status: func(string) {}, Note: func(what string) { t.Log(what) },
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Log("\n" + report.String())
	if err := report.Check(); err != nil {
		t.Error(err)
	}
	if len(report.Faults) == 0 || report.Delivered == 0 {
		t.Errorf("%d events under %v prove nothing", report.Delivered, report.Faults)
	}
}
