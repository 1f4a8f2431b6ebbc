package chaos

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/wscluster/wscluster/internal/rig"
)

// site is the cluster under test, and the processes of the publishers beside it.
type site struct {
	*rig.Cluster
	publishers []*publishing
	fleet      *fleet
	dir        string // data of the servers
	log        io.Writer

	mu   sync.Mutex
	busy map[place]bool // guarded by mu: what is being struck or mended
	gone int            // guarded by mu: workers that will not come back
}

// place is one target of faults.
type place struct {
	party party
	index int
}

// publishing is one process after another that runs a Publisher.
type publishing struct {
	name, dir string
	bin       string
	url       string
	rate      int
	proxy     *rig.Proxy
	log       io.Writer

	lives int
	*rig.Process
}

// The environment of a publisher's process; see PublisherFromEnv.
const (
	envURL     = "WSCTL_CHAOS_AMQP_URL"
	envJournal = "WSCTL_CHAOS_JOURNAL"
	envRate    = "WSCTL_CHAOS_RATE"
)

// PublisherCommand is the subcommand of wsctl that does RunPublisher.
const PublisherCommand = "chaos-publisher"

// slots is how many tasks one publisher has at once: more than there are clients.
const slots = 2000

// RunPublisher runs the publisher that the environment tells of, until ctx ends: the work of one
// of the processes that Run starts.
func RunPublisher(ctx context.Context, log io.Writer) error {
	rate, err := strconv.Atoi(os.Getenv(envRate))
	if err != nil || os.Getenv(envURL) == "" {
		return errors.New("this command is for wsctl chaos, which starts it")
	}
	j, err := CreateJournal(os.Getenv(envJournal))
	if err != nil {
		return err
	}
	p := Publisher{URL: os.Getenv(envURL), Journal: j, Rate: rate, Slots: slots, Log: log}
	return errors.Join(p.Run(ctx), j.Close())
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
	var names []string
	for i := range o.Runners {
		names = append(names, fmt.Sprintf("r%d", i+1))
	}
	many := strconv.Itoa(2*o.Clients + 100)
	s.Cluster, err = rig.StartCluster(ctx, rig.ClusterOptions{
		Dir: s.dir, Bin: o.Bin, Workers: workerIDs[:o.Workers], Runners: names,
		HAProxy: filepath.Join(root, "deploy/haproxy/haproxy.cfg"), Log: log, Settings: o.Settings,
		// All clients have one address here.
		Proxy: []string{"CONN_PER_IP=" + many, "WS_PER_IP=" + many, "WS_RATE_PER_IP=1000000", "SLOWSTART=1s"},
	})
	if err != nil {
		return nil, err
	}
	return s, s.addPublishers(o.Publishers, o)
}

// stop ends everything that is left, and removes its data.
func (s *site) stop() error {
	var err error
	if s.Cluster != nil {
		s.rest()
		err = s.Stop()
	}
	return errors.Join(err, os.RemoveAll(s.dir))
}

// start starts the process, with a journal of its own.
func (p *publishing) start() (err error) {
	p.lives++
	journal := filepath.Join(p.dir, fmt.Sprintf("%s-%d.journal", p.name, p.lives))
	p.Process, err = rig.Start(rig.Program{
		Path: filepath.Join(p.bin, "wsctl"), Args: []string{PublisherCommand}, Name: p.name, Log: p.log,
		Env: append(os.Environ(), envURL+"="+p.url, envJournal+"="+journal, envRate+"="+strconv.Itoa(p.rate)),
	})
	return err
}

// addPublishers starts n publishers that share the rate, each behind a proxy of its own.
func (s *site) addPublishers(n int, o Options) error {
	through, err := url.Parse(s.Rabbit.URLFor("runner"))
	if err != nil {
		return err
	}
	target := through.Host
	for i := range n {
		proxy, err := rig.StartProxy(target)
		if err != nil {
			return err
		}
		through.Host = proxy.Addr
		p := &publishing{name: fmt.Sprintf("publisher%d", i+1), dir: o.Dir, bin: o.Bin, url: through.String(), rate: max(1, o.Rate/n), proxy: proxy, log: s.log}
		s.publishers = append(s.publishers, p)
		if err := p.start(); err != nil {
			return err
		}
	}
	return nil
}

// rest ends everybody who takes from a queue, and leaves the broker. What they held goes back to it.
func (s *site) rest() {
	for _, m := range slices.Concat(s.Workers, s.Runners) {
		if m.Process != nil {
			m.Kill()
		}
	}
	for _, p := range s.publishers {
		if p.Process != nil {
			_ = p.Stop(restWithin) // it puts its journal on disk; killed if it does not hear
		}
		p.proxy.Stop()
	}
}

const restWithin = 5 * time.Second

// terminate asks a process to end and waits for it; it is killed after a while.
func terminate(p *rig.Process) error {
	if err := p.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	select {
	case <-p.Done():
		return nil
	case <-time.After(drainWithin):
		p.Kill()
		return fmt.Errorf("it did not end within %v of SIGTERM, and was killed", drainWithin)
	}
}

// drainWithin is what a worker gets to lead its clients away.
const drainWithin = time.Minute
