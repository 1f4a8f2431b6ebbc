package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"time"

	"github.com/spf13/cobra"
	"go.uber.org/zap"

	"github.com/wscluster/wscluster/internal/build"
	"github.com/wscluster/wscluster/internal/config"
	"github.com/wscluster/wscluster/internal/guard"
	"github.com/wscluster/wscluster/pkg/amqp"
	"github.com/wscluster/wscluster/pkg/taskrunner"
	"github.com/wscluster/wscluster/pkg/wire"
)

// settings are the keys of taskrunner run.
type settings struct {
	config.Logging

	Name           string        `config:"name,required" usage:"name of this runner, [a-z0-9-], of one process at a time"`
	AMQPURL        []string      `config:"amqp_url,secret,required" usage:"RabbitMQ nodes, tried in turn"`
	InternalListen string        `config:"internal_listen" usage:"address for metrics, health and profiles; with a + behind it the next free port if that one is taken; empty for none"`
	Recipes        []string      `config:"recipes" usage:"recipe files, one kind each; none means the shipped go-build and make"`
	RepoRoots      []string      `config:"repo_roots" usage:"folders whose Git repositories may be built; none means no repository"`
	WorkDir        string        `config:"work_dir" usage:"folder where tasks get their workspaces"`
	SpoolDir       string        `config:"spool_dir" usage:"folder where logs are kept, and events wait while the broker takes none; empty means wscluster-<name> in the system's folder for temporary files"`
	SpoolLimit     int64         `config:"spool_limit_bytes" usage:"bytes of events that may wait there, before builds do; 0 for none"`
	LogLimit       int64         `config:"log_limit_bytes" usage:"bytes of all logs; beyond them those of the tasks that ended first are removed; 0 for none: then every line goes through the broker"`
	LogAge         time.Duration `config:"log_age" usage:"how long the log of a task that has ended is kept; it is removed within 5 minutes after"`
	LogMax         int64         `config:"log_max_bytes" usage:"bytes of the log of one run; further output is counted and dropped"`
	Batches        bool          `config:"batches" usage:"publish several events in one message where that delays none; false while a worker of a version without batches runs"`
	Slots          int           `config:"slots" usage:"tasks that run at once"`
	Fence          time.Duration `config:"fence" usage:"without a broker for so long, running tasks are given up, and other runners may take them a minute later"`
	Grace          time.Duration `config:"grace" usage:"what running tasks get to end when the runner is stopped; 0s for none"`
}

func defaults() settings {
	return settings{
		Logging: config.DefaultLogging(), InternalListen: "127.0.0.1:9201" + nextFree, WorkDir: os.TempDir(), SpoolLimit: 1 << 30,
		LogLimit: 10 << 30, LogAge: 7 * 24 * time.Hour, LogMax: 4 << 30,
		Batches: true, Slots: runtime.GOMAXPROCS(0), Fence: 2 * time.Minute, Grace: 30 * time.Second,
	}
}

// Validate says all that is wrong.
func (s *settings) Validate() error {
	var errs []error
	check := func(key string, err error) {
		if err != nil {
			errs = append(errs, config.Invalid(key, "%v", err))
		}
	}
	if wire.CheckKind(s.Name) != nil { // a name has the letters of a kind
		check("name", fmt.Errorf("%.80q must have 1 to %d characters of [a-z0-9-]", s.Name, wire.MaxID))
	}
	_, err := amqp.New(amqp.Options{URLs: s.AMQPURL})
	check("amqp_url", err)
	if s.Slots < 1 || s.Slots > taskrunner.MaxSlots {
		check("slots", fmt.Errorf("%d must be between 1 and %d", s.Slots, taskrunner.MaxSlots))
	}
	if s.Fence < time.Second || s.Fence > taskrunner.MaxFence {
		check("fence", fmt.Errorf("%v must be between 1s and %v", s.Fence, taskrunner.MaxFence))
	}
	if s.Grace < 0 {
		check("grace", fmt.Errorf("%v must not be negative", s.Grace))
	}
	if s.LogLimit < 0 {
		check("log_limit_bytes", fmt.Errorf("%d must not be negative", s.LogLimit))
	}
	if s.LogMax < 1 {
		check("log_max_bytes", fmt.Errorf("%d must be above 0", s.LogMax))
	}
	if s.LogAge <= 0 {
		check("log_age", fmt.Errorf("%v must be above 0", s.LogAge))
	}
	if s.SpoolLimit < 0 {
		check("spool_limit_bytes", fmt.Errorf("%d must not be negative", s.SpoolLimit))
	}
	_, err = s.NewLogger(io.Discard)
	return errors.Join(append(errs, err)...)
}

