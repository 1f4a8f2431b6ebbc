package engine

import (
	"io"
	"runtime"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// BenchmarkEchoBesideHalfFrames reports the p99 of a healthy client's echo of 256 bytes alone and beside 8,000
// connections that have sent half a frame, and their ratio, which must not be over 2. The two are measured in turn, at
// servers of their own. Both ends of 8,000 connections are 16,000 descriptors, of the 20,000 that a process may have.
func BenchmarkEchoBesideHalfFrames(b *testing.B) {
	const attackers, limit = 8000, 2
	overEngines(b, func(b *testing.B, build newEngine) {
		var p99 [2]float64
		out := NewText([]byte(stars(256)))
		in, answer := text(stars(256)), make([]byte, out.Len())
		o := Options{MessageTime: time.Hour, PingEvery: time.Hour} // or the attack has an end
		var clients [2]*client
		for i := range clients {
			s := startEcho(b, build, o)
			if i == 1 {
				fds := make([]int, attackers)
				defer idle(b, s, fds)()
				before := s.Stats().BytesIn
				for k, fd := range fds {
					if _, err := unix.Write(fd, text(stars(60_000))[:1+k%100]); err != nil {
						b.Fatal(err)
					}
				}
				for s.Stats().BytesIn < before+attackers*101/2-attackers {
					runtime.Gosched()
				}
			}
			clients[i] = dial(b, s)
			<-s.opened
		}
		var took [2][]time.Duration
		for b.Loop() {
			for i, c := range clients {
				began := time.Now()
				c.write(in)
				if _, err := io.ReadFull(c.nc, answer); err != nil {
					b.Fatal(err)
				}
				took[i] = append(took[i], time.Since(began))
			}
		}
		for i := range took {
			slices.Sort(took[i])
			p99[i] = float64(took[i][len(took[i])*99/100])
		}
		ratio := p99[1] / p99[0]
		b.ReportMetric(p99[0]/1e3, "us-alone-p99")
		b.ReportMetric(p99[1]/1e3, "us-attacked-p99")
		b.ReportMetric(ratio, "ratio")
		if len(took[0]) > 1000 && ratio > limit {
			b.Errorf("beside %d half frames the p99 of an echo is %.1f times as long, the limit is %d", attackers, ratio, limit)
		}
	})
}
