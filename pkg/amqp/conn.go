package amqp

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	amqp091 "github.com/rabbitmq/amqp091-go"
)

// conn is one AMQP connection and the socket under it.
type conn struct {
	*amqp091.Connection
	socket  *socket
	timeout time.Duration // for one call
	late    func(error)   // ends the link when a call takes longer
}

// dial connects and logs in. ctx and the dial timeout bound it. late is told of a call that takes
// too long, and must cut the connection.
func dial(ctx context.Context, u, name string, o *Options, late func(error)) (*conn, error) {
	ctx, cancel := context.WithTimeout(ctx, o.DialTimeout)
	defer cancel()
	c := &conn{timeout: o.CallTimeout, late: late}
	stop := func() bool { return true }
	properties := amqp091.NewConnectionProperties()
	properties.SetClientConnectionName(name)
	config := amqp091.Config{
		Heartbeat:  o.Heartbeat,
		Properties: properties,
		Dial: func(network, addr string) (net.Conn, error) {
			tcp, err := (&net.Dialer{}).DialContext(ctx, network, addr)
			if err != nil {
				return nil, err
			}
			c.socket = newSocket(tcp, o.WriteTimeout)
			stop = context.AfterFunc(ctx, c.cut) // the library's handshake has no context
			return c.socket, nil
		},
	}
	var err error
	c.Connection, err = amqp091.DialConfig(u, config)
	if late := !stop(); late || err != nil {
		if c.socket != nil {
			c.cut()
		}
		if late {
			err = fmt.Errorf("no answer within %v: %w", o.DialTimeout, errors.Join(context.Cause(ctx), err))
		}
		return nil, err
	}
	return c, nil
}

// cut closes the socket. Whoever waits on the connection gets an error at once.
func (c *conn) cut() { c.socket.cut() }

// watched runs f, which waits for the broker's answer, and ends the link if that takes too long:
// the library itself would wait for ever.
func (c *conn) watched(f func() error) error {
	late := time.AfterFunc(c.timeout, func() { c.late(fmt.Errorf("no answer to a call within %v", c.timeout)) })
	defer late.Stop()
	return f()
}

// try runs f on a channel of its own, which an exception may kill without harm to others.
func (c *conn) try(f func(ch *amqp091.Channel) error) error {
	return c.watched(func() error {
		ch, err := c.Channel()
		if err != nil {
			return err
		}
		defer ch.Close()
		return f(ch)
	})
}

// close says goodbye, which frees what is exclusive to the connection, and cuts it when ctx ends.
func (c *conn) close(ctx context.Context) error {
	late := context.AfterFunc(ctx, c.cut)
	defer late()
	return c.Connection.Close()
}
