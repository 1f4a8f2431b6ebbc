package engine

import (
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gobwas/ws"
)

// offerUntilFull offers f to c, whose peer does not read, until it is refused for good. The kernel may go on to take
// from the queue after a refusal, so what is held has to stand still too.
func offerUntilFull(t *testing.T, s *server, c ConnRef, f *Frame) (taken int) {
	t.Helper()
	for range 1_000_000 {
		held := s.Stats().HeldBytes
		err := s.Offer(c, f)
		if errors.Is(err, ErrQueueFull) {
			if time.Sleep(100 * time.Millisecond); s.Stats().HeldBytes == held {
				return taken
			}
			continue
		}
		if err != nil {
			t.Fatalf("Offer: %v", err)
		}
		taken++
	}
	t.Fatal("what is offered has no bound")
	return 0
}

func TestAnOfferLeavesHalfOfTheQueueToWhatMustArrive(t *testing.T) {
	eachEngine(t, func(t *testing.T, build newEngine) {
		const limit = 200_000
		writable := make(chan ConnRef, 1000)
		s := start(t, build, &hooks{writable: func(c ConnRef) { writable <- c }}, Options{QueueBytes: limit})
		c := dialDeaf(t, s)
		ref := get(t, s.opened, "Open")
		f := NewText([]byte(stars(996)))
		n := offerUntilFull(t, s, ref, f)
		if held := int(s.Stats().HeldBytes); held > limit/2+f.Len() || held < limit/2-f.Len() {
			t.Errorf("%d bytes of offers wait, want half of %d and at most a frame more", held, limit)
		}
		if err := s.Send(ref, f); err != nil {
			t.Errorf("Send after an offer was refused: %v, want the other half of the queue", err)
		}
		for range n + 1 {
			c.want("text:" + stars(996))
		}
		if got := get(t, writable, "Writable"); got != ref {
			t.Errorf("Writable for %v, want %v", got, ref)
		}
		if err := s.Offer(ref, f); err != nil {
			t.Errorf("Offer after Writable: %v", err)
		}
		c.want("text:" + stars(996))
		c.leave()
	})
}

func TestAnOfferIsBoundedInFramesToo(t *testing.T) {
	eachEngine(t, func(t *testing.T, build newEngine) {
		s := start(t, build, &hooks{}, Options{QueueFrames: 10, QueueBytes: 64 << 20})
		dialDeaf(t, s)
		ref := get(t, s.opened, "Open")
		f := NewText(make([]byte, 1<<20))
		offerUntilFull(t, s, ref, f)
		if held := int(s.Stats().HeldBytes); held > 6*f.Len() || held <= 5*f.Len() {
			t.Errorf("%d bytes wait, want six frames of %d", held, f.Len())
		}
	})
}

// Many who do not read must not use up what the engine may hold: those who read are offered all, and what must arrive is sent.
func TestOffersLeaveHalfOfWhatTheEngineHolds(t *testing.T) {
	eachEngine(t, func(t *testing.T, build newEngine) {
		const limit = 1 << 20
		writable := make(chan ConnRef, 1000)
		s := start(t, build, &hooks{writable: func(c ConnRef) { writable <- c }}, Options{HeldBytes: limit, sweep: tick})
		f := NewText([]byte(stars(4092)))
		deaf := map[ConnRef]*client{}
		taken := map[ConnRef]int{}
		for range 4 {
			c := dialDeaf(t, s)
			ref := get(t, s.opened, "Open")
			deaf[ref], taken[ref] = c, offerUntilFull(t, s, ref, f)
		}
		if held := int(s.Stats().HeldBytes); held > limit/2+4*f.Len() {
			t.Errorf("%d bytes of offers are held, want half of %d", held, limit)
		}
		good := dial(t, s)
		ref := get(t, s.opened, "Open")
		for range 50 {
			if err := s.Offer(ref, f); err != nil {
				t.Fatalf("Offer to who reads: %v", err)
			}
			good.want("text:" + stars(4092))
		}
		told := map[ConnRef]bool{}
		for ref, c := range deaf {
			for range taken[ref] {
				c.want("text:" + stars(4092))
			}
		}
		for len(told) < len(deaf) {
			told[get(t, writable, "Writable")] = true
		}
	})
}

func TestAnOfferToNobodySaysSo(t *testing.T) {
	eachEngine(t, func(t *testing.T, build newEngine) {
		s := start(t, build, &hooks{message: func(ConnRef, ws.OpCode, []byte) {}}, Options{})
		c := dial(t, s)
		ref := get(t, s.opened, "Open")
		c.leave()
		_ = c.nc.Close()
		get(t, s.ended, "Closed")
		if err := s.Offer(ref, NewText([]byte("x"))); !errors.Is(err, ErrGone) {
			t.Errorf("Offer to a connection that is gone: %v, want ErrGone", err)
		}
	})
}

// A pong may be what puts a queue over its half: whoever was refused then must hear of the room too. A pipe holds
// nothing, so that what was not read is in the queue.
func TestAnOfferThatAPongTookTheRoomOfIsFollowedByWritable(t *testing.T) {
	var told atomic.Int32
	inBubble(t, &hooks{writable: func(ConnRef) { told.Add(1) }}, Options{QueueFrames: 10}, func(t *testing.T, b *bubble) {
		c := b.connect()
		c.upgrade()
		synctest.Wait()
		f := NewText([]byte("x"))
		for range 5 {
			if err := b.Offer(b.last(), f); err != nil {
				t.Fatal(err)
			}
		}
		c.write(frame(ws.OpPing, "p"))
		synctest.Wait()
		if err := b.Offer(b.last(), f); !errors.Is(err, ErrQueueFull) {
			t.Fatalf("Offer with six of ten frames waiting: %v, want ErrQueueFull", err)
		}
		c.want("text:x", "text:x", "text:x", "text:x", "text:x", "pong:p")
		synctest.Wait()
		if n := told.Load(); n != 1 {
			t.Errorf("%d calls of Writable, want 1", n)
		}
	})
}
