package amqp

import (
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// A broker that has sent tags 1 to last is told what is settled: never what is open, never anything twice, which ends a
// channel, a run from the first on at once, and all else by the second look.
func TestRunsAreToldAtOnceAndOthersByTheSecondLook(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var o openTags
		var open []uint64
		untold := map[uint64]int{} // settled tags, by the looks since then
		last, seen := uint64(0), uint64(0)
		told := func(tag uint64, how string) {
			if _, ok := untold[tag]; !ok {
				t.Fatalf("%d is told %s, which is not settled, or was told", tag, how)
			}
			delete(untold, tag)
		}
		for range rapid.IntRange(1, 100).Draw(t, "steps") {
			for range rapid.IntRange(0, 20).Draw(t, "come") {
				last++
				if skipped := rapid.IntRange(0, 99).Draw(t, "") == 0; skipped {
					open = append(open, last)
					last++
				}
				o.came(last)
				open = append(open, last)
			}
			tags := rapid.Permutation(slices.Clone(open)).Draw(t, "order")[:rapid.IntRange(0, len(open)).Draw(t, "settled")]
			for _, tag := range tags {
				if !o.settle(tag) {
					t.Fatalf("%d is not known", tag)
				}
				untold[tag] = 0
			}
			open = slices.DeleteFunc(open, func(tag uint64) bool { return slices.Contains(tags, tag) })
			upTo := o.run()
			if upTo > 0 {
				for tag := range untold {
					if tag <= upTo {
						told(tag, "in a run")
					}
				}
				if len(open) > 0 && open[0] < upTo {
					t.Fatalf("a run to %d is told, and %d is open", upTo, open[0])
				}
			}
			for tag := range untold {
				if len(open) == 0 || tag < open[0] {
					t.Fatalf("%d is not told, and nothing is open before it", tag)
				}
			}
			if rapid.Bool().Draw(t, "look") {
				alone, kept := o.look(nil)
				for _, tag := range alone {
					told(tag, "alone")
				}
				if !slices.IsSorted(alone) {
					t.Fatalf("told alone out of order: %v", alone)
				}
				for tag := range untold {
					if untold[tag]++; untold[tag] > 1 {
						t.Fatalf("%d is not told after two looks", tag)
					}
				}
				want := 0
				for _, tag := range open {
					if tag <= seen {
						want++
					}
				}
				if kept != want {
					t.Fatalf("%d are kept since the last look, want %d", kept, want)
				}
				seen = last
			}
			if len(o.all) != len(open)+len(untold) {
				t.Fatalf("%d tags are kept of %d that are open and %d that are not told", len(o.all), len(open), len(untold))
			}
		}
	})
}

func TestATagThatNobodySawIsNeverSettled(t *testing.T) {
	var o openTags
	o.came(1)
	o.came(3)
	o.settle(1)
	o.settle(3)
	if upTo := o.run(); upTo != 1 {
		t.Errorf("settled up to %d, want 1: 2 did not come", upTo)
	}
}

func TestATagThatIsNotOpenIsNotKnown(t *testing.T) {
	var o openTags
	o.came(1)
	o.settle(1)
	o.run()
	if o.settle(1) || o.settle(2) {
		t.Error("a tag is known that is settled, or has not come")
	}
}
