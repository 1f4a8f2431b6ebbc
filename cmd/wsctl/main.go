// Command wsctl is for those who run wscluster: it puts a private cluster to the test, asks a running
// one whether its sums are right, loads it with clients, signs grants and publishes to channels.
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
		Use:   "wsctl",
		Short: "Put a cluster to the test, and look after one",
		Args:  cobra.NoArgs,
	}
	root.AddCommand(chaosCommand(), benchCommand(), clientsCommand(), balanceCommand(), publisherCommand(), publishCommand(), tokenCommand())
	return root
}
