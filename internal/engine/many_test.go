package engine

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"testing"
	"time"
)

// numbered makes frames that say which they are, of sizes from a few bytes to some KiB.
func numbered(from, n int) (fs []*Frame, says []string) {
	for i := range n {
		text := fmt.Sprint(from+i, " ", stars((from+i)*7919%3_000))
		fs, says = append(fs, NewText([]byte(text))), append(says, text)
	}
	return fs, says
}

func TestABatchReachesThePeerInOrder(t *testing.T) {
	eachEngine(t, func(t *testing.T, build newEngine) {
		s := start(t, build, &hooks{}, Options{HTTP: streams})
		c := dial(t, s)
		ref := get(t, s.opened, "Open")
		l := listen(t, s)
		stream := get(t, s.opened, "Open of a stream")
		before := s.Stats()
		bytes := 0
		for round := range 20 {
			fs, says := numbered(100*round, 1+round*3)
			for _, to := range []ConnRef{ref, stream} {
				if n, err := s.SendBatch(to, fs); n != len(fs) || err != nil {
					t.Fatalf("SendBatch took %d of %d: %v", n, len(fs), err)
				}
			}
			for i, text := range says {
				c.want("text:" + text)
				l.wantEvents("data: " + text)
				bytes += fs[i].Len() + len(fs[i].event())
			}
		}
		for end := time.Now().Add(patience); s.Stats().HeldBytes > 0; runtime.Gosched() { // a peer may have read what is not counted yet
			if time.Now().After(end) {
				t.Fatalf("%d bytes are held when all is read", s.Stats().HeldBytes)
			}
		}
		after := s.Stats()
		if got := after.BytesOut - before.BytesOut; got != uint64(bytes) {
			t.Errorf("%d bytes out are counted, want %d", got, bytes)
		}
	})
}

// TestABatchIsTakenUpToTheFirstFrameWithoutRoom sends to a peer that reads only afterwards: it gets what was taken, and no more.
func TestABatchIsTakenUpToTheFirstFrameWithoutRoom(t *testing.T) {
	for _, limit := range []int{50_000, 8_000} { // more and less than goes out at once
		eachEngine(t, func(t *testing.T, build newEngine) {
			writable := make(chan ConnRef, 1000)
			s := start(t, build, &hooks{writable: func(c ConnRef) { writable <- c }}, Options{QueueBytes: limit})
			c := dialDeaf(t, s)
			ref := get(t, s.opened, "Open")
			var taken []string
			for from := 0; ; from += 10 {
				fs, says := numbered(from, 10)
				n, err := s.SendBatch(ref, fs)
				taken = append(taken, says[:n]...)
				if held := s.Stats().HeldBytes; held > int64(limit) {
					t.Fatalf("%d bytes wait, the limit is %d", held, limit)
				}
				if n == len(fs) && err == nil {
					continue
				}
				if n == len(fs) || !errors.Is(err, ErrQueueFull) {
					t.Fatalf("SendBatch took %d of %d: %v, want fewer and ErrQueueFull", n, len(fs), err)
				}
				break
			}
			for _, text := range taken {
				c.want("text:" + text)
			}
			if got := get(t, writable, "Writable"); got != ref {
				t.Errorf("Writable for %v, want %v", got, ref)
			}
			if n, err := s.SendBatch(ref, []*Frame{NewText([]byte("a")), NewText([]byte("b"))}); n != 2 || err != nil {
				t.Errorf("after Writable SendBatch took %d: %v", n, err)
			}
			c.want("text:a", "text:b")
			if held := s.Stats().HeldBytes; held != 0 {
				t.Errorf("%d bytes are held when all is read", held)
			}
			c.leave()
			_ = c.nc.Close()
			get(t, s.ended, "Closed")
			if n, err := s.SendBatch(ref, []*Frame{NewText([]byte("a"))}); n != 0 || !errors.Is(err, ErrGone) {
				t.Errorf("to a connection that is gone: took %d, %v; want ErrGone", n, err)
			}
		})
	}
}

