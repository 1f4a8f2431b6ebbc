package engine

import (
	"encoding/binary"
	"fmt"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// loop is one epoll instance and the goroutine that serves its connections. The instance is waited on by the
// runtime's own poller, so that a loop at rest holds no thread.
type loop struct {
	e     *Engine
	sys   *sys
	ls    *loops
	fd    int      // the epoll instance
	file  *os.File // of fd
	raw   syscall.RawConn
	bell  int           // an eventfd: ring it when todo was empty, or to end
	ended chan struct{} // closed when the goroutine has ended

	// Owned by the loop.
	events [128]unix.EpollEvent
	n      int // of events
	iov    [maxCoalesce][]byte
	buf    [readSize]byte
	intake intake // of whose turn it is
	taken  []*polled
	lobby  lobby

	mu   sync.Mutex
	todo []*polled // guarded by mu; each connection once
	told []uint32  // guarded by mu: guests whose decision is there
	due  bool      // guarded by mu: the sweep has come
	stop bool      // guarded by mu
}

func startLoop(ls *loops) (*loop, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("engine: epoll_create: %w", err)
	}
	l := &loop{e: ls.s.e, sys: &kernel, ls: ls, fd: fd, ended: make(chan struct{}), lobby: newLobby()}
	if l.e.o.sys != nil {
		l.sys = l.e.o.sys
	}
	if l.bell, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		_ = unix.Close(fd)
		l.lobby.close()
		return nil, fmt.Errorf("engine: eventfd: %w", err)
	}
	if err = unix.SetNonblock(fd, true); err == nil { // or os.NewFile gives it a thread
		err = l.watch(unix.EPOLL_CTL_ADD, l.bell, unix.EPOLLIN, bellEvent)
	}
	l.file = os.NewFile(uintptr(fd), "epoll")
	if err == nil {
		err = l.file.SetReadDeadline(time.Time{}) // fails if the runtime's poller did not take it
	}
	if err == nil {
		l.raw, err = l.file.SyscallConn()
	}
	if err != nil {
		l.close()
		return nil, fmt.Errorf("engine: epoll: %w", err)
	}
	go l.run()
	return l, nil
}

func (l *loop) close() {
	_ = l.file.Close()
	_ = unix.Close(l.bell)
	l.lobby.close()
}

// end stops the loop, which has no connection any more, and waits for it.
func (l *loop) end() {
	l.mu.Lock()
	l.stop = true
	l.ring()
	l.mu.Unlock()
	<-l.ended
	l.close()
}

// post has p looked at soon.
func (l *loop) post(p *polled) {
	l.mu.Lock()
	l.todo = append(l.todo, p)
	if len(l.todo) == 1 {
		l.ring()
	}
	l.mu.Unlock()
}

// tell has a guest looked at whose decision is there.
func (l *loop) tell(id uint32) {
	l.mu.Lock()
	l.told = append(l.told, id)
	l.ring()
	l.mu.Unlock()
}

// tick has the listener and the times of all guests looked at.
func (l *loop) tick() {
	l.mu.Lock()
	l.due = true
	l.ring()
	l.mu.Unlock()
}

func (l *loop) ring() {
	var one [8]byte
	binary.NativeEndian.PutUint64(one[:], 1)
	_, _ = unix.Write(l.bell, one[:]) // it rings already if this fails
}

// control adds p's descriptor or changes what is waited for. p.c.mu is held. An event carries the reference,
// not the descriptor: one that is gone is found by nobody.
func (l *loop) control(op int, p *polled) error {
	if err := l.sys.control(l.fd, op, int(p.fd), p.mask, p.c.ref); err != nil {
		return fmt.Errorf("epoll_ctl: %w", err)
	}
	return nil
}

// An event whose generation is 0 is of no connection. Its slot is one of these, or the number of a guest.
const (
	bellEvent  = 0
	entryEvent = 1
	firstGuest = 2
)

// watch adds a descriptor of the loop's own, or changes what is waited for.
func (l *loop) watch(op, fd int, mask, what uint32) error {
	return unix.EpollCtl(l.fd, op, fd, &unix.EpollEvent{Events: mask, Fd: int32(what)})
}

func (l *loop) run() {
	defer close(l.ended)
	poll := l.poll
	for {
		if err := l.raw.Read(poll); err != nil {
			panic(fmt.Sprint("engine: the epoll instance cannot be waited on: ", err)) // its connections would hang
		}
		for i := range l.events[:l.n] {
			ev := &l.events[i]
			switch ref := refOf(ev); {
			case ref>>32 != 0:
				if c := l.e.table.get(ref); c != nil {
					polledOf(c).ready(ev.Events)
				}
			case ref == entryEvent:
				l.accept()
			case ref != bellEvent:
				l.call(uint32(ref))
			case !l.answer():
				return
			}
		}
	}
}

// poll takes the events that are there and returns false to be called again when there are some.
func (l *loop) poll(fd uintptr) bool {
	for {
		n, err := l.sys.wait(int(fd), l.events[:])
		if err == unix.EINTR {
			continue
		}
		l.n = max(0, n)
		return n > 0
	}
}

// answer looks at who was posted and returns false at the end.
func (l *loop) answer() bool {
	var count [8]byte
	_, _ = unix.Read(l.bell, count[:]) // only to silence it
	l.mu.Lock()
	l.taken, l.todo = l.todo, l.taken[:0]
	told, due, stop := l.told, l.due, l.stop
	l.told, l.due = nil, false
	l.mu.Unlock()
	for _, id := range told {
		l.decided(id)
	}
	if due {
		l.sweep()
	}
	for _, p := range l.taken {
		p.ready(0)
	}
	clear(l.taken)
	l.taken = l.taken[:0]
	return !stop
}
