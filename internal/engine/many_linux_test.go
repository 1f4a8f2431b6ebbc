package engine

import (
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// side is n connections of the epoll engine with both ends' descriptors: bare ones whose peers read when told to.
type side struct {
	e     *Engine
	refs  []ConnRef
	mine  []int // the engine's descriptors
	peers []int
	buf   [64 << 10]byte
}

func sides(b *testing.B, n int) *side {
	runtime.LockOSThread() // cpu is this thread's
	b.Cleanup(runtime.UnlockOSThread)
	opened := make(chan ConnRef, n)
	s := start(b, epolls, &hooks{open: func(c ConnRef, _ *Request) { opened <- c }}, Options{PingEvery: time.Hour})
	x := &side{e: s.face.(*Engine), peers: make([]int, n)}
	leave := idle(b, s, x.peers)
	b.Cleanup(leave)
	for range n {
		ref := <-opened
		x.refs = append(x.refs, ref)
		x.mine = append(x.mine, int(x.e.table.get(ref).line.(*polled).fd))
	}
	for _, fd := range x.peers {
		if err := unix.SetNonblock(fd, true); err != nil {
			b.Fatal(err)
		}
	}
	return x
}

// drain reads what the peers have, and returns the bytes.
func (x *side) drain() (total int) {
	for _, fd := range x.peers {
		for {
			n, _ := kernel.read1(fd, x.buf[:])
			if total += n; n < len(x.buf) {
				break
			}
		}
	}
	return total
}

// cpu returns the processor time that f takes of this thread: what else runs on the machine counts for less than by the clock.
func cpu(f func()) time.Duration {
	var from, to unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &from)
	f()
	_ = unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &to)
	return time.Duration(to.Nano() - from.Nano())
}

// compare runs the ways in turn on the same sockets, and reports the processor time of each for a message, and
// what it is of the first's. Each sends messages of bytes in all.
func (x *side) compare(b *testing.B, messages, bytes int, names []string, ways ...func()) {
	spent := make([]time.Duration, len(ways))
	for b.Loop() {
		for i, way := range ways {
			spent[i] += cpu(way)
			if got := x.drain(); got != bytes {
				b.Fatalf("%s: %d bytes came, want %d", names[i], got, bytes)
			}
		}
	}
	for i, name := range names {
		b.ReportMetric(float64(spent[i].Nanoseconds())/float64(b.N*messages), name+"-ns/msg")
		if i > 0 {
			b.ReportMetric(float64(spent[i])/float64(spent[0]), name+"/"+names[0])
		}
	}
}

// BenchmarkBroadcast is one frame to 2,000 connections: a bare loop of writes, Offer for each, Broadcast.
func BenchmarkBroadcast(b *testing.B) {
	const n = 2_000
	x := sides(b, n)
	f := NewText([]byte(stars(256)))
	x.compare(b, n, n*f.Len(), []string{"bare", "offer", "broadcast"},
		func() {
			for _, fd := range x.mine {
				if _, err := unix.Write(fd, f.wire); err != nil {
					b.Fatal(err)
				}
			}
		},
		func() {
			for _, ref := range x.refs {
				if err := x.e.Offer(ref, f); err != nil {
					b.Fatal(err)
				}
			}
		},
		func() {
			if failed := x.e.Broadcast(f, x.refs, nil); failed != nil {
				b.Fatal(failed)
			}
		})
}

// BenchmarkSendBatch is 16 frames to each of 500 connections: 16 bare writes, 16 Sends, or one SendBatch.
func BenchmarkSendBatch(b *testing.B) {
	const n, each = 500, 16
	x := sides(b, n)
	var fs []*Frame
	for range each {
		fs = append(fs, NewText([]byte(stars(256))))
	}
	x.compare(b, n*each, n*each*fs[0].Len(), []string{"bare", "single", "batch"},
		func() {
			for _, fd := range x.mine {
				for _, f := range fs {
					if _, err := unix.Write(fd, f.wire); err != nil {
						b.Fatal(err)
					}
				}
			}
		},
		func() {
			for _, ref := range x.refs {
				for _, f := range fs {
					if err := x.e.Send(ref, f); err != nil {
						b.Fatal(err)
					}
				}
			}
		},
		func() {
			for _, ref := range x.refs {
				if _, err := x.e.SendBatch(ref, fs); err != nil {
					b.Fatal(err)
				}
			}
		})
}
