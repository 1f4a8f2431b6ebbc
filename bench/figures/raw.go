package main

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"time"

	"github.com/wscluster/wscluster/bench/bare"
	"github.com/wscluster/wscluster/pkg/broker"
	"github.com/wscluster/wscluster/pkg/socketmeta"
	"github.com/wscluster/wscluster/pkg/wire"
)

// rawServer is the server ID under which the bare consumer's queue is bound, a mailbox like the
// workers'.
const rawServer socketmeta.ServerID = "raw-w1"

// rawClient is AMQP with nothing of wscluster around it: it publishes durable messages with
// confirms, to anybody, and consumes those to rawServer with manual acknowledgement.
type rawClient struct {
	arrivals chan time.Duration // ages of what came; room for a round

	publisher *bare.Publisher
	consumer  *bare.Consumer
}

// dialRaw connects and declares the queue. room is how many messages may be on their way.
func dialRaw(url string, room int) (*rawClient, error) {
	p, err := bare.DialPublisher(url)
	if err != nil {
		return nil, err
	}
	c, err := bare.DialConsumer(url, rawServer)
	if err != nil {
		p.Close()
		return nil, err
	}
	return &rawClient{make(chan time.Duration, room), p, c}, nil
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
	return r.publisher.Publish(ctx, to, true, bare.EventMessage(e, stamp(time.Now())))
}

// consume takes the deliveries until ctx ends, and tells their ages.
func (r *rawClient) consume(ctx context.Context) error { return r.take(ctx, age) }

// take takes the deliveries until ctx ends, acknowledges each, and passes on what measure says of it.
func (r *rawClient) take(ctx context.Context, measure func(body []byte, now time.Time) (time.Duration, error)) error {
	return r.consumer.Consume(ctx, func(body []byte) error {
		took, err := measure(body, time.Now())
		if err != nil {
			return err
		}
		select {
		case r.arrivals <- took:
			return nil
		default:
			return errors.New("more messages came than were published")
		}
	})
}

// close ends both connections and what runs on them.
func (r *rawClient) close() {
	r.publisher.Close()
	r.consumer.Close()
}
