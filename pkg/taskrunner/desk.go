package taskrunner

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/wscluster/wscluster/pkg/broker"
	"github.com/wscluster/wscluster/pkg/wire"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"
)

// desk carries out, over one link, the orders that may block. It ends with the link, and with it what
// was not carried out: the scheduler orders that again over the next one, or it means nothing any more.
type desk struct {
	link  broker.Link
	shift *shift

	writes, settles inTray
	current         chan struct{} // closed once the ledger was read up to this link
	once            sync.Once
	plans           chan struct{} // cap 1: the plan has changed

	asked chan broker.Identity // cap maxAsked: workers that want to know the kinds
	loads chan struct{}        // cap 1: perhaps more or fewer tasks run
}

// maxAsked bounds the workers that wait for an answer; others hear the kinds when all do.
const maxAsked = 100

func newDesk(link broker.Link, s *shift) *desk {
	return &desk{link: link, shift: s, writes: newInTray(), settles: newInTray(), current: make(chan struct{}), plans: make(chan struct{}, 1), asked: make(chan broker.Identity, maxAsked), loads: make(chan struct{}, 1)}
}

// hold is one delivery that is to be settled.
type hold struct {
	from broker.Consumer
	tag  uint64
	dead *broker.Message // of a dead task: what to keep for the operator first; nil for others
}

func (h hold) settle(log *zap.Logger) {
	if err := h.from.Ack(h.tag); err != nil && !errors.Is(err, broker.ErrLinkGone) {
		log.Warn("task not acknowledged, it will come again", zap.Error(err))
	}
}

// put takes an order: to settle or requeue a delivery, to write to the ledger, or to probe a runner.
func (d *desk) put(o order) {
	if o.verb == settle || o.verb == requeue {
		d.settles.put(o)
	} else {
		d.writes.put(o)
	}
}

// changed is called after every change of the plan, under the shift's lock.
func (d *desk) changed() {
	if d.shift.plan.current {
		d.once.Do(func() { close(d.current) })
	}
	for _, changed := range []chan struct{}{d.plans, d.loads} {
		select {
		case changed <- struct{}{}:
		default:
		}
	}
}

func (d *desk) waitCurrent(ctx context.Context) error {
	select {
	case <-d.current:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// write writes to the ledger and probes runners, in order. A record that is not stored ends the link.
func (d *desk) write(ctx context.Context, g *errgroup.Group) error {
	for {
		o, err := d.writes.take(ctx)
		if err != nil {
			return err
		}
		if o.verb == probe {
			err = d.probe(ctx, g, o.runner)
		} else {
			err = d.record(ctx, g, o.record)
		}
		if err != nil {
			return err
		}
	}
}

func (d *desk) record(ctx context.Context, g *errgroup.Group, r *wire.LedgerRecord) error {
	body, err := wire.EncodeLedger(r)
	if err != nil {
		return err
	}
	receipt, err := d.link.Publish(ctx, broker.ToLedger(), broker.Message{
		ID: string(wire.NewRunID()), Type: string(r.Op), Correlation: string(r.Task),
		App: d.shift.app(), Time: time.Now(), Body: body,
	})
	if err != nil {
		return fmt.Errorf("write to the ledger: %w", err)
	}
	g.Go(func() error {
		outcome, err := broker.Await(ctx, receipt)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if outcome != broker.Stored {
			return fmt.Errorf("write to the ledger: %v: %w", outcome, errors.Join(err, d.link.Err()))
		}
		return nil
	})
	return nil
}

// probeType is the type of a message of one runner to another that asks nothing but whether it is returned. Unlike a worker's
// its body names nobody.
var probeType = (*wire.Probe)(nil).ControlType()

// probe sees whether a runner is there. Without an answer nothing is said.
func (d *desk) probe(ctx context.Context, g *errgroup.Group, runner string) error {
	receipt, err := d.link.Publish(ctx, broker.ToControl(broker.Runner(runner)), broker.Message{
		Type: probeType, App: d.shift.app(), Time: time.Now(), Body: []byte("{}"), Transient: true,
	})
	if err != nil {
		return fmt.Errorf("probe runner %s: %w", runner, err)
	}
	g.Go(func() error {
		outcome, _ := broker.Await(ctx, receipt)
		if outcome != broker.Unknown {
			d.shift.do(func(plan *scheduler, now time.Time) { plan.probed(runner, outcome == broker.Returned, now) })
		}
		return nil
	})
	return nil
}

// settle acknowledges tasks and gives them back.
func (d *desk) settle(ctx context.Context, g *errgroup.Group) error {
	for {
		o, err := d.settles.take(ctx)
		if err != nil {
			return err
		}
		if o.verb == settle && o.hold.dead != nil {
			g.Go(func() error { d.shift.keep(ctx, d.link, o.hold); return nil })
		} else if o.verb == settle {
			o.hold.settle(d.shift.log)
		} else if err := o.hold.from.Requeue(o.hold.tag); err != nil {
			return fmt.Errorf("give a task back: %w", err)
		}
	}
}

// gate holds the deliveries of from off while there is no place for them.
func (d *desk) gate(ctx context.Context, from broker.Consumer) error {
	paused := false
	for {
		d.shift.mu.Lock()
		full, over := d.shift.plan.full(), len(d.shift.plan.waiting) > 0
		d.shift.mu.Unlock()
		var err error
		switch {
		case full && !paused:
			err = from.Pause(ctx)
		case !full && paused:
			err = from.Resume(ctx)
		}
		if err != nil {
			return err
		}
		if paused = full; paused && over {
			d.shift.do(func(plan *scheduler, _ time.Time) { plan.turnAway() })
		}
		select {
		case <-d.plans:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// inTray is orders that wait, in order. It is unbounded: nothing in it was not asked for by a job, a
// delivery or a runner, and each of these is bounded.
type inTray struct {
	mu     *sync.Mutex
	orders *[]order
	filled chan struct{} // cap 1
}

func newInTray() inTray {
	return inTray{new(sync.Mutex), new([]order), make(chan struct{}, 1)}
}

func (t inTray) put(o order) {
	t.mu.Lock()
	*t.orders = append(*t.orders, o)
	t.mu.Unlock()
	select {
	case t.filled <- struct{}{}:
	default:
	}
}

// take waits for an order.
func (t inTray) take(ctx context.Context) (order, error) {
	for {
		t.mu.Lock()
		if all := *t.orders; len(all) > 0 {
			*t.orders = all[1:]
			t.mu.Unlock()
			return all[0], nil
		}
		t.mu.Unlock()
		select {
		case <-t.filled:
		case <-ctx.Done():
			return order{}, context.Cause(ctx)
		}
	}
}
