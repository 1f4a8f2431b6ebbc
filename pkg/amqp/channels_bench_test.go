package amqp

import (
	"fmt"
	"slices"
	"testing"

	amqp091 "github.com/rabbitmq/amqp091-go"

	"github.com/wscluster/wscluster/pkg/broker"
	"github.com/wscluster/wscluster/pkg/wire"
)

// benchExchange declares an exchange beside those of the cluster.
func benchExchange(b *testing.B, l *link, kind string) string {
	b.Helper()
	name := "bench." + string(server())
	err := l.consuming.try(func(ch *amqp091.Channel) error {
		return ch.ExchangeDeclare(name, kind, true, false, false, false, nil)
	})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		_ = l.consuming.try(func(ch *amqp091.Channel) error { return ch.ExchangeDelete(name, false, false) })
	})
	return name
}

func benchNames(n int) (names []wire.Channel) {
	s := server()
	for i := range n {
		names = append(names, wire.Channel(fmt.Sprintf("%s.%d", s, i)))
	}
	return names
}

// Transient posts of 256 bytes, each confirmed, a window of them in flight, to one of 5,000 channels that a worker
// has bound: as it is, with # beside that, and what a bare direct or topic exchange would do.
func BenchmarkPost(b *testing.B) {
	const window, bound = 1024, 5000
	names := benchNames(bound)
	for _, way := range []string{"by-name", "all", "by-name-and-all", "direct", "topic"} {
		b.Run(way, func(b *testing.B) {
			s := server()
			l := join(b, open(b, Options{Window: window}), broker.Worker(s))
			opened, err := l.OpenChannels(bounded(b), s)
			if err != nil {
				b.Fatal(err)
			}
			c := opened.(*channels)
			exchange := broker.ExchangeChannels
			if way == "by-name" || way == "by-name-and-all" {
				err = c.Bind(bounded(b), names...)
			}
			if err == nil && (way == "all" || way == "by-name-and-all") {
				err = c.BindAll(bounded(b))
			}
			if way == "direct" || way == "topic" {
				exchange = benchExchange(b, l, way)
				err = c.bind(bounded(b), exchange, names...)
			}
			if err != nil {
				b.Fatal(err)
			}
			ctx := bounded(b)
			post := broker.Message{ID: "0197e7a0-0000-7000-8000-000000000000", Transient: true, Body: make([]byte, 256), Headers: map[string]any{
				"publisher": "i1-w1", "stream": "0197e7a0-0000-7000-8000-000000000000", "seq": int64(1000),
			}}

			b.Run("throughput", func(b *testing.B) {
				consumed := make(chan struct{})
				go func() {
					defer close(consumed)
					for range b.N {
						<-c.Posts()
					}
				}()
				var last broker.Receipt
				for i := range b.N {
					last, err = l.Publish(ctx, broker.Address{Exchange: exchange, Key: string(names[i%bound])}, post)
					if err != nil {
						b.Fatal(err)
					}
				}
				<-last.Done()
				<-consumed
			})
			b.Run("latency", func(b *testing.B) {
				for i := range b.N {
					if _, err := l.Publish(ctx, broker.Address{Exchange: exchange, Key: string(names[i%bound])}, post); err != nil {
						b.Fatal(err)
					}
					<-c.Posts()
				}
			})
			b.Run("confirm", func(b *testing.B) {
				for i := range b.N {
					r, err := l.Publish(ctx, broker.Address{Exchange: exchange, Key: string(names[i%bound])}, post)
					if err != nil {
						b.Fatal(err)
					}
					<-r.Done()
					<-c.Posts()
				}
			})
		})
	}
}

// 5,000 bindings of one queue, which are one operation: to a direct exchange as Bind makes them and with an answer
// to each, and to a topic exchange.
func BenchmarkBind(b *testing.B) {
	names := benchNames(5000)
	s := server()
	l := join(b, open(b, Options{}), broker.Worker(s))
	opened, err := l.OpenChannels(bounded(b), s)
	if err != nil {
		b.Fatal(err)
	}
	c := opened.(*channels)
	for _, way := range []struct {
		name, exchange string
		batch          int
	}{
		{"direct", benchExchange(b, l, "direct"), len(names)},
		{"direct-one-by-one", benchExchange(b, l, "direct"), 1},
		{"topic", benchExchange(b, l, "topic"), len(names)},
	} {
		bind := func() error {
			for batch := range slices.Chunk(names, way.batch) {
				if err := c.bind(bounded(b), way.exchange, batch...); err != nil {
					return err
				}
			}
			return nil
		}
		unbind := func() error { return c.unbind(bounded(b), way.exchange, names...) }
		for _, half := range []struct {
			name          string
			before, timed func() error
		}{{"bind", unbind, bind}, {"unbind", bind, unbind}} {
			b.Run(way.name+"/"+half.name, func(b *testing.B) {
				for range b.N {
					b.StopTimer()
					if err := half.before(); err != nil {
						b.Fatal(err)
					}
					b.StartTimer()
					if err := half.timed(); err != nil {
						b.Fatal(err)
					}
				}
				b.ReportMetric(float64(len(names)*b.N)/b.Elapsed().Seconds(), "bindings/s")
			})
		}
	}
}