func runCommand() *cobra.Command {
	s := defaults()
	c := &cobra.Command{
		Use:   "run",
		Short: "Take tasks of the recipes' kinds and do them",
		Args:  cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := config.Load(&s, c.Flags(), os.Environ()); err != nil {
				return err
			}
			return run(c.Context(), &s, c.ErrOrStderr())
		},
	}
	config.Flags(c.Flags(), &s)
	return c
}

// run takes tasks until ctx ends.
func run(ctx context.Context, s *settings, stderr io.Writer) error {
	log, err := s.NewLogger(stderr)
	if err != nil {
		return config.WithExit(config.ExitConfig, err)
	}
	cgroup, noCgroup := guard.OpenCgroup()
	kinds, err := kinds(s, cgroup, log)
	if err != nil {
		return config.WithExit(config.ExitConfig, err)
	}
	if noCgroup != nil {
		log.Warn("a step that kills its guard can leave processes behind", zap.Error(noCgroup))
	}
	rabbit, err := amqp.New(amqp.Options{URLs: s.AMQPURL, Log: log})
	if err != nil {
		return config.WithExit(config.ExitConfig, err)
	}
	ops := newInternal(s.Name, ctx.Done())
	r := taskrunner.Runner{
		Name: s.Name, Broker: rabbit, Kinds: kinds, Single: !s.Batches, Slots: s.Slots, Fence: s.Fence, Grace: orNone(s.Grace),
		SpoolDir: s.SpoolDir, SpoolBytes: orNone(s.SpoolLimit),
		LogBytes: orNone(s.LogLimit), LogAge: s.LogAge, MaxLogBytes: s.LogMax, Log: log, OnState: ops.heard, Metrics: taskrunner.NewMetrics(ops.metrics),
	}
	stop, err := ops.start(ctx, s.InternalListen, log)
	if err != nil {
		return config.WithExit(config.ExitConfig, fmt.Errorf("internal_listen: %w", err))
	}
	defer stop()
	if err = r.Run(ctx); errors.Is(err, taskrunner.ErrSpoolDir) {
		return config.WithExit(config.ExitConfig, fmt.Errorf("spool_dir: %w", err))
	}
	return config.WithExit(config.ExitBroker, err)
}

// orNone turns a setting of 0, which means none, into what means that in taskrunner, where 0 is
// the default.
func orNone[T ~int64](n T) T {
	if n == 0 {
		return -1
	}
	return n
}

// kinds reads the recipes. Of the shipped ones it leaves out, with a warning, what cannot run on
// this machine; those that were asked for must all run.
func kinds(s *settings, cgroup *guard.Cgroup, log *zap.Logger) (map[string]taskrunner.Kind, error) {
	recipes, err := build.Shipped()
	if len(s.Recipes) > 0 {
		recipes, err = build.ReadRecipes(s.Recipes)
	}
	if err != nil {
		return nil, err
	}
	kinds, err := build.Kinds(recipes, build.Options{WorkDir: s.WorkDir, RepoRoots: s.RepoRoots, Cgroup: cgroup, Log: log})
	if err != nil && (len(s.Recipes) > 0 || kinds == nil) {
		return nil, err
	}
	if err != nil {
		log.Warn("some kinds cannot run here", zap.Error(err))
	}
	return kinds, nil
}
