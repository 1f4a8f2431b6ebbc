package engine

import (
	"io"
	"net"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"

	"go.uber.org/zap"
	"golang.org/x/sys/unix"
)

// loops are the epoll loops of one Serve, one for each core that Go uses. They start with the first socket
// that needs them: a Serve over pipes has none, so that it can be tested with a clock of its own.
type loops struct {
	s    *service
	once sync.Once
	all  []*loop       // none if they could not be started
	next atomic.Uint32 // whose turn it is to get a connection

	entry *entry // where they accept; nil: net/http does
}

func (ls *loops) start() {
	for range min(runtime.GOMAXPROCS(0), runtime.NumCPU()) {
		l, err := startLoop(ls)
		if err != nil {
			ls.s.e.o.Log.Error("an epoll loop cannot be started; those that could, or goroutines, do its work", zap.Error(err))
			return
		}
		ls.all = append(ls.all, l)
	}
}

// stop ends the loops, which have no connection any more, and waits for them.
func (ls *loops) stop() {
	if ls == nil {
		return
	}
	for _, l := range ls.all {
		l.end()
	}
}

// take gives c a line at one of the loops, with a descriptor of its own, and closes nc. It returns false,
// with nothing done, if there are no loops or no more descriptors.
func (ls *loops) take(c *conn, nc net.Conn, raw syscall.RawConn) bool {
	if ls == nil {
		return false
	}
	if ls.once.Do(ls.start); len(ls.all) == 0 {
		return false
	}
	fd := -1
	if err := raw.Control(func(old uintptr) {
		fd, _ = ls.all[0].sys.dup(int(old)) // it stays non-blocking: that is the socket's
	}); err != nil || fd < 0 {
		return false
	}
	_ = nc.Close()                    // the socket lives on by the other descriptor
	c.s.conns.Go(ls.line(c, fd).join) // so that Open delays no loop
	return true
}

// line gives c, which then lives until a loop has closed fd, its line.
func (ls *loops) line(c *conn, fd int) *polled {
	p := polledOf(c)
	p.l, p.fd = ls.all[int(ls.next.Add(1))%len(ls.all)], int32(fd)
	c.s.conns.Add(1)
	return p
}

// newConn makes a connection that can have a line at a loop.
func (ls *loops) newConn() *conn {
	if ls == nil {
		return new(conn)
	}
	p := new(polled)
	p.c.line = p
	return &p.c
}

// polled is the line of a connection whose bytes a loop moves. It has no goroutine. The descriptor is closed
// under the lock under which it is written to, so that no byte reaches another connection that got its
// number; the loop alone reads from it and closes it.
type polled struct {
	c conn
	l *loop

	// Guarded by c.mu; fd and done change on the loop only.
	fd     int32  // -1: closed
	mask   uint32 // what epoll waits for
	joined bool   // epoll knows the descriptor
	posted bool   // it is in the loop's list
	done   bool   // what the peer sends is thrown away
	halved bool   // the peer was told that nothing more comes
}

// join is a connection's beginning: Open, and then its place in its loop.
func (p *polled) join() {
	c := &p.c
	early := c.open()
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(early) > 0 {
		in := c.s.newIntake()
		if c.in = &in; c.stream {
			in.thrown = len(early)
		} else {
			in.rest = early
			c.arrived(len(early))
		}
	}
	p.joined, p.mask = true, p.want()
	if c.state != gone {
		if err := p.l.control(unix.EPOLL_CTL_ADD, p); err != nil {
			c.drop(byLoss, err)
		}
	}
	if c.in != nil || c.state != open || !c.q.empty() {
		p.post() // what happened before it was joined
	}
}

// try is direct: epoll is asked only when the socket is full.
func (p *polled) try(b []byte) (n int, err error) { return p.l.sys.write1(int(p.fd), b) }

func (p *polled) flush() {
	p.arm()
	if p.c.q.empty() || p.c.owesWritable() {
		p.post()
	}
}

func (p *polled) halve() {
	if p.halved || p.c.state == gone {
		return
	}
	p.halved = true
	if p.l.sys.shutdown(int(p.fd), unix.SHUT_WR) != nil {
		p.c.drop(p.c.by, p.c.end.cause)
	}
}

func (p *polled) turn() {
	p.arm()
	if !p.c.paused {
		p.post()
	}
}

func (p *polled) unread() bool { return unreadOn(int(p.fd)) }

func (p *polled) cut() { p.post() }

// post has the loop look at the connection soon. c.mu is held.
func (p *polled) post() {
	if p.joined && !p.posted && p.fd >= 0 {
		p.posted = true
		p.l.post(p)
	}
}

// polledOf is the line of a connection that epoll names.
func polledOf(c *conn) *polled { return c.line.(*polled) }

// want is what epoll must wait for. c.mu is held.
func (p *polled) want() (mask uint32) {
	if !p.c.q.empty() {
		mask |= unix.EPOLLOUT
	}
	if !p.c.paused && (!p.done || p.c.q.empty()) { // after the peer's close its end must wait for ours
		mask |= unix.EPOLLIN
	}
	return mask
}

