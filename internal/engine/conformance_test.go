package engine

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/gobwas/ws"
)

// conformance holds an echo server to RFC 6455, in the order of the Autobahn suite's groups; group 6, UTF-8, has more in
// a table of its own.
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
	{"a text of 127 bytes", text(stars(127)), []string{"text:" + stars(127)}},
	{"a text of 128 bytes", text(stars(128)), []string{"text:" + stars(128)}},
	{"a text of 65535 bytes", text(stars(65535)), []string{"text:" + stars(65535)}},
	{"a text of 65536 bytes", text(stars(65536)), []string{"text:" + stars(65536)}},
	{"an empty binary", frame(ws.OpBinary, ""), []string{"binary:"}},
	{"a binary that is not UTF-8", frame(ws.OpBinary, "\xff\x00"), []string{"binary:\xff\x00"}},
	{"a binary of 125 bytes", frame(ws.OpBinary, "\xfe"+stars(124)), []string{"binary:\xfe" + stars(124)}},
	{"a binary of 126 bytes", frame(ws.OpBinary, "\xfe"+stars(125)), []string{"binary:\xfe" + stars(125)}},
	{"a binary of 127 bytes", frame(ws.OpBinary, "\xfe"+stars(126)), []string{"binary:\xfe" + stars(126)}},
	{"a binary of 128 bytes", frame(ws.OpBinary, "\xfe"+stars(127)), []string{"binary:\xfe" + stars(127)}},
	{"a binary of 65535 bytes", frame(ws.OpBinary, "\xfe"+stars(65534)), []string{"binary:\xfe" + stars(65534)}},
	{"a binary of 65536 bytes", frame(ws.OpBinary, stars(65536)), []string{"binary:" + stars(65536)}},

	// 2: pings and pongs
	{"an empty ping", frame(ws.OpPing, ""), []string{"pong:"}},
	{"a ping of 125 bytes", frame(ws.OpPing, stars(125)), []string{"pong:" + stars(125)}},
	{"a binary ping", frame(ws.OpPing, "\x00\xff\xfe"), []string{"pong:\x00\xff\xfe"}},
	{"a ping of 126 bytes", frame(ws.OpPing, stars(126)), []string{"close:1002", "end"}},
	{"an empty pong that nobody asked for", frame(ws.OpPong, ""), nil},
	{"a pong that nobody asked for", frame(ws.OpPong, "x"), nil},
	{"a pong of 126 bytes", frame(ws.OpPong, stars(126)), []string{"close:1002", "end"}},
	{"a pong that nobody asked for, and a ping", join(frame(ws.OpPong, "x"), frame(ws.OpPing, "p")), []string{"pong:p"}},
	{"ten pings", slices.Concat(tenPings()...), []string{"pong:0", "pong:1", "pong:2", "pong:3", "pong:4", "pong:5", "pong:6", "pong:7", "pong:8", "pong:9"}},

	// 3: reserved bits
	{"RSV1", masked(0xc1, []byte("x")), []string{"close:1002", "end"}},
	{"RSV2", masked(0xa1, []byte("x")), []string{"close:1002", "end"}},
	{"RSV3", masked(0x91, []byte("x")), []string{"close:1002", "end"}},
	{"RSV2 and 3", masked(0xb1, []byte("x")), []string{"close:1002", "end"}},
	{"RSV1 and 3 on a binary", masked(0xd2, []byte("x")), []string{"close:1002", "end"}},
	{"RSV1 and 2 on a ping", masked(0xe9, nil), []string{"close:1002", "end"}},
	{"all three on a close", masked(0xf8, []byte{3, 232}), []string{"close:1002", "end"}},
	{"RSV1 on an empty text", masked(0xc1, nil), []string{"close:1002", "end"}},
	{"RSV1 on a continuation", join(part(ws.OpText, "a"), masked(0xc0, []byte("x"))), []string{"close:1002", "end"}},
	{"RSV1 on a fragment", masked(0x41, []byte("x")), []string{"close:1002", "end"}},
	{"a text, then RSV2, then a ping", join(text("a"), masked(0xa1, []byte("x")), frame(ws.OpPing, "")), []string{"text:a", "close:1002", "end"}},
	{"RSV1 on a ping", masked(0xc9, nil), []string{"close:1002", "end"}},
	{"RSV1 on a close", masked(0xc8, nil), []string{"close:1002", "end"}},
	{"a text, then reserved bits", join(text("a"), masked(0xf1, []byte("x"))), []string{"text:a", "close:1002", "end"}},

	// 4: reserved opcodes
	{"opcode 3", masked(0x83, nil), []string{"close:1002", "end"}},
	{"opcode 4", masked(0x84, []byte("x")), []string{"close:1002", "end"}},
	{"a text, then opcode 5, then a ping", join(text("a"), masked(0x85, nil), frame(ws.OpPing, "")), []string{"text:a", "close:1002", "end"}},
	{"a text, then opcode 6", join(text("a"), masked(0x86, []byte("x"))), []string{"text:a", "close:1002", "end"}},
	{"opcode 7", masked(0x87, []byte("x")), []string{"close:1002", "end"}},
	{"opcode 3, not final", masked(0x03, nil), []string{"close:1002", "end"}},
	{"opcode 11", masked(0x8b, nil), []string{"close:1002", "end"}},
	{"opcode 12", masked(0x8c, []byte("x")), []string{"close:1002", "end"}},
	{"a text, then opcode 13", join(text("a"), masked(0x8d, nil)), []string{"text:a", "close:1002", "end"}},
	{"opcode 14 between fragments", join(part(ws.OpText, "a"), masked(0x8e, []byte("x"))), []string{"close:1002", "end"}},
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
	{"pings between five fragments",
		join(part(ws.OpText, "1"), part(ws.OpContinuation, "2"), frame(ws.OpPing, "p"), part(ws.OpContinuation, "3"),
			part(ws.OpContinuation, "4"), frame(ws.OpPing, "q"), frame(ws.OpContinuation, "5")), []string{"pong:p", "pong:q", "text:12345"}},
	{"a pong between fragments",
		join(part(ws.OpText, "ab"), frame(ws.OpPong, "p"), frame(ws.OpContinuation, "cd")), []string{"text:abcd"}},
	{"a binary in two fragments", join(part(ws.OpBinary, "\xff"), frame(ws.OpContinuation, "\xfe")), []string{"binary:\xff\xfe"}},
	{"a close between fragments",
		join(part(ws.OpText, "ab"), closeFrame(1000, ""), frame(ws.OpContinuation, "cd")), []string{"close:1000", "end"}},
	{"a continuation of nothing", frame(ws.OpContinuation, "x"), []string{"close:1002", "end"}},
	{"a fragment of nothing", part(ws.OpContinuation, "x"), []string{"close:1002", "end"}},
	{"a continuation of nothing, and a text", join(frame(ws.OpContinuation, "x"), text("y")), []string{"close:1002", "end"}},
	{"a fragment of nothing, and its end", join(part(ws.OpContinuation, "x"), frame(ws.OpContinuation, "y")), []string{"close:1002", "end"}},
	{"a binary inside a fragmented text", join(part(ws.OpText, "a"), part(ws.OpBinary, "b")), []string{"close:1002", "end"}},
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
	{"a close without a reason", closeFrame(1000, ""), []string{"close:1000", "end"}},
	{"a second close", join(closeFrame(1000, ""), closeFrame(1001, "")), []string{"close:1000", "end"}},
	{"a close after a text", join(text("a"), closeFrame(1000, "")), []string{"text:a", "close:1000", "end"}},
	{"a violation after the close", join(closeFrame(1000, ""), masked(0xf1, nil)), []string{"close:1000", "end"}},
	{"a reason in Greek", closeFrame(1000, "κόσμε"), []string{"close:1000", "end"}},
	{"a reason that ends in a rune", closeFrame(1000, "a\xce"), []string{"close:1007", "end"}},
	{"a close with a reason", closeFrame(1000, "bye"), []string{"close:1000", "end"}},
	{"a close with the longest reason", closeFrame(1000, stars(123)), []string{"close:1000", "end"}},
	{"a close of 126 bytes", closeFrame(1000, stars(124)), []string{"close:1002", "end"}},
	{"a close of one byte", masked(0x88, []byte{3}), []string{"close:1002", "end"}},
	{"a reason that is not UTF-8", closeFrame(1000, "a\xff"), []string{"close:1007", "end"}},
	{"a ping after the close", join(closeFrame(1000, ""), frame(ws.OpPing, "x")), []string{"close:1000", "end"}},
	{"a text after the close", join(closeFrame(1000, ""), text("x")), []string{"close:1000", "end"}},
	{"much after the close", join(closeFrame(1000, ""), frame(ws.OpBinary, stars(200_000))), []string{"close:1000", "end"}},

	// 9 and beyond: limits, masks and length forms
	{"a text in the most fragments", slices.Concat(part(ws.OpText, stars(1024)), slices.Repeat(part(ws.OpContinuation, stars(1024)), 1022),
		frame(ws.OpContinuation, stars(1024))), []string{"text:" + stars(1<<20)}},
	{"a binary in 256 fragments", slices.Concat(part(ws.OpBinary, stars(4096)), slices.Repeat(part(ws.OpContinuation, stars(4096)), 254),
		frame(ws.OpContinuation, stars(4096))), []string{"binary:" + stars(1<<20)}},
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
	{"messages of 4 KiB one after the other", slices.Repeat(text(stars(4096)), 100), slices.Repeat([]string{"text:" + stars(4096)}, 100)},

	// 10: fragments that an intermediary might make
	{"65536 bytes in fragments of 1300", slices.Concat(part(ws.OpText, stars(1300)), slices.Repeat(part(ws.OpContinuation, stars(1300)), 49),
		frame(ws.OpContinuation, stars(536))), []string{"text:" + stars(65536)}},
}

