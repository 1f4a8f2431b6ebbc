// Package amqp is the broker port (package broker) over RabbitMQ 3.10 or later, by AMQP 0-9-1.
//
// It owns connections, channels, confirms and returns, and declares the exchanges and queues of
// broker/names.go with those arguments that can never change. What an operator may change is in
// deploy/rabbitmq. Nobody else imports the AMQP library.
//
// One link is two connections, one for publishing and one for consuming, so that a memory alarm
// that stops the first leaves the second running. The library's own recovery is off: whatever
// fails, the link ends with everything on it. Every write has a deadline, every call that waits
// for an answer a watchdog that closes the socket under it, and every publish a confirm that must
// come in time; so a broker that hangs is noticed, and nothing here blocks for ever.
package amqp

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/url"
	"sync/atomic"
	"time"

	amqp091 "github.com/rabbitmq/amqp091-go"
	"go.uber.org/zap"

	"github.com/wscluster/wscluster/pkg/broker"
)

// The types of mailbox queues.
const (
	Classic = "classic" // one node: lowest latency
	Quorum  = "quorum"  // a cluster: replicated
)

// Options say where the broker is and how patient to be with it. Only URLs is needed.
type Options struct {
	// URLs of the nodes (amqp:// or amqps://user:password@host:port/vhost), tried in turn.
	URLs []string

	Heartbeat      time.Duration // 0 means 10 s; the broker notices a silent cut after two to three of them
	DialTimeout    time.Duration // 0 means 5 s: to connect and log in, each of the two connections
	WriteTimeout   time.Duration // 0 means 20 s: for the broker to take bytes, unless it has said that it is blocked
	CallTimeout    time.Duration // 0 means 20 s: for an answer to a declaration and the like
	ConfirmTimeout time.Duration // 0 means 30 s: without an answer to the oldest publish, unless blocked; see docs/adr/0011

	// Window is how many publishes may be unanswered at once; 0 means 4096.
	Window int

	// MailboxType is Classic or Quorum; "" means Classic. A queue that exists keeps its type.
	MailboxType string

	Log *zap.Logger // nil logs nothing
}

// Broker reaches one RabbitMQ, or one cluster of it.
type Broker struct {
	o     Options
	links atomic.Uint64 // made so far

	refusals refusals
}

var _ broker.Broker = (*Broker)(nil)

// New checks o and connects to nothing yet.
func New(o Options) (*Broker, error) {
	o.Heartbeat = cmp.Or(o.Heartbeat, 10*time.Second)
	o.DialTimeout = cmp.Or(o.DialTimeout, 5*time.Second)
	o.WriteTimeout = cmp.Or(o.WriteTimeout, 20*time.Second)
	o.CallTimeout = cmp.Or(o.CallTimeout, 20*time.Second)
	o.ConfirmTimeout = cmp.Or(o.ConfirmTimeout, 30*time.Second)
	o.Window = cmp.Or(o.Window, 4096)
	o.MailboxType = cmp.Or(o.MailboxType, Classic)
	o.Log = cmp.Or(o.Log, zap.NewNop())
	if err := o.validate(); err != nil {
		return nil, fmt.Errorf("amqp options: %w", err)
	}
	return &Broker{o: o}, nil
}

func (o *Options) validate() error {
	var errs []error
	if len(o.URLs) == 0 {
		errs = append(errs, errors.New("no URL: give one like amqp://user:password@host:5672/"))
	}
	for i, u := range o.URLs {
		// The library's own error would show the password.
		if _, err := amqp091.ParseURI(u); err != nil {
			errs = append(errs, fmt.Errorf("URL %d is not one like amqp://user:password@host:5672/", i+1))
		}
	}
	if o.Heartbeat < time.Second {
		errs = append(errs, fmt.Errorf("heartbeat %v: AMQP counts whole seconds", o.Heartbeat))
	}
	for name, d := range map[string]time.Duration{"dial": o.DialTimeout, "write": o.WriteTimeout, "call": o.CallTimeout, "confirm": o.ConfirmTimeout} {
		if d < 0 {
			errs = append(errs, fmt.Errorf("%s timeout %v is negative", name, d))
		}
	}
	if o.Window < 1 || o.Window > 65535 {
		errs = append(errs, fmt.Errorf("window %d: must be 1 to 65535", o.Window))
	}
	if o.MailboxType != Classic && o.MailboxType != Quorum {
		errs = append(errs, fmt.Errorf("mailbox type %q: must be %s or %s", o.MailboxType, Classic, Quorum))
	}
	return errors.Join(errs...)
}

// Join tries the URLs in turn. Only the first that can be reached says whether id is free.
func (b *Broker) Join(ctx context.Context, id broker.Identity) (broker.Link, error) {
	var errs []error
	for _, u := range b.o.URLs {
		l, err := b.join(ctx, id, u)
		switch {
		case err == nil:
			return l, nil
		case ctx.Err() != nil:
			return nil, fmt.Errorf("join %s as %s: %w", redacted(u), id, context.Cause(ctx))
		}
		errs = append(errs, fmt.Errorf("join %s as %s: %w", redacted(u), id, err))
		if errors.Is(err, broker.ErrLocked) {
			break
		}
	}
	return nil, errors.Join(errs...)
}

// redacted is u without its password.
func redacted(u string) string {
	parsed, err := url.Parse(u)
	if err != nil {
		return "the broker"
	}
	return parsed.Redacted()
}
