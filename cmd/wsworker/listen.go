package main

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"os"
	"strings"
	"syscall"
)

// unixPrefix begins an address that is the path of a unix socket.
const unixPrefix = "unix:"

// listen listens on host:port, or on a unix socket that its user and group may write to. A socket that nobody serves
// any more is replaced.
func listen(ctx context.Context, addr string) (net.Listener, error) {
	var c net.ListenConfig
	path, isUnix := strings.CutPrefix(addr, unixPrefix)
	if !isUnix {
		c.SetMultipathTCP(false) // HAProxy does not speak it, and its sockets do not inherit the engine's options
		return c.Listen(ctx, "tcp", addr)
	}
	if nc, err := net.Dial("unix", path); err == nil {
		_ = nc.Close()
	} else if info, gone := os.Lstat(path); gone == nil && info.Mode().Type() == fs.ModeSocket && errors.Is(err, syscall.ECONNREFUSED) {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	ln, err := c.Listen(ctx, "unix", path)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, 0o660); err != nil {
		_ = ln.Close()
		return nil, err
	}
	return ln, nil
}
