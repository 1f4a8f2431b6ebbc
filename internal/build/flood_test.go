package build

import (
	"bytes"
	"fmt"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/wscluster/wscluster/pkg/taskrunner"
	"github.com/wscluster/wscluster/pkg/wire"
)

// TestAFloodOfOutputIsCoalescedAndBounded: whatever a program writes, it crosses in few events, none too
// large, and the runner holds no more of it than its bounds, however much there is.
func TestAFloodOfOutputIsCoalescedAndBounded(t *testing.T) {
	const (
		mib  = 1 << 20
		held = 24 * mib // of the heap, with what the broker in memory has: a mailbox of 4 MiB and 100 deliveries
	)
	for _, tt := range []struct {
		name, text string
		times      int
		events     int // at most, beside those that time makes
		line       string
	}{
		{"no line end", "x", 40 * mib, 40 * mib / taskrunner.MaxLine, strings.Repeat("x", taskrunner.MaxLine)},
		{"tiny lines", "x\n", mib / 8, mib / 8 / 3000, "x"},
		{"empty lines", "\n", mib, mib / 3000, ""},
		{"NUL", "\x00", 6 * mib, 6 * mib / taskrunner.MaxLine, strings.Repeat("\x00", taskrunner.MaxLine)},
		{"no UTF-8", "\xff", 8 * mib, 8 * mib / taskrunner.MaxLine, "\ufffd"},
		{"no UTF-8, one by one", "a\xc3", mib, 2 * mib / taskrunner.MaxLine, strings.Repeat("a\ufffd", taskrunner.MaxLine/2)},
		{"half of each character", "\xf0\x9f\n", mib / 8, mib / 8 / 1000, "\ufffd"},
		{"only carriage returns", "50%\r", 2 * mib, 8 * mib / taskrunner.MaxLine, strings.Repeat("50%\r", taskrunner.MaxLine/4)},
		{"escapes", "\x1b[31m", mib, 5 * mib / taskrunner.MaxLine, strings.Repeat("\x1b[31m", taskrunner.MaxLine/5) + "\x1b["},
	} {
		t.Run(tt.name, func(t *testing.T) {
			kinds := kindsOf(t, Options{}, "kind: one\nsteps: [{name: s, progress: {match: '.'}, argv: ['%s', write, "+fmt.Sprintf("'%s', '%d'", strings.ReplaceAll(strconv.Quote(tt.text), "'", "''"), tt.times)+"]}]\n")
			before, most, events, began := live(), uint64(0), 0, time.Now()
			var failure wire.Failure
			follow(t, kinds, "one", nil, func(e wire.Event) {
				switch e.Type {
				case wire.EventError:
					failure = decode[wire.Failure](t, e.Body)
				case wire.EventLog:
					if events++; events%512 == 0 {
						most = max(most, live())
					}
					if len(e.Body) > wire.MaxEvent/2 || !utf8.Valid(e.Body) {
						t.Errorf("an event of %d bytes", len(e.Body))
					}
					if events > 2 {
						break
					}
					log := decode[wire.Log](t, e.Body)
					if i := 2 - log.FirstLine; i >= 0 && i < int64(len(log.Lines)) && log.Lines[i] != tt.line { // behind the command line
						t.Errorf("it begins with %.40q, %d bytes; want %.40q, %d bytes", log.Lines[i], len(log.Lines[i]), tt.line, len(tt.line))
					}
				}
			})
			if failure.Code != "" {
				t.Errorf("got %v", failure)
			}
			if limit := tt.events + int(time.Since(began)/(100*time.Millisecond)) + 10; events > limit {
				t.Errorf("%d events, want at most %d", events, limit)
			}
			if most = max(most, live()); most > before+held {
				t.Errorf("%d MiB of the flood were held", (most-before)/mib)
			}
		})
	}
}

// live is what the heap holds that is in use, in bytes.
func live() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// All that comes is counted, so that who is told of the limit is told how much is missing.
func TestOutputBeyondTheLimitIsDroppedAndCounted(t *testing.T) {
	var kept bytes.Buffer
	limit, over := int64(10), 0
	o := &output{log: &kept, limit: &limit, over: func() { over++ }}
	for i, p := range []string{"12345", "67890", "abc\n", "defg"} {
		if n, err := o.Write([]byte(p)); n != len(p) || err != nil {
			t.Errorf("write %d: %d, %v", i, n, err)
		}
		if want := max(0, min(1, i-1)); over != want {
			t.Errorf("behind write %d the limit was exceeded %d times, want %d", i, over, want)
		}
	}
	o.end()
	if kept.String() != "1234567890" || o.first != "1234567890" || limit != -8 {
		t.Errorf("kept %q, saw %q, %d left", &kept, o.first, limit)
	}
	if err := tooMuch(10, limit); err.Code != wire.CodeOutputLimit || err.Message != "the task wrote 18 bytes of output and its recipe's output_limit_bytes is 10: 8 bytes were dropped" {
		t.Errorf("its client is told %v", err)
	}
}

// A line that never ends is looked at to a bound too.
func TestOutputLooksAtTheBeginningOfALine(t *testing.T) {
	limit, seen := int64(1<<30), ""
	o := &output{log: &bytes.Buffer{}, limit: &limit, progress: func(_ uint32, line string) { seen = line }}
	o.match = regexp.MustCompile("^x")
	for range 1000 {
		if _, err := o.Write(bytes.Repeat([]byte("x"), 1000)); err != nil {
			t.Fatal(err)
		}
	}
	if cap(o.begun) > 2*maxSeen {
		t.Errorf("%d bytes of a line are kept", cap(o.begun))
	}
	if o.end(); len(seen) != maxSeen || o.first != seen {
		t.Errorf("saw %d bytes, want %d", len(seen), maxSeen)
	}
}

// What goes into the log of itself is one line without controls, whatever the parameters hold.
func TestTheCommandLineHidesNothing(t *testing.T) {
	for _, a := range attacks {
		line := commandLine([]string{"p", a.value, "end"})
		if strings.ContainsFunc(line, func(r rune) bool { return !strconv.IsPrint(r) }) || !strings.HasPrefix(line, "p ") || len(line) > maxCommandLine || len(a.value) < 1000 && !strings.HasSuffix(line, " end") {
			t.Errorf("%s: %.100q", a.name, line)
		}
	}
	const hidden = "a\u202eb\x1b"
	if back, err := strconv.Unquote(commandLine([]string{hidden})); err != nil || back != hidden {
		t.Errorf("got %q, %v back", back, err)
	}
}
