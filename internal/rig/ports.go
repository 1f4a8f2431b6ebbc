package rig

import (
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
	"sync"
	"time"
)

// Ports are taken from below the range that Linux gives to outgoing connections (32768 and up by
// default): those come and go between the choice of a port and its use.
const firstPort, lastPort = 15000, 32000

var (
	portsMu sync.Mutex
	ports   = map[int]bool{} // guarded by portsMu: given out by this process
)

// FreePort returns host:port with a TCP port on which nobody listens on host, never the same port
// twice in this process. Another process may still take it first: that is seldom, as ports are
// chosen at random.
func FreePort(host string) (string, error) {
	portsMu.Lock()
	defer portsMu.Unlock()
	var err error
	for range 1000 {
		port := firstPort + rand.IntN(lastPort-firstPort)
		if ports[port] {
			continue
		}
		addr := net.JoinHostPort(host, strconv.Itoa(port))
		var ln net.Listener
		if ln, err = net.Listen("tcp", addr); err != nil {
			continue
		}
		_ = ln.Close()
		ports[port] = true
		return addr, nil
	}
	return "", fmt.Errorf("no free port on %s among 1000 tried from %d to %d: %w", host, firstPort, lastPort, err)
}

// dialable reports why addr does not accept a TCP connection now.
func dialable(addr string) error {
	conn, err := net.DialTimeout("tcp", addr, time.Second)
	if err != nil {
		return err
	}
	return conn.Close()
}
