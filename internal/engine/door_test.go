package engine

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// plain answers with what the request was.
var plain = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	fmt.Fprintf(w, "%s %s %s", r.Method, r.URL.Path, body)
})

func (c *client) wantBody(want string) {
	c.t.Helper()
	body, _ := io.ReadAll(c.response().Body)
	if string(body) != want {
		c.t.Fatalf("the client read %.200q, want %q", body, want)
	}
}

func TestPlainRequestsArriveWholeHoweverTheyAreCut(t *testing.T) {
	body := stars(100_000) // more than any one read
	request := fmt.Sprintf("POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
	eachEngine(t, func(t *testing.T, build newEngine) {
		s := startEcho(t, build, Options{HTTP: plain})
		for _, cut := range []int{0, 1, 10, strings.Index(request, "\r\n\r\n") + 3, len(request) - len(body), len(request) - 1} {
			c := connect(t, s.addr)
			if cut > 0 {
				c.write([]byte(request[:cut]))
				time.Sleep(5 * time.Millisecond) // so that it is read by itself, or else the test is merely easier
			}
			c.write([]byte(request[cut:]+"GET /b HTTP/1.1\r\nHost: a\r\n\r\n"+upgradeRequest()), text("x"))
			c.wantBody("POST /a " + body)
			c.wantBody("GET /b ")
			if got := c.response().StatusCode; got != 101 {
				t.Fatalf("the upgrade behind them: got %d", got)
			}
			c.want("text:x")
			c.leave()
		}
	})
}

func TestAHandshakeMayArriveByteByByte(t *testing.T) {
	eachEngine(t, func(t *testing.T, build newEngine) {
		s := startEcho(t, build, Options{HTTP: plain})
		c := connect(t, s.addr)
		for _, b := range []byte(upgradeRequest()) {
			c.write([]byte{b})
		}
		c.write(text("x"))
		if got := c.response().StatusCode; got != 101 {
			t.Fatalf("got %d", got)
		}
		c.want("text:x")
		c.leave()
	})
}

func TestRefusedClientsMayAskAgain(t *testing.T) {
	eachEngine(t, func(t *testing.T, build newEngine) {
		s := start(t, build, &hooks{handshake: func(_ ConnRef, r *Request) Decision {
			if strings.Contains(r.Target, "no") {
				return Decision{Status: 403, Reason: "no"}
			}
			return Decision{}
		}}, Options{HTTP: plain})
		no := strings.Replace(upgradeRequest(), "/v1/ws", "/no", 1)
		bad := strings.Replace(upgradeRequest(), testKey, "a", 1)
		c := connect(t, s.addr)
		c.write([]byte(no + bad + no)) // in one piece
		for _, want := range []int{403, 400, 403} {
			if got := c.response().StatusCode; got != want {
				t.Errorf("got %d, want %d", got, want)
			}
		}
		c.write([]byte(no[:50]))
		c.write([]byte(no[50:] + upgradeRequest()))
		for _, want := range []int{403, 101} {
			if got := c.response().StatusCode; got != want {
				t.Errorf("got %d, want %d", got, want)
			}
		}
		c.leave()
		if got := s.Stats(); got.Refused != 4 || got.Opened != 1 || got.Plain != 0 {
			t.Errorf("got %+v, want 4 refused, 1 opened and nobody plain", got)
		}
	})
}

func TestAHeaderThatDoesNotEndIsCutOff(t *testing.T) {
	eachEngine(t, func(t *testing.T, build newEngine) {
		s := startEcho(t, build, Options{HandshakeTime: 50 * time.Millisecond, sweep: tick})
		for _, begin := range []string{"GET", upgradeRequest()[:60], "GET / HTTP/1.1\r\nHost: a\r\n", "no HTTP"} {
			c := connect(t, s.addr)
			c.write([]byte(begin))
			b, err := io.ReadAll(c.nc)
			if err != nil || len(b) > 0 && !strings.HasPrefix(string(b), "HTTP/1.1 400") { // as net/http says of half a line
				t.Errorf("%q was answered with %q, %v; want the end", begin, b, err)
			}
		}
		settle(t, "plain sockets", 0, func() int { return int(s.Stats().Plain) })
	})
}

// A second handshake on a connection has the full time, and so has one that comes after a pause.
func TestAClientThatIsRefusedMayWaitBeforeItAsksAgain(t *testing.T) {
	eachEngine(t, func(t *testing.T, build newEngine) {
		s := startEcho(t, build, Options{HandshakeTime: 200 * time.Millisecond, sweep: tick})
		c := connect(t, s.addr)
		c.write([]byte(strings.Replace(upgradeRequest(), testKey, "a", 1)))
		if got := c.response().StatusCode; got != 400 {
			t.Errorf("got %d, want 400", got)
		}
		time.Sleep(400 * time.Millisecond)
		c.upgrade()
		c.leave()
	})
}

func TestADecisionThatNeverComesRefuses(t *testing.T) {
	eachEngine(t, func(t *testing.T, build newEngine) {
		s := start(t, build, &hooks{handshake: func(ConnRef, *Request) Decision { return Decision{Later: true} }},
			Options{HandshakeTime: 50 * time.Millisecond, sweep: tick, MaxConns: 1})
		c := connect(t, s.addr)
		for range 3 { // its place is free again each time
			c.write([]byte(upgradeRequest()))
			res := c.response()
			if body, _ := io.ReadAll(res.Body); res.StatusCode != 503 || !strings.Contains(string(body), "in time") {
				t.Errorf("got %d %s, want 503 that says so", res.StatusCode, body)
			}
		}
	})
}

func TestAClientThatGivesUpBeforeTheDecisionLeavesItsPlace(t *testing.T) {
	eachEngine(t, func(t *testing.T, build newEngine) {
		asked := make(chan ConnRef, 1)
		s := start(t, build, &hooks{handshake: func(c ConnRef, _ *Request) Decision {
			asked <- c
			return Decision{Later: true}
		}}, Options{HandshakeTime: patience})
		c := connect(t, s.addr)
		c.write([]byte(upgradeRequest()))
		ref := get(t, asked, "Handshake")
		_ = c.nc.Close()
		settle(t, "plain sockets", 0, func() int { return int(s.Stats().Plain) })
		s.Decide(ref, Decision{}) // nobody is there
		if s.face.(*Engine).table.get(ref) != nil {
			t.Error("the reference lives on")
		}
	})
}

func TestADecisionMayComeBeforeHandshakeReturns(t *testing.T) {
	eachEngine(t, func(t *testing.T, build newEngine) {
		var s *server
		s = start(t, build, &hooks{handshake: func(c ConnRef, _ *Request) Decision {
			s.Decide(c, Decision{Proto: "b"})
			return Decision{Later: true}
		}}, Options{})
		c := dial(t, s, "Sec-WebSocket-Protocol: a, b")
		c.leave()
	})
}

func TestTheEndRefusesWhoWaitsForADecision(t *testing.T) {
	eachEngine(t, func(t *testing.T, build newEngine) {
		asked := make(chan ConnRef, 1)
		s := start(t, build, &hooks{handshake: func(c ConnRef, _ *Request) Decision {
			asked <- c
			return Decision{Later: true}
		}}, Options{HandshakeTime: patience})
		c := connect(t, s.addr)
		c.write([]byte(upgradeRequest()))
		get(t, asked, "Handshake")
		s.stop()
		if got := c.response().StatusCode; got != 503 {
			t.Errorf("got %d, want 503", got)
		}
	})
}

func TestServeEndsWhenItsListenerIsClosed(t *testing.T) {
	eachEngine(t, func(t *testing.T, build newEngine) {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		ended := make(chan error, 1)
		go func() { ended <- build(&hooks{}, Options{sweep: tick}).Serve(t.Context(), ln) }()
		_ = ln.Close()
		if err := get(t, ended, "end of Serve"); err == nil || !strings.Contains(err.Error(), "accept") {
			t.Errorf("got %v, want an error of accept", err)
		}
	})
}

// listenUnix is a listener of a path that dialUnix knows.
func listenUnix(t *testing.T) net.Listener {
	t.Helper()
	ln, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	return ln
}

func dialUnix(t *testing.T, s *server) *client {
	t.Helper()
	nc, err := net.Dial("unix", s.addr)
	if err != nil {
		t.Fatal(err)
	}
	if err := nc.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	return newClient(t, nc)
}

func TestUnixSocketsAreServed(t *testing.T) {
	eachEngine(t, func(t *testing.T, build newEngine) {
		var s *server
		h := echo(&s)
		h.open = func(_ ConnRef, r *Request) {
			if r.Remote.IsValid() {
				t.Errorf("the peer of a unix socket has the address %v", r.Remote)
			}
		}
		s = startOn(t, listenUnix(t), build, h, Options{HTTP: plain})
		c := dialUnix(t, s)
		c.upgrade()
		c.write(text("x"))
		c.want("text:x")
		c.leave()
		c = dialUnix(t, s)
		c.write([]byte("GET /a HTTP/1.1\r\nHost: a\r\n\r\n"))
		c.wantBody("GET /a ")
	})
}

func TestTheClientsAddressIsWhatTheProxySays(t *testing.T) {
	eachEngine(t, func(t *testing.T, build newEngine) {
		seen := make(chan netip.AddrPort, 1)
		s := startOn(t, listenUnix(t), build, &hooks{
			handshake: func(_ ConnRef, r *Request) Decision { seen <- r.Remote; return Decision{} },
		}, Options{ProxyProtocol: true, HTTP: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprint(w, r.RemoteAddr)
		})})
		for _, tc := range []struct {
			name, header string
			want         netip.AddrPort
		}{
			{"IPv4", proxyHeader(0x21, 0x11, "\xcb\x00\x71\x07\x7f\x00\x00\x01\x30\x39\x00\x50"), netip.MustParseAddrPort("203.0.113.7:12345")},
			{"IPv6 and TLVs", proxyHeader(0x21, 0x21, "\x20\x01\x0d\xb8"+strings.Repeat("\x00", 11)+"\x01"+strings.Repeat("\x00", 16)+"\x00\x09\x00\x50\x04\x00\x03abc"), netip.MustParseAddrPort("[2001:db8::1]:9")},
			{"itself", proxyHeader(0x20, 0x00, ""), netip.AddrPort{}},
		} {
			for cut := range len(tc.header) + 20 {
				c := dialUnix(t, s)
				all := tc.header + upgradeRequest()
				c.write([]byte(all[:cut]))
				c.write([]byte(all[cut:]))
				if got := c.response().StatusCode; got != 101 {
					t.Fatalf("%s, cut at %d: got %d", tc.name, cut, got)
				}
				if got := get(t, seen, "Handshake"); got != tc.want {
					t.Errorf("%s, cut at %d: Remote is %v, want %v", tc.name, cut, got, tc.want)
				}
				c.leave()
			}
			if tc.want.IsValid() {
				c := dialUnix(t, s)
				c.write([]byte(tc.header + "GET / HTTP/1.1\r\nHost: a\r\n\r\n"))
				c.wantBody(tc.want.String())
			}
		}
	})
}

