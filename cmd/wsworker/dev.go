package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/spf13/cobra"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"github.com/wscluster/wscluster/internal/auth"
	"github.com/wscluster/wscluster/internal/build"
	"github.com/wscluster/wscluster/internal/config"
	"github.com/wscluster/wscluster/internal/guard"
	"github.com/wscluster/wscluster/internal/worker"
	"github.com/wscluster/wscluster/pkg/broker/memory"
	"github.com/wscluster/wscluster/pkg/socketmeta"
	"github.com/wscluster/wscluster/pkg/taskrunner"
	"github.com/wscluster/wscluster/web"
)

// devSettings are the keys of wsworker dev.
type devSettings struct {
	config.Logging

	Port    int    `config:"port" usage:"first port to try on 127.0.0.1"`
	Repo    string `config:"repo" usage:"folder whose Git repositories may be built"`
	WorkDir string `config:"work_dir" usage:"where builds get their workspaces; default: a new folder, removed at the end"`
}

func devCommand() *cobra.Command {
	s := devSettings{Logging: config.Logging{LogFormat: "console", LogLevel: "warn"}, Port: 8080, Repo: "."}
	c := &cobra.Command{
		Use:   "dev",
		Short: "Run two workers, a task runner and the console in one process, without RabbitMQ",
		Long: "Run two workers, a task runner and the console in one process on an in-memory broker.\n" +
			"It listens on loopback only and forgets everything when it ends.",
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := config.Load(&s, c.Flags(), os.Environ()); err != nil {
				return err
			}
			return dev(c.Context(), s, c.OutOrStdout(), c.ErrOrStderr())
		},
	}
	config.Flags(c.Flags(), &s)
	return c
}

// dev serves until ctx ends.
func dev(ctx context.Context, s devSettings, stdout, stderr io.Writer) error {
	log, err := s.NewLogger(stderr)
	if err != nil {
		return config.WithExit(config.ExitConfig, err)
	}
	if level := zap.NewAtomicLevelAt(log.Level()); level.Level() == zap.WarnLevel {
		log = log.WithOptions(zap.IncreaseLevel(level))
		defer context.AfterFunc(ctx, func() { level.SetLevel(zap.ErrorLevel) })() // that nobody takes over is no surprise
	}
	repo, err := filepath.Abs(s.Repo)
	if err != nil {
		return config.WithExit(config.ExitConfig, fmt.Errorf("repo: %w", err))
	}
	if s.WorkDir == "" {
		if s.WorkDir, err = os.MkdirTemp("", "wscluster-"); err != nil {
			return err
		}
		defer os.RemoveAll(s.WorkDir)
	}
	recipes, err := build.Shipped()
	if err != nil {
		return err
	}
	suggest(recipes, repo)
	cgroup, err := guard.OpenCgroup()
	if err != nil {
		log.Info("a step that kills its guard can leave processes behind", zap.Error(err)) // the user's own builds
	}
	kinds, err := build.Kinds(recipes, build.Options{WorkDir: s.WorkDir, RepoRoots: []string{repo}, Cgroup: cgroup, Log: log})
	if err != nil {
		log.Warn("some kinds cannot run here", zap.Error(err))
	}

	b := memory.New(memory.Options{})
	keys, routeKeys := socketmeta.RandomKeys(), socketmeta.RandomKeys()
	grantKeys := socketmeta.RandomKeys()
	grants, err := auth.NewGrants(grantKeys, []string{"*"}) // on loopback anybody may subscribe
	if err != nil {
		return err
	}
	grant, err := auth.SignGrant(grantKeys, auth.Grant{Publish: []string{"*"}, Ask: true, Expires: time.Now().AddDate(0, 0, 7)})
	if err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	var urls []string
	port := s.Port
	for _, id := range []socketmeta.ServerID{"dev-w1", "dev-w2"} {
		ln, err := listenFrom(port)
		if err != nil {
			return err
		}
		w, err := worker.New(worker.Options{
			Server: id, Broker: b, Keys: keys, RouteKeys: routeKeys, Grants: grants, Log: log, Site: web.Handler(), DrainWindow: time.Second,
		})
		if err != nil {
			return err
		}
		address := ln.Addr().(*net.TCPAddr)
		port = address.Port + 1
		urls = append(urls, "http://"+address.String())
		g.Go(func() error { return w.Run(ctx, ln, nil) })
	}
	g.Go(func() error {
		spool := filepath.Join(s.WorkDir, ".spool") // no workspace has such a name
		r := taskrunner.Runner{Name: "dev", Broker: b, Kinds: kinds, Slots: 2, SpoolDir: spool, Log: log}
		r.Grace = -1 // who would hear of an end goes too
		return r.Run(ctx)
	})
	fmt.Fprintf(stdout, "\n  wscluster is running: two workers, one task runner, an in-memory broker.\n\n"+
		"  Console            %s\n  The second worker  %s\n\n"+
		"  A grant to publish to channels, for as long as this runs (docs/guides/channels.md):\n  %s\n\n  Ctrl-C stops it.\n\n", urls[0], urls[1], grant)
	return g.Wait()
}

// listenFrom listens on the first free port of loopback from port on.
func listenFrom(port int) (net.Listener, error) {
	const tries = 100
	var err error
	for p := port; p < port+tries && p <= 65535; p++ {
		var ln net.Listener
		if ln, err = net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(p))); err == nil {
			return ln, nil
		}
	}
	return nil, fmt.Errorf("no port from %d on is free on 127.0.0.1: %w", port, err)
}

// suggest gives recipes defaults that work here, so that the console's form begins with a build of repo.
func suggest(recipes []*build.Recipe, repo string) {
	defaults := map[string]map[string]any{
		"go-build": {"repo": repo, "packages": []any{"./pkg/socketmeta", "./pkg/wire"}},
		"make":     {"repo": repo, "target": "help"},
	}
	for _, r := range recipes {
		properties, _ := r.Params["properties"].(map[string]any)
		for name, value := range defaults[r.Kind] {
			properties[name].(map[string]any)["default"] = value // the recipes are those of this program
		}
	}
}
