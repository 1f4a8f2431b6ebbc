package session_test

import (
	"runtime"
	"testing"
	"time"

	"github.com/wscluster/wscluster/internal/engine"
	"github.com/wscluster/wscluster/internal/session"
	"github.com/wscluster/wscluster/pkg/socketmeta"
	"github.com/wscluster/wscluster/pkg/wire"
)

// silent is a socket that takes everything.
type silent struct{}

func (silent) Send(engine.ConnRef, *engine.Frame) error                    { return nil }
func (silent) SendBatch(_ engine.ConnRef, fs []*engine.Frame) (int, error) { return len(fs), nil }
func (silent) CloseConn(engine.ConnRef, engine.StatusCode, string, *engine.Frame) {
}

func attached(t testing.TB, r *session.Registry, conn engine.ConnRef, now time.Time) session.Claim {
	t.Helper()
	claim := session.Claim{Client: socketmeta.NewClientID()}
	if _, ok := r.Attach(conn, r.Welcome(claim, now).Epoch, claim, now); !ok {
		t.Fatal("not attached")
	}
	return claim
}

// What one durable event costs between the broker and its acknowledgement, beside what the broker and
// the socket take themselves: two for the frame, and one for the list of what is to be settled. A higher number
// is a decision: write here what it buys.
func TestAnEventCostsSoManyAllocations(t *testing.T) {
	const budget = 3
	now := time.Now()
	r := session.New(session.Options{Socket: silent{}, Server: "i1-w1"})
	claim := attached(t, r, 1, now)
	s := r.Find(1)
	e := wire.Event{Client: claim.Client, Task: "t", Attempt: 1, Run: "r1", Type: wire.EventStep, Durable: true, Body: []byte(`{"n":1}`)}
	position := []wire.Position{{Task: "t", Attempt: 1, Run: "r1"}}
	settled := 0
	got := testing.AllocsPerRun(10_000, func() {
		e.Seq, e.Prev = e.Seq+1, e.Seq
		r.Deliver(&e, session.Ref{Mailbox: "i1-w1", Life: 1, Tag: uint64(e.Seq)}, false, now)
		position[0].Next = e.Seq + 1
		settled += len(s.Ack(position, now).Settle)
	})
	if int64(settled) != e.Seq {
		t.Fatalf("%d of %d events were settled", settled, e.Seq)
	}
	if got > budget {
		t.Errorf("%v allocations for an event, want at most %d", got, budget)
	}
	t.Logf("%v allocations for an event that is delivered and acknowledged", got)
}

// An idle client is its Session and its places in the two maps, and nothing else: no goroutine, no timer. The maps take
// some 40 bytes of it after they have grown, and 100 before they grow.
func TestAnIdleClientHasNoGoroutineAndLittleMemory(t *testing.T) {
	const clients, budget = 20_000, 200
	now := time.Now()
	r := session.New(session.Options{Socket: silent{}, Server: "i1-w1"})
	goroutines, before := runtime.NumGoroutine(), heap()
	for i := range clients {
		attached(t, r, engine.ConnRef(i+1), now)
	}
	each := (heap() - before) / clients
	if n := runtime.NumGoroutine() - goroutines; n > 0 { // one of an earlier test may end meanwhile
		t.Errorf("%d goroutines for %d clients, want none", n, clients)
	}
	if each > budget {
		t.Errorf("%d bytes for an idle client, want at most %d", each, budget)
	}
	t.Logf("%d bytes for a client that is attached and has no task", each)
	runtime.KeepAlive(r)
}

func heap() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// A sweep has the time of its tick, which may be long before it comes to a session.
func TestATokenIsRenewedWhenItIsHalfAWindowOldAndNotBefore(t *testing.T) {
	now := time.Now()
	for _, window := range []time.Duration{10 * time.Minute, 100 * 24 * time.Hour} {
		r := session.New(session.Options{Socket: silent{}, Server: "i1-w1", Window: window})
		attached(t, r, 1, now)
		half := min(window/2, 24*24*time.Hour)
		for _, at := range []struct {
			after time.Duration
			want  int
		}{{-10 * time.Second, 0}, {0, 0}, {half, 0}, {half + time.Second, 1}, {half + 2*time.Second, 0}, {2*half + 2*time.Second, 1}} {
			renewed := 0
			r.Sweep(now.Add(at.after), func(socketmeta.ClientID, socketmeta.Epoch, string) *engine.Frame {
				renewed++
				return engine.NewText(nil)
			})
			if renewed != at.want {
				t.Errorf("a window of %v, after %v: %d tokens are renewed, want %d", window, at.after, renewed, at.want)
			}
		}
	}
}
