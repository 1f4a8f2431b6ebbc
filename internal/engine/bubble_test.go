package engine

import (
	"context"
	"errors"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gobwas/ws"
)

// pipes is a listener in memory, for tests in a synctest bubble.
type pipes struct {
	queue chan net.Conn
	end   chan struct{}
	once  sync.Once
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case nc := <-p.queue:
		return nc, nil
	case <-p.end:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error {
	p.once.Do(func() { close(p.end) })
	return nil
}

func (p *pipes) Addr() net.Addr { return &net.UnixAddr{Name: "memory", Net: "pipe"} }

// bubble is an engine with a fake clock and a listener in memory.
type bubble struct {
	*Engine
	t     *testing.T
	ln    *pipes
	began time.Time
	stop  func()

	mu    sync.Mutex
	ref   ConnRef // of the last Open
	ended []end
	at    time.Duration // of the last Closed
}

// last is the connection that was opened last.
func (b *bubble) last() ConnRef {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.ref
}

// ends is every Closed so far, and when the last one came.
func (b *bubble) ends() ([]end, time.Duration) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.ended), b.at
}

// wantOpen says that no connection has ended.
func (b *bubble) wantOpen() {
	b.t.Helper()
	if ended, at := b.ends(); len(ended) > 0 {
		b.t.Errorf("got %+v at %v, want no end", ended, at)
	}
}

// inBubble runs a test with an engine; at its end every goroutine must be gone.
func inBubble(t *testing.T, h *hooks, o Options, test func(t *testing.T, b *bubble)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		b := &bubble{t: t, ln: &pipes{queue: make(chan net.Conn), end: make(chan struct{})}, began: time.Now()}
		all := *h
		all.open = func(c ConnRef, r *Request) {
			b.mu.Lock()
			b.ref = c
			b.mu.Unlock()
			h.Open(c, r)
		}
		all.closed = func(c ConnRef, code ws.StatusCode, cause error) {
			b.mu.Lock()
			b.ended = append(b.ended, end{c, code, cause})
			b.at = b.now()
			b.mu.Unlock()
			h.Closed(c, code, cause)
		}
		if o.HTTP == streams {
			o.HTTP = streaming(func() face { return b.Engine })
		}
		b.Engine = New(&all, o)
		ctx, cancel := context.WithCancel(t.Context())
		served := make(chan error, 1)
		go func() { served <- b.Serve(ctx, b.ln) }()
		b.stop = sync.OnceFunc(func() {
			cancel()
			if err := <-served; err != nil {
				t.Errorf("Serve: %v", err)
			}
		})
		defer b.stop()
		test(t, b)
	})
}

func (b *bubble) now() time.Duration { return time.Since(b.began) }

func (b *bubble) connect() *client {
	near, far := net.Pipe()
	b.ln.queue <- far
	return newClient(b.t, near)
}

// peer is a client whose frames are read as they come.
type peer struct {
	*client
	b      *bubble
	events bool // of a stream

	mu     sync.Mutex
	frames []string
	times  []time.Duration
	answer bool // pings with pongs
}

// dial opens a WebSocket whose frames are read from now on.
func (b *bubble) dial(answer bool) *peer {
	p := &peer{client: b.connect(), b: b, answer: answer}
	p.upgrade()
	go p.collect()
	synctest.Wait()
	return p
}

// listen opens a stream whose events are read from now on.
func (b *bubble) listen() *peer {
	p := &peer{client: b.connect(), b: b, events: true}
	p.ask("")
	go p.collect()
	synctest.Wait()
	return p
}

func (p *peer) collect() {
	for {
		f := ""
		if p.events {
			f = p.event()
		} else {
			f = p.read()
		}
		p.mu.Lock()
		p.frames = append(p.frames, f)
		p.times = append(p.times, p.b.now())
		answer := p.answer
		p.mu.Unlock()
		if f == "end" || strings.HasPrefix(f, "error:") {
			return
		}
		if answer && f == "ping:" {
			p.stream(frame(ws.OpPong, ""))
		}
	}
}

// got is what was read so far.
func (p *peer) got() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.frames)
}

func (b *bubble) pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// wantEnd says that the only connection has ended so, at the given time since the beginning.
func (b *bubble) wantEnd(code ws.StatusCode, cause error, at time.Duration) {
	b.t.Helper()
	synctest.Wait()
	ended, when := b.ends()
	if len(ended) != 1 || ended[0].code != code || !errors.Is(ended[0].cause, cause) || when != at {
		b.t.Errorf("got %+v at %v, want %d, %v at %v", ended, when, code, cause, at)
	}
}
