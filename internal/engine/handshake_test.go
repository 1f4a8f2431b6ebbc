package engine

import (
	"bufio"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestHandshakeIsRefusedWithAReason(t *testing.T) {
	good := upgradeRequest()
	without := func(line string) string { return strings.Replace(good, line+"\r\n", "", 1) }
	instead := func(old, new string) string { return strings.Replace(good, old, new, 1) }
	withKey := func(key string) string { return instead(testKey, key) }
	cases := []struct {
		name, request string
		status        int
		reason        string // part of the body
	}{
		{"POST", instead("GET", "POST"), 405, "GET"},
		{"HTTP/1.0", instead("HTTP/1.1", "HTTP/1.0"), 400, "HTTP/1.1"},
		{"no Host", without("Host: example.test"), 400, "Host"},
		{"no Connection", without("Connection: keep-alive, Upgrade"), 400, "Connection"},
		{"Connection without Upgrade", instead("keep-alive, Upgrade", "keep-alive"), 400, "Connection"},
		{"no version", without("Sec-WebSocket-Version: 13"), 426, "13"},
		{"version 8", instead("Version: 13", "Version: 8"), 426, "13"},
		{"two versions", upgradeRequest("Sec-WebSocket-Version: 13"), 426, "13"},
		{"no key", without("Sec-WebSocket-Key: " + testKey), 400, "exactly one"},
		{"two keys", upgradeRequest("Sec-WebSocket-Key: " + testKey), 400, "exactly one"},
		{"an empty key", withKey(""), 400, "16 bytes"},
		{"a key that is not base64", withKey("dGhlIHNhbXBsZSBub25jZ!=="), 400, "16 bytes"},
		{"a key in another spelling", withKey("dGhlIHNhbXBsZSBub25jZR=="), 400, "16 bytes"},
		{"a key without padding", withKey(strings.TrimRight(testKey, "=")), 400, "16 bytes"},
		{"a key of 15 bytes", withKey(base64.StdEncoding.EncodeToString(make([]byte, 15))), 400, "16 bytes"},
		{"a key of 17 bytes", withKey(base64.StdEncoding.EncodeToString(make([]byte, 17))), 400, "16 bytes"},
		{"a body", upgradeRequest("Content-Length: 3") + "abc", 400, "body"},
		{"a chunked body", upgradeRequest("Transfer-Encoding: chunked") + "0\r\n\r\n", 400, "body"},
		{"a length and chunks", upgradeRequest("Content-Length: 3", "Transfer-Encoding: chunked") + "0\r\n\r\n", 400, "body"},
		{"a protocol twice", upgradeRequest("Sec-WebSocket-Protocol: a, a"), 400, "Protocol"},
		{"a protocol that is no token", upgradeRequest("Sec-WebSocket-Protocol: a b"), 400, "Protocol"},
		{"an empty protocol", upgradeRequest("Sec-WebSocket-Protocol: a,,b"), 400, "Protocol"},
		{"a name with a space", upgradeRequest("X-Name : v"), 400, ""},
		{"a NUL in a value", upgradeRequest("X-Name: a\x00b"), 400, ""},
		{"a target that is too long", instead("?x=1", "?x="+stars(2048)), 414, "target"},
		{"too many header fields", upgradeRequest(slices.Repeat([]string{"X: y"}, 60)...), 431, "header fields"},
		{"a header that is too long", upgradeRequest("X: " + stars(8192)), 431, ""},
	}
	eachEngine(t, func(t *testing.T, build newEngine) {
		s := startEcho(t, build, Options{})
		for _, tc := range cases {
			t.Run(tc.name, func(t *testing.T) {
				c := connect(t, s.addr)
				c.stream([]byte(tc.request))
				res := c.response()
				body, _ := io.ReadAll(res.Body)
				if res.StatusCode != tc.status || !strings.Contains(string(body), tc.reason) {
					t.Fatalf("got %d %s, want %d with %q", res.StatusCode, body, tc.status, tc.reason)
				}
				if tc.status == 426 && res.Header.Get("Sec-WebSocket-Version") != "13" {
					t.Error("a 426 without Sec-WebSocket-Version: 13")
				}
			})
		}
		if n := s.Conns(); n != 0 {
			t.Errorf("%d connections are open, want 0", n)
		}
	})
}

func TestHandshakeIsAccepted(t *testing.T) {
	eachEngine(t, func(t *testing.T, build newEngine) {
		requests := make(chan *Request, 1)
		s := start(t, build, &hooks{
			handshake: func(_ ConnRef, r *Request) Decision {
				return Decision{Proto: "b", Header: http.Header{
					"Set-Cookie": {"w=1\r\nX-Evil: 1"}, "Upgrade": {"h2c"}, "Sec-Websocket-Accept": {"no"},
				}}
			},
			open: func(_ ConnRef, r *Request) { requests <- r },
		}, Options{})
		c := connect(t, s.addr)
		h := c.upgrade("Sec-WebSocket-Protocol: a", "Sec-WebSocket-Protocol: b, c", "Origin: http://o.test")
		for name, want := range map[string]string{
			"Sec-WebSocket-Accept":   "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=", // of RFC 6455
			"Sec-WebSocket-Protocol": "b", "Upgrade": "websocket", "Connection": "Upgrade",
			"Set-Cookie": "w=1  X-Evil: 1", "X-Evil": "",
		} {
			if got := h.Get(name); got != want || len(h.Values(name)) > 1 {
				t.Errorf("%s: got %q, want %q once", name, h.Values(name), want)
			}
		}
		r := get(t, requests, "Open")
		if r.Target != "/v1/ws?x=1" || r.Host != "example.test" || r.Header.Get("Origin") != "http://o.test" {
			t.Errorf("got %+v", r)
		}
		if want := []string{"a", "b", "c"}; !slices.Equal(r.Protos, want) {
			t.Errorf("Protos: got %q, want %q", r.Protos, want)
		}
		if got, want := r.Remote.String(), c.nc.LocalAddr().String(); got != want {
			t.Errorf("Remote: got %s, want %s", got, want)
		}
	})
}

// TestHeaderLimitsAreExact sends requests of exactly the limits, and one more.
func TestHeaderLimitsAreExact(t *testing.T) {
	eachEngine(t, func(t *testing.T, build newEngine) {
		s := startEcho(t, build, Options{HeaderBytes: 6000, HeaderFields: 10, TargetBytes: 100})
		fill := 6000 - len(upgradeRequest("X: "))
		for _, tc := range []struct {
			name, request string
			status        int
		}{
			{"bytes", upgradeRequest("X: " + stars(fill)), 101},
			{"a byte more", upgradeRequest("X: " + stars(fill+1)), 431},
			{"fields", upgradeRequest(slices.Repeat([]string{"X: y"}, 5)...), 101},
			{"a field more", upgradeRequest(slices.Repeat([]string{"X: y"}, 6)...), 431},
			{"target", strings.Replace(upgradeRequest(), "/v1/ws?x=1", "/"+stars(99), 1), 101},
			{"a longer target", strings.Replace(upgradeRequest(), "/v1/ws?x=1", "/"+stars(100), 1), 414},
		} {
			c := connect(t, s.addr)
			c.stream([]byte(tc.request))
			if got := c.response().StatusCode; got != tc.status {
				t.Errorf("%s: got %d, want %d", tc.name, got, tc.status)
			}
			_ = c.nc.Close()
		}
	})
}

func TestFramesBehindTheHeaderAreNotLost(t *testing.T) {
	eachEngine(t, func(t *testing.T, build newEngine) {
		s := startEcho(t, build, Options{})
		c := connect(t, s.addr)
		c.write(join([]byte(upgradeRequest()), text("one"), text("two"), text("three")[:3]))
		if got := c.response().StatusCode; got != 101 {
			t.Fatalf("got %d", got)
		}
		c.want("text:one", "text:two")
		c.write(text("three")[3:])
		c.want("text:three")
		c.leave()
	})
}

func TestPlainHTTPAndUpgradesShareAConnection(t *testing.T) {
	eachEngine(t, func(t *testing.T, build newEngine) {
		s := startEcho(t, build, Options{HTTP: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			fmt.Fprintf(w, "plain %s", r.URL.Path)
		})})
		c := connect(t, s.addr)
		for range 3 { // a proxy may send requests of several clients on one connection
			c.write([]byte("GET /livez HTTP/1.1\r\nHost: a\r\n\r\n"))
			body, _ := io.ReadAll(c.response().Body)
			if string(body) != "plain /livez" {
				t.Fatalf("got %q", body)
			}
		}
		c.upgrade()
		c.write(text("a"))
		c.want("text:a")
		c.leave()
		if got := s.Stats(); got.Plain != 0 || got.Opened != 1 {
			t.Errorf("got %+v, want no plain socket and one opened", got)
		}
	})
}

