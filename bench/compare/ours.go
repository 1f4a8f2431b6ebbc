package main

import (
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

// oursSystem is one worker behind RabbitMQ. What goes to one client is a durable event: persistent, confirmed, and
// acknowledged by the client before the broker lets it go. What goes to everybody is a post to a channel.
var oursSystem = system{"wscluster", func(ctx context.Context, l *lab.Lab) (server, error) {
	c, err := homeCluster(ctx, l)
	if err != nil {
		return nil, err
	}
	o := &ours{cluster: c}
	return o, redial(&o.publisher, c.Rabbit.URL())
}}

// home is the cluster that the baselines share with wscluster: one broker for all of them.
var home *rig.Cluster

func homeCluster(ctx context.Context, l *lab.Lab) (_ *rig.Cluster, err error) {
	if home == nil {
		home, err = l.Cluster(ctx, rig.ClusterOptions{Workers: []string{"i1-w1"}, WorkerSettings: []string{"WSCLUSTER_OPEN_CHANNELS=*"}})
	}
	return home, err
}

func homeBroker(ctx context.Context, l *lab.Lab) (*rig.RabbitMQ, error) {
	c, err := homeCluster(ctx, l)
	if err != nil {
		return nil, err
	}
	return c.Rabbit, nil
}

type ours struct {
	cluster   *rig.Cluster
	publisher *bare.Publisher

	mu    sync.RWMutex
	tasks []wire.Event // guarded by mu: one of each client
}

func (o *ours) clients(n int, everybody bool) (load.Plan, crowd.Options, error) {
	addr := o.cluster.Workers[0].Addr
	return planAt(n, everybody, func(channel func(int) string) load.Target {
		if everybody {
			return subscriber(addr, channel)
		}
		return load.Worker(addr)
	}), crowd.Options{}, nil
}

func (o *ours) gather(ctx context.Context, clients int) (*crowd.Crowd, error) {
	p, _, err := o.clients(clients, false)
	if err != nil {
		return nil, err
	}
	c, err := crowd.Gather(ctx, p, crowd.Options{Answer: o.acknowledge})
	if err != nil {
		return nil, err
	}
	tasks := make([]wire.Event, clients)
	for i, s := range c.Fleet {
		tasks[i] = wire.Event{Client: s.Meta.Client, Home: s.Meta.Server, Epoch: s.Meta.Epoch,
			Task: wire.NewTaskID(), Attempt: 1, Run: wire.NewRunID(), Type: wire.EventStep, Durable: true}
	}
	o.mu.Lock()
	o.tasks = tasks
	o.mu.Unlock()
	return c, nil
}

// event is the n-th of a client's task.
func (o *ours) event(client int, n int64) wire.Event {
	o.mu.RLock()
	defer o.mu.RUnlock()
	e := o.tasks[client]
	e.Seq, e.Prev = n, n-1
	return e
}

func (o *ours) acknowledge(s *load.Socket, client int, n int64) error {
	e := o.event(client, n)
	return s.Send(&wire.Ack{Tasks: []wire.Position{e.Position()}})
}

func (o *ours) publish(ctx context.Context, to int, n int64, body []byte) error {
	if to == crowd.Everybody {
		return o.publisher.Publish(ctx, broker.ToChannel(wire.Channel(channelOf(to))), false, amqp091.Publishing{ContentType: "application/json", Body: body})
	}
	e := o.event(to, n)
	return o.publisher.Publish(ctx, broker.ToMailbox(e.Home), true, bare.EventMessage(e, body))
}

func (o *ours) holders() []int { return []int{o.cluster.Workers[0].PID()} }
func (o *ours) others() []int  { return brokerOf(o.cluster.Rabbit) }
func (o *ours) kill()          { o.cluster.Workers[0].Kill() }

func (o *ours) revive(ctx context.Context) error {
	if err := redial(&o.publisher, o.cluster.Rabbit.URL()); err != nil {
		return err
	}
	if err := o.cluster.Workers[0].Start(); err != nil {
		return err
	}
	return o.cluster.Workers[0].Await(ctx)
}

func (o *ours) stop() {
	if o.publisher != nil {
		o.publisher.Close()
	}
}
