package bare

import (
	"bufio"
	"bytes"
	"cmp"
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
// socket of its channel after the other; or events to one each (postman). It has no sessions and no queues; a socket that does not
// take a frame at once stops all others. Clients talk to it as to a worker: hello, subscribe, ack; it echoes pings.
type relay struct {
	server socketmeta.ServerID
	post   postman

	mu    sync.Mutex
	conns map[string][]net.Conn // guarded by mu: by channel
}

// RelayMain runs a relay until it fails, or in ends, and prints its address. args are a url and a server ID. Messages are those
// of the server's mailbox at a RabbitMQ; without a server those of the exchange channels, taken without acknowledgement;
// without a url, lines of in: a channel, a space, the body.
func RelayMain(args []string, in io.Reader, stdout io.Writer) error {
	if len(args) != 2 {
		return errors.New("a relay takes a url and a server ID, which may be empty")
	}
	url, server := args[0], socketmeta.ServerID(args[1])
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	r := &relay{server: server, post: postman{homes: map[string]*home{}}, conns: map[string][]net.Conn{}}
	go func() {
		r.read(in)
		ln.Close()
	}()
	switch {
	case server != "":
		c, err := DialConsumer(url, server)
		if err != nil {
			return err
		}
		go r.post.deliver(c.deliveries)
	case url != "":
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

const (
	relayFrame  = 8 << 10 // bytes: more than its clients send: a hello, a subscribe, pings, acks
	relayBuffer = 512     // bytes: an ack is one read
)

func (r *relay) serve(c net.Conn) {
	defer c.Close()
	channel := ""
	defer func() { r.leave(channel, c) }()
	h := &home{conn: c, client: socketmeta.NewClientID()}
	defer r.post.moveOut(h)
	upgrader := ws.Upgrader{Protocol: func(p []byte) bool { return string(p) == wire.Subprotocol }}
	if _, err := upgrader.Upgrade(c); err != nil {
		return
	}
	in := bufio.NewReaderSize(c, relayBuffer)
	for {
		header, err := ws.ReadHeader(in)
		if err != nil || header.Length > relayFrame {
			return
		}
		payload := make([]byte, header.Length)
		if _, err := io.ReadFull(in, payload); err != nil {
			return
		}
		if header.OpCode != ws.OpText {
			continue
		}
		ws.Cipher(payload, header.Mask, 0)
		m, refused := wire.DecodeClient(payload)
		if refused != nil {
			return
		}
		switch m := m.(type) {
		case *wire.Hello:
			r.post.moveIn(h)
			meta := &wire.SocketMeta{Client: h.client, Server: cmp.Or(r.server, "bare-w1"), Epoch: 1, Token: "none", Route: "none"}
			_ = ws.WriteFrame(c, ws.NewTextFrame(wire.EncodeServer(meta)))
		case *wire.Ack:
			h.acknowledge(m.Tasks)
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

// StartRelay starts this program as a relay (RelayCommand), which ends with Stop. See RelayMain.
func StartRelay(url string, server socketmeta.ServerID) (*Relay, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	c := exec.CommandContext(ctx, self, RelayCommand, url, string(server))
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
