package engine

import (
	"strings"
	"testing"
)

func TestProxyHeaderIsReadOrRefused(t *testing.T) {
	v4 := "\xcb\x00\x71\x07\x7f\x00\x00\x01\x30\x39\x00\x50"
	zeros := func(n int) string { return strings.Repeat("\x00", n) }
	for name, tc := range map[string]struct {
		in   string
		n    int
		from string
		bad  bool
	}{
		"nothing":           {"", 0, "invalid AddrPort", false},
		"a part":            {proxyHeader(0x21, 0x11, v4)[:20], 0, "invalid AddrPort", false},
		"IPv4":              {proxyHeader(0x21, 0x11, v4) + "GET", 28, "203.0.113.7:12345", false},
		"IPv4 in IPv6":      {proxyHeader(0x21, 0x21, zeros(10)+"\xff\xff\xcb\x00\x71\x07"+zeros(16)+"\x00\x01\x00\x02"), 52, "203.0.113.7:1", false},
		"as long as may be": {proxyHeader(0x21, 0x11, v4+zeros(maxProxy-28)), maxProxy, "203.0.113.7:12345", false},
		"a byte longer":     {proxyHeader(0x21, 0x11, v4+zeros(maxProxy-27)), 0, "", true},
		"LOCAL":             {proxyHeader(0x20, 0x11, v4), 28, "invalid AddrPort", false},
		"LOCAL, odd family": {proxyHeader(0x20, 0x77, ""), 16, "invalid AddrPort", false},
		"not told":          {proxyHeader(0x21, 0x00, ""), 16, "invalid AddrPort", false},
		"a unix socket":     {proxyHeader(0x21, 0x31, zeros(216)), 232, "invalid AddrPort", false},
		"UDP":               {proxyHeader(0x21, 0x12, v4), 0, "", true},
		"too short":         {proxyHeader(0x21, 0x11, v4[:11]), 0, "", true},
		"version 1":         {"PROXY TCP4", 0, "", true},
		"version 3":         {proxyHeader(0x31, 0x11, v4), 0, "", true},
		"an odd command":    {proxyHeader(0x22, 0x11, v4), 0, "", true},
		"an odd beginning":  {"\r\n\r\n\x00\r\nQUIT\r", 0, "", true},
	} {
		from, n, err := readProxy([]byte(tc.in))
		if n != tc.n || (err != nil) != tc.bad || err == nil && from.String() != tc.from {
			t.Errorf("%s: got %v, %d bytes, %v; want %s, %d bytes, an error: %v", name, from, n, err, tc.from, tc.n, tc.bad)
		}
	}
}

// FuzzProxy: the verdict does not depend on how the bytes are cut, and no header is longer than the bound.
func FuzzProxy(f *testing.F) {
	f.Add([]byte(proxyHeader(0x21, 0x11, "\xcb\x00\x71\x07\x7f\x00\x00\x01\x30\x39\x00\x50") + "GET"))
	f.Add([]byte(proxyHeader(0x20, 0x00, "")))
	f.Add([]byte("PROXY TCP4 "))
	f.Fuzz(func(t *testing.T, b []byte) {
		from, n, err := readProxy(b)
		if n > maxProxy || n > len(b) || err != nil && n != 0 || from.IsValid() && n < proxyHead+12 {
			t.Fatalf("got %v, %d bytes of %d, %v", from, n, len(b), err)
		}
		for cut := range b {
			f, m, e := readProxy(b[:cut])
			switch {
			case e != nil && err == nil, m != 0 && (m != n || f != from):
				t.Fatalf("with %d bytes: %v, %d, %v; with all: %v, %d, %v", cut, f, m, e, from, n, err)
			case n != 0 && cut < n && m != 0:
				t.Fatalf("a header of %d bytes is whole after %d", n, cut)
			}
		}
	})
}
