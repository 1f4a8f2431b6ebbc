package crowd

import (
	"testing"

	"pgregory.net/rapid"
)

func TestASequenceTellsWhatWentWrong(t *testing.T) {
	for _, tt := range []struct {
		name  string
		came  []int64
		fresh int
		want  Faults
	}{
		{"in order", []int64{1, 2, 3}, 3, Faults{}},
		{"twice", []int64{1, 2, 2, 1}, 2, Faults{Duplicated: 2}},
		{"late", []int64{1, 3, 2, 4}, 4, Faults{Misordered: 1}},
		{"late, and then twice", []int64{3, 1, 1, 2}, 3, Faults{Misordered: 2, Duplicated: 1}},
		{"never", []int64{1, 4}, 2, Faults{}}, // that is lost when the time is over
	} {
		var s sequence
		var got Faults
		fresh := 0
		for _, n := range tt.came {
			if s.take(n, &got) {
				fresh++
			}
		}
		if got != tt.want || fresh != tt.fresh {
			t.Errorf("%s: %+v, %d of them new; want %+v, %d", tt.name, got, fresh, tt.want, tt.fresh)
		}
	}
}

// TestEveryNumberIsNewOnce in any order.
func TestEveryNumberIsNewOnce(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		came := rapid.SliceOfN(rapid.Int64Range(1, 20), 0, 60).Draw(t, "came")
		var s sequence
		var f Faults
		seen := map[int64]bool{}
		for _, n := range came {
			if fresh := s.take(n, &f); fresh == seen[n] {
				t.Fatalf("%d of %v is new: %t", n, came, fresh)
			}
			seen[n] = true
		}
		if int(f.Duplicated) != len(came)-len(seen) {
			t.Errorf("%v: %d duplicates, want %d", came, f.Duplicated, len(came)-len(seen))
		}
	})
}
