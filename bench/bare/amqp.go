// Package bare is the least that does what wscluster does, to compare it with: AMQP with nothing around it, and a
// relay that writes to one socket after the other.
package bare

import (
	"context"
	"errors"
	"fmt"
	"sync"

	amqp091 "github.com/rabbitmq/amqp091-go"

	"github.com/wscluster/wscluster/pkg/broker"
	"github.com/wscluster/wscluster/pkg/socketmeta"
	"github.com/wscluster/wscluster/pkg/wire"
)

// Publisher publishes with confirms, and waits for none while fewer than PublishWindow are missing. Publish may be
// called by any goroutine.
type Publisher struct {
	conn     *amqp091.Connection
	ch       *amqp091.Channel
	window   chan struct{}  // a token for each unanswered publish
	draining sync.WaitGroup // of what answers the publishes

	mu     sync.Mutex
	failed error // guarded by mu: the first publish that was returned or refused
}

const (
	answersAhead  = 1_024
	PublishWindow = 4096 // unanswered publishes: as many as of pkg/amqp
)

// DialPublisher connects.
func DialPublisher(url string) (_ *Publisher, err error) {
	p := &Publisher{window: make(chan struct{}, PublishWindow)}
	if p.conn, err = amqp091.Dial(url); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			p.Close()
		}
	}()
	if p.ch, err = p.conn.Channel(); err != nil {
		return nil, err
	}
	if err := p.ch.Confirm(false); err != nil {
		return nil, err
	}
	returns := p.ch.NotifyReturn(make(chan amqp091.Return, answersAhead))
	confirms := p.ch.NotifyPublish(make(chan amqp091.Confirmation, answersAhead))
	p.draining.Go(func() { p.drain(returns, confirms) })
	return p, nil
}

// drain takes the broker's answers until the channel is closed.
func (p *Publisher) drain(returns <-chan amqp091.Return, confirms <-chan amqp091.Confirmation) {
	for returns != nil || confirms != nil {
		var err error
		select {
		case m, ok := <-returns:
			if !ok {
				returns = nil
				continue
			}
			err = fmt.Errorf("a message to %s of exchange %s was returned: %s", m.RoutingKey, m.Exchange, m.ReplyText)
		case c, ok := <-confirms:
			if !ok {
				confirms = nil
				continue
			}
			<-p.window
			if c.Ack {
				continue
			}
			err = fmt.Errorf("publish %d was refused", c.DeliveryTag)
		}
		p.mu.Lock()
		p.failed = errors.Join(p.failed, err)
		p.mu.Unlock()
	}
}

// Publish sends m, which is returned if it reaches no queue and must is set, and does not wait for the broker's
// answer. It returns the failures of those before it.
func (p *Publisher) Publish(ctx context.Context, to broker.Address, must bool, m amqp091.Publishing) error {
	p.mu.Lock()
	err := p.failed
	p.mu.Unlock()
	if err != nil {
		return err
	}
	select {
	case p.window <- struct{}{}:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	return p.ch.PublishWithContext(ctx, to.Exchange, to.Key, must, false, m)
}

// Settle waits until the broker has answered every publish. Nobody may publish meanwhile.
func (p *Publisher) Settle(ctx context.Context) error {
	for n := range PublishWindow { // when all of it is ours, no publish has any
		select {
		case p.window <- struct{}{}:
		case <-ctx.Done():
			for range n {
				<-p.window
			}
			return context.Cause(ctx)
		}
	}
	for range PublishWindow {
		<-p.window
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.failed
}

// Close ends the connection and what runs on it.
func (p *Publisher) Close() {
	p.conn.Close() // it may be gone already
	p.draining.Wait()
}

// Consumer takes the messages of a mailbox like the workers': durable, classic, under the same policy, with manual
// acknowledgement.
type Consumer struct {
	conn       *amqp091.Connection
	deliveries <-chan amqp091.Delivery
}

const prefetch = 20_000 // as a worker has

// DialConsumer connects and declares the mailbox of a server.
func DialConsumer(url string, server socketmeta.ServerID) (_ *Consumer, err error) {
	c := &Consumer{}
	if c.conn, err = amqp091.Dial(url); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			c.Close()
		}
	}()
	ch, err := c.conn.Channel()
	if err != nil {
		return nil, err
	}
	queue := broker.MailboxQueue(server)
	if _, err := ch.QueueDeclare(queue, true, false, false, false, amqp091.Table{"x-queue-type": "classic"}); err != nil {
		return nil, err
	}
	to := broker.ToMailbox(server)
	if err := ch.QueueBind(queue, to.Key, to.Exchange, false, nil); err != nil {
		return nil, err
	}
	if err := ch.Qos(prefetch, 0, false); err != nil {
		return nil, err
	}
	c.deliveries, err = ch.Consume(queue, "", false, true, false, false, nil)
	return c, err
}

// Consume calls each with every body, and then acknowledges it, until ctx ends, with nil, or something fails.
func (c *Consumer) Consume(ctx context.Context, each func(body []byte) error) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case d, ok := <-c.deliveries:
			if !ok {
				return errors.New("the bare consumer's channel was closed")
			}
			if err := each(d.Body); err != nil {
				return err
			}
			if err := d.Ack(false); err != nil {
				return err
			}
		}
	}
}

// Close ends the connection.
func (c *Consumer) Close() { c.conn.Close() } // it may be gone already

// EventMessage is an event as a runner publishes it, with another body.
func EventMessage(e wire.Event, body []byte) amqp091.Publishing {
	return amqp091.Publishing{
		Headers: e.Headers(), ContentType: "application/json", DeliveryMode: amqp091.Persistent,
		CorrelationId: string(e.Task), Type: string(e.Type), Body: body,
	}
}
