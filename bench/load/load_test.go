package load

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gobwas/ws"
	"go.uber.org/goleak"

	"github.com/wscluster/wscluster/internal/worker"
	"github.com/wscluster/wscluster/pkg/broker"
	"github.com/wscluster/wscluster/pkg/broker/memory"
	"github.com/wscluster/wscluster/pkg/socketmeta"
	"github.com/wscluster/wscluster/pkg/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const server socketmeta.ServerID = "i1-w1"

// startWorker starts a worker in this process, ready for clients. It ends with the test.
func startWorker(t *testing.T, b *memory.Broker, server socketmeta.ServerID) (addr string) {
	t.Helper()
	keys := socketmeta.RandomKeys()
	w, err := worker.New(worker.Options{Server: server, Broker: b, Keys: keys, RouteKeys: keys, DrainWindow: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- w.Run(ctx, ln, nil) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("the worker ended with %v", err)
		}
	})
	for w.Ready() != nil {
		select {
		case <-time.After(time.Millisecond):
		case <-t.Context().Done():
			t.Fatal(w.Ready())
		}
	}
	return ln.Addr().String()
}

func TestAFleetGetsItsEvents(t *testing.T) {
	b := memory.New(memory.Options{})
	fleet, err := Connect(t.Context(), 20, startWorker(t, b, server))
	if err != nil {
		t.Fatal(err)
	}
	publisher, err := b.Join(t.Context(), broker.Runner("r1"))
	if err != nil {
		t.Fatal(err)
	}
	defer publisher.Close(t.Context())

	type arrival struct {
		client int
		task   wire.TaskID
	}
	arrivals := make(chan arrival, len(fleet))
	ctx, stop := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() {
		served <- fleet.Serve(ctx, func(client int, p []byte) error {
			m, err := wire.DecodeServer(p)
			if err != nil {
				return err
			}
			if e, ok := m.(*wire.Event); ok {
				arrivals <- arrival{client, e.Task}
				return fleet[client].Send(&wire.Ack{Tasks: []wire.Position{e.Position()}})
			}
			return nil
		})
	}()
	clientOf := map[wire.TaskID]int{}
	for i, s := range fleet {
		if s.Meta.Server != server {
			t.Errorf("client %d is on %q, want %s", i, s.Meta.Server, server)
		}
		e := wire.Event{
			Client: s.Meta.Client, Home: server, Task: wire.NewTaskID(), Attempt: 1, Run: wire.NewRunID(), Seq: 1,
			Type: wire.EventStep, Durable: true,
		}
		clientOf[e.Task] = i
		receipt, err := publisher.Publish(t.Context(), broker.ToMailbox(server),
			broker.Message{Type: string(e.Type), Correlation: string(e.Task), Headers: e.Headers(), Body: []byte("{}")})
		if err != nil {
			t.Fatal(err)
		}
		if outcome, err := broker.Await(t.Context(), receipt); outcome != broker.Stored {
			t.Fatalf("the event is %v (%v), want it stored", outcome, err)
		}
	}
	for range fleet {
		select {
		case a := <-arrivals:
			if want, ok := clientOf[a.task]; !ok || want != a.client {
				t.Errorf("client %d got the event of client %d", a.client, want)
			}
			delete(clientOf, a.task)
		case err := <-served:
			t.Fatalf("Serve has ended: %v", err)
		}
	}
	stop()
	if err := <-served; err != nil {
		t.Errorf("Serve: %v", err)
	}
}

func TestAFleetTakesTheAddressesInTurn(t *testing.T) {
	b := memory.New(memory.Options{})
	servers := []socketmeta.ServerID{"i1-w1", "i1-w2"}
	fleet, err := Connect(t.Context(), 6, startWorker(t, b, servers[0]), startWorker(t, b, servers[1]))
	if err != nil {
		t.Fatal(err)
	}
	defer fleet.Close()
	for i, s := range fleet {
		if want := servers[i%2]; s.Meta.Server != want {
			t.Errorf("client %d is on %s, want %s", i, s.Meta.Server, want)
		}
	}
}

func TestServeEndsWithTheFirstSocketThatDoes(t *testing.T) {
	fleet, err := Connect(t.Context(), 3, startWorker(t, memory.New(memory.Options{}), server))
	if err != nil {
		t.Fatal(err)
	}
	fleet[1].Close()
	err = fleet.Serve(t.Context(), func(int, []byte) error { return nil })
	if err == nil || !strings.Contains(err.Error(), "client 1") {
		t.Errorf("got %v, want an error of client 1", err)
	}
}

