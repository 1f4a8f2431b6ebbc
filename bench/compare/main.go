// Command compare measures wscluster beside what it is compared with, in turn and round by round on the same machine:
// bare baselines, RabbitMQ's Web-STOMP and Web-MQTT, nchan, Socket.IO, Pushpin, as far as they are installed. All
// servers are private, on loopback, and go away with it; a system that cannot be started is named and left out.
//
// Each round is a JSON line of -out/rounds.jsonl, the medians are a table on stdout and plots in -out. With -million it
// measures instead one thing: that many clients on as many workers as it takes.
//
// It needs Linux, Go, RabbitMQ. The exit code is 0 if everything could be measured and no message went wrong with
// wscluster, 1 otherwise, 2 for bad usage.
package main

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/wscluster/wscluster/bench/bare"
	"github.com/wscluster/wscluster/bench/crowd"
	"github.com/wscluster/wscluster/bench/lab"
	"github.com/wscluster/wscluster/bench/report"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	if len(os.Args) > 1 && os.Args[1] == bare.RelayCommand {
		fmt.Fprintln(os.Stderr, "compare:", bare.RelayMain(os.Args[2:], os.Stdin, os.Stdout))
		os.Exit(1)
	}
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}

// run returns the exit code.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("compare", flag.ContinueOnError)
	flags.SetOutput(stderr)
	o := options{}
	flags.IntVar(&o.clients, "clients", 2_000, "clients of each system, 32 to 15000")
	flags.IntVar(&o.messages, "messages", 30_000, "messages of a round of throughput")
	flags.Float64Var(&o.seconds, "seconds", 3, "how long messages are published at a rate")
	flags.IntVar(&o.fill, "fill", 12_000, "messages that fill the buffers of a client that reads nothing")
	flags.DurationVar(&o.idle, "idle", 10*time.Second, "how long clients idle before memory is looked at")
	rounds := flags.Int("rounds", 3, "rounds")
	which := flags.String("systems", "", "only the systems whose name matches this regular expression")
	what := flags.String("scenarios", "", "only the scenarios whose name matches this regular expression")
	out := flags.String("out", "bench/results", "folder of rounds.jsonl and the plots")
	million := flags.Int("million", 0, "only hold so many clients on real workers, and broadcast to them")
	plotOnly := flags.Bool("plot", false, "only draw the plots and print the table of -out/rounds.jsonl again")
	switch err := flags.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		return 2
	}
	if flags.NArg() > 0 || o.clients < 32 || o.clients > crowd.PerProcess || *rounds < 1 || o.messages < 1 || o.seconds <= 0 || o.fill < 0 || *million < 0 || *million > 1_000_000 {
		fmt.Fprintln(stderr, "compare: a value is out of range, or there are arguments; see -help")
		return 2
	}
	systemsOf, err1 := regexp.Compile(*which)
	scenariosOf, err2 := regexp.Compile(*what)
	if err := errors.Join(err1, err2); err != nil {
		fmt.Fprintln(stderr, "compare:", err)
		return 2
	}
	if err := os.MkdirAll(*out, 0o755); err != nil {
		fmt.Fprintln(stderr, "compare:", err)
		return 1
	}
	var err error
	switch {
	case *plotOnly:
	case *million > 0:
		err = runMillion(ctx, *million, filepath.Join(*out, "million.jsonl"), stdout, stderr)
	default:
		err = measure(ctx, o, *rounds, systemsOf, scenariosOf, filepath.Join(*out, roundsFile), stderr)
	}
	if err == nil && *million == 0 {
		err = show(ctx, *out, stdout)
	}
	if err != nil {
		fmt.Fprintln(stderr, "compare:", err)
		return 1
	}
	return 0
}

const roundsFile = "rounds.jsonl"

// running is a system that has been started.
type running struct {
	name string
	server
	gone bool // it could not be started again
}

// measure starts what it can and writes the rounds to a file.
func measure(ctx context.Context, o options, rounds int, which, what *regexp.Regexp, name string, stderr io.Writer) error {
	l, err := lab.New("compare", stderr)
	if err != nil {
		return err
	}
	defer l.Close()
	defer func() {
		if home != nil {
			l.Stop(home)
		}
	}()
	started, skipped, err := startAll(ctx, l, which)
	defer func() {
		for _, s := range started {
			s.stop()
		}
	}()
	if err != nil {
		return err
	}
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	defer f.Close()
	lines := report.NewWriter(f)
	machine := report.ThisMachine()
	machine.Versions = versions(ctx, l)
	l.Logf("%v", machine)
	if err := lines.Write(report.Line{Run: &report.Run{Command: command(), Machine: machine, Load: report.Load(), Skipped: skipped}}); err != nil {
		return err
	}
	var failed error
	for n := range rounds {
		for _, sc := range scenarios {
			if !what.MatchString(sc.name) || sc.once && n > 0 {
				continue
			}
			for _, s := range started {
				if s.gone {
					continue
				}
				r, ok := measureOne(ctx, o, sc, s, n+1)
				if ctx.Err() != nil {
					return context.Cause(ctx)
				}
				if !ok {
					continue
				}
				l.Logf("round %d, %s, %s: %s", n+1, sc.name, s.name, outcome(r))
				if err := lines.Write(report.Line{Round: &r}); err != nil {
					return err
				}
				if s.name == oursSystem.name && (r.Error != "" || r.Faults != (crowd.Faults{})) {
					failed = errors.Join(failed, fmt.Errorf("round %d, %s, %s: %s", n+1, sc.name, s.name, outcome(r)))
				}
				if err := pause(ctx, quiet); err != nil {
					return err
				}
			}
		}
	}
	return failed
}

