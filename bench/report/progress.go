package report

import (
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"time"
)

// Progress shows people how things stand: on a terminal in one line that changes, elsewhere in lines. Any goroutine
// may call its methods.
type Progress struct {
	out io.Writer // set once, as tty
	tty bool

	mu    sync.Mutex
	shown bool      // guarded by mu: the line that changes is there
	drawn time.Time // the last bar
}

// NewProgress shows it on out.
func NewProgress(out io.Writer) *Progress { return &Progress{out: out, tty: isTerminal(out)} }

// Status takes the place of the status before it.
func (p *Progress) Status(line string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.tty {
		fmt.Fprintln(p.out, line)
		return
	}
	fmt.Fprintf(p.out, "\r\x1b[K%.200s", line)
	p.shown = true
}

// Bar is a status that says how much of something is done. It may be called as often as you like: where there is
// no terminal only one in five seconds is shown, and the last.
func (p *Progress) Bar(what string, done, total int) {
	p.mu.Lock()
	rest := barEvery
	if p.tty {
		rest = barEveryTTY
	}
	draw := done >= total || time.Since(p.drawn) >= rest
	if draw {
		p.drawn = time.Now()
	}
	p.mu.Unlock()
	if draw {
		p.Status(bar(what, done, total))
	}
}

const (
	barEvery    = 5 * time.Second
	barEveryTTY = 100 * time.Millisecond
	barWidth    = 30
)

func bar(what string, done, total int) string {
	full := barWidth * min(done, total) / max(total, 1)
	return fmt.Sprintf("%s [%s%s] %d of %d", what, strings.Repeat("#", full), strings.Repeat(".", barWidth-full), done, total)
}

// Note is a line that stays.
func (p *Progress) Note(line string) {
	p.End()
	p.mu.Lock()
	defer p.mu.Unlock()
	fmt.Fprintln(p.out, line)
}

// End removes the line that changes.
func (p *Progress) End() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.shown {
		fmt.Fprint(p.out, "\r\x1b[K")
		p.shown = false
	}
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}
