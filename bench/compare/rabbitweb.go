package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"net/url"
	"strings"

	amqp091 "github.com/rabbitmq/amqp091-go"

	"github.com/wscluster/wscluster/bench/bare"
	"github.com/wscluster/wscluster/bench/crowd"
	"github.com/wscluster/wscluster/bench/lab"
	"github.com/wscluster/wscluster/bench/load"
	"github.com/wscluster/wscluster/internal/rig"
	"github.com/wscluster/wscluster/pkg/broker"
)

// RabbitMQ's own WebSockets, each on a node of its own: STOMP and MQTT, a queue for each client, published by AMQP to
// amq.topic, transient. Their clients need not say anything for an hour.
var (
	stompSystem = system{"web-stomp", func(ctx context.Context, _ *lab.Lab) (server, error) {
		return startRabbitWeb(ctx, "rabbitmq_web_stomp", "stomp.listeners.tcp = none\nweb_stomp.tcp.ip = 127.0.0.1\nweb_stomp.tcp.port = %s\nweb_stomp.ws_opts.idle_timeout = 3600000", stompTarget)
	}}
	mqttSystem = system{"web-mqtt", func(ctx context.Context, _ *lab.Lab) (server, error) {
		return startRabbitWeb(ctx, "rabbitmq_web_mqtt", "mqtt.listeners.tcp = none\nweb_mqtt.tcp.ip = 127.0.0.1\nweb_mqtt.tcp.port = %s\nweb_mqtt.ws_opts.idle_timeout = 3600000", mqttTarget)
	}}
)

type rabbitWeb struct {
	rabbit    *rig.RabbitMQ
	publisher *bare.Publisher
	target    func(channel func(int) string) load.Target
}

func startRabbitWeb(ctx context.Context, plugin, config string, target func(addr, user, password string, channel func(int) string) load.Target) (server, error) {
	addr, err := rig.FreePort("127.0.0.1")
	if err != nil {
		return nil, err
	}
	rabbit, err := rig.StartRabbitMQ(ctx, rig.RabbitOptions{Plugins: []string{plugin}, Config: fmt.Sprintf(config, portOf(addr))})
	if err != nil {
		return nil, err
	}
	u, err := url.Parse(rabbit.URL())
	if err != nil {
		return nil, err
	}
	password, _ := u.User.Password()
	r := &rabbitWeb{rabbit: rabbit, target: func(channel func(int) string) load.Target {
		return target(addr, u.User.Username(), password, channel)
	}}
	if err := redial(&r.publisher, rabbit.URL()); err != nil {
		r.stop()
		return nil, err
	}
	return r, nil
}

func (r *rabbitWeb) clients(n int, everybody bool) (load.Plan, crowd.Options, error) {
	return planAt(n, everybody, r.target), crowd.Options{}, nil
}

func (r *rabbitWeb) publish(ctx context.Context, to int, _ int64, body []byte) error {
	return r.publisher.Publish(ctx, broker.Address{Exchange: "amq.topic", Key: channelOf(to)}, false, amqp091.Publishing{Body: body})
}

func (r *rabbitWeb) holders() []int { return brokerOf(r.rabbit) }
func (r *rabbitWeb) others() []int  { return nil }

func (r *rabbitWeb) kill() { r.rabbit.Kill() }

func (r *rabbitWeb) revive(ctx context.Context) error {
	if err := r.rabbit.Restart(ctx); err != nil {
		return err
	}
	return redial(&r.publisher, r.rabbit.URL())
}

func (r *rabbitWeb) stop() {
	if r.publisher != nil {
		r.publisher.Close()
	}
	_ = r.rabbit.Stop() // nobody measures it any more
}

func stompTarget(addr, user, password string, channel func(int) string) load.Target {
	return load.Target{Addr: addr, Path: "/ws", Protocol: "v12.stomp", Greet: func(s *load.Socket, client int) error {
		for _, step := range []struct{ say, want string }{
			{fmt.Sprintf("CONNECT\naccept-version:1.2\nhost:/\nlogin:%s\npasscode:%s\nheart-beat:0,0\n\n\x00", user, password), "CONNECTED\n"},
			{fmt.Sprintf("SUBSCRIBE\nid:0\ndestination:/topic/%s\nack:auto\nreceipt:1\n\n\x00", channel(client)), "RECEIPT\n"},
		} {
			if err := s.SendText([]byte(step.say)); err != nil {
				return err
			}
			if err := expect(s, step.want); err != nil {
				return err
			}
		}
		return nil
	}}
}

// expect reads a message that begins with want.
func expect(s *load.Socket, want string) error {
	p, err := s.Next()
	if err == nil && !strings.HasPrefix(string(p), want) {
		err = fmt.Errorf("got %.200q, want %q", p, want)
	}
	return err
}

// mqttTarget speaks MQTT 3.1.1 with a clean session, quality of service 0 and no keep-alive.
func mqttTarget(addr, user, password string, channel func(int) string) load.Target {
	return load.Target{Addr: addr, Path: "/ws", Protocol: "mqtt", Greet: func(s *load.Socket, client int) error {
		connect := append(mqttString("MQTT"), 4, 0xC2, 0, 0)
		for _, field := range []string{fmt.Sprintf("bench-%d", client), user, password} {
			connect = append(connect, mqttString(field)...)
		}
		if err := s.SendBinary(append([]byte{0x10, byte(len(connect))}, connect...)); err != nil {
			return err
		}
		if err := expect(s, "\x20\x02\x00\x00"); err != nil { // CONNACK, accepted
			return err
		}
		subscribe := append(append([]byte{0, 1}, mqttString(channel(client))...), 0)
		if err := s.SendBinary(append([]byte{0x82, byte(len(subscribe))}, subscribe...)); err != nil {
			return err
		}
		return expect(s, "\x90\x03\x00\x01\x00") // SUBACK, quality of service 0
	}}
}

// mqttString is a string behind its length; both packets above stay under 128 bytes.
func mqttString(s string) []byte {
	return append(binary.BigEndian.AppendUint16(nil, uint16(len(s))), s...)
}
