package peers

import (
	"context"
	"net"
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// answer accepts the key of request, and reads nothing of it.
const answer = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
	"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"

// serveBare is what no server can do without: accept4(2), read(2), write(2), epoll_ctl(2) for each client, one after the
// other on one thread, and nothing else.
func serveBare(ctx context.Context, ln net.Listener, n *counts) error {
	f, err := ln.(interface{ File() (*os.File, error) }).File()
	if err != nil {
		return err
	}
	defer f.Close()
	door := int(f.Fd())
	poll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return err
	}
	defer unix.Close(poll)
	if err := unix.SetNonblock(door, true); err != nil {
		return err
	}
	if err := unix.EpollCtl(poll, unix.EPOLL_CTL_ADD, door, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(door)}); err != nil {
		return err
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var events [128]unix.EpollEvent
	buf, sent := make([]byte, 4096), []byte(answer)
	for ctx.Err() == nil {
		ready, err := unix.EpollWait(poll, events[:], 100)
		if err != nil && err != unix.EINTR {
			return err
		}
		for _, ev := range events[:max(ready, 0)] {
			if int(ev.Fd) != door {
				if got, _, _ := raw(unix.SYS_READ, uintptr(ev.Fd), buf); int(got) <= 0 {
					_ = unix.Close(int(ev.Fd))
					n.ended.Add(1)
				}
				continue
			}
			for {
				fd, _, errno := unix.RawSyscall6(unix.SYS_ACCEPT4, uintptr(door), 0, 0, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0, 0)
				if errno != 0 {
					break
				}
				_, _, _ = raw(unix.SYS_READ, fd, buf) // who answers nothing is found by the benchmark
				_, _, _ = raw(unix.SYS_WRITE, fd, sent)
				if err := unix.EpollCtl(poll, unix.EPOLL_CTL_ADD, int(fd), &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)}); err != nil {
					return err
				}
				n.opened.Add(1)
			}
		}
	}
	return nil
}

// raw is read(2) or write(2) on a socket that does not block, of which the runtime is not told.
func raw(call, fd uintptr, b []byte) (n, _ uintptr, errno unix.Errno) {
	return unix.RawSyscall(call, fd, uintptr(unsafe.Pointer(unsafe.SliceData(b))), uintptr(len(b)))
}
