//go:build !linux

package engine

import "golang.org/x/sys/unix"

func writeTo(fd int, b []byte) (n int, err error) { return unix.Write(fd, b) }
