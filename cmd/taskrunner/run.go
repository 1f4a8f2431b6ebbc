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
	"github.com/wscluster/wscluster/pkg/amqp"
	"github.com/wscluster/wscluster/pkg/taskrunner"
	"github.com/wscluster/wscluster/pkg/wire"
)

// settings are the keys of taskrunner run.
type settings struct {
	config.Logging

	Name      string        `config:"name,required" usage:"name of this runner, [a-z0-9-], of one process at a time"`
	AMQPURL   []string      `config:"amqp_url,secret,required" usage:"RabbitMQ nodes, tried in turn"`
	Recipes   []string      `config:"recipes" usage:"recipe files, one kind each; none means the shipped go-build and make"`
	RepoRoots []string      `config:"repo_roots" usage:"folders whose Git repositories may be built; none means no repository"`
	WorkDir   string        `config:"work_dir" usage:"folder where tasks get their workspaces"`
	Slots     int           `config:"slots" usage:"tasks that run at once"`
	Grace     time.Duration `config:"grace" usage:"what running tasks get to end when the runner is stopped; 0s for none"`
}

func defaults() settings {
	return settings{
		Logging: config.DefaultLogging(), WorkDir: os.TempDir(), Slots: runtime.GOMAXPROCS(0), Grace: 30 * time.Second,
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
	if s.Grace < 0 {
		check("grace", fmt.Errorf("%v must not be negative", s.Grace))
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
	kinds, err := kinds(s, log)
	if err != nil {
		return config.WithExit(config.ExitConfig, err)
	}
	rabbit, err := amqp.New(amqp.Options{URLs: s.AMQPURL, Log: log})
	if err != nil {
		return config.WithExit(config.ExitConfig, err)
	}
	grace := s.Grace
	if grace == 0 {
		grace = -1 // taskrunner's zero is its default
	}
	r := taskrunner.Runner{Name: s.Name, Broker: rabbit, Kinds: kinds, Slots: s.Slots, Grace: grace, Log: log}
	return config.WithExit(config.ExitBroker, r.Run(ctx))
}

// kinds reads the recipes. Of the shipped ones it leaves out, with a warning, what cannot run on
// this machine; those that were asked for must all run.
func kinds(s *settings, log *zap.Logger) (map[string]taskrunner.Kind, error) {
	recipes, err := build.Shipped()
	if len(s.Recipes) > 0 {
		recipes, err = build.ReadRecipes(s.Recipes)
	}
	if err != nil {
		return nil, err
	}
	kinds, err := build.Kinds(recipes, build.Options{WorkDir: s.WorkDir, RepoRoots: s.RepoRoots, Log: log})
	if err != nil && (len(s.Recipes) > 0 || kinds == nil) {
		return nil, err
	}
	if err != nil {
		log.Warn("some kinds cannot run here", zap.Error(err))
	}
	return kinds, nil
}
