package engine

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"time"
)

// This file is the PROXY protocol, version 2: what a proxy says first on its leg to this server, so that the
// client's address is known although the socket is the proxy's.

const (
	proxyHead = 16      // bytes before the addresses
	maxProxy  = 1 << 10 // bytes of it in all: addresses take 36 or, of unix sockets, 216; the rest is room for TLVs
)

var proxySignature = []byte("\r\n\r\n\x00\r\nQUIT\n")

var errNoProxy = errors.New("the peer does not speak the PROXY protocol, version 2")

// readProxy reads the PROXY header that b begins with and returns its length, or 0 if more of it has to
// come. from is the client's TCP address; it is not valid where the proxy speaks for itself (LOCAL, as in a health
// check) or for a client without one. TLVs are skipped. The error is errNoProxy, as early as it is
// known; a header of more than maxProxy bytes is none.
func readProxy(b []byte) (from netip.AddrPort, n int, err error) {
	if sign := b[:min(len(b), len(proxySignature))]; !bytes.HasPrefix(proxySignature, sign) {
		return from, 0, errNoProxy
	}
	if len(b) < proxyHead {
		return from, 0, nil
	}
	command, family := b[12], b[13]
	n = proxyHead + int(binary.BigEndian.Uint16(b[14:]))
	if command>>4 != 2 || command&0xf > 1 || n > maxProxy {
		return from, 0, errNoProxy
	}
	if local := command&0xf == 0; local {
		family = 0
	}
	size := 0 // of the addresses
	switch family {
	case 0x00: // not told
	case 0x11:
		size = 12
	case 0x21:
		size = 36
	case 0x31: // a unix socket's
		size = 216
	default:
		return from, 0, errNoProxy
	}
	if n < proxyHead+size {
		return from, 0, errNoProxy
	}
	if len(b) < n {
		return from, 0, nil
	}
	switch a := b[proxyHead:n]; family {
	case 0x11:
		from = netip.AddrPortFrom(netip.AddrFrom4([4]byte(a)), binary.BigEndian.Uint16(a[8:]))
	case 0x21:
		from = netip.AddrPortFrom(netip.AddrFrom16([16]byte(a)).Unmap(), binary.BigEndian.Uint16(a[32:]))
	}
	return from, n, nil
}

// handed is a socket for net/http of which something was read before.
type handed struct {
	net.Conn
	early   []byte   // owned by who reads: what comes before anything else from the socket
	from    net.Addr // nil: the socket's own
	counted bool     // as plain
}

func (h *handed) Read(b []byte) (int, error) {
	if len(h.early) == 0 {
		return h.Conn.Read(b)
	}
	n := copy(b, h.early)
	if h.early = h.early[n:]; len(h.early) == 0 {
		h.early = nil
	}
	return n, nil
}

func (h *handed) RemoteAddr() net.Addr {
	if h.from != nil {
		return h.from
	}
	return h.Conn.RemoteAddr()
}

// bare gives the socket itself, and what comes before anything that is read from it.
func (h *handed) bare() (nc net.Conn, early []byte) { return h.Conn, h.early }

// proxied is a socket whose PROXY header is read in the goroutine that first asks for its peer's address or
// bytes. One that has none, or not within the time, has nothing but its end.
type proxied struct {
	handed
	e    *Engine
	once sync.Once
	bad  bool
}

func (p *proxied) meet() {
	p.once.Do(func() {
		// A socket on which no deadline can be set has failed, and so will the read.
		_ = p.Conn.SetReadDeadline(time.Now().Add(p.e.o.HandshakeTime))
		from, err := p.header()
		_ = p.Conn.SetReadDeadline(time.Time{})
		if p.bad = err != nil; p.bad {
			p.e.count.refused.Add(1)
		}
		if from.IsValid() {
			p.from = net.TCPAddrFromAddrPort(from)
		}
	})
}

// header reads no byte beyond the header.
func (p *proxied) header() (netip.AddrPort, error) {
	b := make([]byte, proxyHead, maxProxy)
	if _, err := io.ReadFull(p.Conn, b); err != nil {
		return netip.AddrPort{}, err
	}
	from, n, err := readProxy(b)
	if err != nil || n > 0 {
		return from, err
	}
	b = b[:proxyHead+int(binary.BigEndian.Uint16(b[14:]))] // at most maxProxy, or readProxy had refused it
	if _, err := io.ReadFull(p.Conn, b[proxyHead:]); err != nil {
		return netip.AddrPort{}, err
	}
	from, _, err = readProxy(b)
	return from, err
}

func (p *proxied) Read(b []byte) (int, error) {
	if p.meet(); p.bad {
		return 0, io.EOF
	}
	return p.handed.Read(b)
}

func (p *proxied) RemoteAddr() net.Addr {
	p.meet()
	return p.handed.RemoteAddr()
}
