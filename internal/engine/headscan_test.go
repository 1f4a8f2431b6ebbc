package engine

import (
	"bufio"
	"bytes"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"
)

func TestHeaderEndIsFoundHoweverItArrives(t *testing.T) {
	for in, want := range map[string]int{
		"": 0, "GET / HTTP/1.1\r\n": 0, "GET / HTTP/1.1\r\n\r": 0, "a\r\n\r\n": 5, "a\r\n\r\nrest": 5, "a\n\n": 3, "a\n\r\n": 4, "a\r\n\n": 4,
		"a\r\nb\r\n\r\n\r\n": 8, "\r\r\n": 0,
	} {
		if got := headerEnd([]byte(in), 0); got != want {
			t.Errorf("%q ends at %d, want %d", in, got, want)
		}
		for cut := range in { // a part was looked at before
			if headerEnd([]byte(in[:cut]), 0) != 0 {
				break
			}
			if got := headerEnd([]byte(in), cut); got != want {
				t.Errorf("%q, after %d bytes of it, ends at %d, want %d", in, cut, got, want)
			}
		}
	}
}

// What readUpgrade does not take goes another way, and is slow. These must not be.
func TestUsualHandshakesAreReadOnMemory(t *testing.T) {
	for name, in := range map[string]string{
		"the least": upgradeRequest(),
		"Chromium's": "GET /v1/ws?route=a.b.c HTTP/1.1\r\nHost: localhost:8080\r\nConnection: Upgrade\r\nPragma: no-cache\r\nCache-Control: no-cache\r\n" +
			"User-Agent: Mozilla/5.0 (X11; Linux x86_64)\r\nUpgrade: websocket\r\nOrigin: http://localhost:8080\r\nSec-WebSocket-Version: 13\r\n" +
			"Accept-Encoding: gzip, deflate, br\r\nAccept-Language: en-US,en;q=0.9\r\nCookie: WSAFF=i1-w1\r\nSec-WebSocket-Key: " + testKey +
			"\r\nSec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\nSec-WebSocket-Protocol: wscluster.v1.json\r\n\r\n",
		"HAProxy's spelling": strings.ToLower(upgradeRequest("X-Forwarded-For: ::1"))[4:],
	} {
		if name == "HAProxy's spelling" { // names in lower case
			in = "GET " + strings.Replace(in, "http/1.1", "HTTP/1.1", 1)
		}
		var scratch []field
		if _, ok := readUpgrade([]byte(in), &scratch); !ok {
			t.Errorf("%s is not read", name)
		}
	}
}

func TestOddRequestsAreLeftToNetHTTP(t *testing.T) {
	good := upgradeRequest()
	instead := func(old, new string) string { return strings.Replace(good, old, new, 1) }
	for name, in := range map[string]string{
		"no upgrade": instead("Upgrade: websocket\r\n", ""), "POST": instead("GET", "POST"), "HTTP/1.0": instead("HTTP/1.1", "HTTP/1.0"),
		"an absolute target": instead("/v1", "http://a/v1"), "two slashes": instead("/v1", "//v1"), "an escape": instead("/v1", "/%76"), "a space": instead("/v1", "/ v1"),
		"no Host": instead("Host: example.test\r\n", ""), "two Hosts": upgradeRequest("Host: b"), "an odd Host": instead("example.test", "a/b"),
		"a length": upgradeRequest("Content-Length: 0"), "chunks": upgradeRequest("transfer-encoding: chunked"), "a trailer": upgradeRequest("Trailer: A"),
		"an expectation": upgradeRequest("Expect: 100-continue"), "Connection: close": upgradeRequest("Connection: close"), "Pragma alone": upgradeRequest("Pragma: no-cache"),
		"a name with a space": upgradeRequest("X : y"), "a folded line": upgradeRequest("X: y", " z"), "NUL": upgradeRequest("X: \x00"), "CR": upgradeRequest("X: a\rb"),
		"no colon": upgradeRequest("X"), "an empty name": upgradeRequest(": x"), "a line without CR": instead("\r\nUpgrade", "\nUpgrade"),
	} {
		var scratch []field
		if _, ok := readUpgrade([]byte(in), &scratch); ok {
			t.Errorf("%s is taken for a plain upgrade", name)
		}
	}
}

