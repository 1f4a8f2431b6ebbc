package amqp

import "slices"

// openTags knows which deliveries of one channel are not settled. It is pure. It is bounded by those that are open at a
// time: 16 bytes and a place in a map for each.
type openTags struct {
	last  uint64              // the highest that came
	tags  map[uint64]struct{} // those that are open
	order []uint64            // they as they came, and some that are settled: no more than as many again, and 16
}

// came notes a delivery. Tags rise by one; one that is left out, which nobody saw, stays open for ever.
func (o *openTags) came(tag uint64) {
	for o.last < tag {
		o.last++
		o.tags[o.last] = struct{}{}
		o.order = append(o.order, o.last)
	}
}

// settle notes that tags are settled, each of which is open, or higher than any that came and passed over. upTo is the
// highest of them that is open and has nothing open below it that is not settled now, or 0: one basic.ack with "multiple"
// settles it and those before it, and nothing else (AMQP 0-9-1, basic.ack).
func (o *openTags) settle(tags []uint64) (upTo uint64) {
	for _, tag := range tags {
		delete(o.tags, tag)
	}
	first := slices.IndexFunc(o.order, o.open)
	if first < 0 {
		first = len(o.order)
	}
	o.order = o.order[first:]
	if len(o.order) > 2*len(o.tags)+16 {
		o.order = slices.DeleteFunc(o.order, func(tag uint64) bool { return !o.open(tag) })
	}
	for _, tag := range tags {
		if tag <= o.last && (len(o.order) == 0 || tag < o.order[0]) {
			upTo = max(upTo, tag)
		}
	}
	return upTo
}

func (o *openTags) open(tag uint64) bool {
	_, open := o.tags[tag]
	return open
}