func TestRefusalCarriesStatusReasonAndHeader(t *testing.T) {
	eachEngine(t, func(t *testing.T, build newEngine) {
		decisions := map[string]Decision{
			"refused":   {Status: 403, Reason: "origin not allowed", Header: http.Header{"X-Why": {"origin"}}},
			"status200": {Status: 200},
			"protocol":  {Proto: "never-offered"},
		}
		s := start(t, build, &hooks{handshake: func(_ ConnRef, r *Request) Decision {
			if strings.Contains(r.Target, "panic") {
				panic("a bug")
			}
			return decisions[strings.TrimPrefix(r.Target, "/")]
		}}, Options{MaxConns: 1}) // one that is refused leaves its place
		for target, want := range map[string]int{"refused": 403, "status200": 500, "protocol": 500, "panic": 500} {
			c := connect(t, s.addr)
			c.write([]byte(strings.Replace(upgradeRequest(), "/v1/ws?x=1", "/"+target, 1)))
			res := c.response()
			if res.StatusCode != want {
				t.Errorf("%s: got %d, want %d", target, res.StatusCode, want)
			}
			if ct := res.Header.Get("Content-Type"); ct != "application/problem+json" {
				t.Errorf("%s: got content type %q", target, ct)
			}
			if target == "refused" {
				var p struct{ Title, Detail string }
				if err := json.NewDecoder(res.Body).Decode(&p); err != nil || p.Detail != "origin not allowed" || p.Title != "Forbidden" {
					t.Errorf("got %+v, %v", p, err)
				}
				if res.Header.Get("X-Why") != "origin" {
					t.Error("the decision's header is missing")
				}
			}
			_ = c.nc.Close()
		}
		s.stop()
		if len(s.opened)+len(s.ended) > 0 {
			t.Error("a refused handshake led to Open or Closed")
		}
		if got := s.Stats(); got.Panics != 1 || got.Refused != 4 {
			t.Errorf("got %d panics and %d refused, want 1 and 4", got.Panics, got.Refused)
		}
	})
}

