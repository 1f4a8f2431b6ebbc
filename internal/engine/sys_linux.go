package engine

import (
	"io"
	"syscall"

	"golang.org/x/sys/unix"
)

// sys are the system calls of the loops. Arguments, results and errors are the kernel's; no function may keep a
// slice that it is given. It is a value and not the package unix so that a test can have each of them fail.
type sys struct {
	accept   func(ln int) (fd int, from syscall.Sockaddr, err error) // accept4(2): a socket that does not block and is not inherited
	wait     func(epfd int, events []unix.EpollEvent) (int, error)   // epoll_wait(2) that does not wait
	control  func(epfd, op, fd int, mask uint32, ref ConnRef) error
	read     func(fd int, b []byte) (int, error)
	write    func(fd int, b []byte) (int, error)
	writev   func(fd int, bufs [][]byte) (int, error)
	shutdown func(fd, how int) error
	dup      func(fd int) (int, error) // with close-on-exec
	close    func(fd int) error
}

var kernel = sys{
	accept: func(ln int) (int, syscall.Sockaddr, error) {
		return syscall.Accept4(ln, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC) // unix.Accept4 asks for the protocol too
	},
	wait: func(epfd int, events []unix.EpollEvent) (int, error) { return unix.EpollWait(epfd, events, 0) },
	control: func(epfd, op, fd int, mask uint32, ref ConnRef) error {
		return unix.EpollCtl(epfd, op, fd, &unix.EpollEvent{Events: mask, Fd: int32(uint32(ref)), Pad: int32(uint32(ref >> 32))})
	},
	read:     syscall.Read, // not unix.Read: the race detector would not see that what the writer did came before
	write:    writeTo,
	writev:   unix.Writev,
	shutdown: unix.Shutdown,
	dup:      func(fd int) (int, error) { return unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0) },
	close:    unix.Close,
}

// refOf is the reference that control gave to epoll.
func refOf(ev *unix.EpollEvent) ConnRef {
	return ConnRef(uint64(uint32(ev.Pad))<<32 | uint64(uint32(ev.Fd)))
}

// accept1 is one accept4(2); unix.EAGAIN if no socket waits.
func (s *sys) accept1(ln int) (fd int, from syscall.Sockaddr, err error) {
	for {
		if fd, from, err = s.accept(ln); err != unix.EINTR {
			return fd, from, err
		}
	}
}

// write1 is one write(2); a full socket takes 0 bytes without an error.
func (s *sys) write1(fd int, b []byte) (n int, err error) {
	for {
		if n, err = s.write(fd, b); err != unix.EINTR {
			return moved(n, err)
		}
	}
}

// writeAll is write1 for several slices in one call.
func (s *sys) writeAll(fd int, bufs [][]byte) (n int, err error) {
	if len(bufs) == 1 {
		return s.write1(fd, bufs[0])
	}
	for {
		if n, err = s.writev(fd, bufs); err != unix.EINTR {
			return moved(n, err)
		}
	}
}

// read1 is one read(2); 0 bytes without an error: none is there yet.
func (s *sys) read1(fd int, b []byte) (n int, err error) {
	for {
		if n, err = s.read(fd, b); err == nil && n == 0 {
			return 0, io.EOF
		} else if err != unix.EINTR {
			return moved(n, err)
		}
	}
}

// moved is the result of a call on a socket that does not block.
func moved(n int, err error) (int, error) {
	switch err {
	case nil:
		return n, nil
	case unix.EAGAIN:
		return 0, nil
	default:
		return 0, err
	}
}
