package amqp

import (
	"cmp"
	"slices"
)

// openTags knows which deliveries of one channel are not settled, and of which others the broker does not know that they
// are. It is pure. It is bounded by those two: 16 bytes for each.
//
// To settle one delivery alone RabbitMQ walks over everything that its channel has had before it and still holds, once in the channel and
// once in the queue. A run from the first on costs no walk: one basic.ack with "multiple" settles it (AMQP 0-9-1, basic.ack). So
// a run is told at once, and the others after one look or two, by when most of them are in a run (ADR 28).
type openTags struct {
	last  uint64 // the highest that came
	all   []openTag
	looks uint64 // so far
	seen  uint64 // the highest at the last look
}

type openTag struct {
	tag     uint64
	settled uint64 // 0: it is not; else the number of the look that comes next
}

// came notes a delivery. Tags rise by one; one that is left out, which nobody saw, stays open for ever.
func (o *openTags) came(tag uint64) {
	for o.last < tag {
		o.last++
		o.all = append(o.all, openTag{tag: o.last})
	}
}

// settle notes that a delivery is settled; false: there is no such one.
func (o *openTags) settle(tag uint64) (known bool) {
	i, known := slices.BinarySearchFunc(o.all, tag, func(t openTag, tag uint64) int { return cmp.Compare(t.tag, tag) })
	if known {
		o.all[i].settled = o.looks + 1
	}
	return known
}

// run ends with the last that is settled and has nothing open before it, 0 if there is none: a basic.ack of that with
// "multiple" tells all of the run, and nothing else. It is forgotten.
func (o *openTags) run() (upTo uint64) {
	n := slices.IndexFunc(o.all, func(t openTag) bool { return t.settled == 0 })
	if n < 0 {
		n = len(o.all)
	}
	if n > 0 {
		upTo = o.all[n-1].tag
	}
	o.all = o.all[n:]
	return upTo
}

// look appends to tags those that were settled before the last look and not told; they are forgotten. kept is how many were
// open then and are.
func (o *openTags) look(tags []uint64) (alone []uint64, kept int) {
	o.all = slices.DeleteFunc(o.all, func(t openTag) bool {
		switch {
		case t.settled == 0 && t.tag <= o.seen:
			kept++
		case t.settled != 0 && t.settled <= o.looks:
			tags = append(tags, t.tag)
			return true
		}
		return false
	})
	o.looks, o.seen = o.looks+1, o.last
	return tags, kept
}