func TestAPeerWithoutAProxyHeaderIsClosedWithoutAWord(t *testing.T) {
	eachEngine(t, func(t *testing.T, build newEngine) {
		s := startOn(t, listenUnix(t), build, &hooks{}, Options{ProxyProtocol: true, HandshakeTime: 100 * time.Millisecond, sweep: tick})
		for name, in := range map[string]string{
			"a handshake": upgradeRequest(), "version 1": "PROXY TCP4 203.0.113.7 127.0.0.1 12345 80\r\n" + upgradeRequest(),
			"too long": proxyHeader(0x21, 0x11, stars(maxProxy-proxyHead+1)) + upgradeRequest(), "half a header": string(proxySignature),
		} {
			c := dialUnix(t, s)
			c.stream([]byte(in))
			if b, err := io.ReadAll(c.nc); len(b) > 0 || err != nil && !strings.Contains(err.Error(), "reset") {
				t.Errorf("%s was answered with %q, %v", name, b, err)
			}
		}
		if got := s.Stats(); got.Opened != 0 || got.Refused < 3 {
			t.Errorf("got %+v, want three refused and nobody opened", got)
		}
	})
}

// proxyHeader is a header of the PROXY protocol.
func proxyHeader(command, family byte, addresses string) string {
	return string(proxySignature) + string([]byte{command, family, byte(len(addresses) >> 8), byte(len(addresses))}) + addresses
}
