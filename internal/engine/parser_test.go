package engine

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/gobwas/ws"
	"pgregory.net/rapid"
)

// parse gives pieces of a stream to a parser and describes each event. The bytes are copied,
// because the parser unmasks in place.
func parse(t interface{ Errorf(string, ...any) }, maxMessage int, pieces ...[]byte) []string {
	p := parser{maxMessage: maxMessage, maxFragments: 8}
	var got []string
	for _, b := range pieces {
		b = slices.Clone(b)
		for {
			ev, n := p.next(b)
			if n < 0 || n > len(b) {
				t.Errorf("the parser took %d of %d bytes", n, len(b))
				return got
			}
			b = b[n:]
			if p.held() > maxMessage || cap(p.control) > 2*maxControl {
				t.Errorf("the parser holds %d and %d bytes", p.held(), cap(p.control))
			}
			if ev.kind == evNone {
				if len(b) > 0 {
					t.Errorf("the parser left %d bytes without an event", len(b))
				}
				break
			}
			got = append(got, describe(ev))
			if ev.kind == evMessage && (len(ev.payload) > maxMessage || ev.op == ws.OpText && !utf8.Valid(ev.payload)) {
				t.Errorf("the parser gave the message %.100q", ev.payload)
			}
			if ev.kind == evClose || ev.kind == evViolation {
				return got
			}
		}
	}
	if !p.busy() && p.held() > 0 {
		t.Errorf("an idle parser holds %d bytes", p.held())
	}
	return got
}

func describe(ev event) string {
	switch ev.kind {
	case evMessage:
		return fmt.Sprintf("message %x %q", ev.op, ev.payload)
	case evPing:
		return fmt.Sprintf("ping %q", ev.payload)
	case evPong:
		return fmt.Sprintf("pong %q", ev.payload)
	case evClose:
		return fmt.Sprintf("close %d %q", ev.code, ev.payload)
	}
	return fmt.Sprintf("violation %d %v", ev.code, ev.err)
}

// FuzzParserSplit: any bytes, cut in any way, give the events of the bytes in one piece.
func FuzzParserSplit(f *testing.F) {
	for _, tc := range conformance {
		if len(tc.send) <= 1000 {
			f.Add(tc.send, []byte{1})
			f.Add(tc.send, []byte{3, 1, 7})
		}
	}
	f.Fuzz(func(t *testing.T, stream, cuts []byte) {
		want := parse(t, 300, stream)
		got := parse(t, 300, cut(stream, cuts)...)
		if !slices.Equal(got, want) {
			t.Errorf("cut by %v:\n got %q\nwant %q", cuts, got, want)
		}
	})
}

// cut divides b into pieces of the given sizes, over and over.
func cut(b, sizes []byte) [][]byte {
	var pieces [][]byte
	for i := 0; len(b) > 0 && len(sizes) > 0; i++ {
		n := min(int(sizes[i%len(sizes)]), len(b))
		pieces = append(pieces, b[:n])
		b = b[n:]
		if i > 10_000 {
			break
		}
	}
	return append(pieces, b)
}

// TestParserReadsWhatAnotherEncoderWrote builds streams of right frames with gobwas/ws.
func TestParserReadsWhatAnotherEncoderWrote(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var stream bytes.Buffer
		var want []string
		add := func(op ws.OpCode, fin bool, p []byte) {
			if err := ws.WriteFrame(&stream, ws.MaskFrame(ws.NewFrame(op, fin, slices.Clone(p)))); err != nil {
				t.Fatal(err)
			}
		}
		control := func() {
			if p := []byte(rapid.StringN(0, 30, 125).Draw(t, "control")); rapid.Bool().Draw(t, "is ping") {
				add(ws.OpPing, true, p)
				want = append(want, fmt.Sprintf("ping %q", p))
			} else {
				add(ws.OpPong, true, p)
				want = append(want, fmt.Sprintf("pong %q", p))
			}
		}
		for range rapid.IntRange(0, 5).Draw(t, "messages") {
			op, payload := ws.OpText, []byte(rapid.String().Draw(t, "text"))
			if rapid.Bool().Draw(t, "binary") {
				op, payload = ws.OpBinary, rapid.SliceOfN(rapid.Byte(), 0, 70_000).Draw(t, "bytes")
			}
			message := fmt.Sprintf("message %x %q", op, payload)
			for frames := rapid.IntRange(1, 8).Draw(t, "frames"); frames > 0; frames-- {
				n := rapid.IntRange(0, len(payload)).Draw(t, "fragment")
				if frames == 1 {
					n = len(payload)
				}
				add(op, frames == 1, payload[:n])
				op, payload = ws.OpContinuation, payload[n:]
				if frames > 1 && rapid.IntRange(0, 3).Draw(t, "interleaved") == 0 {
					control()
				}
			}
			want = append(want, message)
			if rapid.Bool().Draw(t, "control behind") {
				control()
			}
		}
		sizes := rapid.SliceOfN(rapid.ByteMin(1), 1, 5).Draw(t, "cuts")
		got := parse(t, 1<<20, cut(stream.Bytes(), sizes)...)
		if !slices.Equal(got, want) {
			t.Fatalf("got %.300q\nwant %.300q", got, want)
		}
	})
}

