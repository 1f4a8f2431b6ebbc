package wsclient

import (
	"context"
	"errors"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"

	"github.com/wscluster/wscluster/pkg/wire"
)

// history notes every Status.
type history struct {
	mu  sync.Mutex
	all []Status
}

func (h *history) note(s Status) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.all = append(h.all, s)
}

func (h *history) list() []Status {
	synctest.Wait()
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.all)
}

func (h *history) phases() string {
	var all []string
	for _, s := range h.list() {
		all = append(all, string(s.Phase))
	}
	return strings.Join(all, " ")
}

func TestStatusTellsTheStory(t *testing.T) {
	bubble(t, func(t *testing.T, s *server) {
		var h history
		c, p := s.open(Options{OnStatus: h.note})
		synctest.Wait()
		p.bye(1012, 3*time.Second)
		start := time.Now()
		p = s.next()
		if took := time.Since(start); took != 3*time.Second {
			t.Errorf("came back after %v, want the 3s that the server asked for", took)
		}
		p.welcome("two")
		synctest.Wait()
		_ = c.stop()
		if want := "connecting open waiting connecting open closed"; h.phases() != want {
			t.Errorf("phases %s, want %s", h.phases(), want)
		}
		if e, ok := errors.AsType[*CloseError](h.list()[2].Err); !ok || e.Code != 1012 || e.Reason != "so" || h.list()[2].Retry != 1 {
			t.Errorf("waiting because of %+v", h.list()[2])
		}
	})
}

func TestCodesThatStop(t *testing.T) {
	for _, code := range []int{1008, wire.CloseReplaced, wire.CloseUnauthorized} {
		bubble(t, func(t *testing.T, s *server) {
			c, p := s.open(Options{})
			task := p.submit(c)
			p.bye(code, 0)
			_, err := task.Wait(t.Context())
			if e, ok := errors.AsType[*CloseError](err); !ok || e.Code != code {
				t.Errorf("Wait = %v, want the close code %d", err, code)
			}
			if e, ok := errors.AsType[*CloseError](c.stop()); !ok || e.Code != code {
				t.Errorf("Run = %v, want the close code %d", c.stop(), code)
			}
			for range p.in {
			}
			if p.code == 0 {
				t.Error("the close frame was not answered")
			}
		})
	}
}

func TestCloseFrameWithoutBye(t *testing.T) {
	bubble(t, func(t *testing.T, s *server) {
		c, p := s.open(Options{})
		_ = ws.WriteFrame(p.conn, ws.NewCloseFrame(ws.NewCloseFrameBody(wire.CloseReplaced, "newer")))
		<-c.done
		if e, ok := errors.AsType[*CloseError](c.stop()); !ok || e.Code != wire.CloseReplaced || e.Reason != "newer" {
			t.Errorf("Run = %v, want the close frame's", c.stop())
		}
	})
}

func TestGivesUpAfterMaxRetries(t *testing.T) {
	bubble(t, func(t *testing.T, s *server) {
		s.refuse = func() error { return ws.RejectConnectionError(ws.RejectionStatus(503)) }
		var h history
		c := s.start(Options{MaxRetries: 3, OnStatus: h.note})
		<-c.done
		err := c.stop()
		if e, ok := errors.AsType[*HandshakeError](err); !ok || e.Status != 503 {
			t.Errorf("Run = %v, want it to tell of the 503", err)
		}
		if want := strings.Repeat("connecting waiting ", 3) + "connecting closed"; h.phases() != want {
			t.Errorf("phases %s, want %s", h.phases(), want)
		}
		for i, s := range h.list() {
			if s.Phase == Waiting && (s.Delay < 0 || s.Delay >= 100*time.Millisecond<<s.Retry) {
				t.Errorf("status %d waits %v at retry %d", i, s.Delay, s.Retry)
			}
		}
	})
}

func TestASteadySocketEndsARowOfRetries(t *testing.T) {
	bubble(t, func(t *testing.T, s *server) {
		var h history
		s.start(Options{OnStatus: h.note})
		for _, lives := range []time.Duration{0, steady - time.Second, steady, 0} {
			p := s.next()
			p.welcome("one")
			time.Sleep(lives)
			p.conn.Close()
		}
		s.next().welcome("last")
		var retries []int
		for _, s := range h.list() {
			if s.Phase == Waiting {
				retries = append(retries, s.Retry)
			}
		}
		if want := []int{1, 2, 1, 2}; !slices.Equal(retries, want) {
			t.Errorf("retries in a row %v, want %v", retries, want)
		}
	})
}

func TestRetryAfterOfARefusedHandshake(t *testing.T) {
	bubble(t, func(t *testing.T, s *server) {
		s.refuse = func() error {
			s.refuse = nil
			return ws.RejectConnectionError(ws.RejectionStatus(503),
				ws.RejectionHeader(ws.HandshakeHeaderHTTP{"Retry-After": {"20"}, "Set-Cookie": {"worker=i1-w2; Path=/"}}))
		}
		start := time.Now()
		s.start(Options{})
		p := s.next()
		if took := time.Since(start); took != 20*time.Second {
			t.Errorf("came back after %v, want 20s", took)
		}
		if p.cookie != "worker=i1-w2" {
			t.Errorf("came back with cookie %q, want the refusal's", p.cookie)
		}
	})
}

