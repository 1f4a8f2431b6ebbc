package engine

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/gobwas/ws"
)

// fill sends f to c, whose peer does not read, until the queue is full. It returns how many were
// accepted. The kernel may go on to move some of them from buffer to buffer.
func fill(t *testing.T, s *server, c ConnRef, f *Frame) int {
	t.Helper()
	for n := range 1_000_000 {
		if err := s.Send(c, f); errors.Is(err, ErrQueueFull) {
			return n
		} else if err != nil {
			t.Fatalf("Send: %v", err)
		}
	}
	t.Fatal("the queue has no bound")
	return 0
}

func TestSendReachesThePeerInOrder(t *testing.T) {
	eachEngine(t, func(t *testing.T, build newEngine) {
		s := start(t, build, &hooks{}, Options{})
		c := dial(t, s)
		ref := get(t, s.opened, "Open")
		const senders, each = 4, 500
		var wg sync.WaitGroup
		for k := range senders {
			wg.Go(func() {
				for i := range each {
					if err := s.Send(ref, NewText(fmt.Appendf(nil, "%d %d", k, i))); err != nil {
						t.Errorf("Send: %v", err)
					}
				}
			})
		}
		next := make([]int, senders)
		for range senders * each {
			var k, i int
			if _, err := fmt.Sscanf(c.read(), "text:%d %d", &k, &i); err != nil {
				t.Fatal(err)
			}
			if i != next[k] {
				t.Fatalf("sender %d: got its frame %d, want %d", k, i, next[k])
			}
			next[k]++
		}
		wg.Wait()
	})
}

// TestQueueBoundIsExact sends to a client that reads now and then. Nothing but the queue holds
// bytes, and there is one sender: so a refusal is right only if what waited before it and the
// frame together were over the limit.
func TestQueueBoundIsExact(t *testing.T) {
	eachEngine(t, func(t *testing.T, build newEngine) {
		const limit = 100_000
		writable := make(chan ConnRef, 1000)
		s := start(t, build, &hooks{writable: func(c ConnRef) { writable <- c }}, Options{QueueBytes: limit})
		c := dialDeaf(t, s)
		ref := get(t, s.opened, "Open")
		if err := s.Send(ref, NewText(make([]byte, limit))); !errors.Is(err, ErrQueueFull) {
			t.Errorf("a frame longer than the queue: got %v, want ErrQueueFull", err)
		}
		if n := len(writable); n != 0 {
			t.Errorf("Writable was called for a frame that never fits")
		}
		waiting, refused, most := 0, 0, 0
		for i := range 3000 {
			f := NewText([]byte(stars(i * 7919 % 30_000)))
			before := int(s.Stats().HeldBytes)
			err := s.Send(ref, f)
			switch {
			case err == nil:
				waiting++
			case !errors.Is(err, ErrQueueFull):
				t.Fatalf("Send: %v", err)
			case before+f.Len() <= limit:
				t.Fatalf("a frame of %d bytes was refused with %d waiting of %d", f.Len(), before, limit)
			default:
				refused++
				for ; refused%100 == 0 && waiting > 0; waiting-- {
					if got := c.read(); !strings.HasPrefix(got, "text:") {
						t.Fatalf("got %.50q", got)
					}
				}
			}
			held := int(s.Stats().HeldBytes)
			if most = max(most, held); held > limit {
				t.Fatalf("%d bytes wait, the limit is %d", held, limit)
			}
		}
		if most < limit*9/10 {
			t.Errorf("at most %d bytes waited: the bound was not met", most)
		}
		for range waiting {
			c.read()
		}
		if got := get(t, writable, "Writable"); got != ref {
			t.Errorf("Writable for %v, want %v", got, ref)
		}
		if err := s.Send(ref, NewText([]byte("again"))); err != nil {
			t.Errorf("Send after all was read: %v", err)
		}
		c.want("text:again")
		c.leave()
	})
}

func TestQueueBoundInFrames(t *testing.T) {
	eachEngine(t, func(t *testing.T, build newEngine) {
		s := start(t, build, &hooks{}, Options{QueueFrames: 10, QueueBytes: 64 << 20})
		dialDeaf(t, s)
		ref := get(t, s.opened, "Open")
		f := NewText(make([]byte, 1<<20))
		// The socket takes what its buffers hold, then ten frames wait, the first one in part.
		n := fill(t, s, ref, f)
		if held := int(s.Stats().HeldBytes); held > 10*f.Len() || held <= 9*f.Len() {
			t.Errorf("%d frames were taken and %d bytes wait, want ten frames of %d", n, held, f.Len())
		}
		if s.Stats().FullSend == 0 {
			t.Error("no refused Send is counted")
		}
	})
}

// TestSlowReaderHurtsNobodyElse fills one connection while another one echoes.
func TestSlowReaderHurtsNobodyElse(t *testing.T) {
	eachEngine(t, func(t *testing.T, build newEngine) {
		s := startEcho(t, build, Options{})
		slow := dialDeaf(t, s)
		ref := get(t, s.opened, "Open")
		n := fill(t, s, ref, NewText([]byte(stars(4092))))
		good := dial(t, s)
		for i := range 200 {
			_ = s.Send(ref, NewText([]byte("no room")))
			good.write(text(fmt.Sprint(i)))
			good.want(fmt.Sprintf("text:%d", i))
		}
		good.leave()
		for range n { // the slow one has lost nothing
			slow.want("text:" + stars(4092))
		}
	})
}

