package wsclient

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"

	"github.com/wscluster/wscluster/pkg/socketmeta"
	"github.com/wscluster/wscluster/pkg/wire"
)

// server is a scripted server of one client: each connection is a peer that the test plays.
type server struct {
	t      *testing.T
	peers  chan *peer
	refuse func() error // of the handshake, if set
	answer http.Header  // of the handshake
}

// peer is the server's end of one connection.
type peer struct {
	t      *testing.T
	conn   net.Conn
	target string
	cookie string
	in     chan wire.ClientMessage // what the client said; closed at the end
	pongs  chan string
	code   ws.StatusCode // of the client's close frame; 0 if there was none; read after in is closed
}

func newServer(t *testing.T) *server {
	return &server{t: t, peers: make(chan *peer, 16)}
}

func (s *server) dial(context.Context, string, string) (net.Conn, error) {
	here, there := net.Pipe()
	go s.serve(there)
	return here, nil
}

func (s *server) serve(conn net.Conn) {
	p := &peer{t: s.t, conn: conn, in: make(chan wire.ClientMessage, 1024), pongs: make(chan string, 16)}
	_, err := ws.Upgrader{
		Header:   ws.HandshakeHeaderHTTP(s.answer),
		Protocol: func(proto []byte) bool { return string(proto) == wire.Subprotocol },
		OnRequest: func(uri []byte) error {
			p.target = string(uri)
			if s.refuse != nil {
				return s.refuse()
			}
			return nil
		},
		OnHeader: func(key, value []byte) error {
			if string(key) == "Cookie" {
				p.cookie = string(value)
			}
			return nil
		},
	}.Upgrade(conn)
	if err != nil {
		conn.Close()
		return
	}
	go p.read()
	s.peers <- p
}

// next returns the next connection.
func (s *server) next() *peer {
	s.t.Helper()
	select {
	case p := <-s.peers:
		return p
	case <-time.After(time.Hour):
		s.t.Fatal("no connection came")
		return nil
	}
}

func (p *peer) read() {
	defer close(p.in)
	for {
		head, err := ws.ReadHeader(p.conn)
		if err != nil {
			return
		}
		payload := make([]byte, head.Length)
		if _, err := io.ReadFull(p.conn, payload); err != nil {
			return
		}
		ws.Cipher(payload, head.Mask, 0)
		switch head.OpCode {
		case ws.OpClose:
			p.code, _ = ws.ParseCloseFrameData(payload)
			p.conn.Close()
			return
		case ws.OpPong:
			p.pongs <- string(payload)
		case ws.OpText:
			m, refused := wire.DecodeClient(payload)
			if refused != nil {
				p.t.Errorf("the client sent what a server refuses: %v", &refused.Error)
				return
			}
			p.in <- m
		}
	}
}

// receive returns the client's next message, which must be an M.
func receive[M wire.ClientMessage](p *peer) (m M) {
	p.t.Helper()
	select {
	case got, ok := <-p.in:
		if !ok {
			p.t.Fatalf("the client left, want a %T", m)
		}
		if m, ok = got.(M); !ok {
			p.t.Fatalf("the client sent %#v, want a %T", got, m)
		}
	case <-time.After(time.Hour):
		p.t.Fatalf("the client sent nothing, want a %T", m)
	}
	return m
}

// acked receives acknowledgements until one is of next in one task, and returns that position.
func (p *peer) acked(next int64) wire.Position {
	p.t.Helper()
	for {
		a := receive[*wire.Ack](p)
		if len(a.Tasks) != 1 || a.Tasks[0].Next > next {
			p.t.Fatalf("acknowledged %+v, want next %d", a.Tasks, next)
		}
		if a.Tasks[0].Next == next {
			return a.Tasks[0]
		}
	}
}

// silent checks that the client has nothing more to say now.
func (p *peer) silent() {
	p.t.Helper()
	synctest.Wait()
	select {
	case m, ok := <-p.in:
		p.t.Errorf("the client sent %#v (open %v), want nothing", m, ok)
	default:
	}
}

func (p *peer) send(m wire.ServerMessage) {
	p.t.Helper()
	if err := wsutil.WriteServerText(p.conn, wire.EncodeServer(m)); err != nil && !errors.Is(err, io.ErrClosedPipe) {
		p.t.Errorf("send %T: %v", m, err)
	}
}

func (p *peer) events(es ...wire.Event) {
	p.t.Helper()
	for i := range es {
		p.send(&es[i])
	}
}

// bye closes as a server does.
func (p *peer) bye(code int, retryAfter time.Duration) {
	p.send(&wire.Bye{Code: code, Reason: "so", RetryAfterMS: retryAfter.Milliseconds()})
	_ = ws.WriteFrame(p.conn, ws.NewCloseFrame(ws.NewCloseFrameBody(ws.StatusCode(code), "so")))
}

var testClient = socketmeta.NewClientID()

func meta(token string, tasks ...wire.TaskStatus) *wire.SocketMeta {
	return &wire.SocketMeta{
		Client: testClient, Server: "i1-w1", Epoch: 1, Token: token, Route: "r-" + token,
		HeartbeatMS: 15_000, ResumeWindowMS: 600_000, Tasks: tasks,
	}
}

// welcome takes the client's hello and answers it; a resumed session is confirmed.
func (p *peer) welcome(token string, tasks ...wire.TaskStatus) *wire.Hello {
	p.t.Helper()
	h := p.greet(token, tasks...)
	if h.Token == "" {
		return h
	}
	if got := receive[*wire.Confirm](p); got.Epoch != 1 {
		p.t.Errorf("the client confirmed epoch %d, want that of the socket_meta", got.Epoch)
	}
	return h
}

// greet takes the client's hello and answers it.
func (p *peer) greet(token string, tasks ...wire.TaskStatus) *wire.Hello {
	p.t.Helper()
	h := receive[*wire.Hello](p)
	m := meta(token, tasks...)
	m.Resumed = h.Token != ""
	p.send(m)
	return h
}

// accept takes a submit and answers it.
func (p *peer) accept() *wire.Submit {
	p.t.Helper()
	m := receive[*wire.Submit](p)
	p.send(&wire.Accepted{ID: m.ID, Task: m.Task})
	return m
}
