package mailbox

import (
	"context"
	"fmt"
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/wscluster/wscluster/internal/engine"
	"github.com/wscluster/wscluster/internal/session"
	"github.com/wscluster/wscluster/pkg/broker"
	"github.com/wscluster/wscluster/pkg/socketmeta"
	"github.com/wscluster/wscluster/pkg/wire"
)

// opens is an engine's handler that lets everybody in and says who came.
type opens chan engine.ConnRef

func (opens) Handshake(engine.ConnRef, *engine.Request) engine.Decision { return engine.Decision{} }
func (o opens) Open(c engine.ConnRef, _ *engine.Request)                { o <- c }
func (opens) Message(engine.ConnRef, engine.OpCode, []byte)             {}
func (opens) Writable(engine.ConnRef)                                   {}
func (opens) Closed(engine.ConnRef, engine.StatusCode, error)           {}

// box is a mailbox that has what is put into it, and counts what is settled.
type box struct {
	broker.Mailbox
	ds    chan broker.Delivery
	acked int
}

func (b *box) Deliveries() <-chan broker.Delivery { return b.ds }
func (b *box) Ack(tags ...uint64) error           { b.acked += len(tags); return nil }

// socketOf opens a WebSocket to an engine of its own, as a bare descriptor.
func socketOf(t *testing.T) (e *engine.Engine, conn engine.ConnRef, fd int) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	opened := make(opens, 1)
	e = engine.New(opened, engine.Options{PingEvery: time.Hour})
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- e.Serve(ctx, ln) }()
	if fd, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = unix.Close(fd)
		cancel()
		<-served
	})
	if err := unix.Connect(fd, &unix.SockaddrInet4{Port: ln.Addr().(*net.TCPAddr).Port, Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	if _, err := unix.Write(fd, []byte("GET / HTTP/1.1\r\nHost: w\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"+
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")); err != nil {
		t.Fatal(err)
	}
	conn = <-opened
	if _, err := unix.Read(fd, make([]byte, 4096)); err != nil {
		t.Fatal(err)
	}
	return e, conn, fd
}

// TestAnEventOnItsWayToASocketCostsItsFrame counts, over a real socket, what a durable event costs between the broker's delivery and
// its acknowledgement, when 16 come together for one client: beside its decoding, which is the delivery's own, a frame and its
// bytes; and once for all, the list of what is settled. A higher number is a decision: write here what it buys.
func TestAnEventOnItsWayToASocketCostsItsFrame(t *testing.T) {
	const together, rounds, budget = 16, 100, 3.5 // under the race detector a pool drops a part of what it is given
	e, conn, fd := socketOf(t)
	now := time.Now()
	sessions := session.New(session.Options{Socket: e, Server: "i1-w1"})
	m := New(Options{Server: "i1-w1", Sessions: sessions})
	b := &box{ds: make(chan broker.Delivery, together)}
	s := &service{Mailbox: m, lives: make(map[uint64]*life)}
	m.setService(s)
	l := s.begin("i1-w1", b)
	client := session.Claim{Client: socketmeta.NewClientID()}
	if !m.Attach(conn, sessions.Welcome(client, now).Epoch, client) {
		t.Fatal("not attached")
	}

	run := wire.NewRunID()
	var ds []broker.Delivery
	for i := range together * (rounds + 1) {
		ev := wire.Event{Task: "t", Attempt: 1, Run: run, Seq: int64(i + 1), Prev: int64(i), Type: wire.EventStep, Durable: true,
			Body: fmt.Appendf(nil, `{"n":%d}`, i)}
		ev.Client = client.Client
		ds = append(ds, broker.Delivery{Tag: uint64(i + 1), Message: broker.Message{Type: string(ev.Type), Correlation: string(ev.Task), Headers: ev.Headers(), Body: ev.Body}})
	}
	decoding := testing.AllocsPerRun(100, func() {
		if _, err := wire.DecodeEvent(ds[0].Type, ds[0].Correlation, ds[0].Headers, ds[0].Body); err != nil {
			t.Fatal(err)
		}
	})
	buf, position, writes := make([]byte, 64<<10), []wire.Position{{Task: "t", Attempt: 1, Run: run}}, 0
	frames := e.Stats().FramesOut
	got := testing.AllocsPerRun(rounds, func() {
		for _, d := range ds[:together] {
			b.ds <- d
		}
		l.takeReady(<-b.ds)
		position[0].Next = int64(ds[together-1].Tag) + 1
		ds = ds[together:]
		if _, err := unix.Read(fd, buf); err != nil { // all of them
			t.Fatal(err)
		}
		writes++
		m.Ack(sessions.Find(conn), position)
		if err := l.settleAll(); err != nil {
			t.Fatal(err)
		}
	})/together - decoding
	if n := int(e.Stats().FramesOut - frames); n != together*writes || b.acked != n {
		t.Fatalf("%d frames went out in %d writes, and %d deliveries are settled; want %d", n, writes, b.acked, together*writes)
	}
	if n, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0); err == nil {
		_ = unix.SetNonblock(fd, n&unix.O_NONBLOCK == 0)
	}
	if n, err := unix.Read(fd, buf); err != unix.EAGAIN {
		t.Errorf("%d bytes more came (%v): not all of a batch came in one read", n, err)
	}
	if got > budget {
		t.Errorf("%.2f allocations for an event beside the %v of its decoding, want at most %v", got, decoding, budget)
	}
	t.Logf("%.2f allocations for an event beside the %v of its decoding", got, decoding)
}
