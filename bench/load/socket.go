// Package load holds thousands of client sockets in one process for the measurements of bench/.
// A socket knows WebSocket and the first words of the wire: it says hello, reads, answers pings and sends
// what it is told to; other protocols are their targets' affair. What a real client does beside that is
// pkg/wsclient. It needs Linux.
package load

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/gobwas/ws"
	"golang.org/x/sys/unix"

	"github.com/wscluster/wscluster/pkg/wire"
)

// Socket is one client. One goroutine at a time may read and send; Close may be
// called from any.
type Socket struct {
	Meta wire.SocketMeta // set by Hello

	conn io.ReadWriteCloser // of package net, until Fleet.Serve has taken its descriptor
	r    *bufio.Reader
	buf  []byte // the last message
	rest []byte // in Serve: what came of a frame that is not whole
}

const (
	openWithin  = 30 * time.Second // from the dial to the socket_meta
	readerBytes = 512
	workerPath  = "/v1/ws"
)

// dial connects from the source address, if there is one, shakes hands and greets. It takes at most 30 s.
func dial(ctx context.Context, t Target, source net.IP, client int) (_ *Socket, err error) {
	ctx, cancel := context.WithTimeout(ctx, openWithin)
	defer cancel()
	dialer := net.Dialer{KeepAlive: -1}
	if source != nil {
		dialer.LocalAddr, dialer.Control = &net.TCPAddr{IP: source}, lateBind
	}
	handshake := ws.Dialer{NetDial: dialer.DialContext}
	if t.Protocol != "" {
		handshake.Protocols = []string{t.Protocol}
	}
	conn, early, _, err := handshake.Dial(ctx, "ws://"+t.Addr+cmp.Or(t.Path, workerPath))
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", t.Addr, err)
	}
	s := &Socket{conn: conn, r: early}
	if s.r == nil {
		s.r = bufio.NewReaderSize(conn, readerBytes)
	}
	if t.Greet == nil {
		return s, nil
	}
	cut := context.AfterFunc(ctx, func() { conn.Close() })
	defer cut()
	if err := t.Greet(s, client); err != nil {
		conn.Close()
		return nil, fmt.Errorf("greet %s: %w", t.Addr, err)
	}
	return s, nil
}

// ask sends m and reads the answer, which must be a T.
func ask[T wire.ServerMessage](s *Socket, m wire.ClientMessage) (answer T, err error) {
	if err := s.Send(m); err != nil {
		return answer, err
	}
	p, err := s.Next()
	if err != nil {
		return answer, err
	}
	got, err := wire.DecodeServer(p)
	if err != nil {
		return answer, err
	}
	answer, ok := got.(T)
	if !ok {
		return answer, fmt.Errorf("%T is answered with %.200s, want %T", m, p, answer)
	}
	return answer, nil
}

// Hello opens a session, or resumes the one of a token, and reads the socket_meta into Meta.
func (s *Socket) Hello(token string) error {
	meta, err := ask[*wire.SocketMeta](s, &wire.Hello{Token: token})
	if err != nil {
		return err
	}
	s.Meta = *meta
	if meta.Resumed {
		return s.Send(&wire.Confirm{Epoch: meta.Epoch})
	}
	return nil
}

// Subscribe subscribes to a channel, and reads the answer and the snapshot.
func (s *Socket) Subscribe(to *wire.Subscribe) error {
	answer, err := ask[*wire.Subscribed](s, to)
	if err != nil {
		return err
	}
	for range answer.Snapshot {
		if _, err := s.Next(); err != nil {
			return err
		}
	}
	return nil
}

// Send writes one message. It blocks while the kernel's buffer is full. After Fleet.Detach any goroutine may call it.
func (s *Socket) Send(m wire.ClientMessage) error { return s.write(ws.OpText, wire.EncodeClient(m)) }

