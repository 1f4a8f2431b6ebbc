// Command figures measures what docs/PERFORMANCE.md claims, each figure on private servers of its
// own, and prints one line for each:
//
//	name value unit baseline ratio floor ok|short
//
// value is the median round's, in unit; baseline is what it is compared with, in the same unit,
// and ratio is value / baseline (both "-" where there is nothing to compare with). floor is the
// bound that must hold, on the value or on the ratio, whichever it names: ok if it does, else
// short. Absolute values are one machine's on one day; ratios are measured side by side and carry
// over.
//
// Lines go to stdout, progress and the machine to stderr. The exit code is 0 if all is ok, 1 if a
// figure is short or could not be measured, 2 for bad usage. -run selects figures by name.
// It needs Linux, Go, git, RabbitMQ and HAProxy, and stops everything on Ctrl-C.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"regexp"
	"syscall"

	"github.com/wscluster/wscluster/bench/bare"
	benchlab "github.com/wscluster/wscluster/bench/lab"
	"github.com/wscluster/wscluster/bench/report"
)

// lab is what all figures share.
type lab struct {
	*benchlab.Lab

	kills   *kills   // nil until they are measured
	rolling *rolling // nil until it is measured

	growth *growth // nil until it is measured

	rates   []eventRates   // nil until they are measured
	unicast []unicastTimes // nil until they are measured
	idle    []idleRound    // as far as they are measured

	benchmarks map[benchmark][]metrics // those that are measured
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop)                             // a second signal ends the process at once
	if len(os.Args) > 1 && os.Args[1] == bare.RelayCommand { // one that bare.StartRelay has started
		fmt.Fprintln(os.Stderr, "figures:", bare.RelayMain(os.Args[2:], os.Stdin, os.Stdout))
		os.Exit(1)
	}
	os.Exit(run(ctx, figures, os.Args[1:], os.Stdout, os.Stderr))
}

// run measures the figures that args select and returns the exit code.
func run(ctx context.Context, figures []figure, args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("figures", flag.ContinueOnError)
	flags.SetOutput(stderr)
	pattern := flags.String("run", "", "measure only the figures whose name matches this regular expression")
	switch err := flags.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		return 2
	}
	selected, err := regexp.Compile(*pattern)
	if err != nil || flags.NArg() > 0 {
		fmt.Fprintln(stderr, "figures: -run takes one regular expression, and there are no other arguments:", errors.Join(err))
		return 2
	}

	shared, err := benchlab.New("figures", stderr)
	if err != nil {
		fmt.Fprintln(stderr, "figures:", err)
		return 1
	}
	defer shared.Close()
	l := &lab{Lab: shared, benchmarks: map[benchmark][]metrics{}}
	l.Logf("machine: %v\n%s", report.ThisMachine(), columns)
	code, measured := 0, 0
	for _, f := range figures {
		if !selected.MatchString(f.name) {
			continue
		}
		measured++
		l.Logf("%s: measuring", f.name)
		rounds, err := f.measure(ctx, l)
		switch {
		case ctx.Err() != nil:
			fmt.Fprintln(stderr, "figures: stopped")
			return 1
		case err != nil:
			fmt.Fprintf(stderr, "figures: %s could not be measured: %v\n", f.name, err)
			code = 1
			continue
		}
		line, ok := f.line(median(rounds))
		fmt.Fprintln(stdout, line)
		if !ok {
			code = 1
		}
	}
	if measured == 0 {
		fmt.Fprintf(stderr, "figures: no figure's name matches %q\n", *pattern)
		return 2
	}
	return code
}
