package mailbox

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"github.com/wscluster/wscluster/internal/session"
	"github.com/wscluster/wscluster/pkg/broker"
	"github.com/wscluster/wscluster/pkg/wire"
)

// serve owns the mailbox for the life of one link.
func (m *Mailbox) serve(ctx context.Context, link broker.Link) error {
	inbox, err := link.OpenMailbox(ctx, m.o.Server, m.o.MaxHeld)
	if err != nil {
		return fmt.Errorf("open the mailbox of %s: %w", m.o.Server, err)
	}
	l := &life{Mailbox: m, link: link, consumer: inbox, invalid: make(chan broker.Delivery, maxInvalid)}
	m.setOpen(true, "")
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return l.own(ctx) })
	g.Go(func() error { return l.bury(ctx) })
	g.Go(func() error { return m.publish(ctx, link) })
	err = g.Wait()

	m.setOpen(false, "")
	dropped := m.o.Sessions.Forget(link.Generation())
	m.o.Metrics.Held.Set(0)
	m.o.Metrics.HeldBytes.Set(0)
	m.o.Log.Info("the mailbox is given up; what was held will be delivered again",
		zap.Int("held", dropped), zap.Error(err))
	return err
}

func (m *Mailbox) setOpen(open bool, capped string) {
	m.mu.Lock()
	m.open, m.capped = open, capped
	m.mu.Unlock()
}

// life is one ownership of the mailbox: from acquiring it to the end of its link.
type life struct {
	*Mailbox
	link     broker.Link
	consumer broker.Consumer
	invalid  chan broker.Delivery // could not be read; bury takes them

	// Touched only by own.
	held, bytes int // delivered and not settled
	paused      bool
}

// maxInvalid bounds the unreadable messages that wait to be buried; beyond it the mailbox waits too.
const maxInvalid = 64

// own takes deliveries and settles what is done with, until the life ends.
func (l *life) own(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case d, ok := <-l.consumer.Deliveries():
			if !ok {
				return fmt.Errorf("the mailbox of %s was taken away: %w", l.o.Server, errors.Join(l.consumer.Err(), broker.ErrLinkGone))
			}
			if err := l.take(ctx, d); err != nil {
				return err
			}
		case <-l.settle:
			if err := l.settleAll(); err != nil {
				return err
			}
		}
		if err := l.throttle(ctx); err != nil {
			return err
		}
	}
}

// take passes one delivery to its session, or to bury.
func (l *life) take(ctx context.Context, d broker.Delivery) error {
	l.count(1, len(d.Body))
	e, err := wire.DecodeEvent(d.Type, d.Correlation, d.Headers, d.Body)
	if err != nil {
		l.o.Metrics.Events.WithLabelValues("bad_body").Inc()
		l.o.Log.Warn("an event cannot be read and goes to the queue "+broker.QueueDeadEvents,
			zap.String("app", d.App), zap.String("message_id", d.ID), zap.Error(err))
		select {
		case l.invalid <- d:
		case <-ctx.Done():
		}
		return nil
	}
	ref := session.Ref{Generation: l.link.Generation(), Tag: d.Tag, Bytes: len(d.Body)}
	if l.o.Sessions.Deliver(&e, ref, time.Now()) {
		l.o.Metrics.Events.WithLabelValues("passed").Inc()
		return l.ack(ref)
	}
	l.o.Metrics.Events.WithLabelValues("held").Inc()
	return nil
}

// settleAll acknowledges to the broker what the clients have.
func (l *life) settleAll() error {
	l.mu.Lock()
	refs := l.settled
	l.settled = nil
	l.mu.Unlock()
	for _, r := range refs {
		if r.Generation != l.link.Generation() {
			continue // of an earlier life: it has been delivered again under another tag
		}
		l.o.Metrics.Events.WithLabelValues("delivered").Inc()
		if err := l.ack(r); err != nil {
			return err
		}
	}
	return nil
}

func (l *life) ack(r session.Ref) error {
	l.count(-1, -r.Bytes)
	if err := l.consumer.Ack(r.Tag); err != nil {
		return fmt.Errorf("settle a delivery of the mailbox of %s: %w", l.o.Server, err)
	}
	return nil
}

func (l *life) count(events, bytes int) {
	l.held += events
	l.bytes += bytes
	l.o.Metrics.Held.Set(float64(l.held))
	l.o.Metrics.HeldBytes.Set(float64(l.bytes))
}

// throttle stops the deliveries at the caps, says so, and starts them again at three quarters.
func (l *life) throttle(ctx context.Context) error {
	full := l.held >= l.o.MaxHeld || l.bytes >= l.o.MaxHeldBytes
	low := l.held <= l.o.MaxHeld/4*3 && l.bytes <= l.o.MaxHeldBytes/4*3
	switch {
	case full && !l.paused:
		why := fmt.Sprintf("%d events (%d bytes) wait for their clients, at the cap of %d events or %d bytes: no more are taken from the mailbox until some are acknowledged",
			l.held, l.bytes, l.o.MaxHeld, l.o.MaxHeldBytes)
		l.paused = true
		l.setOpen(true, why)
		l.o.Log.Warn(why)
		return l.consumer.Pause(ctx)
	case low && l.paused:
		l.paused = false
		l.setOpen(true, "")
		l.o.Log.Info("the mailbox takes events again", zap.Int("held", l.held), zap.Int("bytes", l.bytes))
		return l.consumer.Resume(ctx)
	}
	return nil
}

// bury publishes what cannot be read to the dead events, with the reason, and settles it after
// the broker has confirmed the copy.
func (l *life) bury(ctx context.Context) error {
	for {
		var d broker.Delivery
		select {
		case <-ctx.Done():
			return nil
		case d = <-l.invalid:
		}
		m := d.Message
		m.Headers = map[string]any{"reason": "bad_body", "home": string(l.o.Server)}
		receipt, err := l.link.Publish(ctx, broker.ToDeadEvents(), m)
		if err != nil {
			return fmt.Errorf("bury an unreadable event: %w", err)
		}
		outcome, err := broker.Await(ctx, receipt)
		if err != nil {
			return nil
		}
		if outcome != broker.Stored {
			// Kept: it is delivered again in the next life. Better one stuck than one lost.
			l.o.Log.Error("an unreadable event could not be buried and stays in the mailbox", zap.Stringer("outcome", outcome))
			continue
		}
		l.done([]session.Ref{{Generation: l.link.Generation(), Tag: d.Tag, Bytes: len(d.Body)}})
	}
}
