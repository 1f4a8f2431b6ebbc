package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	amqp091 "github.com/rabbitmq/amqp091-go"

	"github.com/wscluster/wscluster/pkg/broker"
	"github.com/wscluster/wscluster/pkg/socketmeta"
	"github.com/wscluster/wscluster/pkg/wire"
)

// rawServer is the server ID under which the bare consumer's queue is bound, a mailbox like the
// workers': durable, classic, under the same policy.
const rawServer socketmeta.ServerID = "raw-w1"

// rawClient is AMQP with nothing of wscluster around it: it publishes durable messages with
// confirms, to anybody, and consumes those to rawServer with manual acknowledgement.
type rawClient struct {
	arrivals chan time.Duration // ages of what came; room for a round

	publishing, consuming *amqp091.Connection
	ch                    *amqp091.Channel // of publishing
	deliveries            <-chan amqp091.Delivery
	window                chan struct{}  // a token for each unanswered publish
	draining              sync.WaitGroup // of what answers the publishes

	mu     sync.Mutex
	failed error // guarded by mu: the first publish that was returned or refused
}

// rawWindow is how many publishes may be unanswered: as many as of pkg/amqp.
const rawWindow = 4096

// dialRaw connects and declares the queue. room is how many messages may be on their way.
func dialRaw(url string, room int) (_ *rawClient, err error) {
	r := &rawClient{arrivals: make(chan time.Duration, room), window: make(chan struct{}, rawWindow)}
	defer func() {
		if err != nil {
			r.close()
		}
	}()
	if r.publishing, err = amqp091.Dial(url); err != nil {
		return nil, err
	}
	if r.consuming, err = amqp091.Dial(url); err != nil {
		return nil, err
	}
	if r.ch, err = r.publishing.Channel(); err != nil {
		return nil, err
	}
	if err := r.ch.Confirm(false); err != nil {
		return nil, err
	}
	returns := r.ch.NotifyReturn(make(chan amqp091.Return, 2*room))
	confirms := r.ch.NotifyPublish(make(chan amqp091.Confirmation, 2*room))
	r.draining.Go(func() { r.drain(returns, confirms) })

	ch, err := r.consuming.Channel()
	if err != nil {
		return nil, err
	}
	queue := broker.MailboxQueue(rawServer)
	if _, err := ch.QueueDeclare(queue, true, false, false, false, amqp091.Table{"x-queue-type": "classic"}); err != nil {
		return nil, err
	}
	to := broker.ToMailbox(rawServer)
	if err := ch.QueueBind(queue, to.Key, to.Exchange, false, nil); err != nil {
		return nil, err
	}
	if err := ch.Qos(20_000, 0, false); err != nil { // as a worker does
		return nil, err
	}
	r.deliveries, err = ch.Consume(queue, "", false, true, false, false, nil)
	return r, err
}

// drain takes the broker's answers until the channel is closed.
func (r *rawClient) drain(returns <-chan amqp091.Return, confirms <-chan amqp091.Confirmation) {
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
			<-r.window
			if c.Ack {
				continue
			}
			err = fmt.Errorf("publish %d was refused", c.DeliveryTag)
		}
		r.mu.Lock()
		r.failed = errors.Join(r.failed, err)
		r.mu.Unlock()
	}
}

// began is what the messages' times count from: one clock for both ends.
var began = time.Now()

// stamped is the body of a message: some 256 bytes.
type stamped struct {
	AtNS int64  `json:"at_ns"` // since began
	Pad  string `json:"pad"`
}

var pad = strings.Repeat("x", 225)

// stamp is the body of a message that is published at the time at.
func stamp(at time.Time) []byte {
	body, err := json.Marshal(stamped{int64(at.Sub(began)), pad})
	if err != nil {
		panic(err) // two plain values
	}
	return body
}

// age is how long before now the message with this body was published.
func age(body []byte, now time.Time) (time.Duration, error) {
	var s stamped
	err := json.Unmarshal(body, &s)
	return now.Sub(began) - time.Duration(s.AtNS), err
}

// publish sends e, with the time as its body, and does not wait for the broker's answer. It
// returns the first failure of those before it.
func (r *rawClient) publish(ctx context.Context, to broker.Address, e wire.Event) error {
	r.mu.Lock()
	err := r.failed
	r.mu.Unlock()
	if err != nil {
		return err
	}
	select {
	case r.window <- struct{}{}:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	at := time.Now()
	return r.ch.PublishWithContext(ctx, to.Exchange, to.Key, true, false, amqp091.Publishing{
		Headers: e.Headers(), ContentType: "application/json", DeliveryMode: amqp091.Persistent,
		CorrelationId: string(e.Task), Type: string(e.Type), Body: stamp(at),
	})
}

// consume takes the deliveries until ctx ends, and tells their ages.
func (r *rawClient) consume(ctx context.Context) error { return r.take(ctx, age) }

// take takes the deliveries, acknowledges each, and passes on what measure says of it.
func (r *rawClient) take(ctx context.Context, measure func(body []byte, now time.Time) (time.Duration, error)) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case d, ok := <-r.deliveries:
			now := time.Now()
			if !ok {
				return errors.New("the bare consumer's channel was closed")
			}
			took, err := measure(d.Body, now)
			if err != nil {
				return err
			}
			select {
			case r.arrivals <- took:
			default:
				return errors.New("more messages came than were published")
			}
			if err := d.Ack(false); err != nil {
				return err
			}
		}
	}
}

// close ends both connections and what runs on them.
func (r *rawClient) close() {
	for _, c := range []*amqp091.Connection{r.publishing, r.consuming} {
		if c != nil {
			c.Close() // it may be gone already
		}
	}
	r.draining.Wait()
}
