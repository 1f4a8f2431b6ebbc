package engine

import (
	"sync"

	"golang.org/x/sys/unix"
)

// judge decides over one call of a loop before it is made: an error is the call's outcome; otherwise at most limit
// bytes are moved, if limit is not 0. It is called by all loops and senders at once. A failed close still closes.
type judge func(call string, fd int) (limit int, err error)

// tamper is the kernel with a judge before it. The calls are named read, write, add, mod, shutdown, dup, close and wait;
// write stands for writev too.
func tamper(j judge) *sys {
	s := kernel
	s.wait = func(epfd int, events []unix.EpollEvent) (int, error) {
		if _, err := j("wait", epfd); err != nil {
			return -1, err
		}
		return kernel.wait(epfd, events)
	}
	s.control = func(epfd, op, fd int, mask uint32, ref ConnRef) error {
		call := "mod"
		if op == unix.EPOLL_CTL_ADD {
			call = "add"
		}
		if _, err := j(call, fd); err != nil {
			return err
		}
		return kernel.control(epfd, op, fd, mask, ref)
	}
	move := func(call string, f func(fd int, b []byte) (int, error)) func(fd int, b []byte) (int, error) {
		return func(fd int, b []byte) (int, error) {
			limit, err := j(call, fd)
			if err != nil {
				return -1, err
			}
			if limit > 0 {
				b = b[:min(limit, len(b))]
			}
			return f(fd, b)
		}
	}
	s.read, s.write = move("read", kernel.read), move("write", kernel.write)
	s.writev = func(fd int, bufs [][]byte) (int, error) {
		limit, err := j("write", fd)
		switch {
		case err != nil:
			return -1, err
		case limit > 0:
			return kernel.write(fd, bufs[0][:min(limit, len(bufs[0]))])
		}
		return kernel.writev(fd, bufs)
	}
	s.shutdown = func(fd, how int) error {
		if _, err := j("shutdown", fd); err != nil {
			return err
		}
		return kernel.shutdown(fd, how)
	}
	s.dup = func(fd int) (int, error) {
		if _, err := j("dup", fd); err != nil {
			return -1, err
		}
		return kernel.dup(fd)
	}
	s.close = func(fd int) error {
		_, err := j("close", fd)
		if closed := kernel.close(fd); err == nil {
			err = closed
		}
		return err
	}
	return &s
}

// script is a judge whose mind a test can change. Nothing fails until it is told.
type script struct {
	mu   sync.Mutex
	fail map[string]map[int]error // by call and descriptor; descriptor 0: any
	hits int
}

func (s *script) judge(call string, fd int) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	err := s.fail[call][fd]
	if err == nil {
		err = s.fail[call][0]
	}
	if err != nil {
		s.hits++
	}
	return 0, err
}

// set has every such call on fd fail from now on.
func (s *script) set(call string, fd int, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fail == nil {
		s.fail = make(map[string]map[int]error)
	}
	if s.fail[call] == nil {
		s.fail[call] = make(map[int]error)
	}
	s.fail[call][fd] = err
}

// clear has nothing fail any more and says how many calls did.
func (s *script) clear() (hits int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	hits, s.fail, s.hits = s.hits, nil, 0
	return hits
}
