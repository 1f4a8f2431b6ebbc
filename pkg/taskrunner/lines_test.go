package taskrunner

import (
	"bytes"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"pgregory.net/rapid"
)

// cut writes pieces and returns all lines.
func cut(t interface{ Fatalf(string, ...any) }, pieces ...[]byte) (all []string) {
	var l lines
	for _, p := range pieces {
		for len(p) > 0 {
			n := l.write(p)
			p = p[n:]
			if len(l.begun) > MaxLine || l.size > batchBytes+3*MaxLine {
				t.Fatalf("holds %d bytes and %d of a line begun", l.size, len(l.begun))
			}
			if l.full() {
				all = append(all, l.take(false)...)
			} else if n == 0 {
				t.Fatalf("takes nothing and is not full")
			}
		}
	}
	return append(all, l.take(true)...)
}

func TestLines(t *testing.T) {
	long := strings.Repeat("x", MaxLine)
	for _, tt := range []struct {
		name, in string
		want     []string
	}{
		{"none", "", nil},
		{"one", "a\n", []string{"a"}},
		{"without an end", "a\nb", []string{"a", "b"}},
		{"empty ones", "\n\na\n", []string{"", "", "a"}},
		{"windows", "a\r\nb\r", []string{"a", "b"}},
		{"a carriage return within", "a\rb\n", []string{"a\rb"}},
		{"escapes and NUL", "\x1b[31mred\x1b[0m\x00\n", []string{"\x1b[31mred\x1b[0m\x00"}},
		{"not UTF-8", "a\xff\xfeb\n", []string{"a\uFFFDb"}},
		{"exactly the longest", long + "\n", []string{long}},
		{"longer", long + "y\n", []string{long, "y"}},
		{"a character on the edge", long[1:] + "€\n", []string{long[1:], "€"}},
		{"four bytes on the edge", long[3:] + "🙂z\n", []string{long[3:], "🙂z"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if got := cut(t, []byte(tt.in)); !slices.Equal(got, tt.want) {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

// How a process cuts its writes does not show in the lines.
func TestLinesDoNotDependOnTheCutsOfTheWriter(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		unit := rapid.SampledFrom([]string{"\n", "\r\n", "a", "é", "🙂", "\xff", strings.Repeat("w", 3000), strings.Repeat("€", 2731)})
		whole := []byte(strings.Join(rapid.SliceOf(unit).Draw(t, "units"), ""))
		want := cut(t, whole)
		var pieces [][]byte
		for rest := whole; len(rest) > 0; {
			n := rapid.IntRange(1, len(rest)).Draw(t, "n")
			pieces = append(pieces, rest[:n])
			rest = rest[n:]
		}
		if got := cut(t, pieces...); !slices.Equal(got, want) {
			t.Fatalf("got %.200q, want %.200q", got, want)
		}
	})
}

func FuzzLines(f *testing.F) {
	f.Add([]byte("a\nb\r\n"), 1)
	f.Add(bytes.Repeat([]byte("€"), MaxLine), 7)
	f.Add([]byte("\xf0\x9f\x99"), 2)
	f.Fuzz(func(t *testing.T, in []byte, at int) {
		at = max(0, min(at, len(in)))
		got := cut(t, in[:at], in[at:])
		for _, line := range got {
			if !utf8.ValidString(line) || strings.Contains(line, "\n") || len(line) > 3*MaxLine {
				t.Fatalf("line %.200q", line)
			}
		}
		if whole := cut(t, in); !slices.Equal(got, whole) {
			t.Fatalf("cut at %d: %.200q, want %.200q", at, got, whole)
		}
		if utf8.Valid(in) && !bytes.Contains(in, []byte("\r")) {
			want := strings.ReplaceAll(string(in), "\n", "")
			if joined := strings.Join(got, ""); joined != want {
				t.Fatalf("text lost: %d bytes of %d", len(joined), len(want))
			}
		}
	})
}