func TestServeEndsWithTheFirstErrorOfItsCaller(t *testing.T) {
	server, client := pair(t)
	enough := errors.New("enough")
	if err := ws.WriteFrame(server, ws.NewTextFrame([]byte("{}"))); err != nil {
		t.Fatal(err)
	}
	err := Fleet{newSocket(client)}.Serve(t.Context(), func(int, []byte) error { return enough })
	if !errors.Is(err, enough) {
		t.Errorf("got %v, want %v", err, enough)
	}
}

// TestFramesComeWholeHoweverTheyAreCut sends frames of all three lengths of header, a byte at a time at first.
func TestFramesComeWholeHoweverTheyAreCut(t *testing.T) {
	server, client := pair(t)
	var sent bytes.Buffer
	sizes := []int{0, 1, 125, 126, 65_535, 65_536, 200_000}
	for _, n := range sizes {
		if err := ws.WriteFrame(&sent, ws.NewTextFrame(bytes.Repeat([]byte("x"), n))); err != nil {
			t.Fatal(err)
		}
	}
	go func() {
		b := sent.Bytes()
		for len(b) > 0 {
			n := 1
			if len(b) < sent.Len()-300 {
				n = min(len(b), 40_000)
			}
			if _, err := server.Write(b[:n]); err != nil {
				return // the test has ended
			}
			b = b[n:]
		}
	}()
	ctx, stop := context.WithCancel(t.Context())
	var got []int
	err := Fleet{newSocket(client)}.Serve(ctx, func(_ int, p []byte) error {
		if got = append(got, len(p)); len(got) == len(sizes) {
			stop()
		}
		return nil
	})
	if err != nil || !slices.Equal(got, sizes) {
		t.Errorf("got frames of %d bytes and %v, want %d", got, err, sizes)
	}
}

// pair is both ends of a TCP connection.
func pair(t *testing.T) (server, client net.Conn) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	if client, err = net.Dial("tcp", ln.Addr().String()); err == nil {
		server, err = ln.Accept()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Close(); client.Close() })
	return server, client
}

func TestConnectLeavesNothingOpenAfterAnError(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	go func() { // nobody speaks WebSocket here
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			c.Write([]byte("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"))
			c.Close()
		}
	}()
	fleet, err := Connect(t.Context(), 10, ln.Addr().String())
	if err == nil || fleet != nil {
		t.Errorf("got %v and %v, want an error alone", fleet, err)
	}
}

// newSocket is a socket after its hello.
func newSocket(c net.Conn) *Socket { return &Socket{conn: c, r: bufio.NewReader(c)} }

func TestAPingIsAnswered(t *testing.T) {
	server, client := net.Pipe()
	defer server.Close()
	ended := make(chan error, 1)
	go func() { _, err := newSocket(client).Next(); ended <- err }()
	if err := ws.WriteFrame(server, ws.NewPingFrame([]byte("p1"))); err != nil {
		t.Fatal(err)
	}
	h, err := ws.ReadHeader(server)
	if err != nil {
		t.Fatal(err)
	}
	payload := make([]byte, len("p1"))
	if _, err := io.ReadFull(server, payload); err != nil {
		t.Fatal(err)
	}
	ws.Cipher(payload, h.Mask, 0)
	if h.OpCode != ws.OpPong || !h.Masked || h.Length != 2 || string(payload) != "p1" {
		t.Errorf("got %+v %q, want a masked pong with what the ping had", h, payload)
	}
	client.Close()
	if err := <-ended; err == nil {
		t.Error("Next returned a message, want an error")
	}
}

func TestTheEndOfASocketIsTold(t *testing.T) {
	for _, test := range []struct {
		name  string
		frame ws.Frame
		want  string
	}{
		{"a close frame", ws.NewCloseFrame(ws.NewCloseFrameBody(1012, "restart")), "1012: restart"},
		{"too long a frame", ws.NewTextFrame(make([]byte, wire.MaxServerFrame+1)), "whole messages"},
		{"a fragment", ws.NewFrame(ws.OpText, false, []byte("{")), "whole messages"},
	} {
		t.Run(test.name, func(t *testing.T) {
			server, client := net.Pipe()
			defer client.Close()
			go ws.WriteFrame(server, test.frame) // ends with the pipe
			_, err := newSocket(client).Next()
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want an error with %q", err, test.want)
			}
		})
	}
}
