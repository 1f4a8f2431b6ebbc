package worker_test

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wscluster/wscluster/internal/worker"
	"github.com/wscluster/wscluster/pkg/broker"
	"github.com/wscluster/wscluster/pkg/broker/memory"
	"github.com/wscluster/wscluster/pkg/socketmeta"
	"github.com/wscluster/wscluster/pkg/taskrunner"
	"github.com/wscluster/wscluster/pkg/wire"
	"github.com/wscluster/wscluster/pkg/wsclient"
)

// bubble is whole workers, real clients and runners in one process, on a broker and a network in
// memory, by a clock that jumps. The fault tests (fault_*_test.go) are named after the numbers of
// docs/FAULTS.md.
type bubble struct {
	*testing.T
	broker  *memory.Broker
	keys    socketmeta.Keys
	workers map[socketmeta.ServerID]*lodger
	ends    []func() // of clients and runners
}

// lodger is one worker in the bubble.
type lodger struct {
	*worker.Worker
	id    socketmeta.ServerID
	stop  func() // drains; returns when nothing of it runs
	alive atomic.Bool
	ln    *pipes
}

func inBubble(t *testing.T, test func(b *bubble)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		b := &bubble{T: t, broker: memory.New(memory.Options{}), keys: socketmeta.RandomKeys(), workers: map[socketmeta.ServerID]*lodger{}}
		defer func() { // also after a Fatal, which would else be hidden by a bubble that does not end
			for _, end := range b.ends {
				end()
			}
			for _, w := range b.workers {
				w.stop()
			}
		}()
		test(b)
	})
}

// worker starts a worker that is ready a moment later.
func (b *bubble) worker(id socketmeta.ServerID, change ...func(*worker.Options)) *lodger {
	b.Helper()
	w := &lodger{id: id, ln: &pipes{queue: make(chan net.Conn), end: make(chan struct{})}}
	w.alive.Store(true)
	o := worker.Options{Server: id, Broker: mortal{b.broker, &w.alive}, Keys: b.keys, RouteKeys: b.keys, DrainWindow: time.Second}
	for _, f := range change {
		f(&o)
	}
	var err error
	if w.Worker, err = worker.New(o); err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := w.Run(ctx, w.ln, nil); err != nil && w.alive.Load() {
			b.Errorf("%s: %v", id, err)
		}
	}()
	w.stop = func() { cancel(); <-done }
	b.workers[id] = w
	b.pass(time.Second)
	if err := w.Ready(); err != nil {
		b.Logf("%s after a second: %v", id, err)
	}
	return w
}

// kill takes a worker away as kill -9 does.
func (b *bubble) kill(w *lodger) {
	w.alive.Store(false)
	b.broker.Cut(broker.Worker(w.id))
	w.ln.cut()
	w.stop()
	delete(b.workers, w.id)
}

func (b *bubble) pass(d time.Duration) {
	time.Sleep(d)
	synctest.Wait()
}

// client runs a client whose sockets go where at says, until the test ends.
func (b *bubble) client(at func() *lodger, change ...func(*wsclient.Options)) (c *wsclient.Client, stop func()) {
	b.Helper()
	o := wsclient.Options{URL: "ws://example.test/v1/ws", Affinity: wsclient.AffinityNone,
		Dial: func(context.Context, string, string) (net.Conn, error) { return at().dial() }}
	for _, f := range change {
		f(&o)
	}
	c, err := wsclient.New(o)
	if err != nil {
		b.Fatal(err)
	}
	stop = b.background(func(ctx context.Context) { _ = c.Run(ctx) })
	b.pass(time.Millisecond)
	return c, stop
}

// runner starts a task runner that runs one task at a time.
func (b *bubble) runner(name string, kinds map[string]taskrunner.Kind) (stop func()) {
	r := taskrunner.Runner{Name: name, Broker: b.broker, Kinds: kinds, Slots: 1, Grace: -1}
	stop = b.background(func(ctx context.Context) { _ = r.Run(ctx) })
	b.pass(time.Second)
	return stop
}

func (b *bubble) background(run func(context.Context)) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		run(ctx)
	}()
	stop = func() { cancel(); <-done }
	b.ends = append(b.ends, stop)
	return stop
}

// wait waits for the end of a task, an hour at most: that is a moment.
func (b *bubble) wait(task *wsclient.Task) (json.RawMessage, error) {
	ctx, cancel := context.WithTimeout(b.Context(), time.Hour)
	defer cancel()
	return task.Wait(ctx)
}

// always is a client's way to one worker.
func always(w *lodger) func() *lodger { return func() *lodger { return w } }

// mortal is the broker of one worker, which the dead do not reach.
type mortal struct {
	*memory.Broker
	alive *atomic.Bool
}

func (m mortal) Join(ctx context.Context, id broker.Identity) (broker.Link, error) {
	if !m.alive.Load() {
		return nil, errors.New("this worker is dead")
	}
	return m.Broker.Join(ctx, id)
}

