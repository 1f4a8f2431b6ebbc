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

// shrink returns a failing schedule of which no part can be left out, and its world.
func shrink(w *world) (least *world, steps []step) {
	const within = 20 * time.Second
	end, want := time.Now().Add(within), sort(w.err)
	least, steps = w, slices.Clone(w.log)
	for size := len(steps) / 2; size > 0; {
		before := len(steps)
		for i := 0; i+size <= len(steps) && time.Now().Before(end); {
			try := replay(slices.Delete(slices.Clone(steps), i, i+size), nil)
			if try.err == "" || sort(try.err) != want {
				i += size
				continue
			}
			least, steps = try, slices.Delete(steps, i, i+size)
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
