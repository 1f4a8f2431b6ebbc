package taskrunner

import (
	"context"
	"errors"
	"fmt"

	"github.com/wscluster/wscluster/pkg/broker"
	"github.com/wscluster/wscluster/pkg/wire"
	"go.uber.org/zap"
)

// hear reads what others say to this runner, or to all, over one link, until ctx or the link ends. Workers
// that ask what the logbook has, or what is kept of channels, are answered one after the other: each question costs one message of at most a log chunk,
// wire.MaxRuns runs or wire.MaxControl bytes, so a reader gets no more than it asks for.
func (s *shift) hear(ctx context.Context, link broker.Link, d *desk) error {
	for {
		select {
		case m, ok := <-link.Inbox():
			if !ok {
				return fmt.Errorf("the inbox of %s: %w", s.name, broker.ErrLinkGone)
			}
			if m.Type == probeType {
				continue // that it came is all that it asks
			}
			c, err := wire.DecodeControl(m.Type, m.Body)
			switch {
			case errors.Is(err, wire.ErrUnknownType): // of a newer version
				continue
			case err != nil:
				s.log.Warn("a control message cannot be read and is dropped", zap.String("app", m.App), zap.Error(err))
				continue
			}
			if err := s.answer(ctx, link, d, c); err != nil {
				return err
			}
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// answer answers one message. What is not for runners is passed over.
func (s *shift) answer(ctx context.Context, link broker.Link, d *desk, c wire.ControlMessage) error {
	switch c := c.(type) {
	case *wire.AskKinds:
		select {
		case d.asked <- broker.Worker(c.From):
		default: // it hears what all are told
		}
	case *wire.FindRuns:
		answer := &wire.RunsFound{Ask: c.Ask, Runner: s.name, Runs: []wire.RunInfo{}}
		if s.book != nil {
			answer = s.book.findRuns(c)
		}
		return s.say(ctx, link, broker.ToControl(broker.Worker(c.From)), answer)
	case *wire.FindChannels:
		return s.say(ctx, link, broker.ToControl(broker.Worker(c.From)), s.findChannels(c))
	case *wire.ReadLog:
		answer := &wire.LogChunk{Ask: c.Ask, Runner: s.name, Missing: true, Data: []byte{}}
		if s.book != nil {
			answer = s.book.readLog(c)
		}
		return s.say(ctx, link, broker.ToControl(broker.Worker(c.From)), answer)
	}
	return nil
}
