// Command wsworker is a WebSocket worker of wscluster, or, as "wsworker dev", a whole cluster in
// one process.
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
		Use:   "wsworker",
		Short: "Serve WebSocket clients and bring them the results of their tasks",
		Args:  cobra.NoArgs,
	}
	root.AddCommand(runCommand(), devCommand())
	return root
}
