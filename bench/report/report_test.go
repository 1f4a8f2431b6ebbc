package report

import (
	"bytes"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/wscluster/wscluster/bench/crowd"
)

// rounds are two of two systems; the third of one failed.
var rounds = []Round{
	{Scenario: "unicast", System: "ours", Number: 1, Clients: 9, Values: map[string]float64{"p50_ms": 2, "p99_ms": 40}},
	{Scenario: "unicast", System: "bare", Number: 1, Clients: 9, Values: map[string]float64{"p50_ms": 1}},
	{Scenario: "idle", System: "ours", Number: 1, Clients: 5, Values: map[string]float64{"bytes": 4000}},
	{Scenario: "unicast", System: "ours", Number: 2, Clients: 9, Values: map[string]float64{"p50_ms": 6}, Faults: crowd.Faults{Lost: 3}},
	{Scenario: "unicast", System: "bare", Number: 2, Clients: 9, Values: map[string]float64{"p50_ms": 2}},
	{Scenario: "unicast", System: "ours", Number: 3, Clients: 9, Error: "it broke"},
	{Scenario: "unicast", System: "bare", Number: 3, Clients: 9, Values: map[string]float64{"p50_ms": 100}},
}

func TestASummaryHasMediansAndRatiosOfTheSameRounds(t *testing.T) {
	all := Summarize(rounds, map[string]string{"unicast": "bare"})
	var names []string
	for _, s := range all {
		names = append(names, s.Scenario+" "+s.System)
	}
	if diff := cmp.Diff([]string{"unicast ours", "unicast bare", "idle ours"}, names); diff != "" {
		t.Error(diff)
	}
	want := &Summary{
		Scenario: "unicast", System: "ours", Clients: 9, Rounds: 2, Errors: []string{"it broke"}, Faults: crowd.Faults{Lost: 3},
		Values: map[string]float64{"p50_ms": 4, "p99_ms": 40}, Ratios: map[string]float64{"p50_ms": 2.5},
		Spread: map[string][2]float64{"p50_ms": {2, 6}, "p99_ms": {40, 40}},
	}
	if diff := cmp.Diff(want, all[0]); diff != "" {
		t.Error(diff)
	}
	if all[1].Values["p50_ms"] != 2 || all[1].Ratios["p50_ms"] != 1 {
		t.Errorf("the baseline: %+v", all[1])
	}
}

func TestATableIsForPeople(t *testing.T) {
	var out bytes.Buffer
	if err := Table(&out, Summarize(rounds, map[string]string{"unicast": "bare"})); err != nil {
		t.Fatal(err)
	}
	want := strings.Join([]string{
		"  unicast, 9 clients  p50_ms          p99_ms    rounds  lost  doubled  misordered  misrouted",
		"                ours    4.00  (2.50)    40.0         2     3        0           0          0  1 failed",
		"                bare    2.00  (1.00)       -         3     0        0           0          0",
		"",
		"  idle, 5 clients  bytes    rounds  lost  doubled  misordered  misrouted",
		"             ours   4000         1     0        0           0          0",
	}, "\n")
	lines := strings.Split(strings.TrimRight(out.String(), "\n"), "\n")
	for i := range lines {
		lines[i] = strings.TrimRight(lines[i], " ")
	}
	if diff := cmp.Diff(want, strings.Join(lines, "\n")); diff != "" {
		t.Error(diff)
	}
}

func TestLinesAreReadAsTheyWereWritten(t *testing.T) {
	var file bytes.Buffer
	w := NewWriter(&file)
	run := Run{Command: []string{"bench"}, Machine: ThisMachine(), Load: 1.5, Skipped: map[string]string{"nchan": "not installed"}}
	for _, l := range []Line{{Run: &Run{}}, {Round: &Round{}}, {Run: &run}, {Round: &rounds[0]}, {Round: &rounds[5]}} {
		if err := w.Write(l); err != nil {
			t.Fatal(err)
		}
	}
	gotRun, got, err := Read(&file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(run, gotRun); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]Round{rounds[0], rounds[5]}, got); diff != "" {
		t.Error(diff)
	}
	if _, _, err := Read(strings.NewReader("{}\nnothing\n")); err == nil || !strings.Contains(err.Error(), "line 2") {
		t.Errorf("got %v", err)
	}
}

func TestMedians(t *testing.T) {
	for _, tt := range []struct {
		values []float64
		want   float64
	}{{[]float64{3}, 3}, {[]float64{9, 1, 2}, 2}, {[]float64{4, 1, 2, 9}, 3}} {
		if got := Median(tt.values); got != tt.want {
			t.Errorf("of %v: %v, want %v", tt.values, got, tt.want)
		}
	}
}

func TestTheMachineIsDescribed(t *testing.T) {
	m := ThisMachine()
	if m.Cores < 1 || m.MemoryGB <= 0 || m.Kernel == "" || m.Go == "" {
		t.Errorf("%+v", m)
	}
	if n, err := Resident(os.Getpid()); err != nil || n < 1<<20 {
		t.Errorf("this process has %d bytes, %v", n, err)
	}
	if _, err := Resident(-1); err == nil {
		t.Error("no process has memory")
	}
	if s, err := parseCPU([]byte("7 (a) b) S 1 2 3 4 5 6 7 8 9 10 150 50 0")); err != nil || s != 2 {
		t.Errorf("%v s, %v", s, err)
	}
	if _, err := parseCPU([]byte("7 (a) S 1")); err == nil {
		t.Error("half a line was taken")
	}
}