// startAll starts the systems one after the other. skipped says which are left out, and why.
func startAll(ctx context.Context, l *lab.Lab, which *regexp.Regexp) (started []*running, skipped map[string]string, err error) {
	skipped = map[string]string{}
	for _, s := range systems {
		if !which.MatchString(s.name) {
			continue
		}
		starting, cancel := context.WithTimeout(ctx, startWithin)
		server, err := s.start(starting, l)
		cancel()
		switch {
		case ctx.Err() != nil:
			return started, skipped, context.Cause(ctx)
		case err != nil:
			l.Logf("%s is left out: %v", s.name, err)
			skipped[s.name] = err.Error()
		default:
			l.Logf("%s runs", s.name)
			started = append(started, &running{name: s.name, server: server})
		}
	}
	if len(started) == 0 {
		return nil, skipped, errors.New("no system could be started")
	}
	return started, skipped, nil
}

const startWithin = 2 * time.Minute

// measureOne measures one round; ok is false if the system has nothing like that. One that fails is started again.
func measureOne(ctx context.Context, o options, sc scenario, s *running, n int) (r report.Round, ok bool) {
	r = report.Round{Scenario: sc.name, System: s.name, Number: n, Clients: o.clients}
	var err error
	r.Values, r.Faults, err = sc.measure(ctx, o, s.server)
	if errors.Is(err, errNoSuch) {
		return r, false
	}
	if err != nil {
		r.Values, r.Error = nil, err.Error()
		s.kill() // it may hold half of its clients
		if err := s.revive(ctx); err != nil {
			r.Error += "; it could not be started again: " + err.Error()
			s.gone = true
		}
	}
	r.Load = report.Load()
	return r, true
}

// outcome is a line for people.
func outcome(r report.Round) string {
	if r.Error != "" {
		first, _, _ := strings.Cut(r.Error, "\n") // the file has all of it
		return "FAILED: " + first
	}
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(r.Values)) {
		parts = append(parts, name+"="+report.Number(r.Values[name]))
	}
	if r.Faults != (crowd.Faults{}) {
		parts = append(parts, fmt.Sprintf("%+v", r.Faults))
	}
	return strings.Join(parts, " ")
}

// command is how this run was started, without the path of the program.
func command() []string { return append([]string{"compare"}, os.Args[1:]...) }

// show prints the table and draws the plots.
func show(ctx context.Context, dir string, stdout io.Writer) error {
	f, err := os.Open(filepath.Join(dir, roundsFile))
	if err != nil {
		return err
	}
	defer f.Close()
	run, rounds, err := report.Read(f)
	if err != nil {
		return err
	}
	baselines := map[string]string{}
	for _, s := range scenarios {
		baselines[s.name] = s.baseline
	}
	all := report.Summarize(rounds, baselines)
	if err := report.Table(stdout, all); err != nil {
		return err
	}
	for name, why := range run.Skipped {
		fmt.Fprintf(stdout, "left out: %s: %s\n", name, why)
	}
	return plots(ctx, dir, run, all)
}

// versions asks the servers for theirs.
func versions(ctx context.Context, l *lab.Lab) map[string]string {
	found := map[string]string{}
	for name, c := range map[string][]string{
		"node": {"node", "--version"}, "nginx": {"/usr/sbin/nginx", "-v"}, "pushpin": {"pushpin", "--version"}, "redis": {"redis-server", "--version"},
		"rabbitmq":  {"dpkg-query", "-W", "-f", "${Version}", "rabbitmq-server"},
		"nchan":     {"dpkg-query", "-W", "-f", "${Version}", "libnginx-mod-nchan"},
		"socket.io": {"node", "-p", "require('./" + socketioFolder + "/node_modules/socket.io/package.json').version"},
	} {
		cmd := exec.CommandContext(ctx, c[0], c[1:]...)
		cmd.Dir = l.Root
		if out, err := cmd.CombinedOutput(); err == nil {
			first, _, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
			found[name] = cmp.Or(first, "unknown")
		}
	}
	return found
}
