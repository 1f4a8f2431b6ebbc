package memory

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

func (c *consumer) TakeHeld(ctx context.Context, max int) ([]broker.Delivery, error) { return nil, nil }
func (c *consumer) Unbind(ctx context.Context) error                                 { return errors.ErrUnsupported }
func (c *consumer) Delete(ctx context.Context) error                                 { return errors.ErrUnsupported }
