package haproxy_test

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// patience bounds every wait of a client; nothing is judged by how much of it was used.
const patience = 15 * time.Second

// request is one HTTP/1.1 request as it goes over the wire: the path is not cleaned or escaped.
type request struct {
	addr   string
	tls    bool   // trusting anybody
	from   string // source address; "" is 127.0.0.1
	method string // "" is GET
	path   string // "" is /v1/ws
	cookie string // value of WSAFF; "" sends none
	header []string
}

// answer is the response to a request, over a connection that is still open.
type answer struct {
	status int
	header http.Header
	worker string // the server ID that the worker says it has
	conn   net.Conn
	read   *bufio.Reader
}

// do sends r, as a WebSocket upgrade if its path is /v1/ws, and reads the response's header.
func (r request) do() (*answer, error) {
	from := r.from
	if from == "" {
		from = "127.0.0.1"
	}
	d := net.Dialer{Timeout: patience, LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	conn, err := d.Dial("tcp", r.addr)
	if err != nil {
		return nil, err
	}
	if r.tls {
		conn = tls.Client(conn, &tls.Config{InsecureSkipVerify: true})
	}
	_ = conn.SetDeadline(time.Now().Add(patience))
	if _, err := io.WriteString(conn, r.text()); err != nil {
		_ = conn.Close()
		return nil, err
	}
	read := bufio.NewReader(conn)
	resp, err := http.ReadResponse(read, nil)
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	return &answer{resp.StatusCode, resp.Header, resp.Header.Get("X-Worker"), conn, read}, nil
}

func (r request) text() string {
	method, path := r.method, r.path
	if method == "" {
		method = "GET"
	}
	if path == "" {
		path = "/v1/ws"
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s HTTP/1.1\r\nHost: site.example\r\n", method, path)
	if before, _, _ := strings.Cut(path, "?"); before == "/v1/ws" {
		b.WriteString("Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n")
	}
	if method == "POST" {
		b.WriteString("Content-Length: 2\r\nContent-Type: application/json\r\n")
	}
	if r.cookie != "" {
		fmt.Fprintf(&b, "Cookie: WSAFF=%s\r\n", r.cookie)
	}
	for _, h := range r.header {
		b.WriteString(h + "\r\n")
	}
	b.WriteString("\r\n")
	if method == "POST" {
		b.WriteString("{}")
	}
	return b.String()
}

// cookie returns the WSAFF cookie that the answer sets, or nil.
func (a *answer) cookie() *http.Cookie {
	for _, c := range (&http.Response{Header: a.header}).Cookies() {
		if c.Name == "WSAFF" {
			return c
		}
	}
	return nil
}

// echoes reports whether a byte sent over the socket comes back.
func (a *answer) echoes() bool {
	_ = a.conn.SetDeadline(time.Now().Add(patience))
	if _, err := a.conn.Write([]byte{'.'}); err != nil {
		return false
	}
	b, err := a.read.ReadByte()
	return err == nil && b == '.'
}

// ended waits until the other side has cut the socket, and reports whether it did.
func (a *answer) ended() bool {
	_ = a.conn.SetDeadline(time.Now().Add(patience))
	_, err := a.read.ReadByte()
	timeout, ok := err.(net.Error)
	return err != nil && (!ok || !timeout.Timeout())
}

// ask does r and closes the connection; the test ends if there is no answer.
func ask(t *testing.T, r request) *answer {
	t.Helper()
	a, err := r.do()
	if err != nil {
		t.Fatalf("%s %s: %v", r.method, r.path, err)
	}
	_ = a.conn.Close()
	return a
}

// open upgrades r to a socket that stays open until the test ends; anything but a 101 ends the test.
func open(t *testing.T, r request) *answer {
	t.Helper()
	a, err := r.do()
	if err != nil {
		t.Fatalf("upgrade: %v", err)
	}
	t.Cleanup(func() { _ = a.conn.Close() })
	if a.status != http.StatusSwitchingProtocols {
		t.Fatalf("upgrade: got status %d, want 101", a.status)
	}
	return a
}
