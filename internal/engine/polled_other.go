//go:build !linux

package engine

import (
	"errors"
	"net"
	"syscall"
)

// loops is Linux's: elsewhere every connection has threads.
type loops struct{}

func startLoops(*Engine) (*loops, error) {
	return nil, errors.New("engine: Epoll needs Linux")
}

func (*loops) take(*conn, net.Conn, syscall.RawConn) bool { return false }

func (*loops) stop() {}
