// Package load holds thousands of client sockets in one process for the measurements of bench/.
// A socket knows the wire and nothing more: it says hello, reads, answers pings and acknowledges
// what it is told to. What a real client does beside that is pkg/wsclient.
package load

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"slices"
	"time"

	"github.com/gobwas/ws"

	"github.com/wscluster/wscluster/pkg/wire"
)

// Socket is one client with a session. One goroutine at a time may read and send; Close may be
// called from any.
type Socket struct {
	Meta wire.SocketMeta // set once

	conn net.Conn
	r    *bufio.Reader
	buf  []byte // the last message
}

const (
	openWithin  = 30 * time.Second // from the dial to the socket_meta
	readerBytes = 512
)

// Source is a loopback address to dial from: one of 32, for a pair of addresses has no more than
// some 28,000 ports, and HAProxy counts by source.
func Source(n int) net.IP { return net.IPv4(127, 0, 1, byte(1+n%32)) }

// Dial connects to host:port from the source address, says hello and reads the socket_meta. It
// takes at most 30 s.
func Dial(ctx context.Context, addr string, source net.IP) (_ *Socket, err error) {
	ctx, cancel := context.WithTimeout(ctx, openWithin)
	defer cancel()
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: source}, KeepAlive: -1}
	conn, early, _, err := ws.Dialer{
		NetDial:   dialer.DialContext,
		Protocols: []string{wire.Subprotocol},
	}.Dial(ctx, "ws://"+addr+"/v1/ws")
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", addr, err)
	}
	s := &Socket{conn: conn, r: early}
	if s.r == nil {
		s.r = bufio.NewReaderSize(conn, readerBytes)
	}
	cut := context.AfterFunc(ctx, func() { conn.Close() })
	defer cut()
	if err := s.hello(); err != nil {
		conn.Close()
		return nil, fmt.Errorf("hello to %s: %w", addr, err)
	}
	return s, nil
}

func (s *Socket) hello() error {
	if err := s.Send(&wire.Hello{}); err != nil {
		return err
	}
	p, err := s.Next()
	if err != nil {
		return err
	}
	m, err := wire.DecodeServer(p)
	if err != nil {
		return err
	}
	meta, ok := m.(*wire.SocketMeta)
	if !ok {
		return fmt.Errorf("the first message is %.100q, want a socket_meta", p)
	}
	s.Meta = *meta
	return nil
}

// Send writes one message. It blocks while the kernel's buffer is full.
func (s *Socket) Send(m wire.ClientMessage) error { return s.write(ws.OpText, wire.EncodeClient(m)) }

// write sends one frame and overwrites p.
func (s *Socket) write(op ws.OpCode, p []byte) error {
	b, err := ws.CompileFrame(ws.MaskFrameInPlace(ws.NewFrame(op, true, p)))
	if err != nil {
		return err
	}
	_, err = s.conn.Write(b)
	return err
}

// Next blocks until the next message and returns it; it is valid until the following call. Pings
// before it are answered. The error tells how the socket ended.
func (s *Socket) Next() ([]byte, error) {
	for {
		h, err := ws.ReadHeader(s.r)
		if err != nil {
			return nil, err
		}
		if !h.Fin || h.Length > wire.MaxServerFrame {
			return nil, fmt.Errorf("a frame of %d bytes (last of its message: %t): a server sends whole messages of at most %d",
				h.Length, h.Fin, wire.MaxServerFrame)
		}
		s.buf = slices.Grow(s.buf[:0], int(h.Length))[:h.Length]
		if _, err := io.ReadFull(s.r, s.buf); err != nil {
			return nil, err
		}
		switch h.OpCode {
		case ws.OpText:
			return s.buf, nil
		case ws.OpPing:
			if err := s.write(ws.OpPong, s.buf); err != nil {
				return nil, err
			}
		case ws.OpClose:
			code, reason := ws.ParseCloseFrameData(s.buf)
			return nil, fmt.Errorf("closed by the server with %d: %s", code, reason)
		}
	}
}

// Close cuts the connection without a word. Next then returns an error.
func (s *Socket) Close() error { return s.conn.Close() }
