package main

import (
	"regexp"
	"slices"
	"strings"
	"testing"

	benchlab "github.com/wscluster/wscluster/bench/lab"
	"github.com/wscluster/wscluster/internal/rig"
)

const printed = `goos: linux
BenchmarkOther/tcp-2   	       7	       1.0 ours-us
BenchmarkHandshake/tcp6-2   	       7	       2.0 ours-us
BenchmarkHandshake/tcp   	       7	         3.6 theirs/ours	        36.5 ours-us
BenchmarkHandshake/tcp-2 	       7	         3.8 theirs/ours	        35.5 ours-us
BenchmarkHandshake/tcp-2
BenchmarkHandshake/tcp-2 	       7	         3.7 theirs/ours	        33 ours-us
BenchmarkHandshake/tcp-2 	       7	         3.7 theirs/ours	        34 ours-us
BenchmarkHandshake/tcp-2 	       7	         3.7 theirs/ours	        3.5e+01 ours-us
PASS
`

func TestTheRoundsOfABenchmarkAreReadFromItsLines(t *testing.T) {
	rounds, err := parseBenchmark(printed, "BenchmarkHandshake/tcp")
	if err != nil {
		t.Fatal(err)
	}
	var got []float64
	for _, m := range rounds {
		got = append(got, m["ours-us"])
	}
	if want := []float64{36.5, 35.5, 33, 34, 35}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestABenchmarkWithoutAllItsRoundsIsNoMeasurement(t *testing.T) {
	for _, out := range []string{
		"", "PASS\n",
		strings.Replace(printed, "33 ours-us", "many ours-us", 1),
		strings.Replace(printed, "/tcp   ", "/unix   ", 1),
	} {
		if rounds, err := parseBenchmark(out, "BenchmarkHandshake/tcp"); err == nil {
			t.Errorf("got %v of\n%s", rounds, out)
		}
	}
}

// One that go test cannot run, and one that does not report a metric, fail with the reason.
func TestABenchmarkThatCannotRunFailsTheFigure(t *testing.T) {
	root, err := rig.Root()
	if err != nil {
		t.Fatal(err)
	}
	none, half := benchmark{"bench/results", "BenchmarkNone", "1x"}, benchmark{"bench/figures", "BenchmarkHalf", "1x"}
	l := &lab{Lab: &benchlab.Lab{Root: root}, benchmarks: map[benchmark][]metrics{half: {{"ours": 1}}}}
	for b, want := range map[benchmark]string{none: "(?s)exit code 1:.*no Go files", half: "reports no theirs or no ours"} {
		f := b.figure("a", "us", atMost60, "theirs", "ours")
		if got, err := f.measure(t.Context(), l); err == nil || !regexp.MustCompile(want).MatchString(err.Error()) {
			t.Errorf("%s: got %v and %v, want an error with %q", b.name, got, err, want)
		}
	}
}
