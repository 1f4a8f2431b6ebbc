package engine

import (
	"fmt"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gobwas/ws"
)

func TestSilentPeerIsPingedAndThenCut(t *testing.T) {
	inBubble(t, &hooks{}, Options{}, func(t *testing.T, b *bubble) {
		p := b.dial(false)
		b.pass(time.Minute)
		if got := p.got(); !slices.Equal(got, []string{"ping:", "end"}) || p.times[0] != 15*time.Second {
			t.Errorf("got %q at %v, want a ping after 15 s and the end", got, p.times)
		}
		b.wantEnd(1006, ErrPeerSilent, 25*time.Second)
		if got := b.Stats().Closes["silent"]; got != 1 {
			t.Errorf("%d closes by silence, want 1", got)
		}
	})
}

func TestPeerThatAnswersPingsLivesOn(t *testing.T) {
	inBubble(t, &hooks{}, Options{}, func(t *testing.T, b *bubble) {
		p := b.dial(true)
		b.pass(time.Hour)
		if n := len(p.got()); n != 240 {
			t.Errorf("%d pings in an hour, want 240", n)
		}
		b.wantOpen()
	})
}

func TestAnyByteIsASignOfLife(t *testing.T) {
	inBubble(t, &hooks{}, Options{}, func(t *testing.T, b *bubble) {
		p := b.dial(false)
		for range 100 {
			b.pass(14 * time.Second)
			p.write(text("x"))
		}
		b.pass(15 * time.Second)
		p.write(text("x")[:1]) // half a frame answers a ping too
		b.pass(10 * time.Second)
		if got := p.got(); !slices.Equal(got, []string{"ping:"}) {
			t.Errorf("got %q, want one ping", got)
		}
		b.wantOpen()
	})
}

// A machine with too much to do, or a process that was stopped for a while.
func TestAPeerWhoseAnswerWaitsToBeReadIsNotSilent(t *testing.T) {
	eachEngine(t, func(t *testing.T, build newEngine) {
		held, late, heard := make(chan struct{}), make(chan struct{}), make(chan string, 1)
		s := start(t, build, &hooks{message: func(_ ConnRef, _ ws.OpCode, p []byte) {
			if string(p) != "hold" {
				heard <- string(p)
				return
			}
			close(held)
			<-late
		}}, Options{})
		c := dial(t, s)
		c.write(text("hold"))
		<-held
		s.later(15 * time.Second)
		if got := c.read(); got != "ping:" {
			t.Fatalf("read %q, want a ping", got)
		}
		c.write(text("here"))
		s.later(25 * time.Second)
		close(late)
		if got := get(t, heard, "Message"); got != "here" {
			t.Errorf("the Handler heard %q", got)
		}
	})
}

func TestPausedPeerIsPingedButNotJudged(t *testing.T) {
	inBubble(t, &hooks{}, Options{}, func(t *testing.T, b *bubble) {
		p := b.dial(false)
		p.write(text("half")[:8])
		b.Pause(b.last(), true)
		b.pass(10 * time.Minute)
		if n := len(p.got()); n != 40 {
			t.Errorf("%d pings in ten minutes, want 40", n)
		}
		b.wantOpen()
		b.Pause(b.last(), false)
		p.write(text("half")[8:]) // it has the full time anew
		b.pass(26 * time.Second)
		b.wantEnd(1006, ErrPeerSilent, 10*time.Minute+25*time.Second)
	})
}

func TestPauseTakesBackAPing(t *testing.T) {
	inBubble(t, &hooks{}, Options{}, func(t *testing.T, b *bubble) {
		b.dial(false)
		b.pass(16 * time.Second) // the ping has gone out
		b.Pause(b.last(), true)
		b.pass(14 * time.Second)
		b.Pause(b.last(), false) // at 30 s, and all begins anew
		b.pass(30 * time.Second)
		b.wantEnd(1006, ErrPeerSilent, 55*time.Second)
	})
}

