package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/wscluster/wscluster/bench/report"
	"github.com/wscluster/wscluster/internal/chaos"
	"github.com/wscluster/wscluster/internal/config"
)

func chaosCommand() *cobra.Command {
	o := chaos.Options{}
	var faults []string
	var keep string
	var cluster bool
	c := &cobra.Command{
		Use:   "chaos",
		Short: "Break a private cluster by a seeded schedule, and count what became of every event",
		Long: `Start RabbitMQ, HAProxy, workers and task runners on this machine, let clients, tasks and faults
loose on them, mend everything, and print a ledger of what became of every durable event.

The exit code is 1 unless nothing was lost, misrouted, out of order or given to an application
twice, and every event that the broker confirmed was delivered. Ctrl-C ends the load early.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) (err error) {
			if o.Kinds, err = chaos.ParseKinds(faults); err != nil {
				return config.WithExit(config.ExitUsage, err)
			}
			if o.Nodes = 1; cluster {
				o.Nodes = 3
			}
			if err := o.Validate(); err != nil {
				return config.WithExit(config.ExitUsage, err)
			}
			return runChaos(c.Context(), o, keep, c.OutOrStdout(), c.ErrOrStderr())
		},
	}
	f := c.Flags()
	f.DurationVar(&o.Duration, "duration", 2*time.Minute, "of load and faults")
	f.IntVar(&o.Clients, "clients", 200, "clients")
	f.Uint64Var(&o.Seed, "seed", 1, "of the schedule: the same seed gives the same faults")
	f.IntVar(&o.Workers, "workers", 8, "workers, 1 to 8")
	f.IntVar(&o.Runners, "runners", 2, "task runners")
	f.IntVar(&o.Publishers, "publishers", 3, "publishers of the events that are counted")
	f.IntVar(&o.Rate, "rate", 1000, "events a second, at most")
	f.Int64Var(&o.Task.Events, "events", 100, "events of a task, on average")
	f.IntVar(&o.Task.Bytes, "bytes", 200, "bytes of an event")
	f.DurationVar(&o.Every, "every", 1200*time.Millisecond, "between two faults, on average")
	f.DurationVar(&o.Settle, "settle", 90*time.Second, "at most, until everything has arrived after the faults")
	f.StringSliceVar(&faults, "faults", nil, "kinds of faults; all of them if there is none")
	f.BoolVar(&cluster, "cluster", false, "three nodes of RabbitMQ, and quorum mailboxes")
	f.StringVar(&o.Bin, "bin", "", "folder of wsworker and taskrunner; that of wsctl if there is none")
	f.StringVar(&keep, "keep", "", "folder that keeps journals and logs; it must not exist")
	return c
}

func publisherCommand() *cobra.Command {
	return &cobra.Command{
		Use:    chaos.PublisherCommand,
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE:   func(c *cobra.Command, _ []string) error { return chaos.RunPublisher(c.Context(), c.ErrOrStderr()) },
	}
}

// runChaos runs it and prints the report.
func runChaos(ctx context.Context, o chaos.Options, keep string, stdout, stderr io.Writer) (err error) {
	if o.Bin == "" {
		self, err := os.Executable()
		if err != nil {
			return err
		}
		o.Bin = filepath.Dir(self)
	}
	if o.Dir = keep; keep != "" {
		err = os.Mkdir(keep, 0o700)
	} else if o.Dir, err = os.MkdirTemp("", "wsctl-chaos-"); err == nil {
		defer os.RemoveAll(o.Dir)
	}
	if err != nil {
		return config.WithExit(config.ExitUsage, err)
	}
	p := report.NewProgress(stderr)
	o.Status, o.Note = p.Status, p.Note
	found, err := chaos.Run(ctx, o)
	p.End()
	if found == nil {
		return err
	}
	fmt.Fprintln(stdout, found)
	if err != nil {
		return err
	}
	return found.Check()
}
