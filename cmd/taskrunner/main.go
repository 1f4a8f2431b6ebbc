// Command taskrunner takes tasks from RabbitMQ and does them by recipes, as processes on this
// machine.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/wscluster/wscluster/internal/config"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	os.Exit(config.Execute(ctx, command(), os.Args[1:], os.Stdout, os.Stderr))
}

func command() *cobra.Command {
	root := &cobra.Command{
		Use:   "taskrunner",
		Short: "Do tasks of the cluster on this machine",
		Args:  cobra.NoArgs,
	}
	root.AddCommand(runCommand())
	return root
}
