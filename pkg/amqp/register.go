package amqp

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"

	amqp091 "github.com/rabbitmq/amqp091-go"
	"go.uber.org/zap"

	"github.com/wscluster/wscluster/pkg/broker"
	"github.com/wscluster/wscluster/pkg/socketmeta"
)

// toRegister is where the register's records go. The stream is bound to the exchange hold, with a
// key that no server has, because that is the one exchange that only workers may write to: whose
// name is in the register, his mailbox is looked after and in the end deleted.
var toRegister = broker.Address{Exchange: broker.ExchangeHold, Key: broker.StreamServers}

// The types of the register's records.
const (
	recordServer = "server" // the body is a server ID
	recordMark   = "mark"   // how far the reader with this ID has to read
)

// registerAgain is between two tries to reach a stream that has no member or leader yet.
const registerAgain = 50 * time.Millisecond

// registerAhead is how many records may be on their way to a reader.
const registerAhead = 1000

// registerArgs keep records for longer than the policy of deploy/rabbitmq keeps a mailbox without
// an owner. A stream forgets whole segments only, so they are small: some thousand records.
func registerArgs() amqp091.Table {
	return amqp091.Table{
		"x-queue-type":                    amqp091.QueueTypeStream,
		"x-max-age":                       "8D",
		"x-stream-max-segment-size-bytes": int64(1 << 20),
	}
}

func (l *link) Register(ctx context.Context, s socketmeta.ServerID) error {
	body, err := json.Marshal(s)
	if err == nil {
		err = l.record(ctx, broker.Message{Type: recordServer, ID: string(s), Body: body})
	}
	if err != nil {
		return fmt.Errorf("register %s: %w", s, l.failed(err))
	}
	return nil
}

// record appends m to the register, on a connection of its own: a stream whose declaration has
// been answered to somebody may have no member yet, and who publishes to it then loses the whole
// connection (506 or 541). That is tried again, at most for the call timeout.
func (l *link) record(ctx context.Context, m broker.Message) error {
	if err := l.ensureRegister(ctx); err != nil {
		return err
	}
	m.App, m.Time = l.id.String(), time.Now()
	msg, err := encode(m)
	if err != nil {
		return err
	}
	late := time.After(l.o.CallTimeout)
	for {
		err := l.append(ctx, msg)
		if _, young := errors.AsType[*amqp091.Error](err); !young {
			return err
		}
		select {
		case <-time.After(registerAgain):
		case <-late:
			return err
		case <-l.done:
			return l.gone(err)
		case <-ctx.Done():
			return errors.Join(context.Cause(ctx), err)
		}
	}
}

func (l *link) append(ctx context.Context, msg amqp091.Publishing) error {
	var c *conn
	c, err := dial(ctx, l.url, l.id.String()+" registering", l.o, func(error) { c.cut() })
	if err != nil {
		return err
	}
	defer c.close(ctx)
	closes := c.NotifyClose(make(chan *amqp091.Error, 1))
	return c.watched(func() error {
		ch, err := c.Channel()
		if err != nil {
			return err
		}
		if err := ch.Confirm(false); err != nil {
			return err
		}
		returns := ch.NotifyReturn(make(chan amqp091.Return, 1))
		confirmation, err := ch.PublishWithDeferredConfirm(toRegister.Exchange, toRegister.Key, true, false, msg)
		if err != nil {
			return err
		}
		if confirmation.Wait() {
			select {
			case <-returns:
				return errors.New("the stream is not bound")
			default:
				return nil
			}
		}
		if c.IsClosed() { // the library answers every open publish with a "no" then
			if err := <-closes; err != nil {
				return err
			}
		}
		return errors.New("the broker refused a record")
	})
}

// ensureRegister makes sure that the stream is there and has a leader: else a publish to it would
// never be answered, which ends the link. After a start of the broker it has none for some 0.4 s,
// so that is waited for, at most for the call timeout. It is not declared when joining: a sick
// stream shall keep nobody out.
func (l *link) ensureRegister(ctx context.Context) error {
	late := time.After(l.o.CallTimeout)
	for {
		restricted := false
		_, err := l.ensureQueue(broker.StreamServers, &restricted, registerArgs(), toRegister.Exchange, toRegister.Key)
		switch {
		case restricted:
			return errors.Join(errors.New("only the user of a worker may"), err)
		case !isCode(err, amqp091.NotFound):
			return err
		}
		select {
		case <-time.After(registerAgain):
		case <-late:
			return err
		case <-l.done:
			return l.gone(err)
		case <-ctx.Done():
			return errors.Join(context.Cause(ctx), err)
		}
	}
}

// Servers appends a mark and reads up to it. A record must come within the call timeout after the
// one before, or it is an error.
func (l *link) Servers(ctx context.Context) ([]socketmeta.ServerID, error) {
	list, err := l.servers(ctx)
	if err != nil {
		return nil, fmt.Errorf("read the register: %w", l.failed(err))
	}
	return list, nil
}

func (l *link) servers(ctx context.Context) ([]socketmeta.ServerID, error) {
	mark := rand.Text()
	if err := l.record(ctx, broker.Message{Type: recordMark, ID: mark}); err != nil {
		return nil, err
	}
	var ch *amqp091.Channel
	var records <-chan amqp091.Delivery
	err := l.consuming.watched(func() (err error) {
		if ch, err = l.consuming.Channel(); err != nil {
			return err
		}
		if err = ch.Qos(registerAhead, 0, false); err != nil {
			return err
		}
		records, err = ch.Consume(broker.StreamServers, "", false, false, false, false, amqp091.Table{"x-stream-offset": "first"})
		return err
	})
	if ch != nil {
		defer func() { _ = l.consuming.watched(ch.Close) }()
	}
	if err != nil {
		return nil, err
	}
	known := make(map[socketmeta.ServerID]bool)
	late := time.NewTimer(l.o.CallTimeout)
	defer late.Stop()
	for {
		select {
		case d, ok := <-records:
			switch {
			case !ok:
				return nil, errTakenAway
			case d.MessageId == mark:
				return slices.Sorted(maps.Keys(known)), nil
			}
			if err := ch.Ack(d.DeliveryTag, false); err != nil {
				return nil, err
			}
			late.Reset(l.o.CallTimeout)
			if d.Type != recordServer {
				continue
			}
			if s, err := parseRecord(d.Body); err != nil {
				l.log.Warn("the register holds what is not a server ID", zap.Error(err), zap.String("by", d.AppId))
			} else {
				known[s] = true
			}
		case <-late.C:
			return nil, errors.New("no more records come: is the stream's leader up?")
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

func parseRecord(body []byte) (socketmeta.ServerID, error) {
	var s string
	if err := json.Unmarshal(body, &s); err != nil {
		return "", err
	}
	return socketmeta.ParseServerID(s)
}
