package amqp

import (
	"context"
	"errors"

	"github.com/wscluster/wscluster/pkg/broker"
	"github.com/wscluster/wscluster/pkg/socketmeta"
)

func (l *link) AdoptMailbox(ctx context.Context, s socketmeta.ServerID, prefetch int) (broker.Mailbox, error) {
	return nil, errors.ErrUnsupported
}

func (l *link) Lock(ctx context.Context, name string) (release func(), err error) {
	return nil, errors.ErrUnsupported
}

func (l *link) Register(ctx context.Context, s socketmeta.ServerID) error { return nil }

func (l *link) Servers(ctx context.Context) ([]socketmeta.ServerID, error) {
	return nil, errors.ErrUnsupported
}

func (m *mailbox) TakeHeld(ctx context.Context, max int) ([]broker.Delivery, error) { return nil, nil }
func (m *mailbox) Unbind(ctx context.Context) error                                 { return errors.ErrUnsupported }
func (m *mailbox) Delete(ctx context.Context) error                                 { return errors.ErrUnsupported }