func TestDecisionMayComeLater(t *testing.T) {
	eachEngine(t, func(t *testing.T, build newEngine) {
		asked := make(chan ConnRef, 1)
		s := start(t, build, &hooks{handshake: func(c ConnRef, r *Request) Decision {
			asked <- c
			return Decision{Later: true}
		}}, Options{HandshakeTime: patience})
		for _, tc := range []struct {
			d      Decision
			status int
		}{{Decision{}, 101}, {Decision{Status: 401}, 401}, {Decision{Later: true}, 500}} {
			c := connect(t, s.addr)
			c.write([]byte(upgradeRequest()))
			ref := get(t, asked, "Handshake")
			if err := s.Send(ref, NewText(nil)); !errors.Is(err, ErrGone) {
				t.Errorf("Send before Open: got %v, want ErrGone", err)
			}
			s.Decide(ref, tc.d)
			s.Decide(ref, Decision{Status: 418}) // too late
			if got := c.response().StatusCode; got != tc.status {
				t.Errorf("got %d, want %d", got, tc.status)
			}
			_ = c.nc.Close()
			s.Decide(ref, Decision{}) // harmless, whatever became of it
		}
		// A client that gives up leaves no trace.
		c := connect(t, s.addr)
		c.write([]byte(upgradeRequest()))
		ref := get(t, asked, "Handshake")
		_ = c.nc.Close()
		s.stop()
		s.Decide(ref, Decision{})
		if len(s.opened) != 1 || s.Conns() != 0 {
			t.Errorf("%d opened, %d are open, want 1 and 0", len(s.opened), s.Conns())
		}
	})
}