func TestSendBufferBoundsWhatTheKernelHolds(t *testing.T) {
	eachEngine(t, func(t *testing.T, build newEngine) {
		const queue = 1 << 20
		taken := func(sendBuffer int) int {
			s := start(t, build, &hooks{}, Options{SendBuffer: sendBuffer, QueueBytes: queue})
			c := dialDeaf(t, s) // the peer's receive buffer is the other half of what the kernel may hold
			f := NewText(make([]byte, 1020))
			all := fill(t, s, get(t, s.opened, "Open"), f) * f.Len()
			_ = c.nc.Close()
			return all - queue
		}
		small, large := taken(16<<10), taken(2<<20)
		t.Logf("the kernel holds %d bytes with a send buffer of 16 KiB, %d with one of 2 MiB", small, large)
		if small > 512<<10 || small*4 > large {
			t.Errorf("a send buffer of 16 KiB holds %d bytes, one of 2 MiB %d", small, large)
		}
	})
}

func TestPingFloodWithoutReadingFillsNoQueue(t *testing.T) {
	eachEngine(t, func(t *testing.T, build newEngine) {
		seen := make(chan struct{}, 1)
		s := start(t, build, &hooks{message: func(ConnRef, ws.OpCode, []byte) { seen <- struct{}{} }}, Options{})
		c := dialDeaf(t, s)
		ref := get(t, s.opened, "Open")
		f := NewText([]byte(stars(4092)))
		n := fill(t, s, ref, f)
		before := s.Stats().HeldBytes
		for i := range 5000 {
			c.write(frame(ws.OpPing, fmt.Sprintf("%0100d", i)))
		}
		c.write(text("done"))
		get(t, seen, "Message")
		if grown := s.Stats().HeldBytes - before; grown > 300 { // one that waits and one behind the frames
			t.Errorf("5,000 pings queued %d bytes, want one pong", grown)
		}
		for range n {
			c.want("text:" + stars(4092))
		}
		c.want(fmt.Sprintf("pong:%0100d", 4999)) // the newest ping is answered
		c.leave()
	})
}

func TestHeldBytesAreBoundedForAll(t *testing.T) {
	eachEngine(t, func(t *testing.T, build newEngine) {
		const limit = 200_000
		writable := make(chan ConnRef, 1000)
		s := start(t, build, &hooks{writable: func(c ConnRef) { writable <- c }},
			Options{HeldBytes: limit, sweep: tick, CloseTime: 20 * tick})
		slow := dialDeaf(t, s)
		slowRef := get(t, s.opened, "Open")
		other := dial(t, s)
		otherRef := get(t, s.opened, "Open")

		f := NewText([]byte(stars(996)))
		toSlow, toOther := fill(t, s, slowRef, f), 0
		for s.Send(otherRef, f) == nil { // the kernel took some more for the slow one meanwhile
			toOther++
			toSlow += fill(t, s, slowRef, f)
		}
		// Unfinished messages count as well: these are together over the limit.
		for range 8 {
			dial(t, s).write(text(stars(64 << 10))[:60_000])
			get(t, s.opened, "Open")
		}
		if e := get(t, s.ended, "Closed"); !errors.Is(e.cause, ErrOverloaded) || e.code != 1013 {
			t.Errorf("got %+v, want 1013 and ErrOverloaded", e)
		}
		if held := s.Stats().HeldBytes; held > limit {
			t.Errorf("%d bytes are held, the limit is %d", held, limit)
		}
		for range toSlow {
			slow.want("text:" + stars(996))
		}
		for get(t, writable, "Writable") != otherRef { // it was refused, so it hears of the room
		}
		for range toOther {
			other.want("text:" + stars(996))
		}
		s.stop()
		if held := s.Stats().HeldBytes; held != 0 {
			t.Errorf("%d bytes are held after the end, want 0", held)
		}
	})
}

// TestReferenceNeverNamesAnotherClient reuses the slot of a closed connection.
func TestReferenceNeverNamesAnotherClient(t *testing.T) {
	eachEngine(t, func(t *testing.T, build newEngine) {
		s := startEcho(t, build, Options{MaxConns: 1}) // so that there is only one slot
		var old []ConnRef
		for i := range 20 {
			c := dial(t, s)
			ref := get(t, s.opened, "Open")
			for _, o := range append(old, 0, ref+1, ref&0xffffffff) {
				if err := s.Send(o, NewText([]byte("not yours"))); !errors.Is(err, ErrGone) {
					t.Errorf("Send to %#x: got %v, want ErrGone", o, err)
				}
				s.CloseConn(o, 1000, "", nil)
				s.Pause(o, true)
				s.Decide(o, Decision{})
			}
			c.write(text(fmt.Sprint(i)))
			c.want(fmt.Sprintf("text:%d", i))
			c.leave()
			_ = c.nc.Close()
			if e := get(t, s.ended, "Closed"); e.ref != ref {
				t.Errorf("Closed for %v, want %v", e.ref, ref)
			}
			old = append(old, ref)
		}
	})
}
