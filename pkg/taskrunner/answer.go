package taskrunner

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/wscluster/wscluster/pkg/broker"
	"github.com/wscluster/wscluster/pkg/socketmeta"
	"github.com/wscluster/wscluster/pkg/wire"
	"go.uber.org/zap"
)

// answer tells workers that ask what the logbook has, one after the other, until ctx or the link ends. Each
// question costs one message of at most a log chunk or wire.MaxRuns runs, so a reader gets no more
// than it asks for.
func (s *shift) answer(ctx context.Context, link broker.Link) error {
	for {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case m, ok := <-link.Inbox():
			if !ok {
				return fmt.Errorf("the inbox of runner %s: %w", s.name, broker.ErrLinkGone)
			}
			if err := s.hear(ctx, link, m); err != nil {
				return err
			}
		}
	}
}

// hear takes one control message. Those that are not for runners say nothing here.
func (s *shift) hear(ctx context.Context, link broker.Link, m broker.Message) error {
	question, err := wire.DecodeControl(m.Type, m.Body)
	if errors.Is(err, wire.ErrUnknownType) {
		return nil // of a newer version
	}
	if err != nil {
		s.log.Warn("a control message cannot be read and is dropped", zap.String("app", m.App), zap.Error(err))
		return nil
	}
	if s.book == nil {
		return nil
	}
	switch q := question.(type) {
	case *wire.FindRuns:
		return s.say(ctx, link, q.From, s.book.findRuns(q))
	case *wire.ReadLog:
		return s.say(ctx, link, q.From, s.book.readLog(q))
	}
	return nil
}

// say publishes a control message to a worker and does not wait for its receipt: it may be lost.
func (s *shift) say(ctx context.Context, link broker.Link, to socketmeta.ServerID, m wire.ControlMessage) error {
	_, err := link.Publish(ctx, broker.ToControl(broker.Worker(to)), broker.Message{
		Type: m.ControlType(), App: "taskrunner " + s.name, Time: time.Now(), Body: wire.EncodeControl(m), Transient: true,
	})
	if err != nil {
		return fmt.Errorf("answer %s: %w", to, err)
	}
	return nil
}