// pipes is a listener in memory.
type pipes struct {
	queue chan net.Conn
	end   chan struct{}
	once  sync.Once

	mu    sync.Mutex
	conns []net.Conn
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.queue:
		return c, nil
	case <-p.end:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error {
	p.once.Do(func() { close(p.end) })
	return nil
}

func (p *pipes) Addr() net.Addr { return &net.UnixAddr{Name: "memory", Net: "pipe"} }

// cut ends all connections and takes no more.
func (p *pipes) cut() {
	_ = p.Close()
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, c := range p.conns {
		c.Close()
	}
}

func (w *lodger) dial() (net.Conn, error) {
	near, far := net.Pipe()
	select {
	case w.ln.queue <- far:
		w.ln.mu.Lock()
		w.ln.conns = append(w.ln.conns, far)
		w.ln.mu.Unlock()
		return near, nil
	case <-w.ln.end:
		return nil, errors.New("connection refused")
	}
}

// said counts the control messages that cross the broker, by type.
func (b *bubble) overhear() (said func() map[string]int) {
	var mu sync.Mutex
	counts := map[string]int{}
	b.broker.OnPublish(func(p memory.Publish) memory.Verdict {
		if p.To.Exchange == broker.ExchangeControl || p.To.Exchange == broker.ExchangeAnnounce {
			mu.Lock()
			counts[p.Message.Type]++
			mu.Unlock()
		}
		return memory.Verdict{}
	})
	return func() map[string]int {
		mu.Lock()
		defer mu.Unlock()
		out := map[string]int{}
		for k, v := range counts {
			out[k] = v
		}
		return out
	}
}

// left counts what lies in the queues of events, once workers that settle in runs have done so.
func (b *bubble) left(servers ...socketmeta.ServerID) (n int) {
	time.Sleep(10 * time.Millisecond)
	synctest.Wait()
	for _, s := range append(servers, broker.ParkedServer) {
		for _, q := range []string{broker.MailboxQueue(s), broker.HoldQueue(s)} {
			ready, unsettled := b.broker.Depth(q)
			n += ready + unsettled
		}
	}
	return n
}

// bare is a socket in the bubble that says what it is told to.
func (b *bubble) bare(w *lodger, header string) *bareSocket {
	b.Helper()
	conn, err := w.dial()
	if err != nil {
		b.Fatal(err)
	}
	s := &bareSocket{socket: shake(b.T, conn, "/v1/ws", header), heard: make(chan frame, 1000)}
	b.ends = append(b.ends, func() { conn.Close() })
	if s.status != 101 {
		return s
	}
	go func() {
		defer close(s.heard)
		for {
			op, p, err := s.next()
			if err != nil {
				return
			}
			if op == ping {
				s.send(pong, string(p))
				continue
			}
			s.heard <- frame{op, p}
		}
	}()
	return s
}

type bareSocket struct {
	*socket
	heard chan frame // closed with the socket
	code  int        // for a test to note how it ended
}

type frame struct {
	op      byte
	payload []byte
}

// say sends messages.
func (s *bareSocket) say(ms ...wire.ClientMessage) {
	s.t.Helper()
	for _, m := range ms {
		s.send(text, string(wire.EncodeClient(m)))
	}
	synctest.Wait()
}

// all is what came since it was last asked: messages, and the code of a close frame at the end.
func (s *bareSocket) all() (ms []wire.ServerMessage, code int) {
	s.t.Helper()
	synctest.Wait()
	for {
		select {
		case f, ok := <-s.heard:
			switch {
			case !ok:
				return ms, code
			case f.op == closing:
				code = int(f.payload[0])<<8 | int(f.payload[1])
			case f.op == text:
				m, err := wire.DecodeServer(f.payload)
				if err != nil {
					s.t.Fatal(err)
				}
				ms = append(ms, m)
			}
		default:
			return ms, code
		}
	}
}

// meta is the socket meta that came, which must be the only message.
func (s *bareSocket) meta() *wire.SocketMeta {
	s.t.Helper()
	ms, _ := s.all()
	if len(ms) != 1 {
		s.t.Fatalf("got %d messages %+v, want a socket_meta", len(ms), ms)
	}
	m, ok := ms[0].(*wire.SocketMeta)
	if !ok {
		s.t.Fatalf("got %#v, want a socket_meta", ms[0])
	}
	return m
}

// refused is the code of the only message that came, which must be an error; "" if nothing came.
func (s *bareSocket) refused() wire.Code {
	s.t.Helper()
	ms, _ := s.all()
	if len(ms) == 0 {
		return ""
	}
	r, ok := ms[0].(*wire.Refused)
	if !ok || len(ms) != 1 {
		s.t.Fatalf("got %#v, want one error", ms)
	}
	return r.Code
}

func drainOver(d time.Duration) func(*worker.Options) {
	return func(o *worker.Options) { o.DrainWindow = d }
}

// publish publishes durable events of a client's task "t" to the mailbox of home.
func (b *bubble) publish(client socketmeta.ClientID, home socketmeta.ServerID, from, to int64) {
	b.Helper()
	link, err := b.broker.Join(context.Background(), broker.Runner("bubble"))
	if err != nil {
		b.Fatal(err)
	}
	defer link.Close(context.Background())
	for seq := from; seq <= to; seq++ {
		e := wire.Event{Client: client, Task: "t", Attempt: 1, Run: run, Seq: seq, Prev: seq - 1, Type: wire.EventStep, Durable: true, Home: home, Epoch: 1}
		m := broker.Message{Type: "step", Correlation: "t", Headers: e.Headers(), Body: []byte(`{"n":1}`)}
		if _, err := link.Publish(context.Background(), broker.ToMailbox(home), m); err != nil {
			b.Fatal(err)
		}
	}
	synctest.Wait()
}

const run wire.RunID = "01900000-0000-7000-8000-000000000001"
