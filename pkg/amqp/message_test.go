package amqp

import (
	"errors"
	"maps"
	"strings"
	"testing"
	"time"

	amqp091 "github.com/rabbitmq/amqp091-go"

	"github.com/wscluster/wscluster/pkg/broker"
	"github.com/wscluster/wscluster/pkg/wire"
)

func TestWhatAMQPCannotCarryIsNotSent(t *testing.T) {
	long := strings.Repeat("x", 256)
	many := map[string]any{}
	for _, c := range "abcdefghijklmnopqrstuvwxyz" {
		many[string(c)] = strings.Repeat("x", 4<<10)
	}
	s := server()
	l := join(t, open(t, Options{}), broker.Worker(s))
	for name, m := range map[string]broker.Message{
		"ID":          {ID: long},
		"type":        {Type: long},
		"content":     {Content: long},
		"correlation": {Correlation: long},
		"app":         {App: long},
		"header name": {Headers: map[string]any{long: true}},
		"headers":     {Headers: many},
	} {
		if _, err := l.Publish(bounded(t), broker.ToMailbox(s), m); !errors.Is(err, broker.ErrTooLarge) {
			t.Errorf("%s: got %v, want ErrTooLarge", name, err)
		}
	}
	if _, err := l.Publish(bounded(t), broker.ToTasks(long, wire.Normal), broker.Message{}); !errors.Is(err, broker.ErrTooLarge) {
		t.Errorf("address: got %v, want ErrTooLarge", err)
	}
	delete(many, "a")
	for c := range many {
		if len(many) > 14 { // as much as fits
			delete(many, c)
		}
	}
	m := own(t, l, s, 10)
	if o := outcome(t, publish(t, l, broker.ToMailbox(s), broker.Message{ID: "most", Headers: many, Body: make([]byte, broker.MaxMessage)})); o != broker.Stored {
		t.Errorf("as much as fits: %v, want stored", o)
	}
	if d := <-m.Deliveries(); !maps.Equal(d.Headers, many) {
		t.Errorf("as much as fits: %d headers arrived, want %d", len(d.Headers), len(many))
	}
}

// Publishers in other languages send other types, and brokers add headers of their own.
func TestStrangersHeadersAreMadeOurs(t *testing.T) {
	got := decode(amqp091.Delivery{
		Headers: amqp091.Table{
			"string": "x", "int64": int64(-1), "bool": true,
			"bytes": []byte("y"), "int8": int8(-8), "uint8": uint8(8), "int16": int16(-16), "uint16": uint16(16),
			"int32": int32(-32), "uint32": uint32(32), "int": 64,
			"float": 1.5, "time": time.Now(), "table": amqp091.Table{"a": 1}, "nil": nil,
			"x-death":           []any{amqp091.Table{"count": int64(1)}},
			headerDeliveryCount: int64(3), headerPublish: int64(4),
		},
		Timestamp: time.Date(2026, 11, 22, 1, 2, 3, 0, time.FixedZone("", 3600)),
	})
	want := map[string]any{
		"string": "x", "int64": int64(-1), "bool": true,
		"bytes": "y", "int8": int64(-8), "uint8": int64(8), "int16": int64(-16), "uint16": int64(16),
		"int32": int64(-32), "uint32": int64(32), "int": int64(64),
	}
	if !maps.Equal(got.Headers, want) {
		t.Errorf("got %v, want %v", got.Headers, want)
	}
	if got.Time.Location() != time.UTC || got.Time.Hour() != 0 {
		t.Errorf("time %v, want it in UTC", got.Time)
	}
	if !got.Transient {
		t.Error("a message without a delivery mode is transient")
	}
	if d := decode(amqp091.Delivery{}); d.Headers != nil || !d.Time.IsZero() {
		t.Errorf("an empty delivery: got %+v", d)
	}
}

func TestAttemptCountsThisDelivery(t *testing.T) {
	for _, c := range []struct {
		d    amqp091.Delivery
		want int
	}{
		{amqp091.Delivery{}, 1},
		{amqp091.Delivery{Redelivered: true, Headers: amqp091.Table{headerDeliveryCount: int64(2)}}, 3},
		{amqp091.Delivery{Redelivered: true}, 0}, // a classic queue does not count
	} {
		if got := attempt(c.d); got != c.want {
			t.Errorf("%v: got %d, want %d", c.d.Headers, got, c.want)
		}
	}
}