// arm tells epoll what to wait for if that has changed. c.mu is held.
func (p *polled) arm() {
	mask := p.want()
	if mask == p.mask || !p.joined || p.c.state == gone {
		return
	}
	p.mask = mask
	if err := p.l.control(unix.EPOLL_CTL_MOD, p); err != nil {
		p.c.drop(byLoss, err)
	}
}

// ready is what the loop does for a connection that epoll names, or a post, without events: it writes what is
// queued, reads once, and ends what has ended. Only the loop calls it.
func (p *polled) ready(events uint32) {
	p.c.mu.Lock()
	if events == 0 { // else it may be in the list still
		p.posted = false
	}
	closed := p.fd < 0
	p.c.mu.Unlock()
	if closed {
		return
	}
	p.drain()
	p.receive(events)

	c := &p.c
	c.mu.Lock()
	if c.state != gone && p.done && c.q.empty() {
		p.halve()
	}
	c.endStream()
	p.arm()
	over := c.state == gone
	if over {
		c.release()
		_ = p.l.sys.close(int(p.fd)) // nothing is left to lose; epoll forgets it
		p.fd = -1
	} else if c.in != nil && len(c.in.rest) > 0 && !c.paused {
		p.post() // its next turn, after the others'
	}
	c.mu.Unlock()
	if over {
		c.leave()
		c.s.conns.Done()
	}
}

// maxWrites is how many writes one connection gets in its turn: a peer that takes all that comes must not
// keep the loop.
const maxWrites = 16

// drain writes what is queued until the socket is full, and tells an owed Writable.
func (p *polled) drain() {
	for n := maxWrites; n > 0; {
		p.c.mu.Lock()
		n = p.write(n)
		tell := p.c.owesWritable()
		if tell {
			p.c.told()
		}
		p.c.mu.Unlock()
		if !tell {
			return
		}
		p.c.call("Writable", func() { p.c.s.e.h.Writable(p.c.ref) })
	}
}

// write makes at most limit writes and returns how many more may be made. c.mu is held.
func (p *polled) write(limit int) (left int) {
	c := &p.c
	for ; limit > 0 && c.state != gone && !c.q.empty() && !c.owesWritable(); limit-- {
		bufs := c.q.next(p.l.iov[:0], maxCoalesce)
		n, err := p.l.sys.writeAll(int(p.fd), bufs)
		clear(bufs)
		if err != nil {
			c.drop(byLoss, err)
		}
		if n == 0 {
			break
		}
		c.wrote(n)
	}
	return limit
}

// receive feeds what a pause or the last turn has left, or reads once.
func (p *polled) receive(events uint32) {
	c := &p.c
	c.mu.Lock()
	over, paused := c.state == gone, c.paused
	waits := p.done && !c.q.empty() // nothing is read while our last bytes go out
	if !over && paused && events&(unix.EPOLLHUP|unix.EPOLLERR) != 0 {
		c.drop(byLoss, p.failure()) // epoll would name it again and again
	}
	c.mu.Unlock()
	if over || paused || waits {
		return
	}
	if c.in != nil && len(c.in.rest) > 0 {
		b := c.in.rest
		c.in.rest = nil
		p.feed(b, b)
		return
	}
	n, err := p.l.sys.read1(int(p.fd), p.l.buf[:])
	switch {
	case n == 0 && err == nil: // nothing is there yet
	case p.done:
		if err != nil {
			p.lose(err)
		}
	case c.stream:
		if !c.scrap(n, err) {
			p.finish()
		}
	case err != nil:
		p.lose(err)
	default:
		c.arrived(n)
		p.feed(p.l.buf[:n], nil)
	}
}

// feed gives bytes to the parser; own is their memory if it is the connection's own and not the loop's. The
// intake is the loop's too, unless a frame is unfinished or a pause has left something.
func (p *polled) feed(b, own []byte) {
	c := &p.c
	shared := c.in == nil
	if shared {
		p.l.intake = c.s.newIntake()
		c.in = &p.l.intake
	}
	rest, more := c.feed(b)
	if own == nil {
		rest = slices.Clone(rest)
	}
	c.in.rest = rest
	switch {
	case !more || len(rest) == 0 && !c.in.parser.busy():
		c.dropIntake()
	case shared:
		c.in = new(intake)
		*c.in = p.l.intake
	}
	p.l.intake = intake{}
	if !more {
		p.finish()
	}
}

// finish says that the peer's part is over: what else it sends is thrown away until it ends its side.
func (p *polled) finish() {
	p.c.mu.Lock()
	p.done = true
	p.c.mu.Unlock()
}

func (p *polled) lose(err error) {
	p.c.mu.Lock()
	p.c.drop(byLoss, err)
	p.c.mu.Unlock()
}

// failure is why the socket ended.
func (p *polled) failure() error {
	if n, err := unix.GetsockoptInt(int(p.fd), unix.SOL_SOCKET, unix.SO_ERROR); err == nil && n != 0 {
		return unix.Errno(n)
	}
	return io.EOF
}
