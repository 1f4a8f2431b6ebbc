package amqp

import (
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// A broker that has sent tags 1 to last settles what it is told to; what is said to be settled up to a tag must be all that
// is settled by it, and no tag may be said twice, which ends a channel.
func TestTagsAreSettledUpToTheFirstThatIsOpen(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		o := openTags{tags: map[uint64]struct{}{}}
		var open []uint64
		last := uint64(0)
		for range rapid.IntRange(1, 200).Draw(t, "steps") {
			for range rapid.IntRange(0, 20).Draw(t, "come") {
				last++
				if skipped := rapid.IntRange(0, 99).Draw(t, "") == 0; skipped {
					open = append(open, last)
					last++
				}
				o.came(last)
				open = append(open, last)
			}
			known := slices.DeleteFunc(slices.Clone(open), func(tag uint64) bool { return tag > last })
			if len(known) == 0 {
				continue
			}
			tags := rapid.Permutation(known).Draw(t, "order")[:rapid.IntRange(0, len(known)).Draw(t, "settled")]
			other := rapid.SampledFrom([][]uint64{nil, {heldTag | 7}}).Draw(t, "of the overflow")
			upTo := o.settle(append(other, tags...))
			for _, tag := range open {
				if settled := slices.Contains(tags, tag); tag <= upTo && !settled {
					t.Fatalf("%v are settled up to %d, and %d is open", tags, upTo, tag)
				}
			}
			if upTo != 0 && !slices.Contains(tags, upTo) {
				t.Fatalf("%v are settled up to %d, which is none of them", tags, upTo)
			}
			open = slices.DeleteFunc(open, func(tag uint64) bool { return slices.Contains(tags, tag) })
			for _, tag := range tags {
				if below := len(open) == 0 || tag < slices.Min(open); below && tag > upTo {
					t.Fatalf("%v are settled up to %d, but nothing is open below %d", tags, upTo, tag)
				}
			}
			if len(o.tags) != len(open) || len(o.order) > 2*len(open)+16 {
				t.Fatalf("%d tags of %d open ones are kept, in a list of %d", len(o.tags), len(open), len(o.order))
			}
		}
	})
}

func TestATagThatNobodySawIsNeverSettled(t *testing.T) {
	o := openTags{tags: map[uint64]struct{}{}}
	o.came(1)
	o.came(3)
	if upTo := o.settle([]uint64{1, 3}); upTo != 1 {
		t.Errorf("settled up to %d, want 1: 2 did not come", upTo)
	}
}
