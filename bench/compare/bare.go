package main

import (
	"bytes"
	"context"
	"sync"

	amqp091 "github.com/rabbitmq/amqp091-go"

	"github.com/wscluster/wscluster/bench/bare"
	"github.com/wscluster/wscluster/bench/crowd"
	"github.com/wscluster/wscluster/bench/lab"
	"github.com/wscluster/wscluster/bench/load"
	"github.com/wscluster/wscluster/internal/rig"
	"github.com/wscluster/wscluster/pkg/broker"
	"github.com/wscluster/wscluster/pkg/wire"
)

// Three baselines. bare-loop is a write loop over sockets, told what to write through a pipe: no broker. bare-relay is the
// same behind the cluster's RabbitMQ, without acknowledgement. raw-amqp is that RabbitMQ without any socket: a durable queue,
// persistent messages, confirms, manual acknowledgement, which is what wscluster's events use.
var (
	loopSystem = system{"bare-loop", func(ctx context.Context, l *lab.Lab) (server, error) {
		r := &relayServer{}
		return r, r.revive(ctx)
	}}
	relaySystem = system{"bare-relay", func(ctx context.Context, l *lab.Lab) (server, error) {
		rabbit, err := homeBroker(ctx, l)
		if err != nil {
			return nil, err
		}
		r := &relayServer{rabbit: rabbit}
		return r, r.revive(ctx)
	}}
	rawSystem = system{"raw-amqp", func(ctx context.Context, l *lab.Lab) (server, error) {
		rabbit, err := homeBroker(ctx, l)
		if err != nil {
			return nil, err
		}
		r := &rawServer{rabbit: rabbit}
		return r, r.revive(ctx)
	}}
)

type relayServer struct {
	*bare.Relay
	rabbit    *rig.RabbitMQ   // nil for the loop
	publisher *bare.Publisher // likewise

	mu sync.Mutex // orders the lines of the loop
}

func (r *relayServer) clients(n int, everybody bool) (load.Plan, crowd.Options, error) {
	return planAt(n, everybody, func(channel func(int) string) load.Target { return subscriber(r.Addr, channel) }), crowd.Options{}, nil
}

// subscriber is a client of a worker, or of a bare relay, that subscribes to a channel.
func subscriber(addr string, channel func(client int) string) load.Target {
	t := load.Worker(addr)
	t.Greet = func(s *load.Socket, client int) error {
		if err := s.Hello(""); err != nil {
			return err
		}
		return s.Subscribe(&wire.Subscribe{Channel: wire.Channel(channel(client))})
	}
	return t
}

func (r *relayServer) publish(ctx context.Context, to int, _ int64, body []byte) error {
	if r.rabbit != nil {
		return r.publisher.Publish(ctx, broker.ToChannel(wire.Channel(channelOf(to))), false, amqp091.Publishing{Body: body})
	}
	line := append(append(append([]byte(channelOf(to)), ' '), body...), '\n')
	r.mu.Lock()
	defer r.mu.Unlock()
	_, err := r.In.Write(line)
	return err
}

func (r *relayServer) holders() []int { return []int{r.PID} }
func (r *relayServer) others() []int  { return brokerOf(r.rabbit) }
func (r *relayServer) kill()          { r.Stop() }

func (r *relayServer) revive(context.Context) error {
	url := ""
	if r.rabbit != nil {
		url = r.rabbit.URL()
		if err := redial(&r.publisher, url); err != nil {
			return err
		}
	}
	started, err := bare.StartRelay(url, "")
	if err == nil {
		r.Relay = started
	}
	return err
}

func (r *relayServer) stop() {
	if r.publisher != nil {
		r.publisher.Close()
	}
	if r.Relay != nil {
		r.Stop()
	}
}

// redial makes a publisher anew: the old one's connection may be what failed.
func redial(p **bare.Publisher, url string) error {
	if *p != nil {
		(*p).Close()
	}
	dialed, err := bare.DialPublisher(url)
	if err == nil {
		*p = dialed
	}
	return err
}

// brokerOf are the processes of a broker; none of nil.
func brokerOf(r *rig.RabbitMQ) []int {
	if r == nil {
		return nil
	}
	return []int{r.Node().PID()}
}

// rawServer has one consumer in place of all clients.
type rawServer struct {
	rabbit    *rig.RabbitMQ
	publisher *bare.Publisher
	leave     func()
}

const rawMailbox = "raw-w1"

func (r *rawServer) clients(int, bool) (load.Plan, crowd.Options, error) {
	return load.Plan{}, crowd.Options{}, errNoSuch
}

func (r *rawServer) gather(_ context.Context, clients int) (*crowd.Crowd, error) {
	if r.leave != nil {
		r.leave()
	}
	consumer, err := bare.DialConsumer(r.rabbit.URL(), rawMailbox)
	if err != nil {
		return nil, err
	}
	c := crowd.Listen(clients, 0, crowd.Options{})
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = consumer.Consume(ctx, func(body []byte) error { return c.Take(addressee(body), body) }) // what does not come is lost
	}()
	r.leave = func() { cancel(); <-ended; consumer.Close(); r.leave = nil }
	return c, nil
}

// addressee is the client that a body is for.
func addressee(body []byte) (to int) {
	digits, _, _ := bytes.Cut(bytes.TrimPrefix(body, []byte(`{"to":`)), []byte(","))
	for _, d := range digits {
		to = 10*to + int(d-'0')
	}
	return to
}

func (r *rawServer) publish(ctx context.Context, _ int, _ int64, body []byte) error {
	return r.publisher.Publish(ctx, broker.ToMailbox(rawMailbox), true, bare.EventMessage(wire.Event{Type: wire.EventStep}, body))
}

func (r *rawServer) holders() []int               { return nil }
func (r *rawServer) others() []int                { return brokerOf(r.rabbit) }
func (r *rawServer) kill()                        {}
func (r *rawServer) revive(context.Context) error { return redial(&r.publisher, r.rabbit.URL()) }

func (r *rawServer) stop() {
	if r.leave != nil {
		r.leave()
	}
	if r.publisher != nil {
		r.publisher.Close()
	}
}
