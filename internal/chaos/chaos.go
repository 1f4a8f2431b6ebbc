package chaos

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/wscluster/wscluster/internal/rig"
)

// Options say how much goes wrong and what it is done to. Everything but Settings must be set.
type Options struct {
	Bin string // the folder of wsworker, taskrunner and wsctl
	Dir string // an empty folder: journals, logs and the data of the servers

	Seed     uint64
	Duration time.Duration // of load and faults
	Settle   time.Duration // at most, until all that is under way has arrived after that
	Every    time.Duration // between two faults, on average
	Kinds    []Kind

	Clients    int
	Workers    int // 1 to 8
	Runners    int
	Publishers int
	Rate       int // events a second over all publishers, at most
	Task       Params

	Settings []string     // further "KEY=value" settings of workers and runners: WSCLUSTER_...
	Status   func(string) // is told once a second how things stand
	Note     func(string) // is told what happens: faults, and what went wrong with them
}

// Validate joins all that is wrong.
func (o *Options) Validate() error {
	var errs []error
	is := func(bad bool, format string, args ...any) {
		if bad {
			errs = append(errs, fmt.Errorf(format, args...))
		}
	}
	is(o.Duration < 3*time.Second, "duration %v: it must be 3s or more", o.Duration)
	is(o.Every < 10*time.Millisecond, "every %v: it must be 10ms or more", o.Every)
	is(o.Clients < 1 || o.Clients > maxClients, "%d clients: there must be 1 to %d", o.Clients, maxClients)
	is(o.Workers < 1 || o.Workers > len(workerIDs), "%d workers: there must be 1 to %d", o.Workers, len(workerIDs))
	is(o.Publishers < 1, "%d publishers: there must be 1 or more", o.Publishers)
	is(o.Runners < 1, "%d runners: there must be 1 or more", o.Runners)
	is(o.Rate < o.Publishers, "rate %d: it must be 1 or more for each publisher", o.Rate)
	is(o.Task.Events < 1 || o.Task.Events > 1_000_000, "%d events for each task: there must be 1 to 1000000", o.Task.Events)
	is(o.Task.Bytes < 0 || o.Task.Bytes > 200_000, "%d bytes for each event: there must be 0 to 200000", o.Task.Bytes)
	is(len(o.Kinds) == 0, "no faults")
	return errors.Join(errs...)
}

// maxClients is how many clients one HAProxy and one address are good for here.
const maxClients = 5000

// workerIDs are the places that HAProxy has for workers.
var workerIDs = []string{"i1-w1", "i1-w2", "i1-w3", "i1-w4", "i2-w1", "i2-w2", "i2-w3", "i2-w4"}

// heartbeat is the broker's: short, so that a run sees what follows a silent cut.
const heartbeat = 3 * time.Second

// Run starts a private cluster, lets load and faults loose on it for the duration or until ctx
// ends, mends everything, waits until all that is under way has arrived, stops everything and
// returns the ledger. The error says what kept it from doing so; the report says what it saw.
func Run(ctx context.Context, o Options) (_ *Report, err error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	for _, program := range []string{"wsworker", "taskrunner", "wsctl"} {
		if _, err := os.Stat(filepath.Join(o.Bin, program)); err != nil {
			return nil, fmt.Errorf("%w: build the programs into one folder (make build) and name that", err)
		}
	}
	log, err := os.Create(filepath.Join(o.Dir, "cluster.log"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	s := &site{log: log, busy: map[place]bool{}}
	o.Status("starting RabbitMQ, HAProxy, workers and task runners")
	starting, cancel := context.WithTimeout(ctx, startWithin)
	defer cancel()
	if s.Cluster, err = startCluster(starting, o, log); err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.Stop()) }()
	defer s.rest()
	if err := s.addPublishers(o.Publishers, o); err != nil {
		return nil, err
	}
	journal, err := CreateJournal(filepath.Join(o.Dir, "clients.journal"))
	if err != nil {
		return nil, err
	}
	ledger := NewLedger()
	if err := s.load(ctx, o, journal, ledger); err != nil {
		return nil, err
	}
	return s.close(context.WithoutCancel(ctx), o, ledger)
}

const startWithin = 3 * time.Minute

func startCluster(ctx context.Context, o Options, log io.Writer) (*rig.Cluster, error) {
	root, err := rig.Root()
	if err != nil {
		return nil, err
	}
	var names []string
	for i := range o.Runners {
		names = append(names, fmt.Sprintf("r%d", i+1))
	}
	many := fmt.Sprint(2*o.Clients + 100)
	return rig.StartCluster(ctx, rig.ClusterOptions{
		Dir: o.Dir, Bin: o.Bin, Workers: workerIDs[:o.Workers], Runners: names,
		HAProxy: filepath.Join(root, "deploy/haproxy/haproxy.cfg"), Log: log,
		Settings: o.Settings,
		// All clients have one address here.
		Proxy: []string{"CONN_PER_IP=" + many, "WS_PER_IP=" + many, "WS_RATE_PER_IP=1000000", "SLOWSTART=1s"},
	})
}