func TestParserKeepsOnlyWhatArrived(t *testing.T) {
	p := parser{maxMessage: 1 << 30, maxFragments: 8}
	head := []byte{0x82, 0xff, 0, 0, 0, 0, 0x3f, 0xff, 0xff, 0xff, 1, 2, 3, 4} // announces nearly 1 GiB
	if ev, _ := p.next(append(head, make([]byte, 100)...)); ev.kind != evNone {
		t.Fatalf("got %s", describe(ev))
	}
	if p.held() > 200 {
		t.Errorf("100 bytes of 1 GiB hold %d bytes", p.held())
	}
}

func TestParserLimitsAreExact(t *testing.T) {
	for _, tc := range []struct {
		name   string
		stream []byte
		good   bool
	}{
		{"a frame", text(stars(300)), true},
		{"a longer frame", text(stars(301)), false},
		{"fragments", join(part(1, stars(150)), frame(0, stars(150))), true},
		{"longer fragments", join(part(1, stars(150)), frame(0, stars(151))), false},
		{"eight fragments", slices.Concat(part(1, ""), slices.Repeat(part(0, ""), 6), frame(0, "")), true},
		{"nine fragments", slices.Concat(part(1, ""), slices.Repeat(part(0, ""), 7), frame(0, "")), false},
		{"again and again", slices.Repeat(text(stars(300)), 5), true},
	} {
		got := parse(t, 300, tc.stream)
		if good := !slices.ContainsFunc(got, func(e string) bool { return strings.HasPrefix(e, "violation 1009") }); good != tc.good || len(got) == 0 {
			t.Errorf("%s: got %.100q", tc.name, got)
		}
	}
}

func TestParserTakesAMessageOutOfTheReadBufferInPlace(t *testing.T) {
	p := parser{maxMessage: 1000, maxFragments: 8}
	pristine := join(text("hello"), frame(ws.OpPing, "p"))
	b := slices.Clone(pristine)
	allocs := testing.AllocsPerRun(100, func() {
		copy(b, pristine)
		ev, n := p.next(b)
		if ev.kind != evMessage || string(ev.payload) != "hello" {
			t.Fatalf("got %s", describe(ev))
		}
		if ev, _ := p.next(b[n:]); ev.kind != evPing || string(ev.payload) != "p" {
			t.Fatalf("got %s", describe(ev))
		}
	})
	if allocs > 0 {
		t.Errorf("%v allocations for two frames, want 0", allocs)
	}
}

func TestViolationsWrapWhatACallerBranchesOn(t *testing.T) {
	for want, stream := range map[error][]byte{ErrProtocol: masked(0xf1, nil), ErrTooLarge: text(stars(400))} {
		p := parser{maxMessage: 300, maxFragments: 8}
		if ev, _ := p.next(stream); !errors.Is(ev.err, want) {
			t.Errorf("got %v, want %v", ev.err, want)
		}
	}
}

// FuzzUTF8Check: a text in pieces is judged as the whole is, and never later than needed.
func FuzzUTF8Check(f *testing.F) {
	for _, s := range []string{"", "a", "κόσμε", "\xed\xa0\x80", "\xf4\x90\x80\x80", "\xf0\x9f\x98\x80", "a\xce", "\xce\xce", "\xf0\x80\x80\x80"} {
		f.Add([]byte(s), []byte{1})
		f.Add([]byte(s), []byte{2, 1, 3})
	}
	f.Fuzz(func(t *testing.T, text, cuts []byte) {
		var u utf8Check
		seen, ok := 0, true
		for _, b := range cut(text, cuts) {
			seen += len(b)
			if ok = u.add(b); ok != canBecomeUTF8(text[:seen]) {
				t.Fatalf("after %q: got %v", text[:seen], ok)
			}
			if !ok {
				break
			}
		}
		if got := ok && u.done(); got != utf8.Valid(text) {
			t.Errorf("%q: got %v, want %v", text, got, !got)
		}
	})
}

// canBecomeUTF8 says by the table of RFC 3629 whether some continuation of b is UTF-8.
func canBecomeUTF8(b []byte) bool {
	for len(b) > 0 {
		r, n := utf8.DecodeRune(b)
		if r == utf8.RuneError && n == 1 {
			return len(b) < 4 && slices.ContainsFunc(runeEnds, func(end string) bool {
				return utf8.Valid(append(slices.Clone(b), end...))
			})
		}
		b = b[n:]
	}
	return true
}

// runeEnds are ends that complete any rune that can be completed.
var runeEnds = []string{"\x80", "\x80\x80", "\x80\x80\x80", "\xbf", "\xbf\xbf", "\xbf\xbf\xbf", "\x90\x80\x80"}

func TestCutUTF8EndsOnARune(t *testing.T) {
	for _, tc := range []struct {
		s     string
		limit int
		want  string
	}{{"abc", 3, "abc"}, {"abc", 2, "ab"}, {"aé", 2, "a"}, {"é", 1, ""}, {"😀", 3, ""}, {"", 0, ""}} {
		if got := cutUTF8(tc.s, tc.limit); got != tc.want {
			t.Errorf("cutUTF8(%q, %d) is %q, want %q", tc.s, tc.limit, got, tc.want)
		}
	}
}