func TestAffinity(t *testing.T) {
	for affinity, want := range map[Affinity][2]string{
		AffinityCookie: {"/v1/ws?v=1", "worker=i1-w1"},
		AffinityRoute:  {"/v1/ws?route=r-one&v=1", ""},
		AffinityNone:   {"/v1/ws?v=1", ""},
	} {
		bubble(t, func(t *testing.T, s *server) {
			s.answer = http.Header{"Set-Cookie": {"worker=i1-w1; Path=/; HttpOnly; Max-Age=3600"}}
			c, err := New(Options{URL: "ws://example.test/v1/ws?v=1", Affinity: affinity, Dial: s.dial})
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error, 1)
			go func() { done <- c.Run(ctx) }()
			p := s.next()
			p.welcome("one")
			if p.cookie != "" || p.target != "/v1/ws?v=1" {
				t.Errorf("%d: first socket: %s, cookie %q", affinity, p.target, p.cookie)
			}
			synctest.Wait()
			c.Cut()
			p = s.next()
			if p.target != want[0] || p.cookie != want[1] {
				t.Errorf("%d: second socket: %s, cookie %q; want %q", affinity, p.target, p.cookie, want)
			}
			cancel()
			<-done
		})
	}
}

func TestAuthIsAskedForEachSocket(t *testing.T) {
	bubble(t, func(t *testing.T, s *server) {
		tokens := []string{"a", "", "b"}
		s.start(Options{Auth: func(context.Context) (string, error) {
			token := tokens[0]
			tokens = tokens[1:]
			if token == "" {
				return "", errors.New("the issuer is away")
			}
			return token, nil
		}})
		p := s.next()
		if h := p.welcome("one"); h.Auth != "a" {
			t.Errorf("hello %+v, want auth a", h)
		}
		p.conn.Close()
		if h := s.next().welcome("two"); h.Auth != "b" {
			t.Errorf("hello %+v, want auth b after one failure", h)
		}
	})
}

func TestSilentServerIsAskedAndThenLeft(t *testing.T) {
	bubble(t, func(t *testing.T, s *server) {
		var h history
		_, p := s.open(Options{OnStatus: h.note})
		synctest.Wait()
		start := time.Now()
		receive[*wire.Ping](p)
		if took := time.Since(start); took != 30*time.Second {
			t.Errorf("asked after %v, want two heartbeats", took)
		}
		p.send(&wire.Pong{})
		receive[*wire.Ping](p)
		for range p.in {
		}
		if took := time.Since(start); took != 62*time.Second {
			t.Errorf("left after %v, want two heartbeats and 2s after the pong", took)
		}
		p = s.next()
		if last := h.list()[2]; last.Phase != Waiting || !strings.Contains(last.Err.Error(), "silent") {
			t.Errorf("it says %+v", last)
		}
		start = time.Now()
		for range p.in { // no welcome this time
		}
		if took := time.Since(start); took != welcomeWithin {
			t.Errorf("left after %v, want %v", took, welcomeWithin)
		}
		s.next()
		if last := h.list()[len(h.list())-2]; last.Phase != Waiting || !strings.Contains(last.Err.Error(), "no socket_meta") {
			t.Errorf("it says %+v", last)
		}
	})
}

func TestServersPingIsAnsweredAndIsASignOfLife(t *testing.T) {
	bubble(t, func(t *testing.T, s *server) {
		c, p := s.open(Options{})
		for range 10 {
			time.Sleep(15 * time.Second)
			_ = ws.WriteFrame(p.conn, ws.NewPingFrame([]byte("you?")))
			if got := <-p.pongs; got != "you?" {
				t.Errorf("pong %q", got)
			}
		}
		p.silent()
		if n := c.Stats().Sockets; n != 1 {
			t.Errorf("%d sockets", n)
		}
	})
}

func TestRenewedTokenIsTaken(t *testing.T) {
	bubble(t, func(t *testing.T, s *server) {
		var told []string
		c, p := s.open(Options{OnMeta: func(m wire.SocketMeta) { told = append(told, m.Token) }})
		p.send(meta("renewed"))
		synctest.Wait()
		c.Cut()
		if h := s.next().welcome("two"); h.Token != "renewed" {
			t.Errorf("hello with token %q, want the renewed one", h.Token)
		}
		synctest.Wait()
		if want := []string{"one", "renewed", "two"}; !slices.Equal(told, want) {
			t.Errorf("OnMeta was told %q, want %q", told, want)
		}
		if n := c.Stats().Sockets; n != 2 {
			t.Errorf("%d sockets, want 2", n)
		}
	})
}

