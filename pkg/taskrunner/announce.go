package taskrunner

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/wscluster/wscluster/pkg/broker"
	"github.com/wscluster/wscluster/pkg/wire"
)

const (
	announceEvery = 30 * time.Second // workers are told the kinds. They forget a runner of which they missed three
	announceGap   = time.Second      // at least between two announcements, however often the load changes
)

// offers returns what a runner says of its kinds.
func offers(kinds map[string]Kind) (all []wire.KindOffer) {
	for _, name := range slices.Sorted(maps.Keys(kinds)) {
		k := kinds[name]
		all = append(all, wire.KindOffer{Kind: name, Schema: k.Schema, TimeoutMS: k.Timeout.Milliseconds()})
	}
	return all
}

// announcedBytes is about the size of the message with those offers, and never less.
func announcedBytes(all []wire.KindOffer) int {
	n := 200
	for _, k := range all {
		n += 100 + len(k.Kind) + len(k.Schema)
	}
	return n
}

// announce tells workers over one link what this runner takes and how many tasks it works on: all of them at once,
// every 30 s and when that number changes, a second later if it has to be; each that asks; and all when it stops that it
// takes nothing any more. An announcement may be lost.
func (s *shift) announce(ctx context.Context, link broker.Link, d *desk, slots int) error {
	kinds := &wire.Kinds{Runner: s.name, Slots: slots, Kinds: offers(s.kinds)}
	tick := time.NewTicker(announceEvery)
	defer tick.Stop()
	var told int             // the load that all have heard of
	var gap <-chan time.Time // it has changed, but they have just heard of another one
	since := time.Now()
	for to := broker.ToAll(); ; {
		if kinds.Running = s.placed(); to == broker.ToAll() {
			told, since, gap = kinds.Running, time.Now(), nil
		}
		if to != (broker.Address{}) {
			if err := s.say(ctx, link, to, kinds); err != nil {
				return err
			}
		}
		to = broker.Address{}
		select {
		case <-tick.C:
			to = broker.ToAll()
		case <-d.loads:
			if gap == nil && s.placed() != told {
				gap = time.After(announceGap - time.Since(since))
			}
		case <-gap:
			if gap = nil; s.placed() != told {
				to = broker.ToAll()
			}
		case worker := <-d.asked:
			to = broker.ToControl(worker)
		case <-s.stopping:
			return s.farewell(ctx, link, slots)
		case <-ctx.Done():
			select {
			case <-s.stopping: // with nothing left to do, the link goes at once
				return s.farewell(ctx, link, slots)
			default:
				return context.Cause(ctx)
			}
		}
	}
}

// placed is how many tasks this runner works on.
func (s *shift) placed() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.plan.placed()
}

// farewell says that this runner takes nothing any more, also when ctx has ended.
func (s *shift) farewell(ctx context.Context, link broker.Link, slots int) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	return s.say(ctx, link, broker.ToAll(), &wire.Kinds{Runner: s.name, Slots: slots})
}

// say publishes a control message. Whether anybody is there to hear it is not awaited.
func (s *shift) say(ctx context.Context, link broker.Link, to broker.Address, m wire.ControlMessage) error {
	_, err := link.Publish(ctx, to, broker.Message{
		Type: m.ControlType(), App: s.app(), Time: time.Now(), Body: wire.EncodeControl(m), Transient: true,
	})
	if err != nil {
		return fmt.Errorf("say %s: %w", m.ControlType(), err)
	}
	return nil
}
