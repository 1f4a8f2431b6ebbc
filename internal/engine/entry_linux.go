package engine

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"strconv"
	"sync"
	"syscall"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"
)

// entry is where the loops of a Serve accept. It is also the listener of that Serve's net/http, which gets
// from it what the loops hand over: everything but WebSocket upgrades.
type entry struct {
	net.Listener
	s   *service
	sys *sys
	raw syscall.RawConn
	tcp bool

	turn     sync.Mutex       // held while one loop accepts: so that no other gets its spare descriptor
	acceptFn func(fd uintptr) // method value of accept
	accepted struct {         // guarded by turn: of the last call of acceptFn
		fd   int
		from syscall.Sockaddr
		err  error
	}
	inherits bool // sockets have their options from the listener
	older    int  // guarded by turn: at most so many sockets wait that came before the listener had them

	mu     sync.Mutex
	some   sync.Cond // L is mu: queue is not empty, or failed is set
	queue  []passed  // guarded by mu; at most MaxPlain
	failed error     // guarded by mu: why nothing is accepted any more
}

// passed is a socket on its way to net/http. It counts as plain.
type passed struct {
	fd    int
	early []byte
	from  netip.AddrPort // of the client, if a proxy told it
}

// listen takes ln over if the loops can accept from it, or returns nil.
func (ls *loops) listen(ln net.Listener) net.Listener {
	if ls == nil {
		return nil
	}
	n := &entry{Listener: ln, s: ls.s}
	n.acceptFn = n.accept
	n.some.L = &n.mu
	switch ln.(type) {
	case *net.TCPListener:
		n.tcp = true
	case *net.UnixListener:
	default:
		return nil
	}
	var err error
	if n.raw, err = ln.(syscall.Conn).SyscallConn(); err != nil {
		return nil
	}
	if ls.once.Do(ls.start); len(ls.all) == 0 {
		return nil
	}
	if err := n.raw.Control(func(fd uintptr) {
		n.inherits = setSocket(int(fd), n.tcp, &ls.s.e.o)
		n.older = waiting(int(fd))
		setDefer(int(fd))
	}); err != nil {
		return nil
	}
	n.sys = ls.all[0].sys
	ls.entry = n
	for _, l := range ls.all {
		l.tick() // which begins to accept
	}
	return n
}

// tick has the loops look at their guests' times, and finds a listener that somebody else has closed.
func (ls *loops) tick() {
	if ls == nil {
		return
	}
	if ls.entry != nil {
		if err := ls.entry.raw.Control(func(uintptr) {}); err != nil {
			ls.entry.fail(err)
		}
		for _, l := range ls.all {
			l.tick()
		}
	}
}

// take gets one socket that waits, with its options set, or unix.EAGAIN.
func (n *entry) take() (fd int, from syscall.Sockaddr, err error) {
	n.turn.Lock()
	defer n.turn.Unlock()
	return n.takeNow()
}

func (n *entry) accept(ln uintptr) {
	n.accepted.fd, n.accepted.from, n.accepted.err = n.sys.accept1(int(ln))
}

// takeNow is take for who has the turn.
func (n *entry) takeNow() (fd int, from syscall.Sockaddr, err error) {
	if err := n.raw.Control(n.acceptFn); err != nil {
		return -1, nil, err
	}
	fd, from, err = n.accepted.fd, n.accepted.from, n.accepted.err
	if err == nil && (!n.inherits || n.older > 0) {
		n.older--
		setSocket(fd, n.tcp, &n.s.e.o)
	}
	return fd, from, err
}

// pass gives a socket to net/http.
func (n *entry) pass(p passed) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.failed != nil {
		n.drop(p)
		return
	}
	n.queue = append(n.queue, p)
	n.some.Signal()
}

func (n *entry) drop(p passed) {
	_ = unix.Close(p.fd) // nothing was sent to it
	n.s.exit()
}

// Accept is for net/http.
func (n *entry) Accept() (net.Conn, error) {
	for {
		p, err := n.next()
		if err != nil {
			return nil, err
		}
		nc, err := connOf(p.fd)
		if err != nil {
			n.s.e.count.refused.Add(1)
			n.s.e.o.Log.Error("a socket cannot be given to net/http; closing it", zap.Error(err))
			_, _ = writeOnce(p.fd, noRoom) // the client sees a close if this fails
			n.drop(p)
			continue
		}
		h := &handed{Conn: nc, early: p.early, counted: true}
		if p.from.IsValid() {
			h.from = net.TCPAddrFromAddrPort(p.from)
		}
		return h, nil
	}
}

func (n *entry) next() (passed, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for len(n.queue) == 0 && n.failed == nil {
		n.some.Wait()
	}
	if n.failed != nil {
		return passed{}, n.failed
	}
	p := n.queue[0]
	if n.queue = n.queue[1:]; len(n.queue) == 0 {
		n.queue = nil
	}
	return p, nil
}

// Close closes the listener, and what was not accepted by net/http yet.
func (n *entry) Close() error {
	n.fail(net.ErrClosed)
	return n.Listener.Close()
}

func (n *entry) fail(err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.failed == nil {
		n.failed = err
	}
	for _, p := range n.queue {
		n.drop(p)
	}
	n.queue = nil
	n.some.Broadcast()
}

// connOf makes a net.Conn of a descriptor and closes it, or leaves it as it is and returns an error.
func connOf(fd int) (net.Conn, error) {
	second, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0) // a file closes what it has
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(second), "socket")
	nc, err := net.FileConn(f)
	_ = f.Close()
	if err != nil {
		return nil, err
	}
	_ = unix.Close(fd)
	_ = nc.(interface{ SetWriteBuffer(int) error }).SetWriteBuffer(plainBuffer) // a failed socket shows when it is written to
	return nc, nil
}

// addrOf is the address of a TCP peer.
func addrOf(sa syscall.Sockaddr) netip.AddrPort {
	switch a := sa.(type) {
	case *syscall.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(a.Addr), uint16(a.Port))
	case *syscall.SockaddrInet6:
		ip := netip.AddrFrom16(a.Addr).Unmap()
		if a.ZoneId != 0 {
			ip = ip.WithZone(strconv.Itoa(int(a.ZoneId)))
		}
		return netip.AddrPortFrom(ip, uint16(a.Port))
	}
	return netip.AddrPort{}
}

// isFull says whether the process or the system has no descriptor left.
func isFull(err error) bool { return errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE) }