func tenPings() (pings [][]byte) {
	for i := range 10 {
		pings = append(pings, frame(ws.OpPing, fmt.Sprint(i)))
	}
	return pings
}

func stars(n int) string { return strings.Repeat("*", n) }

func TestConformance(t *testing.T) {
	eachEngine(t, func(t *testing.T, build newEngine) {
		s := startEcho(t, build, Options{MessageBytes: 1 << 20, QueueBytes: 4 << 20})
		for _, tc := range conformance {
			t.Run(tc.name, func(t *testing.T) {
				c := dial(t, s)
				if tc.want == nil {
					c.write(tc.send)
				} else {
					c.stream(tc.send) // the server may answer before it has read all
				}
				c.want(tc.want...)
				if !slices.Contains(tc.want, "end") {
					c.leave()
				}
			})
		}
	})
}

// TestConformanceInPieces sends the same with each byte in a packet of its own; what is long, in packets of 997 bytes.
func TestConformanceInPieces(t *testing.T) {
	eachEngine(t, func(t *testing.T, build newEngine) {
		s := startEcho(t, build, Options{MessageBytes: 1 << 20, QueueBytes: 4 << 20})
		for _, tc := range conformance {
			t.Run(tc.name, func(t *testing.T) {
				size := 1
				if len(tc.send) > 400 {
					size = 997
				}
				c, pieces := dial(t, s), slices.Collect(slices.Chunk(tc.send, size))
				if tc.want == nil {
					c.write(pieces...)
				} else {
					c.stream(pieces...)
				}
				c.want(tc.want...)
				if !slices.Contains(tc.want, "end") {
					c.leave()
				}
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
			{1000, "close:1000", 1000}, {1001, "close:1001", 1001}, {1002, "close:1002", 1002}, {1003, "close:1003", 1003},
			{1007, "close:1007", 1007}, {1008, "close:1008", 1008}, {1009, "close:1009", 1009}, {1010, "close:1010", 1010},
			{1011, "close:1011", 1011}, {1012, "close:1012", 1012}, {1013, "close:1013", 1013}, {1014, "close:1014", 1014},
			{3000, "close:3000", 3000}, {3999, "close:3999", 3999}, {4000, "close:4000", 4000}, {4999, "close:4999", 4999},
			{0, "close:1002", 1002}, {999, "close:1002", 1002}, {1004, "close:1002", 1002}, {1005, "close:1002", 1002},
			{1006, "close:1002", 1002}, {1015, "close:1002", 1002}, {1016, "close:1002", 1002}, {1100, "close:1002", 1002},
			{2000, "close:1002", 1002}, {2999, "close:1002", 1002}, {5000, "close:1002", 1002}, {65535, "close:1002", 1002},
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
