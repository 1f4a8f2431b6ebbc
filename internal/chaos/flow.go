package chaos

// flow is the go-back-N of one run: which event is published next, and which are stored. It is
// pure. Numbers count from 1 to last.
type flow struct {
	last   int64
	next   int64          // to be published
	low    int64          // the first that is not stored
	stored map[int64]bool // above low
	round  int            // how often it went back
}

func newFlow(last int64) *flow { return &flow{last: last, next: 1, low: 1, stored: map[int64]bool{}} }

// take returns the next number to publish, and the round that its outcome must name; false if all
// are under way, or more than window would be.
func (f *flow) take(window int64) (seq int64, round int, ok bool) {
	f.next = max(f.next, f.low) // an answer to an earlier round may have come since it went back
	if f.next > f.last || f.next >= f.low+window {
		return 0, 0, false
	}
	f.next++
	return f.next - 1, f.round, true
}

// keep notes that seq is stored, whichever of its publishes it was, and reports whether that is new.
func (f *flow) keep(seq int64) (first bool) {
	if seq < f.low || f.stored[seq] {
		return false
	}
	f.stored[seq] = true
	for f.stored[f.low] {
		delete(f.stored, f.low)
		f.low++
	}
	return true
}

// back goes back to the first number that is not stored, because a publish of a round failed. All
// that is above is published again as well, so that the order is right. Failures of earlier rounds
// say nothing new.
func (f *flow) back(round int) {
	if round == f.round {
		f.round++
		f.next = f.low
	}
}

// done reports whether all is stored.
func (f *flow) done() bool { return f.low > f.last }
