package engine

import (
	"bytes"
	"testing"

	"github.com/gobwas/ws"
	"pgregory.net/rapid"
)

// TestQueueWritesEveryByteInOrder runs a queue against a plain list of the bytes that must go out.
func TestQueueWritesEveryByteInOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const maxBytes, maxFrames = 400, 6
		var q queue
		var want, got []byte
		draw := func() []byte {
			return newFrame(ws.OpText, rapid.SliceOfN(rapid.Byte(), 0, 150).Draw(t, "payload")).wire
		}
		t.Repeat(map[string]func(*rapid.T){
			"push": func(*rapid.T) {
				f := draw()
				fits := len(want)-len(got)+len(f) <= maxBytes && len(q.frames) < maxFrames
				if q.fits(len(f), maxBytes, maxFrames) != fits {
					t.Fatalf("fits says %v", !fits)
				}
				if !fits {
					return
				}
				sent := 0
				if q.empty() {
					sent = rapid.IntRange(0, len(f)-1).Draw(t, "sent")
					got = append(got, f[:sent]...)
				}
				q.push(f, sent)
				want = append(want, f...)
			},
			"write": func(*rapid.T) {
				var next []byte
				for _, b := range q.next(nil, 3) {
					next = append(next, b...)
				}
				n := rapid.IntRange(0, len(next)).Draw(t, "written")
				got = append(got, next[:n]...)
				q.wrote(n)
			},
			"": func(*rapid.T) {
				if q.bytes != len(want)-len(got) {
					t.Fatalf("the queue says %d bytes, want %d", q.bytes, len(want)-len(got))
				}
				if !bytes.Equal(got, want[:len(got)]) {
					t.Fatal("the bytes came out in another order")
				}
				if q.empty() != (len(got) == len(want)) || q.empty() && q.frames != nil {
					t.Fatalf("empty is %v, the memory %v", q.empty(), q.frames)
				}
			},
		})
	})
}

func TestQueueKeepsOnePongBehindOtherFrames(t *testing.T) {
	var q queue
	text, pong := newFrame(ws.OpText, []byte("t")).wire, func(s string) []byte { return newFrame(ws.OpPong, []byte(s)).wire }
	q.push(text, 0)
	q.pushPong(pong("1"))
	q.pushPong(pong("22")) // takes the place of 1
	q.push(text, 0)
	q.pushPong(pong("333")) // and this of 22, where it stood
	if want := 3 + 5 + 3; q.bytes != want || len(q.frames) != 3 {
		t.Fatalf("%d bytes in %d frames, want %d in 3", q.bytes, len(q.frames), want)
	}
	q.wrote(3) // now the pong is first, and may be half written
	q.pushPong(pong("4"))
	q.pushPong(pong("5"))
	var out []byte
	for _, b := range q.next(nil, 10) {
		out = append(out, b...)
	}
	if want := "\x8a\x03333\x81\x01t\x8a\x015"; string(out) != want {
		t.Errorf("got %q, want %q", out, want)
	}
	q.wrote(len(out))
	if !q.empty() || q.bytes != 0 || q.pong != 0 {
		t.Errorf("got %+v, want an empty queue", q)
	}
}