func TestPauseInsideAnUnfinishedMessageStopsItsClock(t *testing.T) {
	inBubble(t, &hooks{}, Options{}, func(t *testing.T, b *bubble) {
		p := b.dial(false)
		p.write(text("half")[:8])
		synctest.Wait()
		b.Pause(b.last(), true)
		b.pass(14 * time.Second)
		b.Pause(b.last(), false)
		b.pass(14 * time.Second)
		b.wantOpen()
		b.pass(10 * time.Second)
		b.wantEnd(1008, ErrSlowFrame, 34*time.Second) // 14 of pause, 15 for the message, 5 for the close
	})
}

func TestHeaderMustComeInTime(t *testing.T) {
	inBubble(t, &hooks{}, Options{}, func(t *testing.T, b *bubble) {
		c := b.connect()
		var drip sync.WaitGroup
		defer drip.Wait()
		drip.Go(func() {
			for i := range upgradeRequest() { // a byte a second
				if _, err := c.nc.Write([]byte(upgradeRequest()[i : i+1])); err != nil {
					return
				}
				time.Sleep(time.Second)
			}
		})
		got, err := io.ReadAll(c.r)
		if err != nil || b.now() != 5*time.Second {
			t.Errorf("got %q, %v after %v, want the end after 5 s", got, err, b.now())
		}
		if s := b.Stats(); s.Opened != 0 {
			t.Errorf("got %+v", s)
		}
	})
}

func TestDecisionMustComeInTime(t *testing.T) {
	h := &hooks{handshake: func(ConnRef, *Request) Decision { return Decision{Later: true} }}
	inBubble(t, h, Options{}, func(t *testing.T, b *bubble) {
		c := b.connect()
		c.write([]byte(upgradeRequest()))
		if res := c.response(); res.StatusCode != 503 || b.now() != 5*time.Second {
			t.Errorf("got %s after %v, want 503 after 5 s", res.Status, b.now())
		}
	})
}

func TestMessageMustBeFinishedInTime(t *testing.T) {
	for name, drip := range map[string]func(i int) []byte{
		"a frame byte by byte":            func(i int) []byte { return text(stars(100))[i : i+1] },
		"a message of many fragments":     func(i int) []byte { return part(min(ws.OpCode(i), 1)^1, "x") },
		"pings between its two fragments": func(i int) []byte { return [][]byte{part(1, "x"), frame(ws.OpPing, "")}[min(i, 1)] },
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, &hooks{}, Options{}, func(t *testing.T, b *bubble) {
				p := b.dial(true)
				for i := range 15 {
					p.write(drip(i))
					b.pass(time.Second)
				}
				if got := p.got(); got[len(got)-1] != "close:1008 "+ErrSlowFrame.Error() {
					t.Errorf("got %q, want a close with 1008 at last", got)
				}
				b.pass(5 * time.Second)
				b.wantEnd(1008, ErrSlowFrame, 20*time.Second)
			})
		})
	}
}

// TestStreamThatIsAlwaysInsideAFrameIsNotSlow sends small frames so that each piece ends in the
// middle of one: each frame is quick, though the connection never rests between two.
func TestStreamThatIsAlwaysInsideAFrameIsNotSlow(t *testing.T) {
	for _, f := range [][]byte{text("abc"), frame(ws.OpPing, "abc")} {
		inBubble(t, &hooks{}, Options{}, func(t *testing.T, b *bubble) {
			p := b.dial(true)
			p.write(f[:5])
			for range 60 {
				b.pass(time.Second)
				p.write(join(f[5:], f[:5]))
			}
			b.wantOpen()
		})
	}
}

func TestPeerThatDoesNotReadIsCut(t *testing.T) {
	inBubble(t, &hooks{}, Options{}, func(t *testing.T, b *bubble) {
		c := b.connect()
		c.upgrade()
		synctest.Wait()
		f := NewText([]byte("x"))
		for range 8 {
			if err := b.Send(b.last(), f); err != nil {
				t.Fatal(err)
			}
		}
		for range 5 { // slow, but it reads
			b.pass(19 * time.Second)
			c.want("text:x")
		}
		b.pass(30 * time.Second)
		b.wantEnd(1006, ErrStalled, 5*19*time.Second+20*time.Second)
		if held := b.Stats().HeldBytes; held != 0 {
			t.Errorf("%d bytes are held after the end", held)
		}
	})
}

