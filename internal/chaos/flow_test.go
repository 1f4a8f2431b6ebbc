package chaos

import (
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// TestAFlowStoresAllInOrder: whatever fails, the first copies that are stored lie in order, at the
// end all of them are there, and no more than the window is under way.
func TestAFlowStoresAllInOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		last, window := rapid.Int64Range(1, 30).Draw(t, "last"), rapid.Int64Range(1, 8).Draw(t, "window")
		f := newFlow(last)
		type publish struct {
			seq   int64
			round int
		}
		var flight []publish
		var queue, known []int64
		fails := rapid.IntRange(0, 40).Draw(t, "failures")
		for !f.done() {
			if seq, round, ok := f.take(window); ok {
				flight = append(flight, publish{seq, round})
				if seq < f.low || seq >= f.low+window {
					t.Fatalf("%d is published while %d is the first that is not stored", seq, f.low)
				}
				if rapid.Bool().Draw(t, "more") {
					continue
				}
			}
			if len(flight) == 0 {
				t.Fatal("nothing is under way, and nothing to publish")
			}
			p := flight[0]
			flight = flight[1:]
			if fails > 0 && rapid.Bool().Draw(t, "fail") {
				fails--
				if rapid.Bool().Draw(t, "stored, but unknown") {
					queue = append(queue, p.seq)
				}
				f.back(p.round)
				continue
			}
			queue = append(queue, p.seq)
			if first := f.keep(p.seq); first == slices.Contains(known, p.seq) {
				t.Fatalf("%d: new is %t", p.seq, first)
			}
			known = append(known, p.seq)
		}
		for seq := int64(1); seq <= last; seq++ {
			if !slices.Contains(queue, seq) {
				t.Fatalf("%d of %d is not stored: %v", seq, last, queue)
			}
		}
	})
}
