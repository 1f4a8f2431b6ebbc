package build

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wscluster/wscluster/pkg/wire"
)

func TestCountdownTellsALineAndAProgressAnInterval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		kinds, err := Kinds(nil, Options{})
		if err != nil {
			t.Fatal(err)
		}
		o := do(t, kinds, "countdown", map[string]int{"lines": 4, "interval_ms": 500, "steps": 2})
		want := []string{
			"step 1 running", "1/4 3 to go", "2/4 2 to go", "step 1 succeeded",
			"step 2 running", "3/4 1 to go", "4/4 0 to go", "step 2 succeeded"}
		if !slices.Equal(o.events, want) {
			t.Errorf("got %q, want %q", o.events, want)
		}
		if want := []string{"4", "3", "2", "1"}; !slices.Equal(o.log, want) {
			t.Errorf("log %q, want %q", o.log, want)
		}
		if o.value != `{"lines":4}` || o.duration != 2*time.Second {
			t.Errorf("result %s after %v", o.value, o.duration)
		}
	})
}

func TestCountdownLastsAsLongAsItIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		kinds, err := Kinds(nil, Options{})
		if err != nil {
			t.Fatal(err)
		}
		if o := do(t, kinds, "countdown", map[string]int{"seconds": 60, "interval_ms": 50}); o.duration != time.Minute || len(o.log) != 1200 {
			t.Errorf("%v, %d lines, %v", o.duration, len(o.log), o.failure)
		}
		if o := do(t, kinds, "countdown", map[string]int{}); o.duration != 10*time.Second || len(o.log) != 10 {
			t.Errorf("%v, %d lines, %v", o.duration, len(o.log), o.failure)
		}
		for _, bad := range []map[string]int{{"lines": -1}, {"lines": 1_000_001}, {"interval_ms": 60_001}, {"steps": 101}, {"seconds": 1, "lines": 1}, {"colour": 1}} {
			if o := do(t, kinds, "countdown", bad); o.failure.Code != wire.CodeBadParams {
				t.Errorf("%v: got %v", bad, o.failure)
			}
		}
	})
}
