package engine

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/gobwas/ws"
	"golang.org/x/sys/unix"
)

// weather is a judge that has calls fail by chance: the socket is not ready, a signal comes, few bytes are moved; and
// seldom a connection fails for good.
type weather struct {
	mu  sync.Mutex
	rnd *rand.Rand
}

// fatal are the errors of weather that end a connection, by call.
var fatal = map[string][]error{
	"read":  {unix.ECONNRESET, unix.ETIMEDOUT, unix.ENOMEM},
	"write": {unix.EPIPE, unix.ECONNRESET, unix.ENOBUFS, unix.ENOMEM},
	"add":   {unix.ENOSPC, unix.ENOMEM},
	"mod":   {unix.ENOMEM, unix.ENOSPC},
}

func (w *weather) judge(call string, _ int) (limit int, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	one := func(of int) bool { return w.rnd.IntN(of) == 0 }
	switch {
	case call == "wait" && one(3), call == "close" && one(3):
		return 0, unix.EINTR
	case call == "dup" && one(20):
		return 0, unix.EMFILE
	case call == "add" && one(40), (call == "mod" || call == "read" || call == "write") && one(1000):
		return 0, fatal[call][w.rnd.IntN(len(fatal[call]))]
	case call != "read" && call != "write":
		return 0, nil
	case one(4):
		return 0, unix.EAGAIN
	case one(4):
		return 0, unix.EINTR
	}
	return w.rnd.IntN(200), nil // 0: as many as there are
}

// TestBadWeather runs many connections through seeded faults. Each client gets its echoes, whole, in order and no
// other's, until its end; and that is the client's own close or a fault that was made.
func TestBadWeather(t *testing.T) {
	badWeatherFor(t, 3)
}

func badWeatherFor(t *testing.T, seeds uint64) {
	for seed := range seeds {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) { badWeather(t, seed) })
	}
}

func badWeather(t *testing.T, seed uint64) {
	const clients, messages = 30, 25
	w := &weather{rnd: rand.New(rand.NewPCG(seed, 1))}
	var s *server
	var mu sync.Mutex
	var refs []ConnRef
	ends := make(map[ConnRef][]end)
	s = start(t, epolls, &hooks{
		open: func(c ConnRef, _ *Request) {
			mu.Lock()
			refs = append(refs, c)
			mu.Unlock()
			_ = s.Send(c, NewText(fmt.Appendf(nil, "%016x", uint64(c)))) // it may have failed already
		},
		message: func(c ConnRef, op ws.OpCode, p []byte) {
			mu.Lock()
			other := refs[(len(p)*7919+int(c))%len(refs)]
			mu.Unlock()
			_ = s.Send(other, NewText(fmt.Appendf(nil, "push %016x", uint64(other))))
			_ = s.Send(c, newFrame(op, p))
			if len(p)%5 == 0 {
				s.Pause(c, true)
				go s.Pause(c, false)
			}
		},
		closed: func(c ConnRef, code ws.StatusCode, cause error) {
			mu.Lock()
			ends[c] = append(ends[c], end{c, code, cause})
			mu.Unlock()
		},
	}, Options{sys: tamper(w.judge)})
	var all sync.WaitGroup
	whole := make(chan ConnRef, clients)
	var unanswered atomic.Int32
	for k := range clients {
		all.Go(func() {
			rnd := rand.New(rand.NewPCG(seed, uint64(k)+100))
			c := connect(t, s.addr)
			defer c.nc.Close()
			c.write([]byte(upgradeRequest()))
			if _, err := http.ReadResponse(c.r, nil); err != nil {
				unanswered.Add(1) // it failed already, perhaps before it was open
				return
			}
			next := func() string { // but for pushes
				for {
					got := c.read()
					if strings.HasPrefix(got, "error:") && strings.Contains(got, "reset") {
						return "end"
					}
					if !strings.HasPrefix(got, "text:push") {
						return got
					}
					if c.ref != 0 && got != fmt.Sprintf("text:push %016x", uint64(c.ref)) {
						t.Errorf("%q came to the client of %#x", got, c.ref)
					}
				}
			}
			if got := next(); got == "end" {
				return
			} else if _, err := fmt.Sscanf(got, "text:%x", (*uint64)(&c.ref)); err != nil {
				t.Errorf("%q: %v", got, err)
				return
			}
			var frames [][]byte
			var want []string
			for i := range messages {
				p := fmt.Sprintf("%x %d ", c.ref, i) + stars([]int{0, rnd.IntN(800)}[rnd.IntN(2)])
				frames, want = append(frames, text(p)), append(want, "text:"+p)
				if rnd.IntN(10) == 0 {
					frames = append(frames, slices.Repeat(frame(ws.OpPong, ""), 100)) // more than a turn takes
				}
			}
			if k%2 == 0 { // all at once
				frames = [][]byte{join(frames...)}
			}
			c.stream(frames...)
			for i, want := range want {
				if got := next(); got == "end" {
					return
				} else if got != want {
					t.Errorf("echo %d: got %.60q, want %.60q", i, got, want)
					return
				}
			}
			whole <- c.ref
			c.stream(closeFrame(1000, ""))
			if got := next(); got != "close:1000" && got != "end" {
				t.Errorf("got %.60q, want close:1000 or the end", got)
			}
		})
	}
	all.Wait()
	s.stop()
	close(whole)
	good := make(map[ConnRef]bool)
	for ref := range whole {
		good[ref] = true
	}
	lost := 0
	for ref, ends := range ends {
		e := ends[0]
		made := false
		for _, errs := range fatal {
			for _, err := range errs {
				made = made || errors.Is(e.cause, err)
			}
		}
		switch {
		case len(ends) != 1:
			t.Errorf("%d calls of Closed for %#x: %v", len(ends), ref, ends)
		case made && e.code == 1006:
			lost++
		case e.code != 1000 || e.cause != nil || !good[ref]:
			t.Errorf("got %+v, all echoes: %v; want 1000 without a cause, after all echoes", e, good[ref])
		}
	}
	if n := clients - int(unanswered.Load()); len(refs) < n || len(refs) > clients || len(ends) != len(refs) {
		t.Errorf("%d opened and %d closed, want both the same, and %d to %d", len(refs), len(ends), n, clients)
	}
	t.Logf("%d of %d connections were lost to faults", lost, clients)
}
