package hub

import (
	"encoding/json"
	"fmt"
	"net"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/wscluster/wscluster/internal/engine"
	"github.com/wscluster/wscluster/pkg/wire"
)

// sink is sockets that take all, or nothing.
type sink struct {
	full bool
	n    int
}

func (s *sink) Send(engine.ConnRef, *engine.Frame) error { s.n++; return nil }
func (s *sink) Broadcast(f *engine.Frame, cs []engine.ConnRef, failed []engine.Failure) []engine.Failure {
	return offerEach(s, f, cs, failed)
}
func (s *sink) Offer(engine.ConnRef, *engine.Frame) error {
	if s.full {
		return engine.ErrQueueFull
	}
	s.n++
	return nil
}
func (s *sink) CloseConn(engine.ConnRef, engine.StatusCode, string, *engine.Frame) {}

// subscribed is a core whose channel a has n subscribers.
func subscribed(tb testing.TB, s Socket, n int) *core {
	tb.Helper()
	c := newCore(s, "w1", wire.NewRunID)
	now := time.Now()
	c.linkUp(now.Add(-time.Minute))
	for i := range n {
		if err := c.subscribe(engine.ConnRef(i+1), "a", "", false, now); err != nil {
			tb.Fatal(err)
		}
	}
	c.bound("a", 1)
	c.tick(now)
	for _, o := range c.takeOrders() {
		if o.verb == find {
			c.hear(&wire.ChannelsFound{Ask: o.ask, Name: "w1"}, now)
		}
	}
	for c.deliver(1000, now) {
	}
	return c
}

func TestAFanOutAllocatesForThePostAndNotForItsSubscribers(t *testing.T) {
	perPost := func(subscribers int, s *sink) float64 {
		c := subscribed(t, s, subscribers)
		s.n = 0
		var seq int64
		body := json.RawMessage(`"` + strings.Repeat("x", 254) + `"`)
		return testing.AllocsPerRun(200, func() {
			seq++
			c.post(&wire.Post{Channel: "a", Publisher: "p", Stream: stream1, Seq: seq, Body: body})
			for c.deliver(batch, time.Time{}) {
			}
		})
	}
	s := &sink{}
	one, many := perPost(1, s), perPost(5_000, s)
	if one > 6 || many > one {
		t.Errorf("%v allocations for a post to one subscriber, %v to 5,000; want 6 at most, and no more for many", one, many)
	}
	if s.n != 201*5_000 {
		t.Errorf("%d sends, want each subscriber to get each of the 201 posts", s.n)
	}
	if slow := perPost(5_000, &sink{full: true}); slow > one {
		t.Errorf("%v allocations for a post to 5,000 who do not keep up, want %v", slow, one)
	}
}

// TestASubscriberThatDoesNotReadCostsLessThanItsBound fills one real socket with the posts of a channel, over and over. What the
// worker holds for it is half of its queue, a frame and a snapshot; the rest of the memory is everybody's.
func TestASubscriberThatDoesNotReadCostsLessThanItsBound(t *testing.T) {
	const bound = 1_200 << 10
	w := serve(t)
	deaf := w.dial(t)
	ref := <-w.opened
	w.open(t)
	w.hub.Subscribe(ref, &wire.Subscribe{Channel: "a"})
	for _, size := range []int{256, 4 << 10, wire.MaxPost - 2} {
		before := inUse()
		for range 4_000_000 / size {
			w.post("a", size)
		}
		if held := w.engine.Stats().HeldBytes; held > bound {
			t.Errorf("posts of %d bytes: %d bytes wait for a subscriber that does not read, want less than %d", size, held, bound)
		}
		// Its half of the queue, and the ring of the channel, which is not its own.
		if grown := int64(inUse()) - int64(before); grown > bound+2*maxRing {
			t.Errorf("posts of %d bytes: the worker has grown by %d bytes, want less than %d", size, grown, bound+2*maxRing)
		}
	}
	w.hub.mu.Lock()
	ch := w.hub.core.channels["a"]
	slow := ch.subs[ch.index[ref]].slow
	w.hub.mu.Unlock()
	if slow == 0 {
		t.Error("it missed nothing: the test fills nothing")
	}
	_ = deaf.Close()
}

func inUse() uint64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapInuse + m.StackInuse
}

// served is a hub with a real engine.
type served struct {
	hub    *Hub
	engine *engine.Engine
	addr   string
	opened chan engine.ConnRef
	seq    int64
}

type handler struct{ w *served }

