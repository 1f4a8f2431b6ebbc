package rig

import (
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"
)

// Proxy forwards TCP connections, and fails as a network does. It needs no rights, and nobody
// but its own clients notices what it does. Its methods may be called from any goroutine; none blocks.
type Proxy struct {
	Addr string // host:port where it listens; set once

	wg sync.WaitGroup // all its goroutines

	mu     sync.Mutex
	target string        // guarded by mu, as all below
	delay  time.Duration // what each piece of data waits
	gate   chan struct{} // closed while data passes
	life   *proxyLife    // nil while it is cut
}

// proxyLife is what lives from one beginning to listen to the next cut.
type proxyLife struct {
	ln    net.Listener
	ended chan struct{}
	conns map[*net.TCPConn]struct{} // both sides of each connection; guarded by Proxy.mu
}

const (
	proxyBuffer = 32 << 10        // bytes of a piece of data
	proxyDial   = 5 * time.Second // bounds the dial of the target
)

// StartProxy returns a proxy that listens on a free port of 127.0.0.1 and forwards to target,
// host:port. Whether anybody listens there is found out by each connection: if not, it is reset.
func StartProxy(target string) (*Proxy, error) {
	addr, err := FreePort("127.0.0.1")
	if err != nil {
		return nil, fmt.Errorf("start proxy to %s: %w", target, err)
	}
	p := &Proxy{Addr: addr, target: target, gate: make(chan struct{})}
	if err := p.Heal(); err != nil {
		return nil, fmt.Errorf("start proxy to %s: %w", target, err)
	}
	return p, nil
}

// SetTarget has new connections forwarded to target. Those that there are go on.
func (p *Proxy) SetTarget(target string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.target = target
}

// SetDelay has each piece of data, of up to 32 KiB, wait for d before it passes, and the next one
// behind it: a slow link rather than a long one.
func (p *Proxy) SetDelay(d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.delay = d
}

// Cut resets all connections on both sides and refuses new ones, until Heal or Stall. One that is
// just being accepted may see an end instead of a reset.
func (p *Proxy) Cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	l := p.life
	if l == nil {
		return
	}
	p.life = nil
	_ = l.ln.Close()
	close(l.ended)
	for c := range l.conns {
		reset(c)
	}
}

// Stall is a silent cut: connections stay open and new ones are accepted, but neither data nor the
// end of a connection passes, until Heal lets all of it go on. A piece of data that is being
// written when Stall is called may still arrive. Stall fails only where Heal does.
func (p *Proxy) Stall() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.passes() {
		p.gate = make(chan struct{})
	}
	return p.listen()
}

// Heal forwards again. It fails only if another program has taken the port since a Cut.
func (p *Proxy) Heal() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.passes() {
		close(p.gate)
	}
	return p.listen()
}

// Stop cuts the proxy and returns when all of it has ended.
func (p *Proxy) Stop() {
	p.Cut()
	p.wg.Wait()
}

// passes reports whether data passes. Called with mu held.
func (p *Proxy) passes() bool {
	select {
	case <-p.gate:
		return true
	default:
		return false
	}
}

// listen begins a life unless there is one. Called with mu held.
func (p *Proxy) listen() error {
	if p.life != nil {
		return nil
	}
	ln, err := net.Listen("tcp", p.Addr)
	if err != nil {
		return fmt.Errorf("proxy to %s: %w", p.target, err)
	}
	l := &proxyLife{ln: ln, ended: make(chan struct{}), conns: map[*net.TCPConn]struct{}{}}
	p.life = l
	p.wg.Go(func() { p.accept(l) })
	return nil
}

func (p *Proxy) accept(l *proxyLife) {
	for {
		conn, err := l.ln.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			time.Sleep(pollEvery) // no file descriptor left: try again
			continue
		}
		p.wg.Go(func() { p.forward(l, conn.(*net.TCPConn)) })
	}
}

// forward carries one connection until both directions have ended.
func (p *Proxy) forward(l *proxyLife, client *net.TCPConn) {
	if !p.keep(l, client) {
		return
	}
	defer p.drop(l, client)
	if !p.pass(l) {
		return
	}
	p.mu.Lock()
	target := p.target
	p.mu.Unlock()
	conn, err := net.DialTimeout("tcp", target, proxyDial)
	if err != nil {
		reset(client)
		return
	}
	server := conn.(*net.TCPConn)
	if !p.keep(l, server) {
		return
	}
	defer p.drop(l, server)
	var back sync.WaitGroup
	back.Go(func() { p.carry(l, client, server) })
	p.carry(l, server, client)
	back.Wait()
}

// carry copies what src sends, and how it ends, to dst.
func (p *Proxy) carry(l *proxyLife, dst, src *net.TCPConn) {
	buf := make([]byte, proxyBuffer)
	for {
		n, err := src.Read(buf)
		if !p.pass(l) {
			return
		}
		if _, failed := dst.Write(buf[:n]); failed != nil {
			err = failed
		}
		if err == io.EOF {
			_ = dst.CloseWrite() // the other direction may go on
			return
		}
		if err != nil {
			reset(src)
			reset(dst)
			return
		}
	}
}

// pass waits until data may pass; false says that its life has ended.
func (p *Proxy) pass(l *proxyLife) bool {
	p.mu.Lock()
	gate, delay := p.gate, p.delay
	p.mu.Unlock()
	select {
	case <-gate:
	case <-l.ended:
		return false
	}
	if delay > 0 {
		select {
		case <-time.After(delay):
		case <-l.ended:
			return false
		}
	}
	return true
}

// keep remembers c for Cut, or resets it if its life has ended.
func (p *Proxy) keep(l *proxyLife, c *net.TCPConn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.life != l {
		reset(c)
		return false
	}
	l.conns[c] = struct{}{}
	return true
}

func (p *Proxy) drop(l *proxyLife, c *net.TCPConn) {
	_ = c.Close()
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(l.conns, c)
}

// reset closes c so that its other end sees a reset rather than an end.
func reset(c *net.TCPConn) {
	_ = c.SetLinger(0)
	_ = c.Close()
}

// Proxies fail together.
type Proxies []*Proxy

// Cut cuts all of them.
func (all Proxies) Cut() {
	for _, p := range all {
		p.Cut()
	}
}

// Stall stalls all of them.
func (all Proxies) Stall() error { return all.each((*Proxy).Stall) }

// Heal heals all of them.
func (all Proxies) Heal() error { return all.each((*Proxy).Heal) }

func (all Proxies) each(do func(*Proxy) error) error {
	var errs []error
	for _, p := range all {
		errs = append(errs, do(p))
	}
	return errors.Join(errs...)
}
