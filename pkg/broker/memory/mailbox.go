package memory

import (
	"context"
	"fmt"

	"github.com/wscluster/wscluster/pkg/broker"
	"github.com/wscluster/wscluster/pkg/socketmeta"
)

// mailbox is a consumer that owns a mailbox. None of its calls blocks.
type mailbox struct{ *consumer }

func (l *link) OpenMailbox(ctx context.Context, s socketmeta.ServerID, prefetch int) (broker.Mailbox, error) {
	return l.mailbox(ctx, s, prefetch, l.b.store.Own)
}

func (l *link) AdoptMailbox(ctx context.Context, s socketmeta.ServerID, prefetch int) (broker.Mailbox, error) {
	return l.mailbox(ctx, s, prefetch, l.b.store.Adopt)
}

func (l *link) mailbox(ctx context.Context, s socketmeta.ServerID, prefetch int,
	own func(*Inbox, socketmeta.ServerID, int, func(broker.Delivery)) (*Taker, error),
) (broker.Mailbox, error) {
	c, err := l.newConsumer(ctx, prefetch)
	if err != nil {
		return nil, fmt.Errorf("own the mailbox of %s: %w", s, err)
	}
	l.b.mu.Lock()
	defer l.b.mu.Unlock()
	if l.stopped {
		return nil, fmt.Errorf("own the mailbox of %s: %w", s, l.gone())
	}
	if c.taker, err = own(l.in, s, prefetch, c.give); err != nil {
		return nil, err
	}
	l.consumers = append(l.consumers, c)
	return &mailbox{c}, nil
}

func (m *mailbox) TakeHeld(ctx context.Context, max int) (ds []broker.Delivery, left int, err error) {
	err = m.call(ctx, func() error {
		ds, left = m.taker.TakeHeld(max)
		return nil
	})
	return ds, left, err
}

func (m *mailbox) Unbind(ctx context.Context) error {
	return m.call(ctx, func() error { return m.taker.Unbind() })
}

func (m *mailbox) Delete(ctx context.Context) error {
	return m.call(ctx, func() error {
		err := m.taker.Delete()
		if err == nil {
			m.left()
		}
		return err
	})
}

// call makes f one step of the broker's, unless ctx or the mailbox has ended.
func (m *mailbox) call(ctx context.Context, f func() error) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	m.l.b.mu.Lock()
	defer m.l.b.mu.Unlock()
	if m.over {
		return fmt.Errorf("the mailbox of %s: %w", m.taker.server, broker.ErrLinkGone)
	}
	return f()
}
