package chaos

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/wscluster/wscluster/internal/rig"
)

// site is the cluster under test, and the processes of the publishers beside it.
type site struct {
	cluster    *rig.Cluster
	nodes      []*rig.RabbitMQ
	publishers []*publishing
	fleet      *fleet
	dir        string // data of the servers
	log        io.Writer

	joining sync.Mutex // held while the cluster gets another worker

	mu      sync.Mutex
	workers []*rig.Member  // guarded by mu: who is in which of the schedule's places
	busy    map[place]bool // guarded by mu: what is being struck or mended
	newer   int            // guarded by mu: workers that have taken the place of others
}

// place is one target of faults.
type place struct {
	party party
	index int
}

// startSite starts everything, or leaves nothing behind.
func startSite(ctx context.Context, o Options, log io.Writer) (_ *site, err error) {
	s := &site{log: log, dir: filepath.Join(o.Dir, "site"), busy: map[place]bool{}}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.stop())
		}
	}()
	if err := os.Mkdir(s.dir, 0o700); err != nil {
		return nil, err
	}
	root, err := rig.Root()
	if err != nil {
		return nil, err
	}
	var runners []string
	for i := range o.Runners {
		runners = append(runners, fmt.Sprintf("r%d", i+1))
	}
	many := strconv.Itoa(2*o.Clients + 100)
	s.cluster, err = rig.StartCluster(ctx, rig.ClusterOptions{
		Dir: s.dir, Bin: o.Bin, Nodes: o.Nodes, Proxies: true, Workers: workerIDs[:o.Workers], Runners: runners,
		HAProxy: filepath.Join(root, "deploy/haproxy/haproxy.cfg"), Log: log,
		Broker:         fmt.Sprintf("heartbeat = %d", int(heartbeat.Seconds())),
		WorkerSettings: []string{"WSCLUSTER_DRAIN_WINDOW=2s"},
		// All clients have one address here.
		Proxy: []string{"CONN_PER_IP=" + many, "WS_PER_IP=" + many, "WS_RATE_PER_IP=1000000", "SLOWSTART=1s"},
	})
	if err != nil {
		return nil, err
	}
	s.workers = append(s.workers, s.cluster.Workers...)
	s.nodes = []*rig.RabbitMQ{s.cluster.Rabbit}
	if s.cluster.Brokers != nil {
		s.nodes = s.cluster.Brokers.Nodes
	}
	for range o.Publishers {
		if err := s.addPublisher(o); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// workerIDs are the places that HAProxy has for workers.
var workerIDs = []string{"i1-w1", "i1-w2", "i1-w3", "i1-w4", "i2-w1", "i2-w2", "i2-w3", "i2-w4"}

// rest ends everybody who takes from a queue, and leaves the broker. What they held goes back to
// it. Nothing strikes any more.
func (s *site) rest() {
	for _, members := range [][]*rig.Member{s.cluster.Workers, s.cluster.Runners} {
		for _, m := range members {
			if m.Process != nil {
				m.Kill()
			}
		}
	}
	for _, p := range s.publishers {
		p.end()
	}
}

const restWithin = 5 * time.Second

// stop ends everything that is left, and removes its data.
func (s *site) stop() error {
	var err error
	if s.cluster != nil {
		s.rest()
		err = s.cluster.Stop()
	}
	return errors.Join(err, os.RemoveAll(s.dir))
}

func (s *site) worker(target int) *rig.Member {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.workers[target]
}

// replace puts a new worker with a new ID in the place of one that is gone for ever, also in
// HAProxy's, and returns once it takes clients.
func (s *site) replace(ctx context.Context, target int) error {
	s.joining.Lock()
	defer s.joining.Unlock()
	s.mu.Lock()
	s.newer++
	id := fmt.Sprintf("i3-w%d", s.newer)
	s.mu.Unlock()
	w, err := s.cluster.AddWorker(ctx, id)
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.workers[target] = w
	s.mu.Unlock()
	host, port, err := net.SplitHostPort(w.Addr)
	if err != nil {
		return err
	}
	if _, err := s.cluster.HAProxy.Admin(fmt.Sprintf("set server workers/%s addr %s port %s", workerIDs[target], host, port)); err != nil {
		return err
	}
	return s.cluster.HAProxy.Await(ctx, "UP", workerIDs[target])
}
