package engine

import (
	"errors"
	"math"
	"time"

	"golang.org/x/sys/unix"
)

// deferAccept is how long a socket that has sent nothing is left with the kernel.
const deferAccept = time.Second

// plainBuffer is the send buffer of sockets of net/http, which the kernel doubles: they send more than frames.
const plainBuffer = 256 << 10

// setSocket sets what a listener's sockets need. Set on the listener, they inherit it: but not from one that does not
// take it all, as a listener of Go's does not that also speaks Multipath TCP, nor of unix sockets. None of it
// is needed for the service of a socket, and so no failure is one.
func setSocket(fd int, tcp bool, o *Options) (inherited bool) {
	err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, o.SendBuffer)
	if !tcp {
		return false
	}
	// A host that acknowledges nothing: the engine's own times find it first, where they look, and net/http has none.
	return errors.Join(err, unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1),
		unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(max(1, 2*o.StallTime.Milliseconds())))) == nil
}

// waiting is how many sockets wait to be accepted, or more.
func waiting(ln int) int {
	info, err := unix.GetsockoptTCPInfo(ln, unix.IPPROTO_TCP, unix.TCP_INFO)
	if err != nil {
		return math.MaxInt
	}
	return int(info.Unacked) // a listener's backlog is told there
}

// setDefer leaves sockets that have sent nothing with the kernel for a while.
func setDefer(ln int) {
	_ = unix.SetsockoptInt(ln, unix.IPPROTO_TCP, unix.TCP_DEFER_ACCEPT, int(deferAccept.Seconds())) // not TCP
}

// openSpare opens a descriptor that is only there to be closed when no other is left; -1: none is left.
func openSpare() int {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	if err != nil {
		return -1
	}
	return fd
}
