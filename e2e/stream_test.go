package e2e

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/wscluster/wscluster/pkg/socketmeta"
	"github.com/wscluster/wscluster/pkg/wire"
)

// stream is an event stream, as a page without WebSocket has it.
type stream struct {
	t    *testing.T
	addr string
	conn net.Conn
	body io.ReadCloser
	in   *bufio.Reader
	jar  []*http.Cookie
	meta *wire.SocketMeta
}

// request is one request to addr; header is names and values in turn.
func request(t *testing.T, method, addr, path, body string, header ...string) *http.Request {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, "http://"+addr+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	return r
}

// listen opens a stream for a hello and reads its socket meta. The n-th of several addresses is the source.
func listen(t *testing.T, n int, addr string, hello *wire.Hello, header ...string) *stream {
	t.Helper()
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 1, byte(1+n%8))}}
	conn, err := dialer.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	s := &stream{t: t, addr: addr, conn: conn}
	r := request(t, "POST", addr, "/v1/events", string(wire.EncodeClient(hello)), header...)
	if err := r.Write(conn); err != nil {
		t.Fatal(err)
	}
	answer, err := http.ReadResponse(bufio.NewReaderSize(conn, wire.MaxServerFrame+100), r)
	if err != nil {
		t.Fatal(err)
	}
	if answer.StatusCode != http.StatusOK || answer.Header.Get("Content-Type") != "text/event-stream" {
		t.Fatalf("a stream was answered with %s, %v", answer.Status, answer.Header)
	}
	s.body, s.jar = answer.Body, answer.Cookies()
	s.in = bufio.NewReaderSize(answer.Body, wire.MaxServerFrame+100)
	meta, ok := s.next(time.Minute).(*wire.SocketMeta)
	if !ok {
		t.Fatal("the first message of a stream is no socket_meta")
	}
	s.meta = meta
	return s
}

// next is the next message, comments passed over, which each must come within a time.
func (s *stream) next(within time.Duration) wire.ServerMessage {
	s.t.Helper()
	for {
		_ = s.conn.SetReadDeadline(time.Now().Add(within))
		line, err := s.in.ReadString('\n')
		if err != nil {
			s.t.Fatalf("the stream of %s ended: %v", s.meta.Server, err)
		}
		if data, ok := strings.CutPrefix(strings.TrimSpace(line), "data: "); ok {
			m, err := wire.DecodeServer([]byte(data))
			if err != nil {
				s.t.Fatal(err)
			}
			return m
		}
	}
}

// post sends one message of the stream's client to an address.
func (s *stream) post(addr string, m wire.ClientMessage, header ...string) (*http.Response, string) {
	s.t.Helper()
	answer, err := http.DefaultClient.Do(request(s.t, "POST", addr, "/v1/messages", string(wire.EncodeClient(m)), append(header, "X-Socket-Meta", s.meta.Token)...))
	if err != nil {
		s.t.Fatal(err)
	}
	defer answer.Body.Close()
	p, err := io.ReadAll(answer.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return answer, string(p)
}

// streamsAreSticky is a subtest of TestEightWorkersBehindHAProxy.
func (c *cluster) streamsAreSticky(t *testing.T) {
	for i := range 4 {
		first := listen(t, i, c.HAProxy.Addr, &wire.Hello{})
		if len(first.jar) != 1 || !names(first.jar[0], first.meta.Server) {
			t.Fatalf("the cookies of the stream are %v, want one that names %s", first.jar, first.meta.Server)
		}
		other := listen(t, i, c.HAProxy.Addr, &wire.Hello{})
		for other.meta.Server == first.meta.Server {
			other = listen(t, i, c.HAProxy.Addr, &wire.Hello{})
		}
		for way, header := range map[string][]string{
			"by its cookie":              {"Cookie", first.jar[0].Name + "=" + first.jar[0].Value},
			"by X-Route":                 {"X-Route", first.meta.Route},
			"by nothing":                 nil,
			"by X-Route, to another one": {"X-Route", other.meta.Route},
		} {
			if answer, text := first.post(c.HAProxy.Addr, &wire.Ping{ID: way}, header...); answer.StatusCode != http.StatusAccepted {
				t.Errorf("a POST %s: %s %s", way, answer.Status, text)
			} else if pong, ok := first.next(time.Minute).(*wire.Pong); !ok || pong.ID != way {
				t.Errorf("a POST %s was not answered by its pong", way)
			}
			if header == nil || strings.HasSuffix(way, "one") {
				continue
			}
			again := listen(t, i+1, c.HAProxy.Addr, &wire.Hello{Token: first.meta.Token}, header...)
			if again.meta.Server != first.meta.Server || !again.meta.Resumed {
				t.Errorf("%s a stream came from %s to %s, resumed: %v", way, first.meta.Server, again.meta.Server, again.meta.Resumed)
			}
			again.conn.Close()
		}
	}
}

// aTaskByPostAlone does with POSTs at any worker what a socket does, and changes to another worker in between.
func (c *cluster) aTaskByPostAlone(t *testing.T) {
	s := listen(t, 1, c.HAProxy.Addr, &wire.Hello{})
	body := `{"kind": "countdown", "params": {"lines": 30, "interval_ms": 100}}`
	await(t, 20*time.Second, func() error {
		answer, err := http.DefaultClient.Do(request(t, "POST", c.HAProxy.Addr, "/v1/tasks", body, "X-Socket-Meta", s.meta.Token, "Idempotency-Key", "by-post"))
		if err != nil {
			return err
		}
		defer answer.Body.Close()
		if answer.StatusCode != http.StatusAccepted || answer.Header.Get("Location") != "/v1/tasks/by-post" {
			return fmt.Errorf("%s, Location %q", answer.Status, answer.Header.Get("Location"))
		}
		return nil
	})
	at := wire.Position{Task: "by-post", Next: 1}
	servers := map[socketmeta.ServerID]bool{s.meta.Server: true}
	for n, last := 1, false; !last; {
		m, ok := s.next(time.Minute).(*wire.Event)
		switch {
		case !ok || !m.Durable || m.Seq < at.Next:
			continue
		case m.Prev >= at.Next:
			t.Fatalf("behind event %d comes %d, which follows %d", at.Next-1, m.Seq, m.Prev)
		}
		at.Attempt, at.Run, at.Next, last = m.Attempt, m.Run, m.Seq+1, m.Last
		if answer, text := s.post(c.HAProxy.Addr, &wire.Ack{Tasks: []wire.Position{at}}); answer.StatusCode != http.StatusAccepted {
			t.Fatalf("an ack: %s %s", answer.Status, text)
		}
		if n++; n%10 == 0 && !last { // to wherever HAProxy sends it
			s.conn.Close()
			s = listen(t, n, c.HAProxy.Addr, &wire.Hello{Token: s.meta.Token, Tasks: []wire.Position{at}})
			servers[s.meta.Server] = true
			if answer, text := s.post(c.HAProxy.Addr, &wire.Confirm{Epoch: s.meta.Epoch}); answer.StatusCode != http.StatusAccepted {
				t.Fatalf("the confirm: %s %s", answer.Status, text)
			}
		}
	}
	if at.Next < 30 {
		t.Errorf("the last position is %+v, want all of some 30 events", at)
	}
	t.Logf("it was with %d workers", len(servers))
}
