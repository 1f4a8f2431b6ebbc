//go:build long

package amqp

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/wscluster/wscluster/internal/rig"
	"github.com/wscluster/wscluster/pkg/broker"
)

// TestAMailboxTakesPublishesAgainSoonAfterTheNodeThatLedItDied kills the node that leads a mailbox and to which its
// publisher is joined, again and again, and publishes from the moment that the publisher has another link.
func TestAMailboxTakesPublishesAgainSoonAfterTheNodeThatLedItDied(t *testing.T) {
	const rounds = 8
	ctx := t.Context()
	c, err := rig.StartRabbitMQCluster(ctx, 3, rig.RabbitOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Stop(); err != nil {
			t.Error(err)
		}
	})
	urls := c.URLs("worker")
	s, other := server(), server()
	for round := range rounds {
		// The mailbox has no owner now; who makes it leaves it behind.
		maker, err := open(t, Options{URLs: urls, MailboxType: Quorum}).Join(ctx, broker.Worker(s))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := maker.OpenMailbox(ctx, s, 10); err != nil {
			t.Fatal(err)
		}
		if err := maker.Close(ctx); err != nil {
			t.Fatal(err)
		}
		led, err := c.Leader(ctx, broker.MailboxQueue(s))
		if err != nil {
			t.Fatal(err)
		}
		order := append(slices.Clone(urls[led:]), urls[:led]...) // its own node first
		b := open(t, Options{URLs: order})
		var killed time.Time
		stored := make(chan time.Duration, 1)
		keeping, stop := context.WithCancel(ctx)
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			_ = broker.Keep(keeping, b, broker.Worker(other), broker.KeepOptions{}, func(ctx context.Context, l broker.Link) error {
				if l.Generation() == 1 {
					killed = time.Now()
					c.Nodes[led].Kill()
					<-l.Done()
					return l.Err()
				}
				for {
					r, err := l.Publish(ctx, broker.ToMailbox(s), broker.Message{ID: "m", Body: []byte("{}")})
					if err != nil {
						return err
					}
					if outcome, _ := broker.Await(ctx, r); outcome == broker.Stored {
						stored <- time.Since(killed)
						<-ctx.Done()
						return nil
					}
					select {
					case <-time.After(100 * time.Millisecond):
					case <-ctx.Done():
						return nil
					case <-l.Done():
						return l.Err()
					}
				}
			})
		}()
		select {
		case after := <-stored:
			t.Logf("round %d: node %d killed, stored after %v on link %d", round, led, after, b.links.Load())
		case <-time.After(stuckAfter + 20*time.Second):
			t.Errorf("round %d: node %d killed, and nothing was stored", round, led)
		}
		stop()
		<-ended
		if err := c.Nodes[led].Restart(ctx); err != nil {
			t.Fatal(err)
		}
		if err := c.AwaitWhole(ctx); err != nil {
			t.Fatal(err)
		}
	}
}
