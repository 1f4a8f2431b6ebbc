package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"sync"

	amqp091 "github.com/rabbitmq/amqp091-go"

	"github.com/gobwas/ws"

	"github.com/wscluster/wscluster/pkg/broker"
	"github.com/wscluster/wscluster/pkg/socketmeta"
	"github.com/wscluster/wscluster/pkg/wire"
)

// relayCommand, as the first argument, makes this program a bare relay: what broadcasts are compared with.
const relayCommand = "relay"

// relay is the least that can bring one channel to many sockets: it takes the messages of broadcastChannel from
// RabbitMQ without acknowledgement, encodes each once, and writes it to one socket after the other. It has no
// sessions, no queues and no subscriptions; a socket that does not take a frame at once stops all others.
func relay(url string, stdout io.Writer) error {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	c, err := amqp091.Dial(url)
	if err != nil {
		return err
	}
	ch, err := c.Channel()
	if err != nil {
		return err
	}
	q, err := ch.QueueDeclare("", false, true, true, false, nil)
	if err != nil {
		return err
	}
	to := broker.ToChannel(broadcastChannel)
	if err := ch.QueueBind(q.Name, to.Key, to.Exchange, false, nil); err != nil {
		return err
	}
	posts, err := ch.Consume(q.Name, "", true, true, false, false, nil)
	if err != nil {
		return err
	}
	var mu sync.Mutex
	var conns []net.Conn
	go func() {
		for d := range posts {
			frame, err := ws.CompileFrame(ws.NewTextFrame(bytes.Join([][]byte{[]byte(`{"type":"message","body":`), d.Body, []byte("}")}, nil)))
			if err != nil {
				panic(err) // a frame of ours
			}
			mu.Lock()
			for _, c := range conns {
				_, _ = c.Write(frame) // its client is gone
			}
			mu.Unlock()
		}
	}()
	fmt.Fprintln(stdout, ln.Addr())
	meta := wire.EncodeServer(&wire.SocketMeta{Client: socketmeta.NewClientID(), Server: rawServer, Epoch: 1, Token: "none", Route: "none"})
	upgrader := ws.Upgrader{Protocol: func(p []byte) bool { return string(p) == wire.Subprotocol }}
	for {
		c, err := ln.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer c.Close()
			if _, err := upgrader.Upgrade(c); err != nil {
				return
			}
			for n := 0; ; n++ {
				h, err := ws.ReadHeader(c)
				if err == nil {
					_, err = io.CopyN(io.Discard, c, h.Length)
				}
				if err != nil {
					return
				}
				switch n {
				case 0: // the hello
					_ = ws.WriteFrame(c, ws.NewTextFrame(meta))
				case 1: // the subscribe
					mu.Lock()
					_ = ws.WriteFrame(c, ws.NewTextFrame(wire.EncodeServer(&wire.Subscribed{Channel: broadcastChannel})))
					conns = append(conns, c)
					mu.Unlock()
				}
			}
		}()
	}
}

// startRelay starts this program as a bare relay, which ends with ctx or stop.
func startRelay(ctx context.Context, url string) (addr string, stop func(), err error) {
	self, err := os.Executable()
	if err != nil {
		return "", nil, err
	}
	ctx, cancel := context.WithCancel(ctx)
	c := exec.CommandContext(ctx, self, relayCommand, url)
	c.Stderr = os.Stderr
	out, err := c.StdoutPipe()
	if err == nil {
		err = c.Start()
	}
	if err != nil {
		cancel()
		return "", nil, err
	}
	stop = func() { cancel(); _ = c.Wait() } // it was killed
	line := make([]byte, 64)
	n, err := out.Read(line)
	addr = strings.TrimSpace(string(line[:n]))
	if err != nil || addr == "" {
		stop()
		return "", nil, errors.New("the bare relay did not start")
	}
	return addr, stop, nil
}