// load lives the clients and strikes by schedule until the duration is over or ctx ends, then
// mends all, and waits until nothing is under way.
func (s *site) load(ctx context.Context, o Options, journal *Journal, ledger *Ledger) error {
	s.fleet = newFleet("ws://"+s.HAProxy.Addr+"/v1/ws", journal, o.Clients, o.Task, o.Seed)
	living, stop := context.WithCancel(context.WithoutCancel(ctx))
	var fleet sync.WaitGroup
	fleet.Go(func() { s.fleet.run(living) })
	defer func() {
		stop()
		fleet.Wait()
	}()

	faults := Plan{
		Seed: o.Seed, Duration: o.Duration, Every: o.Every, Heartbeat: heartbeat, Kinds: o.Kinds,
		Workers: o.Workers, Runners: o.Runners, Publishers: o.Publishers, Nodes: 1,
	}.Schedule()
	began := time.Now()
	loading, done := context.WithTimeout(ctx, o.Duration)
	defer done()
	var mu sync.Mutex
	var strikes sync.WaitGroup
	count := 0
	for _, f := range faults {
		strikes.Go(func() {
			wait(loading, time.Until(began.Add(f.At)))
			if loading.Err() != nil {
				return
			}
			err := s.strike(loading, f, func() {
				mu.Lock()
				defer mu.Unlock()
				count++
				ledger.Fault(f, time.Now())
				o.Note(fmt.Sprintf("%6.1fs  %v", time.Since(began).Seconds(), f))
			})
			if err != nil {
				o.Note(fmt.Sprintf("%6.1fs  %v: %v", time.Since(began).Seconds(), f, err))
			}
		})
	}
	status := func(phase string) {
		mu.Lock()
		defer mu.Unlock()
		o.Status(fmt.Sprintf("%s  clients %d/%d  delivered %d  faults %d", phase, s.fleet.open.Load(), o.Clients, s.fleet.got.Load(), count))
	}
	clock := time.NewTicker(time.Second)
	defer clock.Stop()
	for loading.Err() == nil {
		select {
		case <-clock.C:
			status(fmt.Sprintf("%v of %v", time.Since(began).Round(time.Second), o.Duration))
		case <-loading.Done():
		}
	}
	close(s.fleet.over)
	strikes.Wait()
	settling, cancel := context.WithTimeout(living, o.Settle)
	defer cancel()
	ended := time.Now()
	for settling.Err() == nil {
		open := s.fleet.busy()
		left, err := backlog(settling, s.Rabbit)
		if err == nil && len(open)+len(left) == 0 {
			break
		}
		status(fmt.Sprintf("settling for %v: %d tasks open, queues %s", time.Since(ended).Round(time.Second), len(open), strings.Join(left, ", ")))
		wait(settling, time.Second)
	}
	if settling.Err() != nil {
		o.Note(fmt.Sprintf("not settled within %v: %s", o.Settle, strings.Join(s.fleet.busy(), ", ")))
	}
	stop()
	fleet.Wait()
	return journal.Close()
}

// close stops all who take from queues, looks into the queues, and adds up.
func (s *site) close(ctx context.Context, o Options, ledger *Ledger) (*Report, error) {
	o.Status("stopping, and looking into the queues")
	s.rest()
	looking, cancel := context.WithTimeout(ctx, mendWithin)
	defer cancel()
	events, lines, err := search(looking, s.Rabbit)
	if err != nil {
		return nil, err
	}
	journals, err := filepath.Glob(filepath.Join(o.Dir, "*.journal"))
	if err != nil {
		return nil, err
	}
	slices.Sort(journals)
	for _, name := range journals {
		f, err := os.Open(name)
		if err != nil {
			return nil, err
		}
		err = errors.Join(ledger.Read(f), f.Close())
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	for _, e := range events {
		if holdsDead(e.queue) {
			ledger.Dead(e.run, e.seq, e.reason)
		}
	}
	r := ledger.Report()
	r.Left = lines
	for i := range r.Lost {
		for _, e := range events {
			if e.run == r.Lost[i].Run && e.seq == r.Lost[i].Seq {
				r.Lost[i].Seen = "lies in " + e.queue
			}
		}
	}
	return &r, nil
}
