package load

import (
	"net"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/wscluster/wscluster/pkg/wire"
)

// Target is a server, and how a client gets ready there.
type Target struct {
	Addr     string // host:port
	Path     string // with its query; "" means that of a worker
	Protocol string // the subprotocol to ask for; "" for none

	// Greet makes a socket ready, by Send and Next, within the 30 s of Dial. client is its number in
	// all of the load, from 0. It is called from several goroutines. nil leaves it as the handshake did.
	Greet func(s *Socket, client int) error
}

// Worker is a target that speaks the wire: its clients say hello and wait for the socket_meta.
func Worker(addr string) Target {
	return Target{Addr: addr, Protocol: wire.Subprotocol, Greet: func(s *Socket, _ int) error { return s.Hello("") }}
}

const (
	// A pair of addresses has some 28,000 ports, and connects get slow when half of them are taken.
	perSource = 14_000

	// HAProxy counts by source, so that even a few clients come from several.
	minSources = 32
)

// Loopback are the addresses of 127.0.0.0/8 from which so many clients dial: 32 at least, and one
// for each 14,000. Client i takes the i-th, and begins anew behind the last.
func Loopback(clients int) []net.IP {
	all := make([]net.IP, max(minSources, (clients+perSource-1)/perSource))
	for i := range all {
		all[i] = net.IPv4(127, 0, byte(1+i/254), byte(1+i%254))
	}
	return all
}

// lateBind has the kernel choose the port when it knows the destination: ports count for each pair
// of addresses then, not for each source.
func lateBind(_, _ string, c syscall.RawConn) (err error) {
	if ctrl := c.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1)
	}); ctrl != nil {
		return ctrl
	}
	return err
}
