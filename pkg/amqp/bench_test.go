package amqp

import (
	"testing"

	amqp091 "github.com/rabbitmq/amqp091-go"

	"github.com/wscluster/wscluster/pkg/broker"
)

// Durable messages of 256 bytes with twelve headers through one mailbox, each confirmed and each
// acknowledged, a window of them in flight: this package, and the bare library beside it.
func BenchmarkDurable(b *testing.B) {
	const window = 1024
	message := broker.Message{ID: "0197e7a0-0000-7000-8000-000000000000", Type: "progress", Body: make([]byte, 256), Headers: map[string]any{
		"client_id": "0197e7a0-0000-7000-8000-000000000000", "task": "0197e7a0-0000-7000-8000-000000000001", "run": "0197e7a0-0000-7000-8000-000000000002",
		"attempt": int64(1), "seq": int64(1000), "prev": int64(999), "epoch": int64(1_790_000_000_000), "home": "i1-w1",
		"durable": true, "last": false, "hops": int64(0), "traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
	}}

	b.Run("link", func(b *testing.B) {
		s := server()
		l := join(b, open(b, Options{Window: window}), broker.Worker(s))
		m := own(b, l, s, window)
		ctx := bounded(b)
		consumed := make(chan struct{})
		go func() {
			defer close(consumed)
			for range b.N {
				_ = m.Ack((<-m.Deliveries()).Tag)
			}
		}()
		var last broker.Receipt
		b.ResetTimer()
		for range b.N {
			r, err := l.Publish(ctx, broker.ToMailbox(s), message)
			if err != nil {
				b.Fatal(err)
			}
			last = r
		}
		<-last.Done()
		<-consumed
	})

	b.Run("library", func(b *testing.B) {
		s := server()
		l := join(b, open(b, Options{}), broker.Worker(s))
		if err := own(b, l, s, 1).Close(bounded(b)); err != nil {
			b.Fatal(err)
		}
		publish, err := l.publishing.Channel()
		if err != nil {
			b.Fatal(err)
		}
		consume, err := l.consuming.Channel()
		if err != nil {
			b.Fatal(err)
		}
		if err := publish.Confirm(false); err != nil {
			b.Fatal(err)
		}
		if err := consume.Qos(window, 0, false); err != nil {
			b.Fatal(err)
		}
		in, err := consume.Consume(broker.MailboxQueue(s), "", false, true, false, false, nil)
		if err != nil {
			b.Fatal(err)
		}
		consumed := make(chan struct{})
		go func() {
			defer close(consumed)
			for range b.N {
				_ = (<-in).Ack(false)
			}
		}()
		inFlight := make(chan *amqp091.DeferredConfirmation, window)
		confirmed := make(chan struct{})
		go func() {
			defer close(confirmed)
			for c := range inFlight {
				c.Wait()
			}
		}()
		b.ResetTimer()
		for range b.N {
			c, err := publish.PublishWithDeferredConfirm(broker.ExchangeUtils, string(s), true, false, amqp091.Publishing{
				DeliveryMode: persistent, MessageId: message.ID, Type: message.Type, Headers: amqp091.Table(message.Headers), Body: message.Body,
			})
			if err != nil {
				b.Fatal(err)
			}
			inFlight <- c
		}
		close(inFlight)
		<-confirmed
		<-consumed
	})
}
