package rig

import (
	"bytes"
	"io"
	"regexp"
	"slices"
	"strings"
	"sync"
)

const (
	tailLines = 200     // lines that are kept of a program's output
	lineBytes = 8 << 10 // a longer line is cut into lines of this size
)

// output takes a program's output: it passes it on, keeps its last lines and looks for those that
// somebody waits for. It never fails and never blocks longer than the log it passes on to.
type output struct {
	log io.Writer // nil: none

	mu      sync.Mutex
	partial []byte // guarded by mu: what follows the last line end
	lines   []string
	watches []*watch
}

// watch is one who waits for a line.
type watch struct {
	pattern *regexp.Regexp
	found   chan string // cap 1
}

func newOutput(log io.Writer) *output { return &output{log: log} }

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.log != nil {
		_, _ = o.log.Write(p) // a full disk under the log is no reason to stop the program
	}
	o.partial = append(o.partial, p...)
	for {
		end := bytes.IndexByte(o.partial, '\n')
		switch {
		case end >= 0:
			o.line(o.partial[:end])
			o.partial = o.partial[end+1:]
		case len(o.partial) >= lineBytes:
			o.line(o.partial[:lineBytes])
			o.partial = o.partial[lineBytes:]
		default:
			return len(p), nil
		}
	}
}

// line keeps one line and shows it to those who wait. Called with mu held.
func (o *output) line(b []byte) {
	line := strings.TrimSuffix(string(b), "\r")
	if len(o.lines) == tailLines {
		o.lines = append(o.lines[:0], o.lines[1:]...)
	}
	o.lines = append(o.lines, line)
	o.watches = slices.DeleteFunc(o.watches, func(w *watch) bool {
		if !w.pattern.MatchString(line) {
			return false
		}
		w.found <- line
		return true
	})
}

// close takes what came without a line end as the last line.
func (o *output) close() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.partial) > 0 {
		o.line(o.partial)
		o.partial = nil
	}
}

// watch looks for the first line that matches, among those kept and those to come. cancel ends it.
func (o *output) watch(pattern *regexp.Regexp) (found <-chan string, cancel func()) {
	w := &watch{pattern, make(chan string, 1)}
	o.mu.Lock()
	defer o.mu.Unlock()
	if i := slices.IndexFunc(o.lines, pattern.MatchString); i >= 0 {
		w.found <- o.lines[i]
		return w.found, func() {}
	}
	o.watches = append(o.watches, w)
	return w.found, func() {
		o.mu.Lock()
		defer o.mu.Unlock()
		o.watches = slices.DeleteFunc(o.watches, func(x *watch) bool { return x == w })
	}
}

func (o *output) tail() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	all := o.lines
	if len(o.partial) > 0 {
		all = append(slices.Clip(all), string(o.partial))
	}
	return strings.Join(all, "\n")
}
