package chaos

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// Options say how much goes wrong and what it is done to. All of it must be set.
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
	Nodes      int // of RabbitMQ: 1, or 3 and more for a cluster with quorum mailboxes
	Rate       int // events a second over all publishers, at most
	Task       Params

	Status func(string) // is told once a second how things stand
	Note   func(string) // is told what happens: faults, and what went wrong with them
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
	is(o.Nodes < 1 || o.Nodes == 2 || o.Nodes > 7, "%d nodes of RabbitMQ: there must be 1, or 3 to 7", o.Nodes)
	is(o.Rate < o.Publishers, "rate %d: it must be 1 or more for each publisher", o.Rate)
	is(o.Task.Events < 1 || o.Task.Events > 1_000_000, "%d events for each task: there must be 1 to 1000000", o.Task.Events)
	is(o.Task.Bytes < 0 || o.Task.Bytes > 200_000, "%d bytes for each event: there must be 0 to 200000", o.Task.Bytes)
	is(len(o.Kinds) == 0, "no faults")
	return errors.Join(errs...)
}

// maxClients is how many clients one HAProxy and one address are good for here.
const maxClients = 5000

// heartbeat is the broker's: half of what deploy/rabbitmq has, so that faults that last several of them
// have their place in a schedule of half a minute too.
const heartbeat = 5 * time.Second

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
	o.Status("starting RabbitMQ, HAProxy, workers and task runners")
	starting, cancel := context.WithTimeout(ctx, startWithin)
	defer cancel()
	s, err := startSite(starting, o, log)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.stop()) }()
	t := &trial{site: s, o: o, ledger: NewLedger()}
	if err := t.load(ctx); err != nil {
		return nil, err
	}
	return t.verdict(context.WithoutCancel(ctx))
}

// startWithin bounds the start of everything.
const startWithin = 3 * time.Minute
