package chaos

import (
	"context"
	"errors"
	"fmt"

	"github.com/wscluster/wscluster/internal/rig"
)

func (s *site) strikeWorker(mending context.Context, f Fault, then func(error) error) error {
	m := s.Workers[f.Target]
	switch f.Kind {
	case WorkerDrain:
		err := then(terminate(m.Process))
		return errors.Join(err, m.Start(), m.WaitReady(mending, m.Ready))
	case WorkerKill:
		m.Kill()
		err := then(nil)
		return errors.Join(err, m.Start(), m.WaitReady(mending, m.Ready))
	}
	return strikeMember(f.Kind, m, then)
}

// strikeMember does to a process what can be done to any.
func strikeMember(kind Kind, m *rig.Member, then func(error) error) error {
	switch kind {
	case WorkerFreeze, WorkerHang, RunnerFreeze:
		if err := then(m.Freeze()); err != nil {
			return err
		}
		return m.Thaw()
	case RunnerKill:
		m.Kill()
		err := then(nil)
		return errors.Join(err, m.Start())
	}
	return fmt.Errorf("%s: not possible here", kind)
}

func (s *site) strikePublisher(f Fault, then func(error) error) error {
	p := s.publishers[f.Target]
	switch f.Kind {
	case PublisherKill:
		p.Kill()
		err := then(nil)
		return errors.Join(err, p.start())
	case PublisherCut:
		p.proxy.Cut()
		err := then(nil)
		return errors.Join(err, p.proxy.Heal())
	}
	return fmt.Errorf("%s: not possible here", f.Kind)
}

func (s *site) strikeNode(mending context.Context, f Fault, then func(error) error) error {
	switch f.Kind {
	case BrokerKill:
		if err := s.Rabbit.Sync(mending); err != nil {
			return err
		}
		s.Rabbit.Kill()
		err := then(nil)
		return errors.Join(err, s.Rabbit.Restart(mending))
	case BrokerFreeze:
		if err := then(s.Rabbit.Freeze()); err != nil {
			return err
		}
		return s.Rabbit.Thaw()
	case MemoryAlarm:
		err := then(s.Rabbit.MemoryAlarm(mending, true))
		return errors.Join(err, s.Rabbit.MemoryAlarm(mending, false))
	}
	return fmt.Errorf("%s: not possible here", f.Kind)
}
