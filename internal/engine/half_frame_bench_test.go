package engine

import (
	"io"
	"os"
	"os/exec"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// attackers is how many connections send half a frame; attackOn names, in the environment of this program, the address of the
// server on which it is to be all of them.
const attackers, attackOn = 10_000, "ENGINE_ATTACK"

// attack has them until stdin ends.
func attack(addr string) error {
	frame := text(stars(60_000))
	for k := range attackers {
		fd, err := upgraded(addr)
		if err == nil {
			_, err = unix.Write(fd, frame[:1+k%100])
		}
		if err != nil {
			return err
		}
	}
	_, err := io.Copy(io.Discard, os.Stdin)
	return err
}

// startAttack starts the attackers, and returns once the server has all that they send.
func startAttack(b *testing.B, s *server) {
	c := exec.Command(os.Args[0])
	c.Env, c.Stderr = append(os.Environ(), attackOn+"="+s.addr), os.Stderr
	in, err := c.StdinPipe()
	if err == nil {
		err = c.Start()
	}
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		_ = in.Close() // which ends it
		if err := c.Wait(); err != nil {
			b.Errorf("attackers: %v", err)
		}
		for range attackers {
			get(b, s.ended, "Closed")
		}
	})
	for range attackers {
		get(b, s.opened, "Open")
	}
	for late := time.Now().Add(patience); s.Stats().BytesIn < attackers*101/2; time.Sleep(time.Millisecond) {
		if time.Now().After(late) {
			b.Fatalf("%d bytes came", s.Stats().BytesIn)
		}
	}
}

// BenchmarkEchoBesideHalfFrames reports the p99 of a healthy client's echo of 256 bytes alone and beside 10,000
// connections that have sent half a frame, and their ratio. The two are measured in turn, at servers of their own. The
// attackers are in a process of their own, because both ends would be more descriptors than the 20,000 that one may have.
func BenchmarkEchoBesideHalfFrames(b *testing.B) {
	overEngines(b, func(b *testing.B, build newEngine) {
		var p99 [2]float64
		out := NewText([]byte(stars(256)))
		in, answer := text(stars(256)), make([]byte, out.Len())
		o := Options{MessageTime: time.Hour, PingEvery: time.Hour} // or the attack has an end
		var clients [2]*client
		for i := range clients {
			s := startEcho(b, build, o)
			if i == 1 {
				startAttack(b, s)
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
		b.ReportMetric(p99[0]/1e3, "us-alone-p99")
		b.ReportMetric(p99[1]/1e3, "us-attacked-p99")
		b.ReportMetric(p99[1]/p99[0], "ratio")
	})
}
