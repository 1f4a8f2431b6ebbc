package amqp

import (
	"context"
	"errors"
	"fmt"
	"time"

	amqp091 "github.com/rabbitmq/amqp091-go"

	"github.com/wscluster/wscluster/pkg/broker"
)

// ledgerAhead is how many records may be on their way to a reader.
const ledgerAhead = 1000

// ledgerArgs keep records for a day. A stream forgets whole segments only, and never the last one.
func ledgerArgs() amqp091.Table {
	return amqp091.Table{
		"x-queue-type":                    amqp091.QueueTypeStream,
		"x-max-age":                       "1D",
		"x-stream-max-segment-size-bytes": int64(16 << 20),
	}
}

// ledger is a reader of the ledger: a consumer of the stream that counts no credit for long, since
// every record is acknowledged as it is handed out (consumer_timeout counts for streams too).
type ledger struct {
	link    *link
	ch      *amqp091.Channel
	records <-chan amqp091.Delivery
	closes  <-chan *amqp091.Error
	from    int64 // records before it come first where a chunk of the stream begins with them
}

// OpenLedger returns once the stream has a member that answers: one that was just declared, or whose
// node has just started, may have none, and whoever publishes to it then loses the connection. That
// is waited for, at most for the call timeout; ctx is looked at between the tries.
func (l *link) OpenLedger(ctx context.Context, from int64) (broker.Ledger, error) {
	r, err := l.openLedger(ctx, from)
	if err != nil {
		return nil, fmt.Errorf("open the ledger: %w", l.failed(err))
	}
	return r, nil
}

func (l *link) openLedger(ctx context.Context, from int64) (*ledger, error) {
	late := time.After(l.o.CallTimeout)
	for {
		restricted := false
		_, err := l.ensureQueue(broker.StreamLedger, &restricted, ledgerArgs(), broker.ExchangeLedger, "")
		if restricted {
			return nil, errors.Join(errors.New("only the user of a runner may"), err)
		}
		var r *ledger
		if err == nil {
			r, err = l.consumeLedger(from)
		}
		if err == nil {
			return r, nil
		}
		if _, exception := errors.AsType[*amqp091.Error](err); !exception || l.consuming.IsClosed() {
			return nil, err
		}
		select {
		case <-time.After(registerAgain):
		case <-late:
			return nil, err
		case <-l.done:
			return nil, l.gone(err)
		case <-ctx.Done():
			return nil, errors.Join(context.Cause(ctx), err)
		}
	}
}

func (l *link) consumeLedger(from int64) (*ledger, error) {
	r := &ledger{link: l, from: from}
	err := l.consuming.watched(func() (err error) {
		if r.ch, err = l.consuming.Channel(); err != nil {
			return err
		}
		r.closes = r.ch.NotifyClose(make(chan *amqp091.Error, 1))
		if err = r.ch.Qos(ledgerAhead, 0, false); err != nil {
			return err
		}
		at := amqp091.Table{"x-stream-offset": "first"}
		if from > 0 {
			at["x-stream-offset"] = from
		}
		r.records, err = r.ch.Consume(broker.StreamLedger, "", false, false, false, false, at)
		return err
	})
	if err != nil && r.ch != nil {
		_ = l.consuming.watched(r.ch.Close) // an exception has closed it already
	}
	return r, err
}

// Next ends the link when the stream is taken away or the channel fails.
func (r *ledger) Next(ctx context.Context) (broker.Record, error) {
	for {
		select {
		case d, ok := <-r.records:
			if !ok {
				return broker.Record{}, r.taken()
			}
			if err := r.ch.Ack(d.DeliveryTag, false); err != nil {
				r.link.end(fmt.Errorf("acknowledge a record of the ledger: %w", err))
				return broker.Record{}, r.gone(err)
			}
			offset, ok := d.Headers[headerOffset].(int64)
			if !ok || offset < r.from {
				continue
			}
			delete(d.Headers, headerOffset)
			return broker.Record{Message: decode(d).Message, Offset: offset}, nil
		case <-ctx.Done():
			return broker.Record{}, fmt.Errorf("read the ledger: %w", context.Cause(ctx))
		case <-r.link.done:
			return broker.Record{}, r.gone(nil)
		}
	}
}

// taken is the end of the records before that of the link.
func (r *ledger) taken() error {
	err := error(errTakenAway)
	select {
	case closed := <-r.closes:
		if closed != nil {
			err = closed
		}
	default:
	}
	if !r.link.consuming.IsClosed() { // else supervise knows more
		r.link.end(fmt.Errorf("the ledger: %w", err))
	}
	<-r.link.done
	return r.gone(nil)
}

func (r *ledger) gone(err error) error { return fmt.Errorf("read the ledger: %w", r.link.gone(err)) }
