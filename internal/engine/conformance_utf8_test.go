package engine

import (
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/gobwas/ws"
)

// texts are Autobahn's group 6: what is UTF-8 by RFC 3629 and what is not, in its order.
var texts = []struct {
	name string
	good bool
	text string
}{
	{"a word", true, "κόσμε"},
	{"a word cut in its last rune", false, "κόσμ\xce"},
	{"the first of one byte", true, "\x00"},
	{"the first of two", true, "\xc2\x80"},
	{"the first of three", true, "\xe0\xa0\x80"},
	{"the first of four", true, "\xf0\x90\x80\x80"},
	{"the first of five", false, "\xf8\x88\x80\x80\x80"},
	{"the first of six", false, "\xfc\x84\x80\x80\x80\x80"},
	{"the last of one byte", true, "\x7f"},
	{"the last of two", true, "\xdf\xbf"},
	{"the last of three", true, "\xef\xbf\xbf"},
	{"the last of four", false, "\xf7\xbf\xbf\xbf"},
	{"the last of five", false, "\xfb\xbf\xbf\xbf\xbf"},
	{"the last of six", false, "\xfd\xbf\xbf\xbf\xbf\xbf"},
	{"U+D7FF", true, "\xed\x9f\xbf"},
	{"U+E000", true, "\xee\x80\x80"},
	{"U+FFFD", true, "\xef\xbf\xbd"},
	{"U+10FFFF", true, "\xf4\x8f\xbf\xbf"},
	{"U+110000", false, "\xf4\x90\x80\x80"},
	{"the first continuation byte", false, "\x80"},
	{"the last continuation byte", false, "\xbf"},
	{"two continuation bytes", false, "\x80\xbf"},
	{"three", false, "\x80\xbf\x80"},
	{"all", false, bytesFrom(0x80, 0xbf, "")},
	{"starts of two, alone", false, bytesFrom(0xc2, 0xdf, " ")},
	{"starts of three, alone", false, bytesFrom(0xe0, 0xef, " ")},
	{"starts of four, alone", false, bytesFrom(0xf0, 0xf7, " ")},
	{"starts of five, alone", false, bytesFrom(0xf8, 0xfb, " ")},
	{"starts of six, alone", false, bytesFrom(0xfc, 0xfd, " ")},
	{"two without the last", false, "\xdf"},
	{"three without the last", false, "\xe0\xa0"},
	{"the last three without its last", false, "\xef\xbf"},
	{"four without the last", false, "\xf0\x90\x80"},
	{"the last four without its last", false, "\xf4\x8f\xbf"},
	{"unfinished ones in a row", false, "\xdf\xef\xbf\xf4\x8f\xbf"},
	{"an impossible byte", false, "\xfe"},
	{"another", false, "\xff"},
	{"four impossible bytes", false, "\xfe\xfe\xff\xff"},
	{"a slash in two bytes", false, "\xc0\xaf"},
	{"a slash in three", false, "\xe0\x80\xaf"},
	{"a slash in four", false, "\xf0\x80\x80\xaf"},
	{"a slash in five", false, "\xf8\x80\x80\x80\xaf"},
	{"a slash in six", false, "\xfc\x80\x80\x80\x80\xaf"},
	{"the longest overlong of two bytes", false, "\xc1\xbf"},
	{"of three", false, "\xe0\x9f\xbf"},
	{"of four", false, "\xf0\x8f\xbf\xbf"},
	{"zero in two bytes", false, "\xc0\x80"},
	{"zero in three", false, "\xe0\x80\x80"},
	{"zero in four", false, "\xf0\x80\x80\x80"},
	{"the first high surrogate", false, "\xed\xa0\x80"},
	{"the last high surrogate", false, "\xed\xaf\xbf"},
	{"the first low surrogate", false, "\xed\xb0\x80"},
	{"the last low surrogate", false, "\xed\xbf\xbf"},
	{"the first pair of surrogates", false, "\xed\xa0\x80\xed\xb0\x80"},
	{"the last pair of surrogates", false, "\xed\xaf\xbf\xed\xbf\xbf"},
	{"noncharacters", true, "\ufffe\uffff\ufdd0\ufdef\U0001fffe\U0001ffff\U0002fffe\U0008ffff\U0010fffe\U0010ffff"},
	{"specials", true, "\ufff9\ufffa\ufffb\ufffc\ufffd"},
	{"a byte order mark", true, "\ufeffa"},
	{"a bad byte behind a good beginning", false, "κόσμε\xf4\x90\x80\x80edited"},
}

func bytesFrom(first, last byte, between string) string {
	var b strings.Builder
	for c := int(first); c <= int(last); c++ {
		b.WriteByte(byte(c))
		b.WriteString(between)
	}
	return b.String()
}

// frags is a text with each byte in a fragment of its own, and with an empty last one.
func frags(s string) []byte {
	b := part(ws.OpText, "")
	for i := range len(s) {
		b = append(b, part(ws.OpContinuation, s[i:i+1])...)
	}
	return append(b, frame(ws.OpContinuation, "")...)
}

func TestTextsAreUTF8(t *testing.T) {
	eachEngine(t, func(t *testing.T, build newEngine) {
		s := startEcho(t, build, Options{})
		for _, tc := range texts {
			t.Run(tc.name, func(t *testing.T) {
				if utf8.ValidString(tc.text) != tc.good {
					t.Fatal("the table is wrong")
				}
				whole := text("before " + tc.text)
				if tc.good {
					c := dial(t, s)
					c.write(whole, frags(tc.text))
					c.write(slices.Collect(slices.Chunk(whole, 1))...)
					c.want("text:before "+tc.text, "text:"+tc.text, "text:before "+tc.text)
					c.leave()
					return
				}
				// As soon as no byte that follows can mend it, and the frame need not have an end.
				enough := len(whole)
				for n := range tc.text {
					if !canBecomeUTF8([]byte(tc.text[:n+1])) {
						enough += n + 1 - len(tc.text)
						break
					}
				}
				for _, send := range [][][]byte{{whole}, {frags(tc.text)}, {whole[:enough]}, slices.Collect(slices.Chunk(whole[:enough], 1))} {
					c := dial(t, s)
					c.stream(send...)
					c.want("close:1007", "end")
				}
				c := dial(t, s) // whatever may be in a binary
				c.write(frame(ws.OpBinary, tc.text))
				c.want("binary:" + tc.text)
				c.leave()
			})
		}
	})
}
