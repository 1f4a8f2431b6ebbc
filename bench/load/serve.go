package load

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/gobwas/ws"
	"golang.org/x/sys/unix"
)

// waitMost is how many sockets one look takes.
const waitMost = 256

// Serve reads all sockets and calls each with every message, one at a time, until ctx ends. It then
// closes them, and returns when nothing of it runs any more: nil, or the first error, of each or of a socket that ended by
// itself, which ends all. p is valid until each returns.
//
// One goroutine reads them all by epoll: a goroutine for each would take more of the machine's time than
// what is measured.
func (f Fleet) Serve(ctx context.Context, each func(client int, p []byte) error) (err error) {
	defer f.Close()
	poll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return fmt.Errorf("epoll_create1: %w", err)
	}
	defer unix.Close(poll)
	wake, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return fmt.Errorf("eventfd: %w", err)
	}
	defer unix.Close(wake)
	if err := unix.EpollCtl(poll, unix.EPOLL_CTL_ADD, wake, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: -1}); err != nil {
		return fmt.Errorf("epoll_ctl: %w", err)
	}
	woken := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(woken)
		_, _ = unix.Write(wake, []byte{1, 0, 0, 0, 0, 0, 0, 0}) // it has room for one
	})
	defer func() {
		if !stop() {
			<-woken
		}
	}()
	for i, s := range f {
		if err := s.join(poll, i, each); err != nil {
			return fmt.Errorf("client %d: %w", i, err)
		}
	}
	events := make([]unix.EpollEvent, waitMost)
	buf := make([]byte, 64<<10)
	for ctx.Err() == nil {
		n, err := unix.EpollWait(poll, events, -1)
		if err != nil && err != unix.EINTR {
			return fmt.Errorf("epoll_wait: %w", err)
		}
		for _, e := range events[:max(n, 0)] {
			if e.Fd < 0 {
				continue // ctx has ended
			}
			err := f[e.Fd].receive(int(e.Fd), buf, each)
			switch {
			case ctx.Err() != nil:
				return nil
			case err != nil:
				return fmt.Errorf("client %d: %w", e.Fd, err)
			}
		}
	}
	return nil
}

// Detach makes the sockets ready for Serve, which does it otherwise. From now on any goroutine may call their Send, and
// none Next.
func (f Fleet) Detach() error {
	for i, s := range f {
		if _, err := s.detach(); err != nil {
			return fmt.Errorf("client %d: %w", i, err)
		}
	}
	return nil
}

// join gives a socket to epoll, and takes what it has read already.
func (s *Socket) join(poll, i int, each func(int, []byte) error) error {
	d, err := s.detach()
	if err != nil {
		return err
	}
	if err := s.feed(i, nil, each); err != nil {
		return err
	}
	return unix.EpollCtl(poll, unix.EPOLL_CTL_ADD, d.fd, &unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLET, Fd: int32(i)})
}

// receive takes all that has come to a socket: epoll names it again only when more comes, and need not look at each twice.
func (s *Socket) receive(i int, buf []byte, each func(int, []byte) error) error {
	for {
		n, err := s.conn.Read(buf)
		switch {
		case err == unix.EINTR:
			continue
		case err == unix.EAGAIN:
			return nil
		}
		if err := errors.Join(s.feed(i, buf[:n], each), err); err != nil || n < len(buf) {
			return err
		}
	}
}

// feed takes bytes of a socket, which end anywhere.
func (s *Socket) feed(i int, b []byte, each func(int, []byte) error) error {
	if len(s.rest) > 0 {
		b = append(s.rest, b...)
	}
	s.rest = nil
	for {
		h, size := readHeader(b)
		if size > 0 {
			if err := check(h); err != nil {
				return err
			}
			size += int(h.Length)
		}
		if size == 0 || len(b) < size {
			if len(b) > 0 {
				s.rest = slices.Clone(b)
			}
			return nil
		}
		p := b[size-int(h.Length) : size]
		message, err := s.take(h.OpCode, p)
		if err == nil && message {
			err = each(i, p)
		}
		if err != nil {
			return err
		}
		b = b[size:]
	}
}

// readHeader reads the header of an unmasked frame, and returns its size; 0 if b has not all of it. ws.ReadHeader does the
// same, and allocates for each.
func readHeader(b []byte) (h ws.Header, size int) {
	if len(b) < 2 {
		return h, 0
	}
	h.Fin, h.OpCode = b[0]&0x80 != 0, ws.OpCode(b[0]&0x0f)
	switch n := b[1] & 0x7f; {
	case n < 126:
		h.Length, size = int64(n), 2
	case n == 126 && len(b) >= 4:
		h.Length, size = int64(binary.BigEndian.Uint16(b[2:])), 4
	case n == 127 && len(b) >= 10:
		h.Length, size = int64(binary.BigEndian.Uint64(b[2:])&(1<<63-1)), 10
	}
	return h, size
}