func TestABroadcastSaysWhoHasNotTakenIt(t *testing.T) {
	eachEngine(t, func(t *testing.T, build newEngine) {
		s := start(t, build, &hooks{}, Options{QueueBytes: 200_000, HTTP: streams})
		left := dial(t, s)
		gone := get(t, s.opened, "Open")
		left.leave()
		_ = left.nc.Close()
		get(t, s.ended, "Closed")
		dialDeaf(t, s)
		deaf := get(t, s.opened, "Open")
		offerUntilFull(t, s, deaf, NewText([]byte(stars(996))))
		c := dial(t, s)
		reads := get(t, s.opened, "Open")
		l := listen(t, s)
		stream := get(t, s.opened, "Open of a stream")

		before := s.Stats()
		f := NewText([]byte("news"))
		failed := s.Broadcast(f, []ConnRef{gone, deaf, reads, stream, gone}, make([]Failure, 1, 8))
		if want := []Failure{{}, {0, ErrGone}, {1, ErrQueueFull}, {4, ErrGone}}; !slices.Equal(failed, want) {
			t.Errorf("failed are %v, want %v", failed, want)
		}
		c.want("text:news")
		l.wantEvents("data: news")
		after := s.Stats()
		if frames, bytes := after.FramesOut-before.FramesOut, after.BytesOut-before.BytesOut; frames != 2 || bytes != uint64(f.Len()+len(f.event())) {
			t.Errorf("%d frames of %d bytes are counted, want two of %d", frames, bytes, f.Len()+len(f.event()))
		}
	})
}

func TestATextBufferMakesTheSameFrame(t *testing.T) {
	for _, n := range []int{0, 1, maxControl, maxControl + 1, 0xffff, 0x10000} {
		want := NewText([]byte(stars(n)))
		got := TextOf(append(TextBuffer(n/2), stars(n)...))
		if string(got.wire) != string(want.wire) || string(got.Payload()) != stars(n) {
			t.Errorf("a text of %d bytes: the frame begins with %x, want %x", n, got.wire[:min(12, len(got.wire))], want.wire[:min(12, len(want.wire))])
		}
	}
}

// TestSendingInNumbersAllocatesNothing counts over real sockets whose peers read.
func TestSendingInNumbersAllocatesNothing(t *testing.T) {
	eachEngine(t, func(t *testing.T, build newEngine) {
		s := start(t, build, &hooks{}, Options{})
		c := dial(t, s)
		refs := []ConnRef{get(t, s.opened, "Open")}
		fs, says := numbered(0, 16)
		failed := make([]Failure, 0, 1)
		size := 0
		for _, f := range fs {
			size += f.Len()
		}
		got := make([]byte, size+fs[0].Len())
		allocs := testing.AllocsPerRun(200, func() {
			if n, err := s.SendBatch(refs[0], fs); n != len(says) || err != nil {
				t.Fatal(n, err)
			}
			failed = s.Broadcast(fs[0], refs, failed[:0])
			if _, err := io.ReadFull(c.nc, got); err != nil {
				t.Fatal(err)
			}
		})
		// Under the race detector a pool drops a part of what it is given.
		if allocs > 1 {
			t.Errorf("%v allocations for 17 frames, want 0", allocs)
		}
	})
}

// sip is a line that takes so many bytes, and no more.
type sip struct{ room, flushes int }

func (s *sip) try(b []byte) (n int, err error) {
	n = min(len(b), s.room)
	s.room -= n
	return n, nil
}
func (s *sip) flush()     { s.flushes++ }
func (*sip) halve()       {}
func (*sip) turn()        {}
func (*sip) unread() bool { return false }
func (*sip) cut()         {}

// TestABatchThatGoesOutInPartIsQueuedFromThere takes each number of bytes at once.
func TestABatchThatGoesOutInPartIsQueuedFromThere(t *testing.T) {
	var fs []*Frame
	var all []byte
	for i := range 12 {
		f := NewText([]byte(stars(i * 7)))
		fs, all = append(fs, f), append(all, f.wire...)
	}
	for room := range len(all) + 1 {
		e := New(&hooks{}, Options{})
		line := &sip{room: room}
		c := &conn{s: &service{e: e}, state: open, line: line}
		if n, err := c.sendBatch(fs); n != len(fs) || err != nil {
			t.Fatalf("took %d: %v", n, err)
		}
		var rest []byte
		if !c.q.empty() {
			rest = bytes.Join(c.q.next(nil, len(fs)), nil)
		}
		held := e.count.held.Load()
		if string(rest) != string(all[room:]) || int(held) != len(rest) || c.q.size() != len(rest) {
			t.Fatalf("after %d bytes %q waits (%d are counted, %d held), want %q", room, rest, c.q.size(), held, all[room:])
		}
		if want := min(1, len(rest)); line.flushes != want {
			t.Errorf("%d flushes after %d bytes, want %d", line.flushes, room, want)
		}
	}
}