func (h handler) Handshake(engine.ConnRef, *engine.Request) engine.Decision {
	return engine.Decision{}
}
func (h handler) Open(c engine.ConnRef, _ *engine.Request)              { h.w.opened <- c }
func (h handler) Message(engine.ConnRef, engine.OpCode, []byte)         {}
func (h handler) Writable(c engine.ConnRef)                             { h.w.hub.Writable(c) }
func (h handler) Closed(c engine.ConnRef, _ engine.StatusCode, _ error) { h.w.hub.Gone(c) }

func serve(tb testing.TB) *served {
	tb.Helper()
	w := &served{opened: make(chan engine.ConnRef, 1)}
	w.engine = engine.New(handler{w}, engine.Options{StallTime: time.Hour})
	w.hub = New(Options{Server: "i1-w1", Socket: w.engine})
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	w.addr = ln.Addr().String()
	done := make(chan struct{})
	ctx := tb.Context()
	go func() {
		defer close(done)
		_ = w.engine.Serve(ctx, ln)
	}()
	tb.Cleanup(func() { <-done })
	return w
}

// dial opens a WebSocket and reads its handshake.
func (w *served) dial(tb testing.TB) net.Conn {
	tb.Helper()
	nc, err := net.Dial("tcp", w.addr)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { nc.Close() })
	fmt.Fprintf(nc, "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n")
	if _, err := nc.Read(make([]byte, 1024)); err != nil {
		tb.Fatal(err)
	}
	return nc
}

func (w *served) post(ch wire.Channel, size int) {
	w.seq++
	body := make([]byte, size)
	for i := range body {
		body[i] = 'x'
	}
	body[0], body[size-1] = '"', '"'
	w.hub.do(func(c *core) {
		c.post(&wire.Post{Channel: ch, Publisher: "p", Stream: stream1, Seq: w.seq, Body: body})
	})
	w.hub.drain()
}

// BenchmarkFanOut is one post to many real sockets, beside a bare loop of writes of the same bytes to as many others: the
// ratio of the two is what the hub and the engine add. Nobody reads while either is timed.
func BenchmarkFanOut(b *testing.B) {
	for _, n := range []int{100, 1_000, 4_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) { benchmarkFanOut(b, n) })
	}
}

func benchmarkFanOut(b *testing.B, n int) {
	w := serve(b)
	w.open(b)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { ln.Close() })
	clients, bare := make([]syscall.RawConn, 0, 2*n), make([]syscall.RawConn, 0, n)
	raw := func(nc net.Conn, err error) syscall.RawConn {
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { nc.Close() })
		r, err := nc.(*net.TCPConn).SyscallConn()
		if err != nil {
			b.Fatal(err)
		}
		return r
	}
	for range n {
		clients = append(clients, raw(w.dial(b), nil))
		w.hub.Subscribe(<-w.opened, &wire.Subscribe{Channel: "a"})
		clients = append(clients, raw(net.Dial("tcp", ln.Addr().String())))
		bare = append(bare, raw(ln.Accept()))
	}
	buf := make([]byte, 64<<10)
	empty := func() {
		for _, c := range clients {
			_ = c.Read(func(fd uintptr) bool { _, _ = syscall.Read(int(fd), buf); return true })
		}
	}
	empty()
	frame := engine.NewText(wire.AppendPostFrame(nil, &wire.Post{Channel: "a", Publisher: "p", Stream: stream1, Seq: 1000, Body: make([]byte, 256)}))
	out := make([]byte, frame.Len())
	var hub, loop time.Duration
	for b.Loop() {
		began := time.Now()
		w.post("a", 256)
		hub += time.Since(began)
		empty()
		began = time.Now()
		for _, c := range bare {
			_ = c.Write(func(fd uintptr) bool { _, _ = syscall.Write(int(fd), out); return true })
		}
		loop += time.Since(began)
		empty()
	}
	b.ReportMetric(float64(hub.Nanoseconds())/float64(b.N*n), "ns/hub-send")
	b.ReportMetric(float64(loop.Nanoseconds())/float64(b.N*n), "ns/bare-write")
	b.ReportMetric(float64(hub)/float64(loop), "ratio")
}

// open binds the channel a, as a broker without publishers would.
func (w *served) open(tb testing.TB) {
	tb.Helper()
	w.hub.do(func(c *core) { c.linkUp(time.Now().Add(-time.Minute)) })
	w.hub.Subscribe(engine.ConnRef(1<<63), &wire.Subscribe{Channel: "a"}) // of a connection that is gone
	w.hub.do(func(c *core) {
		c.bound("a", 1)
		c.tick(time.Now())
		for _, o := range c.takeOrders() {
			if o.verb == find {
				c.hear(&wire.ChannelsFound{Ask: o.ask, Name: "i1-w1"}, time.Now())
			}
		}
	})
	w.hub.drain()
}
