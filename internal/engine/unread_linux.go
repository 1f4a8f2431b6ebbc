package engine

import "golang.org/x/sys/unix"

// unreadOn reports whether the socket has bytes from its peer that were not read yet.
func unreadOn(fd int) bool {
	n, err := unix.IoctlGetInt(fd, unix.TIOCINQ)
	return err == nil && n > 0
}
