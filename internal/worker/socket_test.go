package worker_test

import (
	"bufio"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/wscluster/wscluster/pkg/wire"
)

// socket is a bare WebSocket client that says what it is told to, however wrong.
type socket struct {
	t      *testing.T
	conn   net.Conn
	in     *bufio.Reader
	status int
	close  func() error
}

func newSocket(t *testing.T, addr string) *socket { return dialSocket(t, addr, "/v1/ws", "") }

func dialSocket(t *testing.T, addr, path, origin string) *socket {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	header := ""
	if origin != "" {
		header = "Origin: " + origin + "\r\n"
	}
	return shake(t, conn, path, header)
}

// shake asks for a WebSocket over conn, with further header lines.
func shake(t *testing.T, conn net.Conn, path, header string) *socket {
	t.Helper()
	fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: example.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"+
		"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n%s\r\n", path, header)
	s := &socket{t: t, conn: conn, in: bufio.NewReader(conn), close: conn.Close}
	r, err := http.ReadResponse(s.in, nil)
	if err != nil {
		t.Fatal(err)
	}
	s.status = r.StatusCode
	return s
}

// send sends one masked frame.
func (s *socket) send(opcode byte, payload string) {
	s.t.Helper()
	frame := []byte{0x80 | opcode}
	switch n := len(payload); {
	case n < 126:
		frame = append(frame, 0x80|byte(n))
	case n < 1<<16:
		frame = binary.BigEndian.AppendUint16(append(frame, 0x80|126), uint16(n))
	default:
		frame = binary.BigEndian.AppendUint64(append(frame, 0x80|127), uint64(n))
	}
	frame = append(frame, 0, 0, 0, 0) // a mask of zeros leaves the payload as it is
	if _, err := s.conn.Write(append(frame, payload...)); err != nil {
		s.t.Log(err) // the server may have closed already: what it said is still to be read
	}
}

// read returns the next frame.
func (s *socket) read() (opcode byte, payload []byte) {
	s.t.Helper()
	opcode, payload, err := s.next()
	if err != nil {
		s.t.Fatal(err)
	}
	return opcode, payload
}

func (s *socket) next() (opcode byte, payload []byte, err error) {
	head := make([]byte, 2)
	if _, err := io.ReadFull(s.in, head); err != nil {
		return 0, nil, err
	}
	n := uint64(head[1])
	switch n {
	case 126:
		var b [2]byte
		io.ReadFull(s.in, b[:])
		n = uint64(binary.BigEndian.Uint16(b[:]))
	case 127:
		var b [8]byte
		io.ReadFull(s.in, b[:])
		n = binary.BigEndian.Uint64(b[:])
	}
	payload = make([]byte, n)
	_, err = io.ReadFull(s.in, payload)
	return head[0] & 0x0f, payload, err
}

const (
	text        = 1
	binaryFrame = 2
	closing     = 8
	ping        = 9
	pong        = 10
)

func TestASilentClientGetsASessionAfterASecond(t *testing.T) {
	c := newCluster(t)
	s := newSocket(t, c.worker("i1-w1").addr)
	op, p := s.read()
	m := object(t, p)
	if op != text || m["type"] != "socket_meta" || m["server_id"] != "i1-w1" || m["client_id"] == "" || m["token"] == "" {
		t.Errorf("the first frame is %d %s", op, p)
	}
}

func TestPingIsAnsweredWithPongAndCloseWithClose(t *testing.T) {
	c := newCluster(t)
	s := newSocket(t, c.worker("i1-w1").addr)
	s.send(ping, "are you there")
	if op, p := s.read(); op != pong || string(p) != "are you there" {
		t.Errorf("got %d %q, want the pong", op, p)
	}
	s.send(text, `{"type":"ping","id":"7"}`)
	if _, p := s.read(); object(t, p)["type"] != "socket_meta" {
		t.Errorf("got %s, want the socket meta first", p)
	}
	if _, p := s.read(); object(t, p)["type"] != "pong" || object(t, p)["id"] != "7" {
		t.Errorf("got %s, want pong 7", p)
	}
	s.send(closing, "\x03\xe8")
	if op, p := s.read(); op != closing || string(p[:2]) != "\x03\xe8" {
		t.Errorf("got %d %q, want close 1000", op, p)
	}
}

func TestBadFramesAreAnsweredWithACodeAndCostNothingElse(t *testing.T) {
	c := newCluster(t)
	w := c.worker("i1-w1")
	s := newSocket(t, w.addr)
	s.send(text, `{"type":"hello"}`)
	s.read()
	for _, bad := range []struct {
		op    byte
		frame string
		code  wire.Code
	}{
		{text, `{`, wire.CodeBadFrame},
		{text, `[]`, wire.CodeBadFrame},
		{text, `{"type":"dance"}`, wire.CodeUnknownType},
		{text, `{"type":"hello"}`, wire.CodeUnexpected},
		{text, `{"type":"submit","task_id":"../x","kind":"k"}`, wire.CodeBadFrame},
		{text, `{"type":"submit","task_id":"x","kind":"k","params":[]}`, wire.CodeBadFrame},
		{text, `{"type":"ack","tasks":7}`, wire.CodeBadFrame},
		{binaryFrame, `{"type":"ping"}`, wire.CodeBadFrame},
	} {
		s.send(bad.op, bad.frame)
		if _, p := s.read(); object(t, p)["type"] != "error" || object(t, p)["code"] != string(bad.code) {
			t.Errorf("%s was answered with %s, want %s", bad.frame, p, bad.code)
		}
	}
	s.send(text, `{"type":"ping","id":"1"}`)
	if _, p := s.read(); object(t, p)["type"] != "pong" {
		t.Errorf("after bad frames: %s, want a pong", p)
	}
	s.send(text, `{`)
	s.read()
	s.send(text, `{`)
	if _, p := s.read(); object(t, p)["type"] != "bye" {
		t.Errorf("after the tenth bad frame: %s, want bye", p)
	}
	if op, p := s.read(); op != closing || binary.BigEndian.Uint16(p) != wire.CloseBadFrames {
		t.Errorf("got %d %q, want close %d", op, p, wire.CloseBadFrames)
	}
}

func TestAFrameOverTheLimitIsRefusedBeforeItIsRead(t *testing.T) {
	c := newCluster(t)
	s := newSocket(t, c.worker("i1-w1").addr)
	s.send(text, strings.Repeat("x", wire.MaxClientFrame+1))
	for {
		op, p := s.read()
		if op == closing {
			if code := binary.BigEndian.Uint16(p); code != 1009 {
				t.Errorf("closed with %d, want 1009", code)
			}
			return
		}
	}
}
