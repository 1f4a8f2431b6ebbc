package engine

import (
	"bytes"
	"crypto/sha1"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"
)

// refusal is an answer to a handshake that is not accepted.
type refusal struct {
	status int
	reason string
	header http.Header
}

const problemType = "application/problem+json" // RFC 9457

// body is what the refused client reads.
func (bad *refusal) body() []byte {
	b, _ := json.Marshal(struct { // strings and a number can be encoded
		Title  string `json:"title"`
		Status int    `json:"status"`
		Detail string `json:"detail,omitempty"`
	}{http.StatusText(bad.status), bad.status, bad.reason})
	return append(b, '\n')
}

// refuseResponse is the whole answer of a refusal on a connection that goes on, as net/http would give it.
// Fields of the refusal which the answer owns are left out; line breaks in values become spaces.
func refuseResponse(bad *refusal, now time.Time) []byte {
	body := bad.body()
	var b bytes.Buffer
	fmt.Fprintf(&b, "HTTP/1.1 %d %s\r\nDate: %s\r\n", bad.status, http.StatusText(bad.status), now.UTC().Format(http.TimeFormat))
	// Writing to a buffer does not fail.
	_ = bad.header.WriteSubset(&b, map[string]bool{"Content-Type": true, "Date": true, "Content-Length": true, "Transfer-Encoding": true})
	if bad.status == http.StatusNotModified { // has no body
		b.WriteString("\r\n")
		return b.Bytes()
	}
	fmt.Fprintf(&b, "Content-Type: %s\r\nContent-Length: %d\r\n\r\n", problemType, len(body))
	return append(b.Bytes(), body...)
}

// checkLimits judges the size of any request, before anything else is read from it.
func checkLimits(r *http.Request, fields int, o *Options) *refusal {
	if len(r.RequestURI) > o.TargetBytes {
		return &refusal{status: http.StatusRequestURITooLong,
			reason: fmt.Sprintf("the request target has %d bytes, at most %d are taken", len(r.RequestURI), o.TargetBytes)}
	}
	if fields > o.HeaderFields {
		return &refusal{status: http.StatusRequestHeaderFieldsTooLarge,
			reason: fmt.Sprintf("the request has %d header fields, at most %d are taken", fields, o.HeaderFields)}
	}
	return nil
}

// countFields is how many header fields a request of net/http has.
func countFields(r *http.Request) int {
	fields := 1 // net/http keeps Host apart
	for _, v := range r.Header {
		fields += len(v)
	}
	return fields
}

// isUpgrade says whether a request asks for a WebSocket, well or badly.
func isUpgrade(r *http.Request) bool { return hasToken(r.Header["Upgrade"], "websocket") }

// checkUpgrade judges an opening handshake by RFC 6455 section 4.2.1. It returns the key and the
// offered subprotocols, or the refusal to answer with.
func checkUpgrade(r *http.Request) (key string, protos []string, bad *refusal) {
	refuse := func(status int, reason string) (string, []string, *refusal) {
		return "", nil, &refusal{status: status, reason: reason}
	}
	if r.Method != http.MethodGet {
		_, _, bad = refuse(http.StatusMethodNotAllowed, "a WebSocket handshake must be a GET request")
		bad.header = http.Header{"Allow": {http.MethodGet}}
		return "", nil, bad
	}
	if r.ProtoMajor != 1 || r.ProtoMinor < 1 {
		return refuse(http.StatusBadRequest, "a WebSocket handshake must use HTTP/1.1")
	}
	if r.Host == "" {
		return refuse(http.StatusBadRequest, "the Host header is missing")
	}
	if r.ContentLength != 0 || len(r.TransferEncoding) > 0 {
		return refuse(http.StatusBadRequest, "a WebSocket handshake must not have a body")
	}
	if !hasToken(r.Header["Connection"], "upgrade") {
		return refuse(http.StatusBadRequest, `the Connection header must contain "Upgrade"`)
	}
	if v := r.Header["Sec-Websocket-Version"]; len(v) != 1 || strings.TrimSpace(v[0]) != "13" {
		_, _, bad = refuse(http.StatusUpgradeRequired, "Sec-WebSocket-Version must be 13")
		bad.header = http.Header{"Sec-Websocket-Version": {"13"}, "Upgrade": {"websocket"}, "Connection": {"Upgrade"}}
		return "", nil, bad
	}
	keys := r.Header["Sec-Websocket-Key"]
	if len(keys) != 1 {
		return refuse(http.StatusBadRequest, "there must be exactly one Sec-WebSocket-Key")
	}
	key = strings.TrimSpace(keys[0])
	if nonce, err := strict.DecodeString(key); err != nil || len(nonce) != 16 {
		return refuse(http.StatusBadRequest, "Sec-WebSocket-Key must be 16 bytes in base64")
	}
	protos, ok := readProtos(r.Header["Sec-Websocket-Protocol"])
	if !ok {
		return refuse(http.StatusBadRequest, "Sec-WebSocket-Protocol must be a list of different tokens")
	}
	return key, protos, nil
}

// strict takes one spelling of each value.
var strict = base64.StdEncoding.Strict()

// hasToken says whether one of the comma-separated lists contains the token, in any case.
func hasToken(lists []string, token string) bool {
	for _, l := range lists {
		for t := range strings.SplitSeq(l, ",") {
			if strings.EqualFold(strings.TrimSpace(t), token) {
				return true
			}
		}
	}
	return false
}

// readProtos reads the offered subprotocols in order; it returns false for what is no token or
// stands there twice.
func readProtos(lists []string) (protos []string, ok bool) {
	if len(lists) == 0 {
		return nil, true
	}
	seen := make(map[string]bool)
	for _, l := range lists {
		for p := range strings.SplitSeq(l, ",") {
			p = strings.TrimSpace(p)
			if !isToken(p) || seen[p] {
				return nil, false
			}
			seen[p] = true
			protos = append(protos, p)
		}
	}
	return protos, true
}

// isToken says whether s is a token of RFC 9110.
func isToken(s string) bool {
	for i := range len(s) {
		c := s[i]
		letter := c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
		if !letter && !strings.ContainsRune("!#$%&'*+-.^_`|~", rune(c)) {
			return false
		}
	}
	return s != ""
}

// acceptResponse is the whole 101 answer. Fields of extra which the handshake owns are left out;
// line breaks in values become spaces.
func acceptResponse(key, proto string, extra http.Header) []byte {
	sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	b := make([]byte, 0, 256)
	b = append(b, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "...)
	b = base64.StdEncoding.AppendEncode(b, sum[:])
	b = append(b, "\r\n"...)
	if proto != "" {
		b = append(append(append(b, "Sec-WebSocket-Protocol: "...), proto...), "\r\n"...)
	}
	if len(extra) > 0 {
		more := bytes.NewBuffer(b)
		_ = extra.WriteSubset(more, map[string]bool{ // writing to a buffer does not fail
			"Upgrade": true, "Connection": true, "Content-Length": true, "Transfer-Encoding": true,
			"Sec-Websocket-Accept": true, "Sec-Websocket-Protocol": true, "Sec-Websocket-Extensions": true,
		})
		b = more.Bytes()
	}
	return append(b, "\r\n"...)
}
