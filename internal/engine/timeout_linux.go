package engine

import (
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// setUserTimeout has the kernel end a TCP connection with ETIMEDOUT when its peer's host has not
// acknowledged, or has had no room for, what was sent to it for d. Other sockets it leaves alone.
func setUserTimeout(raw syscall.RawConn, d time.Duration) {
	_ = raw.Control(func(fd uintptr) {
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(max(1, d.Milliseconds()))) // not TCP
	}) // a failed socket shows when it is written to
}
