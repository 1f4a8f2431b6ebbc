package chaos

import (
	"fmt"
	"net"
	"time"

	amqp091 "github.com/rabbitmq/amqp091-go"

	"github.com/wscluster/wscluster/pkg/broker"
	"github.com/wscluster/wscluster/pkg/wire"
)

const (
	dialWithin  = 5 * time.Second
	writeWithin = 10 * time.Second
)

// connect opens both connections to the node whose turn it is, declares the queue of the tasks and begins to take from it.
func (p *Publisher) connect() (_ *connection, err error) {
	c := &connection{}
	var sockets []net.Conn
	c.close = func() { // not politely: that may wait for a broker that does not answer
		for _, s := range sockets {
			_ = s.Close()
		}
	}
	defer func() {
		if err != nil {
			c.close()
		}
	}()
	open := func(name string) (*amqp091.Connection, *amqp091.Channel, error) {
		properties := amqp091.NewConnectionProperties()
		properties.SetClientConnectionName(name)
		conn, err := amqp091.DialConfig(p.URLs[p.life%len(p.URLs)], amqp091.Config{
			Heartbeat: heartbeat, Properties: properties,
			Dial: func(network, addr string) (net.Conn, error) {
				s, err := net.DialTimeout(network, addr, dialWithin)
				if err == nil {
					s = &patient{s}
					sockets = append(sockets, s)
					err = s.SetDeadline(time.Now().Add(dialWithin)) // of the handshake; the library takes it back
				}
				return s, err
			},
		})
		if err != nil {
			return nil, nil, err
		}
		ch, err := conn.Channel()
		return conn, ch, err
	}
	taking, ch, err := open("chaos tasks")
	if err != nil {
		return nil, fmt.Errorf("connect for tasks: %w", err)
	}
	c.taking = ch
	giving, ch, err := open("chaos events")
	if err != nil {
		return nil, fmt.Errorf("connect for events: %w", err)
	}
	c.giving = ch
	c.ends[0] = taking.NotifyClose(make(chan *amqp091.Error, 1))
	c.ends[1] = giving.NotifyClose(make(chan *amqp091.Error, 1))
	c.blocked = giving.NotifyBlocked(make(chan amqp091.Blocking, 16))

	// Returns and confirms have room for all that may be under way: the library drops what waits.
	c.returns = c.giving.NotifyReturn(make(chan amqp091.Return, flightWindow))
	c.confirms = c.giving.NotifyPublish(make(chan amqp091.Confirmation, flightWindow))
	if err := c.giving.Confirm(false); err != nil {
		return nil, fmt.Errorf("ask for confirms: %w", err)
	}
	queue := broker.TasksQueue(TaskKind, wire.Normal)
	if _, err := c.taking.QueueDeclare(queue, true, false, false, false, amqp091.Table{
		"x-queue-type":              amqp091.QueueTypeQuorum,
		"x-dead-letter-exchange":    broker.ExchangeDead,
		"x-dead-letter-routing-key": broker.ToDeadTasks().Key,
	}); err != nil {
		return nil, fmt.Errorf("declare %s: %w", queue, err)
	}
	if err := c.taking.QueueBind(queue, TaskKind, broker.ExchangeTasks, false, nil); err != nil {
		return nil, fmt.Errorf("bind %s: %w", queue, err)
	}
	if err := c.taking.Qos(p.Slots, 0, false); err != nil {
		return nil, fmt.Errorf("prefetch: %w", err)
	}
	if c.tasks, err = c.taking.Consume(queue, "", false, false, false, false, nil); err != nil {
		return nil, fmt.Errorf("take from %s: %w", queue, err)
	}
	return c, nil
}

// patient is a socket whose writes give up, but not soon.
type patient struct{ net.Conn }

func (p *patient) Write(b []byte) (int, error) {
	if err := p.SetWriteDeadline(time.Now().Add(writeWithin)); err != nil {
		return 0, err
	}
	return p.Conn.Write(b)
}
