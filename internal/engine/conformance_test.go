package engine

import (
	"slices"
	"strings"
	"testing"

	"github.com/gobwas/ws"
)

// conformance holds an echo server to RFC 6455, in the order of the Autobahn suite's sections.
// After frames that are right the connection must still work: the test closes it properly.
var conformance = []struct {
	name string
	send []byte
	want []string
}{
	// 1: messages of all length forms
	{"an empty text", text(""), []string{"text:"}},
	{"a text of 125 bytes", text(stars(125)), []string{"text:" + stars(125)}},
	{"a text of 126 bytes", text(stars(126)), []string{"text:" + stars(126)}},
	{"a text of 65535 bytes", text(stars(65535)), []string{"text:" + stars(65535)}},
	{"a text of 65536 bytes", text(stars(65536)), []string{"text:" + stars(65536)}},
	{"an empty binary", frame(ws.OpBinary, ""), []string{"binary:"}},
	{"a binary that is not UTF-8", frame(ws.OpBinary, "\xff\x00"), []string{"binary:\xff\x00"}},
	{"a binary of 65536 bytes", frame(ws.OpBinary, stars(65536)), []string{"binary:" + stars(65536)}},

	// 2: pings and pongs
	{"an empty ping", frame(ws.OpPing, ""), []string{"pong:"}},
	{"a ping of 125 bytes", frame(ws.OpPing, stars(125)), []string{"pong:" + stars(125)}},
	{"a binary ping", frame(ws.OpPing, "\x00\xff\xfe"), []string{"pong:\x00\xff\xfe"}},
	{"a ping of 126 bytes", frame(ws.OpPing, stars(126)), []string{"close:1002", "end"}},
	{"a pong that nobody asked for", join(frame(ws.OpPong, "x"), frame(ws.OpPing, "p")), []string{"pong:p"}},
	{"two pings", join(frame(ws.OpPing, "1"), frame(ws.OpPing, "2")), []string{"pong:1", "pong:2"}},

	// 3: reserved bits
	{"RSV1", masked(0xc1, []byte("x")), []string{"close:1002", "end"}},
	{"RSV2", masked(0xa1, []byte("x")), []string{"close:1002", "end"}},
	{"RSV3", masked(0x91, []byte("x")), []string{"close:1002", "end"}},
	{"RSV1 on a ping", masked(0xc9, nil), []string{"close:1002", "end"}},
	{"RSV1 on a close", masked(0xc8, nil), []string{"close:1002", "end"}},
	{"a text, then reserved bits", join(text("a"), masked(0xf1, []byte("x"))), []string{"text:a", "close:1002", "end"}},

	// 4: reserved opcodes
	{"opcode 3", masked(0x83, nil), []string{"close:1002", "end"}},
	{"opcode 7", masked(0x87, []byte("x")), []string{"close:1002", "end"}},
	{"opcode 11", masked(0x8b, nil), []string{"close:1002", "end"}},
	{"opcode 15", masked(0x8f, []byte("x")), []string{"close:1002", "end"}},

	// 5: fragments
	{"a fragmented ping", join(part(ws.OpPing, "a"), frame(ws.OpContinuation, "b")), []string{"close:1002", "end"}},
	{"a fragmented pong", part(ws.OpPong, "a"), []string{"close:1002", "end"}},
	{"a fragmented close", part(ws.OpClose, ""), []string{"close:1002", "end"}},
	{"a text in two fragments", join(part(ws.OpText, "ab"), frame(ws.OpContinuation, "cd")), []string{"text:abcd"}},
	{"a text in three fragments, the middle one empty",
		join(part(ws.OpText, "ab"), part(ws.OpContinuation, ""), frame(ws.OpContinuation, "cd")), []string{"text:abcd"}},
	{"only empty fragments",
		join(part(ws.OpText, ""), part(ws.OpContinuation, ""), frame(ws.OpContinuation, "")), []string{"text:"}},
	{"a ping between fragments",
		join(part(ws.OpText, "ab"), frame(ws.OpPing, "p"), frame(ws.OpContinuation, "cd")), []string{"pong:p", "text:abcd"}},
	{"a close between fragments",
		join(part(ws.OpText, "ab"), closeFrame(1000, ""), frame(ws.OpContinuation, "cd")), []string{"close:1000", "end"}},
	{"a continuation of nothing", frame(ws.OpContinuation, "x"), []string{"close:1002", "end"}},
	{"a fragment of nothing", part(ws.OpContinuation, "x"), []string{"close:1002", "end"}},
	{"a continuation after the last fragment",
		join(part(ws.OpText, "a"), frame(ws.OpContinuation, "b"), frame(ws.OpContinuation, "c")),
		[]string{"text:ab", "close:1002", "end"}},
	{"a text inside a fragmented text", join(part(ws.OpText, "a"), text("b")), []string{"close:1002", "end"}},

	// 6: UTF-8
	{"a text in Greek", text("κόσμε"), []string{"text:κόσμε"}},
	{"a rune cut by fragments", join(part(ws.OpText, "\xce"), frame(ws.OpContinuation, "\xba")), []string{"text:κ"}},
	{"a rune of four bytes in four fragments",
		join(part(ws.OpText, "\xf0"), part(ws.OpContinuation, "\x9f"), part(ws.OpContinuation, "\x98"), frame(ws.OpContinuation, "\x80")),
		[]string{"text:😀"}},
	{"a lonely continuation byte", text("a\x80"), []string{"close:1007", "end"}},
	{"an overlong form", text("\xc0\xaf"), []string{"close:1007", "end"}},
	{"a surrogate", text("\xed\xa0\x80"), []string{"close:1007", "end"}},
	{"beyond the last rune", text("\xf4\x90\x80\x80"), []string{"close:1007", "end"}},
	{"a rune cut by the end", text("a\xce"), []string{"close:1007", "end"}},
	{"a rune cut by the last fragment", join(part(ws.OpText, "a"), frame(ws.OpContinuation, "\xce")), []string{"close:1007", "end"}},
	{"a bad byte in a message whose end never comes", part(ws.OpText, "a\xffb"), []string{"close:1007", "end"}},
	{"a bad byte in a frame whose end never comes", text("a\xffbcd")[:9], []string{"close:1007", "end"}},

	// 7: closing
	{"an empty close", masked(0x88, nil), []string{"close", "end"}},
	{"a close with a reason", closeFrame(1000, "bye"), []string{"close:1000", "end"}},
	{"a close with the longest reason", closeFrame(1000, stars(123)), []string{"close:1000", "end"}},
	{"a close of 126 bytes", closeFrame(1000, stars(124)), []string{"close:1002", "end"}},
	{"a close of one byte", masked(0x88, []byte{3}), []string{"close:1002", "end"}},
	{"a reason that is not UTF-8", closeFrame(1000, "a\xff"), []string{"close:1007", "end"}},
	{"a ping after the close", join(closeFrame(1000, ""), frame(ws.OpPing, "x")), []string{"close:1000", "end"}},
	{"a text after the close", join(closeFrame(1000, ""), text("x")), []string{"close:1000", "end"}},
	{"much after the close", join(closeFrame(1000, ""), frame(ws.OpBinary, stars(200_000))), []string{"close:1000", "end"}},

	// 9 and beyond: limits, masks and length forms
	{"a message of the longest length", text(stars(1 << 20)), []string{"text:" + stars(1<<20)}},
	{"a frame that is too long", text(stars(1<<20 + 1))[:14], []string{"close:1009", "end"}},
	{"fragments that are too long together",
		join(part(ws.OpText, stars(1<<19)), part(ws.OpContinuation, stars(1<<19)), frame(ws.OpContinuation, "x")),
		[]string{"close:1009", "end"}},
	{"a length of 64 GiB", []byte{0x82, 0xff, 0, 0, 0, 16, 0, 0, 0, 0, 1, 2, 3, 4}, []string{"close:1009", "end"}},
	{"a length with the top bit", []byte{0x82, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4}, []string{"close:1002", "end"}},
	{"125 in 16 bits", []byte{0x82, 0xfe, 0, 125, 1, 2, 3, 4}, []string{"close:1002", "end"}},
	{"65535 in 64 bits", []byte{0x82, 0xff, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 1, 2, 3, 4}, []string{"close:1002", "end"}},
	{"an unmasked frame", []byte{0x81, 1, 'x'}, []string{"close:1002", "end"}},
	{"too many fragments", slices.Concat(part(ws.OpText, ""), slices.Repeat(part(ws.OpContinuation, ""), 1024)), []string{"close:1009", "end"}},
	{"messages one after the other", slices.Repeat(text("a"), 100), slices.Repeat([]string{"text:a"}, 100)},
}

