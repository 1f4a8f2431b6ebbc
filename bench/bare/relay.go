package bare

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"sync"

	amqp091 "github.com/rabbitmq/amqp091-go"

	"github.com/gobwas/ws"

	"github.com/wscluster/wscluster/pkg/broker"
	"github.com/wscluster/wscluster/pkg/socketmeta"
	"github.com/wscluster/wscluster/pkg/wire"
)

// RelayCommand, as the first argument, asks a program to be a relay: it is to call RelayMain with what follows.
const RelayCommand = "relay"

// relay is the least that can bring a channel to many sockets: it encodes a message once, and writes it to one
// socket of its channel after the other. It has no sessions and no queues; a socket that does not take a frame at once
// stops all others. Clients talk to it as to a worker: hello, subscribe; it echoes pings.
type relay struct {
	mu    sync.Mutex
	conns map[string][]net.Conn // guarded by mu: by channel
}

// RelayMain runs a relay until it fails, or in ends, and prints its address. Messages are those of the exchange channels at a
// RabbitMQ, taken without acknowledgement, or, without a url, lines of in: a channel, a space, the body.
func RelayMain(url string, in io.Reader, stdout io.Writer) error {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	r := &relay{conns: map[string][]net.Conn{}}
	go func() {
		r.read(in)
		ln.Close()
	}()
	if url != "" {
		posts, err := consumeChannels(url)
		if err != nil {
			return err
		}
		go func() {
			for d := range posts {
				r.relay(d.RoutingKey, d.Body)
			}
		}()
	}
	fmt.Fprintln(stdout, ln.Addr())
	for {
		c, err := ln.Accept()
		if err != nil {
			return err
		}
		go r.serve(c)
	}
}

// consumeChannels binds a queue of its own to all channels.
func consumeChannels(url string) (<-chan amqp091.Delivery, error) {
	c, err := amqp091.Dial(url)
	if err != nil {
		return nil, err
	}
	ch, err := c.Channel()
	if err != nil {
		return nil, err
	}
	q, err := ch.QueueDeclare("", false, true, true, false, nil)
	if err != nil {
		return nil, err
	}
	if err := ch.QueueBind(q.Name, "#", broker.ExchangeChannels, false, nil); err != nil {
		return nil, err
	}
	return ch.Consume(q.Name, "", true, true, false, false, nil)
}

func (r *relay) read(in io.Reader) {
	for lines := bufio.NewScanner(in); lines.Scan(); {
		if channel, body, ok := bytes.Cut(lines.Bytes(), []byte(" ")); ok {
			r.relay(string(channel), body)
		}
	}
}

func (r *relay) relay(channel string, body []byte) {
	frame, err := ws.CompileFrame(ws.NewTextFrame(bytes.Join([][]byte{[]byte(`{"type":"message","body":`), body, []byte("}")}, nil)))
	if err != nil {
		panic(err) // a frame of ours
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, c := range r.conns[channel] {
		_, _ = c.Write(frame) // its client is gone
	}
}

var welcome = wire.EncodeServer(&wire.SocketMeta{Client: socketmeta.NewClientID(), Server: "bare-w1", Epoch: 1, Token: "none", Route: "none"})

// relayFrame is more than its clients send, in bytes: a hello, a subscribe, pings.
const relayFrame = 8 << 10

func (r *relay) serve(c net.Conn) {
	defer c.Close()
	channel := ""
	defer func() { r.leave(channel, c) }()
	upgrader := ws.Upgrader{Protocol: func(p []byte) bool { return string(p) == wire.Subprotocol }}
	if _, err := upgrader.Upgrade(c); err != nil {
		return
	}
	for {
		h, err := ws.ReadHeader(c)
		if err != nil || h.Length > relayFrame {
			return
		}
		payload := make([]byte, h.Length)
		if _, err := io.ReadFull(c, payload); err != nil {
			return
		}
		if h.OpCode != ws.OpText {
			continue
		}
		ws.Cipher(payload, h.Mask, 0)
		m, refused := wire.DecodeClient(payload)
		if refused != nil {
			return
		}
		switch m := m.(type) {
		case *wire.Hello:
			_ = ws.WriteFrame(c, ws.NewTextFrame(welcome))
		case *wire.Ping:
			_ = ws.WriteFrame(c, ws.NewTextFrame(wire.EncodeServer(&wire.Pong{ID: m.ID})))
		case *wire.Subscribe:
			channel = string(m.Channel)
			r.mu.Lock()
			_ = ws.WriteFrame(c, ws.NewTextFrame(wire.EncodeServer(&wire.Subscribed{Channel: m.Channel})))
			r.conns[channel] = append(r.conns[channel], c)
			r.mu.Unlock()
		}
	}
}

// leave takes a socket out of its channel.
func (r *relay) leave(channel string, c net.Conn) {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := r.conns[channel]
	for i := range all {
		if all[i] == c {
			all[i] = all[len(all)-1]
			r.conns[channel] = all[:len(all)-1]
			return
		}
	}
}

// Relay is a relay that runs as a process.
type Relay struct {
	Addr string    // host:port
	PID  int       // of the process
	In   io.Writer // takes the lines of one that has no url

	stop func()
}

// StartRelay starts this program as a relay (RelayCommand), which ends with Stop.
func StartRelay(url string) (*Relay, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	c := exec.CommandContext(ctx, self, RelayCommand, url)
	c.Stderr = os.Stderr
	in, inErr := c.StdinPipe()
	out, outErr := c.StdoutPipe()
	if err = errors.Join(inErr, outErr); err == nil {
		err = c.Start()
	}
	if err != nil {
		cancel()
		return nil, fmt.Errorf("start the bare relay: %w", err)
	}
	r := &Relay{PID: c.Process.Pid, In: in, stop: func() { cancel(); _ = c.Wait() }} // it was killed
	line, err := bufio.NewReader(out).ReadString('\n')
	if r.Addr = string(bytes.TrimSpace([]byte(line))); err != nil || r.Addr == "" {
		r.Stop()
		return nil, errors.New("the bare relay did not start")
	}
	return r, nil
}

// Stop ends it.
func (r *Relay) Stop() { r.stop() }
