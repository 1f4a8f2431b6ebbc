package taskrunner

import (
	"bytes"
	"slices"
	"strings"
	"unicode/utf8"
)

const (
	// MaxLine is the longest line of a log, in bytes of output. What is longer becomes several.
	MaxLine = 8 << 10

	batchBytes   = 16 << 10 // of lines that one log event holds, and at most one line more
	lineOverhead = 4        // what a line costs beside its text: quotes and a comma
)

// lines cuts a stream of bytes into lines. It holds at most one batch of whole lines and the
// beginning of the next.
//
// A line ends at \n or \r\n, or after MaxLine bytes, never within a character. Bytes that are not
// UTF-8 become U+FFFD. All else is kept, terminal escapes and NUL too.
type lines struct {
	whole []string
	size  int // of whole
	begun []byte
}

// full reports whether a batch is complete: take it before writing more.
func (l *lines) full() bool { return l.size >= batchBytes }

// write takes bytes from p until the batch is full and returns how many it took.
func (l *lines) write(p []byte) (n int) {
	for n < len(p) && !l.full() {
		rest := p[n:]
		room := MaxLine + 1 - len(l.begun) // one more than fits, so that a \n right behind is found
		if i := bytes.IndexByte(rest[:min(room, len(rest))], '\n'); i >= 0 {
			l.begun = append(l.begun, rest[:i]...)
			l.end(bytes.TrimSuffix(l.begun, []byte("\r")))
			n += i + 1
			continue
		}
		took := min(room, len(rest))
		l.begun = append(l.begun, rest[:took]...)
		n += took
		if len(l.begun) > MaxLine {
			l.split()
		}
	}
	return n
}

// split ends the line before the character that exceeds MaxLine and keeps that for the next.
func (l *lines) split() {
	cut := MaxLine
	for back := range utf8.UTFMax {
		if i := MaxLine - back; utf8.RuneStart(l.begun[i]) {
			cut = i
			break
		}
	}
	rest := slices.Clone(l.begun[cut:])
	l.end(l.begun[:cut])
	l.begun = append(l.begun, rest...)
}

func (l *lines) end(line []byte) {
	text := strings.ToValidUTF8(string(line), "\uFFFD")
	l.whole = append(l.whole, text)
	l.size += len(text) + lineOverhead
	l.begun = l.begun[:0]
}

// take returns the whole lines, oldest first, and forgets them. With last set, a line that was
// begun counts as whole.
func (l *lines) take(last bool) []string {
	if last && len(l.begun) > 0 {
		l.end(bytes.TrimSuffix(l.begun, []byte("\r")))
	}
	taken := l.whole
	l.whole, l.size = nil, 0
	return taken
}