func TestConnectionsOverTheLimitAreRefused(t *testing.T) {
	eachEngine(t, func(t *testing.T, build newEngine) {
		s := startEcho(t, build, Options{MaxConns: 2, MaxPlain: 3})
		first := dial(t, s)
		dial(t, s)
		third := connect(t, s.addr)
		third.write([]byte(upgradeRequest()))
		if res := third.response(); res.StatusCode != 503 || res.Header.Get("Retry-After") == "" {
			t.Errorf("got %v, want 503 with Retry-After", res)
		}
		first.leave()
		_ = first.nc.Close()
		get(t, s.ended, "Closed")
		third.upgrade() // on the same plain connection, now that there is room
		third.write(text("a"))
		third.want("text:a")

		for range 3 {
			c := connect(t, s.addr)
			c.write([]byte("GET / HTTP/1.1\r\nHost: a\r\n\r\n"))
			if got := c.response().StatusCode; got != 404 {
				t.Errorf("got %d, want 404", got)
			}
		}
		c := connect(t, s.addr)
		if got := c.response().StatusCode; got != 503 { // without having sent a byte
			t.Errorf("got %d, want 503", got)
		}
	})
}

func TestOptionsAreValidated(t *testing.T) {
	if err := (Options{}).Validate(); err != nil {
		t.Errorf("the zero Options: %v", err)
	}
	err := Options{HeaderBytes: 100, PingEvery: -time.Second, MaxConns: -1}.Validate()
	for _, name := range []string{"HeaderBytes", "PingEvery", "MaxConns"} {
		if err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("got %v, want it to name %s", err, name)
		}
	}
}

// FuzzHandshake gives any bytes to the request reader and the check that follow each other on a
// connection: whatever is accepted must be a right handshake.
func FuzzHandshake(f *testing.F) {
	f.Add(upgradeRequest())
	f.Add(upgradeRequest("Sec-WebSocket-Protocol: a, b", "Content-Length: 0"))
	f.Add(upgradeRequest("Sec-WebSocket-Key: " + testKey))
	f.Add("GET http://h/x HTTP/1.1\r\nHost: a\r\nUpgrade: WebSocket\r\n\r\n")
	o := Options{}.withDefaults()
	f.Fuzz(func(t *testing.T, raw string) {
		r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(raw)))
		if err != nil || checkLimits(r, countFields(r), &o) != nil || !isUpgrade(r) {
			return
		}
		key, protos, bad := checkUpgrade(r)
		if bad != nil {
			if bad.status < 400 || bad.status > 499 || bad.reason == "" {
				t.Errorf("refused with %d %q", bad.status, bad.reason)
			}
			return
		}
		if nonce, err := base64.StdEncoding.DecodeString(key); err != nil || len(nonce) != 16 || len(key) != 24 {
			t.Errorf("accepted the key %q", key)
		}
		for _, p := range protos {
			if strings.ContainsAny(p, " \t\r\n,;\"\x00") || p == "" {
				t.Errorf("accepted the protocol %q", p)
			}
		}
		head := string(acceptResponse(key, "", nil))
		if strings.Count(head, "\r\n") != 5 || strings.Count(head, "\r\n\r\n") != 1 {
			t.Errorf("answered %q", head)
		}
		if r.Method != "GET" || r.Host == "" || !r.ProtoAtLeast(1, 1) || len(r.Header["Sec-Websocket-Version"]) != 1 {
			t.Errorf("accepted %q", raw)
		}
	})
}
