package config

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
)

// Execute runs root, or the subcommand that args name, with ctx, and returns the exit code of the
// process. An error is written to stderr, each of its lines behind the program's name. What cobra
// refuses before a command runs (unknown commands and flags, wrong arguments) is ExitUsage.
func Execute(ctx context.Context, root *cobra.Command, args []string, stdout, stderr io.Writer) int {
	started := false
	root.PersistentPreRun = func(*cobra.Command, []string) { started = true }
	root.SilenceErrors, root.SilenceUsage = true, true
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	if err != nil && !started {
		err = WithExit(ExitUsage, fmt.Errorf("%w; see %s --help", err, root.Name()))
	}
	if err != nil {
		for line := range strings.Lines(err.Error()) {
			fmt.Fprintf(stderr, "%s: %s\n", root.Name(), strings.TrimRight(line, "\n"))
		}
	}
	return ExitCode(err)
}
