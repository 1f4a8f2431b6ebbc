package chaos

import (
	"context"
	"errors"
	"fmt"

	"github.com/wscluster/wscluster/internal/rig"
)

// What these do first is the fault; then waits it out; what follows mends it. mending bounds that.

func (s *site) strikeWorker(mending context.Context, f Fault, then func(error) error) error {
	m := s.worker(f.Target)
	switch f.Kind {
	case WorkerGone:
		m.Kill()
		err := then(nil)
		return errors.Join(err, s.replace(mending, f.Target))
	case WorkerDrain:
		// It strikes when the worker hears of it, not when it has done.
		drained := make(chan error, 1)
		go func() { drained <- m.Drain(mending) }()
		err := then(nil)
		return errors.Join(err, <-drained, m.Restart(mending))
	}
	return strikeMember(mending, f.Kind, m, then)
}

// strikeMember does to a worker or runner what can be done to both.
func strikeMember(mending context.Context, kind Kind, m *rig.Member, then func(error) error) error {
	switch kind {
	case WorkerKill, RunnerKill:
		m.Kill()
		err := then(nil)
		return errors.Join(err, m.Restart(mending))
	case WorkerFreeze, WorkerHang, RunnerFreeze:
		err := then(m.Freeze())
		return errors.Join(err, m.Thaw())
	case WorkerCut, RunnerCut:
		m.Proxy.Cut()
		err := then(nil)
		return errors.Join(err, m.Proxy.Heal())
	case WorkerStall:
		err := then(m.Proxy.Stall())
		return errors.Join(err, m.Proxy.Heal())
	}
	return impossible(kind)
}

func (s *site) strikePublisher(f Fault, then func(error) error) error {
	p := s.publishers[f.Target]
	switch f.Kind {
	case PublisherKill:
		p.Kill()
		err := then(nil)
		return errors.Join(err, p.start())
	case PublisherCut:
		p.proxies.Cut()
		err := then(nil)
		return errors.Join(err, p.proxies.Heal())
	}
	return impossible(f.Kind)
}

func (s *site) strikeNode(mending context.Context, f Fault, then func(error) error) error {
	node := s.nodes[f.Target]
	switch f.Kind {
	case BrokerKill:
		if err := node.Sync(mending); err != nil {
			return err
		}
		node.Kill()
		err := then(nil)
		return errors.Join(err, node.Restart(mending))
	case BrokerFreeze:
		err := then(node.Freeze())
		return errors.Join(err, node.Thaw())
	case BrokerPart:
		err := then(s.cluster.Brokers.Stall(f.Target))
		return errors.Join(err, s.cluster.Brokers.Heal(), s.cluster.Brokers.AwaitWhole(mending))
	case MemoryAlarm:
		err := then(node.MemoryAlarm(mending, true))
		return errors.Join(err, node.MemoryAlarm(mending, false))
	}
	return impossible(f.Kind)
}

func impossible(kind Kind) error { return fmt.Errorf("%s is done to others", kind) }
