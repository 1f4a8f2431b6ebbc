package channel_test

import (
	"context"
	"fmt"

	"github.com/wscluster/wscluster/pkg/broker"
	"github.com/wscluster/wscluster/pkg/broker/memory"
	"github.com/wscluster/wscluster/pkg/channel"
)

// A program of its own publishes to two channels. With RabbitMQ, the broker comes from pkg/amqp.
func Example() {
	prices, err := channel.New(channel.Options{Name: "prices"})
	if err != nil {
		panic(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	done := make(chan error)
	go func() {
		done <- broker.Keep(ctx, memory.New(memory.Options{}), broker.Runner("prices"), broker.KeepOptions{}, prices.Serve)
	}()

	err = prices.Publish(channel.Message{Name: "price", Key: "gold", Body: []byte(`{"metal":"gold","eur":2871.5}`)}, "prices", "prices.gold")
	fmt.Println("published:", err == nil)

	stop() // what waits is published before it ends, within two seconds
	fmt.Println("stopped:", <-done)
	fmt.Printf("kept for who comes later: %s\n", prices.Kept("prices.gold")[0].Body)
	// Output:
	// published: true
	// stopped: <nil>
	// kept for who comes later: {"metal":"gold","eur":2871.5}
}
