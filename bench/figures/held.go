package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/wscluster/wscluster/bench/load"
	"github.com/wscluster/wscluster/pkg/batch"
	"github.com/wscluster/wscluster/pkg/broker"
)

// eventsBesideHeld is how many durable events a second, each a message of its own, come to clients while the worker holds
// others for clients that are away. The baseline is the same without those, before.
var eventsBesideHeld = figure{
	name: "events-beside-held", unit: "1/s", floor: floor{ofRatio: true, atLeast: true, limit: 0.8},
	measure: measureBesideHeld,
}

const (
	heldClients = 20
	heldEvents  = 10_000
	heldRounds  = 5
	heldWithin  = time.Minute
)

func measureBesideHeld(ctx context.Context, l *lab) (rounds []sample, err error) {
	err = l.withTakers(ctx, func(ctx context.Context, t *takersOf) error {
		g, ctx := errgroup.WithContext(ctx)
		running, stop := context.WithCancel(ctx)
		p := batch.New(t.link, batch.Options{Single: true})
		g.Go(func() error { return p.Run(running) })
		g.Go(func() error {
			defer stop()
			rates := make([][2]float64, heldRounds+1) // the first warms up
			for held := range 2 {
				if held == 1 {
					if err := t.hold(ctx, p); err != nil {
						return err
					}
				}
				for i := range rates {
					if rates[i][held], err = t.rate(ctx, p); err != nil {
						return err
					}
				}
			}
			for _, r := range rates[1:] {
				l.Logf("  %d events: %.0f/s, beside %d that are held %.0f/s (%.2f)", rateEvents, r[0], heldEvents, r[1], r[1]/r[0])
				rounds = append(rounds, sample{r[1], r[0]})
			}
			return nil
		})
		return g.Wait()
	})
	return rounds, err
}

// hold has clients go away, publishes events for them, and waits until the worker holds those.
func (t *takersOf) hold(ctx context.Context, p *batch.Publisher) error {
	w := t.cluster.Workers[0]
	away, err := load.Connect(ctx, heldClients, w.Addr)
	if err != nil {
		return err
	}
	absent := newTakers(away)
	away.Close()
	receipts := make([]broker.Receipt, 0, heldEvents)
	for i := range heldEvents {
		e := absent.next(i % heldClients)
		r, err := p.Publish(ctx, e.Home, e, "")
		if err != nil {
			return err
		}
		receipts = append(receipts, r)
	}
	for _, r := range receipts {
		if outcome, err := broker.Await(ctx, r); outcome != broker.Stored {
			return fmt.Errorf("an event was not stored: %v, %w", outcome, err)
		}
	}
	ctx, cancel := context.WithTimeoutCause(ctx, heldWithin, errors.New("the worker does not hold all events of those that are away"))
	defer cancel()
	for {
		held, err := metric(ctx, w.Internal, "wscluster_mailbox_held_events")
		if err != nil || held >= heldEvents {
			return err
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}
