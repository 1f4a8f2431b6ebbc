package worker_test

import (
	"fmt"
	"io"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wscluster/wscluster/pkg/wire"
)

// What a worker has asked a runner for, and its reader has not taken, is one piece for a download, and for a socket what its queue
// holds.
func TestOfALogWhoseReaderStopsNoMoreIsAskedFor(t *testing.T) {
	const (
		n     = 8000
		queue = 1 << 20 // bytes of a socket's, unless set otherwise
	)
	inBubble(t, func(b *bubble) {
		w := b.worker("i1-w1")
		b.runnerIn("r1", b.TempDir(), kinds(lines(n, nil)))
		client, leave := b.client(always(w))
		task, err := client.Submit(b.Context(), "k", nil)
		if err != nil {
			b.Fatal(err)
		}
		if _, err := b.wait(task); err != nil {
			b.Fatal(err)
		}
		leave()
		token := client.State().Token
		said := b.overhear()
		asked := func() int { return said()["log_read"] }

		whole := len(logText(1, n))
		for format, size := range map[string]int{"text": whole, "ndjson": 0} {
			before := asked()
			answer, err := ask(w.plain(), "GET", "/v1/tasks/"+string(task.ID())+"/log?format="+format, "", "X-Socket-Meta", token)
			if err != nil || answer.StatusCode != http.StatusOK {
				b.Fatal(answer, err)
			}
			if _, err := answer.Body.Read(make([]byte, 1)); err != nil {
				b.Fatal(err)
			}
			b.pass(time.Minute)
			if got := asked() - before; got != 1 {
				b.Errorf("%s: %d pieces were asked for, want the first one", format, got)
			}
			rest, err := io.ReadAll(answer.Body)
			if err != nil || size > 0 && len(rest) != size-1 {
				b.Errorf("%s: a minute later there are %d bytes more of %d, %v", format, len(rest), size, err)
			}
			if got, want := asked()-before, whole/wire.MaxLogChunk+1; got != want {
				b.Errorf("%s: %d pieces were asked for in the end, want %d", format, got, want)
			}
		}

		conn, err := w.dial()
		if err != nil {
			b.Fatal(err)
		}
		s := shake(b.T, conn, "/v1/ws", "")
		b.ends = append(b.ends, func() { conn.Close() })
		s.hello(token)
		before := asked()
		for range 2 * queue / wire.MinLogChunk {
			s.send(text, string(wire.EncodeClient(&wire.LogRead{Task: task.ID(), Runner: "r1", From: 1})))
			synctest.Wait()
		}
		if got, most := asked()-before, queue/wire.MinLogChunk+2; got < most/2 || got > most {
			b.Errorf("a socket that reads nothing was read %d pieces for, want at most %d", got, most)
		}
		b.pass(time.Minute)
		for got := 0; ; {
			_, p, err := s.next()
			if err != nil {
				break // closed: it was too slow
			}
			if got += len(p); got > queue {
				b.Fatalf("%d bytes waited for a socket that reads nothing", got)
			}
		}
	})
}

func TestAFifthLogReadOfASocketIsRefusedWhileFourWait(t *testing.T) {
	inBubble(t, func(b *bubble) {
		w := b.worker("i1-w1")
		b.mute("mute")
		s, other := b.bare(w, ""), b.bare(w, "")
		for _, s := range []*bareSocket{s, other} {
			s.say(&wire.Hello{})
			s.meta()
		}
		read := func(id int) *wire.LogRead {
			return &wire.LogRead{ID: fmt.Sprint(id), Task: "t", Runner: "mute", From: 1}
		}
		for range 2 {
			for id := range 4 {
				s.say(read(id))
			}
			if ms, _ := s.all(); len(ms) != 0 {
				b.Errorf("four at once: %v", ms)
			}
			for range 2 {
				s.say(read(4))
				if code := s.refused(); code != wire.CodeOverloaded {
					b.Errorf("a fifth: %q, want overloaded", code)
				}
			}
			other.say(read(0))
			if code := other.refused(); code != "" {
				b.Errorf("the first of another socket: %q", code)
			}
			b.pass(5 * time.Second)
			ms, _ := s.all()
			for _, m := range ms {
				if r, ok := m.(*wire.Refused); !ok || r.Code != wire.CodeLogUnavailable {
					b.Errorf("got %+v, want log_unavailable", m)
				}
			}
			if len(ms) != 4 {
				b.Errorf("%d answers after 5 s, want four", len(ms))
			}
			other.all()
		}
	})
}
