package broker_test

import (
	"context"
	"fmt"

	"github.com/wscluster/wscluster/pkg/broker"
	"github.com/wscluster/wscluster/pkg/broker/memory"
)

// A worker keeps its place at the broker, and settles what comes into its mailbox.
func ExampleKeep() {
	ctx, cancel := context.WithCancel(context.Background())
	b := memory.New(memory.Options{})
	err := broker.Keep(ctx, b, broker.Worker("i1-w3"), broker.KeepOptions{}, func(ctx context.Context, l broker.Link) error {
		mailbox, err := l.OpenMailbox(ctx, "i1-w3", 100)
		if err != nil {
			return err
		}
		receipt, err := l.Publish(ctx, broker.ToMailbox("i1-w3"), broker.Message{ID: "hello", Body: []byte(`{}`)})
		if err != nil {
			return err
		}
		outcome, err := broker.Await(ctx, receipt)
		fmt.Println(outcome, err)
		for {
			select {
			case d, ok := <-mailbox.Deliveries():
				if !ok {
					return mailbox.Err()
				}
				fmt.Println("got", d.ID)
				if err := mailbox.Ack(d.Tag); err != nil {
					return err
				}
				cancel() // enough for an example
			case <-ctx.Done():
				return nil
			}
		}
	})
	fmt.Println("end", err)
	// Output:
	// stored <nil>
	// got hello
	// end <nil>
}
