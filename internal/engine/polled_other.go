//go:build !linux

package engine

import (
	"net"
	"syscall"
)

// loops is Linux's: elsewhere every connection has threads.
type loops struct{ s *service }

func (*loops) listen(net.Listener) net.Listener { return nil }

func (*loops) tick() {}

func (*loops) newConn() *conn { return new(conn) }

func (*loops) take(*conn, net.Conn, syscall.RawConn) bool { return false }

func (*loops) stop() {}

// sys are the system calls of loops.
type sys struct{}
