package engine

import (
	"bytes"
	"net/http"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// lobby is where a loop has the sockets that it accepted until they are connections, net/http's or closed. The
// loop alone uses it.
type lobby struct {
	open  bool // the listener is waited for
	spare int  // a descriptor to be closed when there is no other; -1: none

	guests map[uint32]*guest // those that had to wait
	last   uint32            // the number that was given last
	free   *guest            // one to be used again
	fields []field           // scratch
}

// guest is a socket in its handshake. Most have all of it in their first read, and are never waited for.
type guest struct {
	fd       int
	id       uint32 // 0: not waited for
	mask     uint32 // what epoll waits for
	buf      []byte // what has come and was not used
	scanned  int    // how much of buf has no end of a header
	deadline time.Duration
	from     netip.AddrPort
	idle     bool // between requests
	proxied  bool // the PROXY header is still to come
	told     bool // from is what it said

	asked *conn  // whose decision comes later; nothing is read meanwhile
	key   string // of asked
}

func newLobby() lobby { return lobby{spare: openSpare(), guests: make(map[uint32]*guest)} }

func (b *lobby) close() {
	if b.spare >= 0 {
		_ = unix.Close(b.spare)
	}
}

// listen has the loop wait for the listener, and for a spare descriptor first.
func (l *loop) listen() {
	b := &l.lobby
	if b.spare < 0 {
		b.spare = openSpare()
	}
	if b.open || b.spare < 0 {
		return
	}
	_ = l.ls.entry.raw.Control(func(fd uintptr) { // the sweep finds a listener that is closed
		b.open = l.watch(unix.EPOLL_CTL_ADD, int(fd), unix.EPOLLIN|unix.EPOLLEXCLUSIVE, entryEvent) == nil
	})
}

// rest has the loop not wait for the listener until the next sweep.
func (l *loop) rest() {
	l.lobby.open = false
	_ = l.ls.entry.raw.Control(func(fd uintptr) { _ = l.watch(unix.EPOLL_CTL_DEL, int(fd), 0, entryEvent) })
}

// maxAccepts is how many sockets are accepted before others get their turn.
const maxAccepts = 16

func (l *loop) accept() {
	n := l.ls.entry
	for range maxAccepts {
		if !l.lobby.open {
			return
		}
		if l.ls.s.stopping() {
			l.rest()
			return
		}
		fd, from, err := n.take()
		switch {
		case err == nil:
			l.greet(fd, addrOf(from))
		case err == unix.EAGAIN:
			return
		case isFull(err):
			l.turnAway()
		case err == unix.EBADF || err == unix.EINVAL || err == unix.ENOTSOCK || err == unix.EOPNOTSUPP:
			n.fail(err)
			l.rest()
			return
		case err == unix.ENOBUFS || err == unix.ENOMEM || err == unix.EPERM:
			l.rest()
			return
		} // else it failed before it was accepted
	}
}

// turnAway refuses one socket with the spare descriptor. If somebody else takes the number, nobody is
// accepted until the next sweep.
func (l *loop) turnAway() {
	b, n := &l.lobby, l.ls.entry
	n.turn.Lock()
	defer n.turn.Unlock()
	if b.spare >= 0 {
		_ = unix.Close(b.spare)
		if fd, _, err := n.takeNow(); err == nil {
			l.showOut(fd)
		}
		b.spare = openSpare()
	}
	if b.spare < 0 {
		l.rest()
	}
}

// showOut refuses a socket for which there is no room.
func (l *loop) showOut(fd int) {
	l.e.count.refused.Add(1)
	_, _ = l.sys.read1(fd, l.buf[:]) // unread bytes would make the close a reset, and lose the answer
	if !l.e.o.ProxyProtocol {        // or the proxy has to be known first
		_, _ = l.sys.write1(fd, noRoom)
	}
	_ = l.sys.close(fd)
}

// greet has a new socket begin. With TCP_DEFER_ACCEPT its first bytes are there.
func (l *loop) greet(fd int, from netip.AddrPort) {
	if l.e.count.plain.Load() >= int64(l.e.o.MaxPlain) {
		l.showOut(fd)
		return
	}
	l.ls.s.enter()
	g := l.lobby.free
	if l.lobby.free = nil; g == nil {
		g = new(guest)
	}
	*g = guest{fd: fd, from: from, deadline: l.e.now() + l.e.o.HandshakeTime, proxied: l.e.o.ProxyProtocol}
	l.read(g)
}

// read takes what has come.
func (l *loop) read(g *guest) {
	n, err := l.sys.read1(g.fd, l.buf[:])
	switch {
	case err != nil:
		l.dismiss(g)
	case len(g.buf) == 0:
		l.hear(g, l.buf[:n])
	default:
		g.buf = append(g.buf, l.buf[:n]...)
		l.hear(g, g.buf)
	}
}

// hear does what b asks for, and keeps what asks for nothing yet.
func (l *loop) hear(g *guest, b []byte) {
	if g.proxied {
		from, n, err := readProxy(b)
		if err != nil {
			l.e.count.refused.Add(1)
			l.dismiss(g)
			return
		}
		if n == 0 {
			l.keep(g, b, unix.EPOLLIN)
			return
		}
		if b, g.proxied = b[n:], false; from.IsValid() {
			g.from, g.told = from, true
		}
	}
	for {
		end := headerEnd(b, g.scanned)
		if end == 0 && len(b) <= l.e.o.HeaderBytes {
			g.scanned = len(b)
			l.keep(g, b, unix.EPOLLIN)
			return
		}
		if end == 0 || end > l.e.o.HeaderBytes {
			l.handOver(g, b)
			return
		}
		r, ok := readUpgrade(b[:end], &l.lobby.fields)
		if !ok {
			l.handOver(g, b)
			return
		}
		b, g.scanned = b[end:], 0
		bad := l.knock(g, &r, b)
		if bad == nil || !l.refuse(g, bad, len(b)) {
			return
		}
	}
}

// knock asks the Handler about an upgrade; rest is what came behind its header. It returns the refusal, or nil if g
// is a connection now or waits to be decided about.
func (l *loop) knock(g *guest, r *http.Request, rest []byte) *refusal {
	if bad := checkLimits(r, len(l.lobby.fields), &l.e.o); bad != nil {
		return bad
	}
	key, protos, bad := checkUpgrade(r)
	if bad != nil {
		return bad
	}
	req := &Request{Target: r.RequestURI, Host: r.Host, Header: r.Header, Remote: g.from, Protos: protos}
	c, bad := l.ls.s.newConn(&intro{req: req})
	if bad != nil {
		return bad
	}
	id := l.number(g)
	d, decided := c.ask(func() { l.tell(id) })
	if !decided {
		g.asked, g.key, g.deadline = c, key, l.e.now()+l.e.o.HandshakeTime
		l.keep(g, rest, unix.EPOLLRDHUP)
		return nil
	}
	return l.conclude(g, c, key, &d, rest)
}

// conclude does what was decided.
func (l *loop) conclude(g *guest, c *conn, key string, d *Decision, rest []byte) *refusal {
	if bad := c.judge(d); bad != nil {
		l.e.table.remove(c)
		return bad
	}
	c.intro.hello = acceptResponse(key, d.Proto, d.Header)
	c.intro.early = slices.Clone(rest)
	fd := g.fd
	l.forget(g)
	c.admitted()
	p := l.ls.line(c, fd)
	l.ls.s.exit() // not before there is a line, so that Serve misses nobody
	p.join()
	return nil
}

// refuse answers and goes on with the next request, of which more bytes have come. It returns false if the socket does not take
// the answer, and is closed.
func (l *loop) refuse(g *guest, bad *refusal, more int) bool {
	l.e.count.refused.Add(1)
	answer := refuseResponse(bad, time.Now())
	if n, err := l.sys.write1(g.fd, answer); err != nil || n < len(answer) {
		l.dismiss(g)
		return false
	}
	g.idle, g.deadline = more == 0, l.e.now()+idleTime
	if more > 0 {
		g.deadline = l.e.now() + l.e.o.HandshakeTime
	}
	return true
}

// number gives g one, by which events name it.
func (l *loop) number(g *guest) uint32 {
	for b := &l.lobby; g.id == 0; {
		if b.last++; b.last >= firstGuest && b.guests[b.last] == nil {
			g.id = b.last
		}
	}
	return g.id
}

// keep has g wait for mask with b, which may be a part of its own buffer.
func (l *loop) keep(g *guest, b []byte, mask uint32) {
	if g.buf = append(g.buf[:0], b...); len(g.buf) == 0 {
		g.buf = nil
	}
	id := l.number(g)
	if g.mask == mask {
		return
	}
	op := unix.EPOLL_CTL_MOD
	if g.mask == 0 {
		op = unix.EPOLL_CTL_ADD
	}
	l.lobby.guests[id], g.mask = g, mask
	if l.watch(op, g.fd, mask, id) != nil {
		l.dismiss(g)
	}
}

// call does what an event asks for. While a decision is awaited that is the client's end.
func (l *loop) call(id uint32) {
	g := l.lobby.guests[id]
	switch {
	case g == nil: // it is gone
	case g.asked != nil:
		l.giveUp(g, nil)
	default:
		if g.idle {
			g.idle, g.deadline = false, l.e.now()+l.e.o.HandshakeTime
		}
		l.read(g)
	}
}

// decided does what a decision says that came later.
func (l *loop) decided(id uint32) {
	g := l.lobby.guests[id]
	if g == nil || g.asked == nil {
		return // the client gave up
	}
	c := g.asked
	d, ok := c.decision()
	if !ok {
		return // it is of a request before this one
	}
	g.asked = nil
	if bad := l.conclude(g, c, g.key, &d, g.buf); bad != nil {
		l.goOn(g, bad)
	}
}

// giveUp ends the wait for a decision with a refusal; nil: the client is gone.
func (l *loop) giveUp(g *guest, bad *refusal) {
	if bad == nil {
		l.e.count.refused.Add(1)
		l.dismiss(g)
		return
	}
	l.e.table.remove(g.asked)
	g.asked = nil
	l.goOn(g, bad)
}

// goOn refuses a guest that waited and takes what it sent meanwhile.
func (l *loop) goOn(g *guest, bad *refusal) {
	if l.refuse(g, bad, len(g.buf)) {
		l.hear(g, g.buf)
	}
}

// sweep looks at the times of all guests, and at the listener.
func (l *loop) sweep() {
	stopping, now := l.ls.s.stopping(), l.e.now()
	for _, g := range l.lobby.guests {
		switch {
		case g.asked != nil && stopping:
			l.giveUp(g, busy("the server is shutting down"))
		case g.asked != nil && now >= g.deadline:
			l.giveUp(g, busy("the server did not decide in time"))
		}
		if g.fd >= 0 && g.asked == nil && (stopping || now >= g.deadline) {
			l.dismiss(g)
		}
	}
	if !stopping {
		l.listen()
	}
}

// handOver gives g to net/http with all that it sent.
func (l *loop) handOver(g *guest, b []byte) {
	p := passed{fd: g.fd, early: bytes.Clone(b)}
	if g.told {
		p.from = g.from
	}
	l.forget(g)
	l.ls.entry.pass(p)
}

// dismiss closes a guest's socket.
func (l *loop) dismiss(g *guest) {
	if g.asked != nil {
		l.e.table.remove(g.asked)
	}
	fd := g.fd
	l.forget(g)
	_ = l.sys.close(fd) // nothing is left to lose
	l.ls.s.exit()
}

// forget takes g out of the lobby. Its socket stays open.
func (l *loop) forget(g *guest) {
	if g.mask != 0 {
		delete(l.lobby.guests, g.id)
		_ = l.watch(unix.EPOLL_CTL_DEL, g.fd, 0, 0) // it is there
	}
	*g = guest{fd: -1}
	l.lobby.free = g
}