func stars(n int) string { return strings.Repeat("*", n) }

func TestConformance(t *testing.T) {
	eachEngine(t, func(t *testing.T, build newEngine) {
		s := startEcho(t, build, Options{MessageBytes: 1 << 20, QueueBytes: 4 << 20})
		for _, tc := range conformance {
			t.Run(tc.name, func(t *testing.T) {
				c := dial(t, s)
				c.stream(tc.send) // the server may answer before it has read all
				c.want(tc.want...)
				if tc.want[len(tc.want)-1] != "end" {
					c.leave()
				}
			})
		}
	})
}

// TestConformanceByteByByte sends the same with each byte in a packet of its own.
func TestConformanceByteByByte(t *testing.T) {
	eachEngine(t, func(t *testing.T, build newEngine) {
		s := startEcho(t, build, Options{MessageBytes: 1 << 20})
		for _, tc := range conformance {
			if len(tc.send) > 400 {
				continue // the parser's own tests cut these
			}
			t.Run(tc.name, func(t *testing.T) {
				c := dial(t, s)
				c.stream(slices.Collect(slices.Chunk(tc.send, 1))...)
				c.want(tc.want...)
			})
		}
	})
}

func TestEveryCloseCodeIsAnsweredByTheTable(t *testing.T) {
	good := func(c ws.StatusCode) bool {
		return c >= 1000 && c <= 1003 || c >= 1007 && c <= 1014 || c >= 3000 && c <= 4999
	}
	for c := range 65536 {
		if got, want := codeOnWire(ws.StatusCode(c)), good(ws.StatusCode(c)); got != want {
			t.Errorf("codeOnWire(%d) is %v, want %v", c, got, want)
		}
	}
	eachEngine(t, func(t *testing.T, build newEngine) {
		s := startEcho(t, build, Options{})
		for _, tc := range []struct {
			sent ws.StatusCode
			want string
			told ws.StatusCode
		}{
			{1000, "close:1000", 1000}, {1003, "close:1003", 1003}, {1012, "close:1012", 1012}, {1014, "close:1014", 1014},
			{3000, "close:3000", 3000}, {4999, "close:4999", 4999},
			{0, "close:1002", 1002}, {999, "close:1002", 1002}, {1004, "close:1002", 1002}, {1005, "close:1002", 1002},
			{1006, "close:1002", 1002}, {1015, "close:1002", 1002}, {2999, "close:1002", 1002}, {5000, "close:1002", 1002},
		} {
			c := dial(t, s)
			c.write(closeFrame(tc.sent, ""))
			c.want(tc.want, "end")
			_ = c.nc.Close()
			if e := get(t, s.ended, "Closed"); e.code != tc.told {
				t.Errorf("sent %d: Closed said %d, want %d", tc.sent, e.code, tc.told)
			}
		}
	})
}
