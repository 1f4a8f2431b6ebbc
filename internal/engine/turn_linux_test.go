package engine

import (
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/gobwas/ws"
	"golang.org/x/sys/unix"
)

// turns counts the calls that the one loop makes for a connection between two looks at epoll. Before open, the sockets
// are not ready; afterwards each call moves limit bytes, 0: all.
type turns struct {
	limit int

	mu    sync.Mutex
	open  bool
	now   map[string]int // calls since the last look, by name and descriptor
	most  map[string]int // the most there were
	reads []int          // descriptors, in order
}

func (c *turns) judge(call string, fd int) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if call == "wait" {
		c.now = nil
		return 0, nil
	}
	if call != "read" && call != "write" || !c.open {
		return 0, map[bool]error{true: unix.EAGAIN}[call == "read" || call == "write"]
	}
	if call == "read" {
		c.reads = append(c.reads, fd)
	}
	c.count(fmt.Sprint(call, " ", fd))
	return c.limit, nil
}

// count is add with mu held.
func (c *turns) count(what string) {
	if c.now == nil {
		c.now = make(map[string]int)
	}
	c.now[what]++
	c.most[what] = max(c.most[what], c.now[what])
}

func (c *turns) add(what string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.count(what)
}

// set opens or shuts; shut, it counts anew.
func (c *turns) set(open bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.open = open; !open {
		c.most, c.reads = make(map[string]int), nil
	}
}

// mostOf is the most of this, a call and a descriptor, between two looks.
func (c *turns) mostOf(what ...any) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.most[strings.TrimSuffix(fmt.Sprintln(what...), "\n")]
}

// newTurns has engines with one loop from now on.
func newTurns(t *testing.T, limit int) *turns {
	t.Helper()
	procs := runtime.GOMAXPROCS(1)
	t.Cleanup(func() { runtime.GOMAXPROCS(procs) })
	return &turns{limit: limit, open: true, most: make(map[string]int)}
}

// A peer that takes all that comes, in small pieces, does not keep the loop.
func TestATurnMakesSixteenWrites(t *testing.T) {
	count := newTurns(t, 10)
	s := startEcho(t, epolls, Options{sys: tamper(count.judge)})
	c := dial(t, s)
	ref := get(t, s.opened, "Open")
	fd := settled(t, s, ref)
	count.set(false)
	for range 100 { // in more than 16 writes of 10 bytes, and of 64 frames
		if err := s.Send(ref, NewText([]byte(stars(98)))); err != nil {
			t.Fatal(err)
		}
	}
	count.set(true)
	for range 100 {
		c.want("text:" + stars(98))
	}
	if n := count.mostOf("write", fd); n != 16 {
		t.Errorf("%d writes in one turn, want 16", n)
	}
	c.leave()
}

// A peer that always has something to say is read once, and then it is another's turn.
func TestATurnReadsOnce(t *testing.T) {
	count := newTurns(t, 1)
	s := startEcho(t, epolls, Options{sys: tamper(count.judge)})
	var cs [2]*client
	var fds [2]int
	for i := range cs {
		cs[i] = dial(t, s)
		fds[i] = settled(t, s, get(t, s.opened, "Open"))
	}
	count.set(false)
	for _, c := range cs {
		c.write(text(stars(100)))
	}
	count.set(true)
	for _, c := range cs {
		c.want("text:" + stars(100))
	}
	for _, fd := range fds {
		if n := count.mostOf("read", fd); n != 1 {
			t.Errorf("%d reads in one turn, want 1", n)
		}
	}
	count.mu.Lock()
	defer count.mu.Unlock()
	for i := 2; i < 200; i++ { // of 106 each
		if r := count.reads[i-2 : i+1]; r[0] == r[1] && r[1] == r[2] {
			t.Fatalf("reads %d to %d are of one of two who speak: %v", i-2, i, count.reads[:i+1])
		}
	}
}

// A peer whose reads are full of the smallest frames gets no more than 64 of them handled in a turn, and no more turns
// than another.
func TestATurnHandlesSixtyFourFrames(t *testing.T) {
	const messages = 50_000 // many reads: epoll always has one, beside what is left of the last
	count, done, n := newTurns(t, 0), make(chan struct{}), 0
	s := start(t, epolls, &hooks{message: func(ConnRef, ws.OpCode, []byte) {
		count.add("message")
		if n++; n == messages {
			close(done)
		}
	}}, Options{sys: tamper(count.judge)})
	c := dial(t, s)
	c.stream(slices.Repeat(text(""), messages))
	get(t, done, "end of the messages")
	// One turn for what epoll said and one for what was left of it may come between two looks.
	if n := count.mostOf("message"); n > 2*64 || n < 64 {
		t.Errorf("%d messages between two looks at epoll, want 64 to 128", n)
	}
	c.leave()
}
