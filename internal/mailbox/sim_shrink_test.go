package mailbox

import (
	"slices"
	"strings"
	"time"
)

// replay takes the steps that can be taken, and heals. tell, which may be nil, is told what happens.
func replay(steps []step, tell func(string)) *world {
	w := newWorld(nil)
	w.tell = tell
	for _, s := range steps {
		if w.err == "" {
			w.exec(s)
		}
	}
	if w.err == "" {
		w.heal()
	}
	return w
}

// shrink returns a failing schedule of which no part can be left out, and its world. After -sim.shrink
// it returns the least that it has found.
func shrink(w *world) (least *world, steps []step) {
	end, want := time.Now().Add(*simShrink), sort(w.err)
	least, steps = w, slices.Clone(w.log)
	without := func(drop func(i int, s step) bool) bool {
		rest := make([]step, 0, len(steps))
		for i, s := range steps {
			if !drop(i, s) {
				rest = append(rest, s)
			}
		}
		if len(rest) == len(steps) || time.Now().After(end) {
			return false
		}
		try := replay(rest, nil)
		if try.err == "" || sort(try.err) != want {
			return false
		}
		least, steps = try, rest
		return true
	}
	for size := len(steps); size > 8; size = (size + 1) / 2 { // all that comes last
		for without(func(i int, _ step) bool { return i >= len(steps)-size }) {
		}
	}
	for k := range kinds { // all of one kind, or of one kind and one to whom it happens
		if !without(func(_ int, s step) bool { return s.kind == k }) {
			for a := range kinds[k].a {
				without(func(_ int, s step) bool { return s.kind == k && s.a == a })
			}
		}
	}
	for size := max(1, len(steps)/2); size > 0; { // and any that stand together
		before := len(steps)
		for at := len(steps) - size; at >= 0; {
			if !without(func(i int, _ step) bool { return i >= at && i < at+size }) || at > len(steps)-size {
				at -= size
			}
		}
		if size > 1 || len(steps) == before {
			size /= 2
		}
	}
	return least, steps
}

// sort tells kinds of failures apart: it is the text without what differs from case to case.
func sort(err string) string {
	words := slices.DeleteFunc(strings.Fields(err), func(s string) bool { return strings.ContainsAny(s, "0123456789{}/_") })
	return strings.Join(words[:min(len(words), 6)], " ")
}
