// Command demo runs the topology of the source design on this machine: a private RabbitMQ and
// HAProxy, two instances of four workers each, and two task runners. It prints what to open and
// stops everything on Ctrl-C.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/wscluster/wscluster/internal/rig"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
}

// startWithin bounds the start of everything, the building of the programs not counted.
const startWithin = 2 * time.Minute

func run(ctx context.Context) error {
	root, err := rig.Root()
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "wscluster-demo-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	logFile := filepath.Join(dir, "cluster.log")
	log, err := os.Create(logFile)
	if err != nil {
		return err
	}
	defer log.Close()

	fmt.Println("Building the programs ...")
	build := exec.CommandContext(ctx, "go", "build", "-o", dir+"/", "./cmd/wsworker", "./cmd/taskrunner")
	build.Dir, build.Stdout, build.Stderr = root, os.Stdout, os.Stderr
	if err := build.Run(); err != nil {
		return fmt.Errorf("build the programs: %w", err)
	}
	fmt.Println("Starting RabbitMQ, 8 workers, 2 task runners and HAProxy ...")
	starting, cancel := context.WithTimeout(ctx, startWithin)
	defer cancel()
	c, err := rig.StartCluster(starting, rig.ClusterOptions{
		Dir: dir, Bin: dir,
		Workers: []string{"i1-w1", "i1-w2", "i1-w3", "i1-w4", "i2-w1", "i2-w2", "i2-w3", "i2-w4"},
		Runners: []string{"r1", "r2"},
		HAProxy: filepath.Join(root, "deploy/haproxy/haproxy.cfg"),
		Repos:   []string{root},
		// Builds that run when all of it ends have nobody to tell.
		RunnerSettings: []string{"WSCLUSTER_GRACE=0s"},
		Log:            log,
	})
	if err != nil {
		return fmt.Errorf("%w\nThe log is gone with the folder; the last lines are above", err)
	}
	bindings, err := c.Rabbit.Ctl(ctx, "--silent", "list_bindings", "source_name", "routing_key", "destination_name")
	if err != nil {
		return errors.Join(err, c.Stop())
	}
	fmt.Printf(`
  Console, through HAProxy   http://%s/
  HAProxy's own page         http://%s/stats
  A worker's metrics         http://%s/metrics
  RabbitMQ                   %s
  Log of everything          %s

  Bindings of the exchange utils (key -> queue):
%s
  Ctrl-C stops everything and removes it.
`, c.HAProxy.Addr, c.HAProxy.Ops, c.Workers[0].Internal, c.Rabbit.URL(), logFile, ofUtils(bindings))
	<-ctx.Done()
	fmt.Println("\nStopping ...")
	return c.Stop()
}

// ofUtils keeps the lines of list_bindings that are about the exchange utils.
func ofUtils(bindings string) string {
	var out strings.Builder
	for line := range strings.Lines(bindings) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == "utils" {
			fmt.Fprintf(&out, "    %s -> %s\n", f[1], f[2])
		}
	}
	return out.String()
}