// SendText and SendBinary do the same with a message of another protocol. They overwrite p.
func (s *Socket) SendText(p []byte) error   { return s.write(ws.OpText, p) }
func (s *Socket) SendBinary(p []byte) error { return s.write(ws.OpBinary, p) }

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
// before it are answered. The error tells how the socket ended. It is for before Fleet.Detach and Serve.
func (s *Socket) Next() ([]byte, error) {
	for {
		h, err := ws.ReadHeader(s.r)
		if err != nil {
			return nil, err
		}
		if err := check(h); err != nil {
			return nil, err
		}
		s.buf = slices.Grow(s.buf[:0], int(h.Length))[:h.Length]
		if _, err := io.ReadFull(s.r, s.buf); err != nil {
			return nil, err
		}
		if message, err := s.take(h.OpCode, s.buf); message || err != nil {
			return s.buf, err
		}
	}
}

// check refuses what a worker does not send.
func check(h ws.Header) error {
	if !h.Fin || h.Length > wire.MaxServerFrame {
		return fmt.Errorf("a frame of %d bytes (last of its message: %t): a server sends whole messages of at most %d",
			h.Length, h.Fin, wire.MaxServerFrame)
	}
	return nil
}

// take answers a ping, and reports whether the frame is a message.
func (s *Socket) take(op ws.OpCode, p []byte) (message bool, err error) {
	switch op {
	case ws.OpText, ws.OpBinary:
		return true, nil
	case ws.OpPing:
		return false, s.write(ws.OpPong, slices.Clone(p))
	case ws.OpClose:
		code, reason := ws.ParseCloseFrameData(p)
		return false, fmt.Errorf("closed by the server with %d: %s", code, reason)
	}
	return false, nil
}

// Close cuts the connection without a word. Next then returns an error.
func (s *Socket) Close() error { return s.conn.Close() }

// descriptor is a socket outside of Go's own poller.
type descriptor struct {
	mu sync.Mutex
	fd int // guarded by mu; -1 once it is closed
}

// detach takes the descriptor of a connection of package net, which is closed. What was read ahead is the rest. Doing it
// twice does nothing more.
func (s *Socket) detach() (*descriptor, error) {
	if d, ok := s.conn.(*descriptor); ok {
		return d, nil
	}
	raw, ok := s.conn.(syscall.Conn)
	if !ok {
		return nil, fmt.Errorf("a %T has no descriptor", s.conn)
	}
	control, err := raw.SyscallConn()
	if err != nil {
		return nil, err
	}
	d := &descriptor{fd: -1}
	var failed error
	if err := control.Control(func(fd uintptr) { d.fd, failed = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0) }); err != nil || failed != nil {
		return nil, errors.Join(err, failed)
	}
	ahead, _ := s.r.Peek(s.r.Buffered()) // what is buffered can be peeked
	s.rest = slices.Clone(ahead)
	s.conn.Close() // the descriptor's copy lives
	s.conn, s.r, s.buf = d, nil, nil
	return d, nil
}

// Read is one read(2); without bytes there it is EAGAIN.
func (d *descriptor) Read(p []byte) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.fd < 0 {
		return 0, net.ErrClosed
	}
	n, err := unix.Read(d.fd, p)
	if n == 0 && err == nil {
		err = io.EOF
	}
	return max(n, 0), err
}

func (d *descriptor) Write(p []byte) (n int, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for n < len(p) && err == nil {
		if d.fd < 0 {
			return n, net.ErrClosed
		}
		var m int
		m, err = unix.Write(d.fd, p[n:])
		n += max(m, 0)
		if err == unix.EAGAIN || err == unix.EINTR {
			_, err = unix.Poll([]unix.PollFd{{Fd: int32(d.fd), Events: unix.POLLOUT}}, 1000)
			if err == unix.EINTR {
				err = nil
			}
		}
	}
	return n, err
}

func (d *descriptor) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.fd < 0 {
		return net.ErrClosed
	}
	fd := d.fd
	d.fd = -1
	return unix.Close(fd)
}