// FuzzUpgrade holds readUpgrade to net/http: what it takes is the same request there.
func FuzzUpgrade(f *testing.F) {
	f.Add([]byte(upgradeRequest()))
	f.Add([]byte(upgradeRequest("Sec-WebSocket-Protocol: a, b", "sec-websocket-protocol:c", "X-É: v")))
	f.Add([]byte(upgradeRequest("Cookie: a=b", "pragma: no-cache", "Cache-Control: \t max-age=0 ", "X-Empty:")))
	f.Add([]byte("GET /a:b;c,d@[e]?x=%zz#frag? HTTP/1.1\r\nhost: [::1]:80\r\nupgrade: WebSocket\r\n\r\nGET /"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		end := headerEnd(raw, 0)
		for cut := range min(end, len(raw)) {
			if e := headerEnd(raw[:cut], 0); e != 0 {
				t.Fatalf("the header ends at %d, and at %d when less of it is there", end, e)
			}
		}
		if end == 0 {
			return
		}
		var scratch []field
		got, ok := readUpgrade(raw[:end], &scratch)
		if !ok {
			return
		}
		behind := bufio.NewReader(bytes.NewReader(raw))
		want, err := http.ReadRequest(behind)
		if err != nil {
			t.Fatalf("net/http refuses what was taken: %v", err)
		}
		if rest := len(raw) - end; behind.Buffered() != min(rest, behind.Buffered()) || want.ContentLength != 0 {
			t.Errorf("net/http has another end of the header, or a body of %d", want.ContentLength)
		}
		if got.Method != want.Method || got.RequestURI != want.URL.RequestURI() || got.RequestURI != want.RequestURI || got.Host != want.Host ||
			!reflect.DeepEqual(got.Header, want.Header) || got.ProtoMajor != want.ProtoMajor || got.ProtoMinor != want.ProtoMinor {
			t.Errorf("got %+v, net/http has %+v", got, want)
		}
		if want.Close || len(want.TransferEncoding) > 0 || len(want.Trailer) > 0 {
			t.Errorf("net/http would do more than answer: %+v", want)
		}
		key, protos, bad := checkUpgrade(&got)
		wantKey, wantProtos, wantBad := checkUpgrade(want)
		if key != wantKey || !reflect.DeepEqual(protos, wantProtos) || !reflect.DeepEqual(bad, wantBad) {
			t.Errorf("got %q %q %+v, want %q %q %+v", key, protos, bad, wantKey, wantProtos, wantBad)
		}
	})
}

// A refusal that the engine writes is the one that net/http would write.
func TestRefusalsHaveTheFormOfNetHTTP(t *testing.T) {
	for _, bad := range []*refusal{
		busy("the server has its 3 connections"),
		{status: 426, reason: "<a> & \"b\"", header: http.Header{"Upgrade": {"websocket"}, "Connection": {"Upgrade"}, "Sec-Websocket-Version": {"13"}}},
		{status: 403, header: http.Header{"X-A": {"1", "2"}, "Content-Type": {"text/html"}, "X-Evil": {"a\r\nb: c"}}},
		{status: 304, reason: "x"},
		{status: 599, reason: "no name"},
	} {
		srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			(&service{e: New(&hooks{}, Options{})}).refuse(w, bad)
		}))
		res, err := http.Get(srv.URL)
		if err != nil {
			t.Fatal(err)
		}
		date, err := http.ParseTime(res.Header.Get("Date"))
		if err != nil {
			t.Fatal(err)
		}
		own, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(refuseResponse(bad, date))), res.Request)
		if err != nil {
			t.Fatal(err)
		}
		var got, want bytes.Buffer
		_, _ = got.ReadFrom(own.Body)
		_, _ = want.ReadFrom(res.Body)
		if own.StatusCode != res.StatusCode || !reflect.DeepEqual(own.Header, res.Header) || got.String() != want.String() || own.ContentLength != res.ContentLength {
			t.Errorf("got %d %v %q, net/http writes %d %v %q", own.StatusCode, own.Header, &got, res.StatusCode, res.Header, &want)
		}
		_ = res.Body.Close()
		srv.Close()
		http.DefaultClient.CloseIdleConnections()
	}
}
