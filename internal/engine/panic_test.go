package engine

import (
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gobwas/ws"
)

// bomb is a Handler that panics where the path of a connection says so, and echoes.
type bomb struct {
	s  *server
	mu sync.Mutex
	at map[ConnRef]string // guarded by mu
}

func (b *bomb) in(c ConnRef, where string) {
	b.mu.Lock()
	at := b.at[c]
	b.mu.Unlock()
	if at == "/"+where {
		panic("a bug in " + where)
	}
}

func (b *bomb) hooks() *hooks {
	h := echo(&b.s)
	echoed := h.message
	learn := func(c ConnRef, r *Request) {
		b.mu.Lock()
		b.at[c] = r.Target
		b.mu.Unlock()
	}
	h.handshake = func(c ConnRef, r *Request) Decision { learn(c, r); b.in(c, "handshake"); return Decision{} }
	h.open = func(c ConnRef, r *Request) { learn(c, r); b.in(c, "open") }
	h.message = func(c ConnRef, op ws.OpCode, p []byte) { b.in(c, "message"); echoed(c, op, p) }
	h.writable = func(c ConnRef) { b.in(c, "writable") }
	h.closed = func(c ConnRef, _ ws.StatusCode, _ error) { b.in(c, "closed") }
	return h
}

// A panic in any method of the Handler ends the connection that it was called for, with 1011, and no other: neither
// the loop or the goroutines nor the process.
func TestPanicClosesOneConnection(t *testing.T) {
	eachEngine(t, func(t *testing.T, build newEngine) {
		b := &bomb{at: make(map[ConnRef]string)}
		b.s = start(t, build, b.hooks(), Options{})
		s := b.s
		var good [4]*client // there are loops of as many cores
		for i := range good {
			good[i] = dial(t, s)
			get(t, s.opened, "Open")
		}
		for _, tc := range []struct {
			name, path string
			do         func(t *testing.T, c *client)
		}{
			{"Handshake", "/handshake", func(t *testing.T, c *client) {
				if res := c.response(); res.StatusCode != 500 {
					t.Errorf("got %s, want 500", res.Status)
				}
			}},
			{"Open", "/open", func(t *testing.T, c *client) { c.response(); c.want("close:1011") }},
			{"Message", "/message", func(t *testing.T, c *client) { // the second one comes to nobody
				c.response()
				c.write(join(text("a"), text("b")))
				c.want("close:1011")
			}},
			{"Message by Receive", "/message", func(t *testing.T, c *client) {
				c.response()
				if err := s.Receive(get(t, s.opened, "Open"), []byte("a")); err != nil {
					t.Errorf("Receive: %v", err)
				}
				c.want("close:1011")
			}},
			{"Writable", "/writable", func(t *testing.T, c *client) {
				c.response()
				fill(t, s, get(t, s.opened, "Open"), NewText([]byte(stars(10_000))))
				got := c.read()
				for strings.HasPrefix(got, "text:") {
					got = c.read()
				}
				if got != "close:1011" {
					t.Errorf("got %.100q, want close:1011", got)
				}
			}},
			{"Closed", "/closed", func(t *testing.T, c *client) { c.response(); c.leave() }},
		} {
			t.Run(tc.name, func(t *testing.T) {
				before := s.Stats().Panics
				c := connect(t, s.addr)
				c.write([]byte("GET " + tc.path + upgradeRequest()[len("GET /v1/ws?x=1"):]))
				tc.do(t, c)
				_ = c.nc.Close()
				switch tc.name {
				case "Handshake":
				case "Closed":
					get(t, s.ended, "Closed")
				default:
					if e := get(t, s.ended, "Closed"); e.code != 1011 || !errors.Is(e.cause, ErrHandler) {
						t.Errorf("got %+v, want 1011 and ErrHandler", e)
					}
				}
				for late := time.Now().Add(patience); s.Stats().Panics == before && time.Now().Before(late); {
					time.Sleep(time.Millisecond) // it is counted behind what Closed has told
				}
				if n := s.Stats().Panics - before; n != 1 {
					t.Errorf("%d panics counted, want 1", n)
				}
				for _, c := range good {
					c.write(text(tc.name))
					c.want("text:" + tc.name)
				}
				for len(s.opened) > 0 {
					<-s.opened
				}
			})
		}
	})
}