func TestASessionIsNotGivenUpForALateHello(t *testing.T) {
	bubble(t, func(t *testing.T, s *server) {
		c := s.start(Options{})
		s.next().welcome("one")
		synctest.Wait()
		c.Cut()
		p := s.next()
		receive[*wire.Hello](p)
		p.send(meta("stranger")) // to a client that said nothing for a second
		p = s.next()
		if h := p.welcome("two"); h.Token != "one" {
			t.Errorf("hello with token %q, want that of the session", h.Token)
		}
		synctest.Wait()
		c.Cut()
		p = s.next()
		receive[*wire.Hello](p)
		refused := meta("three")
		refused.Reason = "ticket has expired"
		p.send(refused)
		synctest.Wait()
		if got := c.Meta().Token; got != "three" {
			t.Errorf("token %q, want that of the new session: the old one is over", got)
		}
	})
}

func TestFramesThatCameWithTheHandshakeAreRead(t *testing.T) {
	bubble(t, func(t *testing.T, s *server) {
		var early []byte
		for _, m := range []wire.ServerMessage{meta("one"), meta("two")} {
			f, err := ws.CompileFrame(ws.NewTextFrame(wire.EncodeServer(m)))
			if err != nil {
				t.Fatal(err)
			}
			early = append(early, f...)
		}
		dial := s.dial
		c, err := New(Options{URL: "ws://example.test/", Dial: func(ctx context.Context, network, addr string) (conn net.Conn, err error) {
			conn, err = dial(ctx, network, addr)
			return &glued{Conn: conn, more: early}, err
		}})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- c.Run(ctx) }()
		s.next()
		synctest.Wait()
		if got := c.Meta().Token; got != "two" {
			t.Errorf("token %q, want the one of the second early frame", got)
		}
		cancel()
		<-done
	})
}

func TestWhatTheClientTakesAsAMessage(t *testing.T) {
	pong := wire.EncodeServer(&wire.Pong{})
	for _, test := range []struct {
		name  string
		send  func(p *peer) error
		stays bool
	}{
		{"a type of a newer version", func(p *peer) error { return wsutil.WriteServerText(p.conn, []byte(`{"type":"news"}`)) }, true},
		{"a fragmented message", func(p *peer) error {
			if err := ws.WriteFrame(p.conn, ws.NewFrame(ws.OpText, false, pong[:3])); err != nil {
				return err
			}
			if err := ws.WriteFrame(p.conn, ws.NewPingFrame(nil)); err != nil {
				return err
			}
			return ws.WriteFrame(p.conn, ws.NewFrame(ws.OpContinuation, true, pong[3:]))
		}, true},
		{"not JSON", func(p *peer) error { return wsutil.WriteServerText(p.conn, []byte("{")) }, false},
		{"binary", func(p *peer) error { return wsutil.WriteServerBinary(p.conn, pong) }, false},
		{"masked", func(p *peer) error { return wsutil.WriteClientText(p.conn, pong) }, false},
		{"too large", func(p *peer) error {
			return ws.WriteHeader(p.conn, ws.Header{Fin: true, OpCode: ws.OpText, Length: wire.MaxServerFrame + 1})
		}, false},
		{"a broken length", func(p *peer) error { _, err := p.conn.Write([]byte{0x81, 127, 0xff, 0, 0, 0, 0, 0, 0, 0}); return err }, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			bubble(t, func(t *testing.T, s *server) {
				_, p := s.open(Options{})
				_ = test.send(p) // the client may leave before it is all sent
				synctest.Wait()
				time.Sleep(time.Second)
				synctest.Wait()
				if stayed := len(s.peers) == 0; stayed != test.stays {
					t.Errorf("stayed %v, want %v", stayed, test.stays)
				}
			})
		})
	}
}

func TestNewNamesAllThatIsWrong(t *testing.T) {
	_, err := New(Options{
		URL: "http://example.test/", BaseDelay: -1, AckEvery: -1,
		State: State{Tasks: []OpenTask{{Position: wire.Position{Task: "-"}, Params: []byte("{")}}},
	})
	for _, want := range []string{"URL", "BaseDelay", "AckEvery", "task ID", "params"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("New = %v, want it to speak of %s", err, want)
		}
	}
}

func TestAWrongSubprotocolIsNotTaken(t *testing.T) {
	bubble(t, func(t *testing.T, s *server) {
		c, err := New(Options{URL: "ws://example.test/", MaxRetries: 1, Dial: func(context.Context, string, string) (net.Conn, error) {
			here, there := net.Pipe()
			go func() { _, _ = ws.Upgrade(there) }()
			return here, nil
		}})
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Run(t.Context()); err == nil || !strings.Contains(err.Error(), wire.Subprotocol) {
			t.Errorf("Run = %v, want it to name the subprotocol", err)
		}
	})
}

// glued is a connection whose peer's frames come in one piece with the end of its handshake.
type glued struct {
	net.Conn
	more []byte
}

func (g *glued) Read(p []byte) (int, error) {
	n, err := g.Conn.Read(p)
	if g.more != nil && strings.HasSuffix(string(p[:n]), "\r\n\r\n") {
		n += copy(p[n:], g.more)
		g.more = nil
	}
	return n, err
}