func TestCloseAndShutdownHaveTheirTime(t *testing.T) {
	t.Run("close", func(t *testing.T) {
		inBubble(t, &hooks{}, Options{}, func(t *testing.T, b *bubble) {
			b.dial(false)
			b.CloseConn(b.last(), 4000, "", nil)
			b.pass(time.Minute)
			b.wantEnd(4000, nil, 5*time.Second)
		})
	})
	t.Run("shutdown", func(t *testing.T) {
		inBubble(t, &hooks{}, Options{}, func(t *testing.T, b *bubble) {
			p := b.dial(false)
			b.connect() // one that never sends its header
			b.stop()
			if b.now() > 6*time.Second {
				t.Errorf("Serve took %v, want at most CloseTime and a sweep", b.now())
			}
			b.wantEnd(1001, ErrShutdown, 5*time.Second)
			if got := p.got(); got[0] != "close:1001" {
				t.Errorf("got %q", got)
			}
		})
	})
}

// TestWritableComesAtTheLowWaterMark uses that a pipe holds nothing: every frame that was not
// read is in the queue.
func TestWritableComesAtTheLowWaterMark(t *testing.T) {
	var calls atomic.Int32
	h := &hooks{writable: func(ConnRef) { calls.Add(1) }}
	for _, tc := range []struct {
		name        string
		sent, reads int // frames of 100 bytes, and how many must be read until Writable
	}{
		{"below the high-water mark", 50, -1},
		{"above the high-water mark", 51, 26},
		{"after a refusal", 101, 75},
	} {
		t.Run(tc.name, func(t *testing.T) {
			calls.Store(0)
			inBubble(t, h, Options{QueueBytes: 100 * 100}, func(t *testing.T, b *bubble) {
				c := b.connect()
				c.upgrade()
				synctest.Wait()
				f := NewText([]byte(stars(98)))
				queued := min(tc.sent, 100)
				for i := range tc.sent {
					if err := b.Send(b.last(), f); (err == nil) != (i < 100) {
						t.Fatalf("Send %d: %v", i, err)
					}
				}
				for i := 1; i <= queued; i++ {
					c.want("text:" + stars(98))
					synctest.Wait()
					want := int32(0)
					if tc.reads > 0 && i >= tc.reads {
						want = 1
					}
					if got := calls.Load(); got != want {
						t.Fatalf("%d calls of Writable after %d reads, want %d", got, i, want)
					}
				}
			})
		})
	}
}

// TestWritableWaitsForRoomForTheRefusedFrame: a frame of nearly the whole queue fits only once
// nearly all is out, whatever the low-water mark says.
func TestWritableWaitsForRoomForTheRefusedFrame(t *testing.T) {
	var b atomic.Pointer[bubble]
	var told atomic.Bool
	big := NewText([]byte(stars(9496))) // 9,500 bytes
	h := &hooks{writable: func(c ConnRef) {
		if !told.Swap(true) { // the big frame itself will make it writable again
			if err := b.Load().Send(c, big); err != nil {
				t.Errorf("Send from Writable: %v", err)
			}
		}
	}}
	inBubble(t, h, Options{QueueBytes: 10_000}, func(t *testing.T, in *bubble) {
		b.Store(in)
		c := in.connect()
		c.upgrade()
		synctest.Wait()
		for i := range 10 {
			if err := in.Send(in.last(), NewText(fmt.Appendf(nil, "%098d", i))); err != nil {
				t.Fatal(err)
			}
		}
		if err := in.Send(in.last(), big); err != ErrQueueFull {
			t.Fatalf("got %v, want ErrQueueFull", err)
		}
		for i := range 10 {
			if told.Load() && i < 5 {
				t.Fatalf("Writable came after %d reads", i)
			}
			c.want(fmt.Sprintf("text:%098d", i))
			synctest.Wait()
		}
		c.want("text:" + stars(9496))
	})
}
