package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"github.com/spf13/cobra"

	"github.com/wscluster/wscluster/bench/crowd"
	"github.com/wscluster/wscluster/bench/load"
	"github.com/wscluster/wscluster/bench/report"
	"github.com/wscluster/wscluster/internal/config"
	"github.com/wscluster/wscluster/pkg/wire"
)

// bench is one call of wsctl bench.
type bench struct {
	urls, internal, sources []string
	clients, rounds, rate   int
	duration, within        time.Duration
	channel, grantFile, out string

	grant    string // set by prepare, as all below
	addrs    []string
	pages    []string // of metrics
	progress *report.Progress
	lines    *report.Writer
}

// benchScenarios are what may be measured, in this order.
var benchScenarios = []struct {
	name    string
	measure func(*bench, context.Context, *crowd.Many) (map[string]float64, crowd.Faults, error)
}{
	{"idle", (*bench).idle}, {"connect", (*bench).connect}, {"echo", (*bench).echo},
	{"broadcast", (*bench).broadcast}, {"reconnect", (*bench).reconnect},
}

func benchCommand() *cobra.Command {
	var b bench
	c := &cobra.Command{
		Use:   "bench [SCENARIO...] --url URL",
		Short: "Load a running cluster with clients, and measure it",
		Long: `Connect clients to a running cluster, each with a session, and measure scenarios, or all of them:

  idle       they do nothing for the duration; memory of the workers whose --internal is given
  connect    how many sessions a second are opened
  echo       pings of clients in turn, --rate a second, until their pongs
  broadcast  messages of 256 bytes to --channel, --rate a second, until the subscribers have them: every
             one, once, in order, byte for byte; needs a grant to publish there
  reconnect  all clients are cut at once and come back for their sessions

The table of medians goes to standard output, each round as a JSON line to --out. The exit code is 1 if a
message was lost, doubled, out of order or led astray. Clients of more than 15,000 are in several processes.
It needs Linux, and a cluster without TLS in front. The load is real: ask who runs the cluster.`,
		Example: `  wsctl bench connect echo --url http://127.0.0.1:8080 --clients 2000
  wsctl bench broadcast --url http://127.0.0.1:8080 --channel news --grant-file grant --rate 10`,
		RunE: func(c *cobra.Command, scenarios []string) error {
			if err := b.prepare(scenarios); err != nil {
				return config.WithExit(config.ExitUsage, err)
			}
			return b.run(c.Context(), scenarios, c.OutOrStdout(), c.ErrOrStderr())
		},
	}
	f := c.Flags()
	f.StringArrayVar(&b.urls, "url", nil, "a worker, or HAProxy in front of them, as http://127.0.0.1:9001; once for each")
	f.IntVar(&b.clients, "clients", 1_000, "clients, 1 to 1000000")
	f.DurationVar(&b.duration, "duration", 10*time.Second, "of idling, pinging or publishing in a round")
	f.IntVar(&b.rate, "rate", 100, "pings or messages a second")
	f.IntVar(&b.rounds, "rounds", 3, "rounds of each scenario, in turn")
	f.DurationVar(&b.within, "within", 2*time.Minute, "for all clients to connect")
	f.StringVar(&b.channel, "channel", "bench", "that broadcasts go to")
	f.StringVar(&b.grantFile, "grant-file", "", "file with a grant to publish there, and to subscribe if it is not open; or the variable "+grantVariable)
	f.StringArrayVar(&b.internal, "internal", nil, "internal address of a worker, as http://127.0.0.1:9101, to read its memory; once for each")
	f.StringSliceVar(&b.sources, "source", nil, "addresses of this machine to dial from, one for each 14000 clients; on loopback they are chosen")
	f.StringVar(&b.out, "out", "", "file to which the rounds are appended as JSON lines")
	_ = c.MarkFlagRequired("url")
	return c
}

// clientsCommand is a process of clients, which wsctl bench starts.
const clientsName = "bench-clients"

func clientsCommand() *cobra.Command {
	return &cobra.Command{
		Use: clientsName, Hidden: true, Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return crowd.Serve(c.Context(), c.InOrStdin(), c.OutOrStdout())
		},
	}
}

const maxClients = 1_000_000

// prepare reads what the flags say, and says all that is wrong with it.
func (b *bench) prepare(scenarios []string) error {
	var errs []error
	for _, name := range scenarios {
		if !slices.ContainsFunc(b.scenarios(nil), func(s string) bool { return s == name }) {
			errs = append(errs, fmt.Errorf("there is no scenario %q: %s", name, strings.Join(b.scenarios(nil), ", ")))
		}
	}
	for _, raw := range b.urls {
		u, err := url.Parse(raw)
		if err != nil || u.Scheme != "http" || u.Port() == "" || strings.Trim(u.Path, "/") != "" {
			errs = append(errs, fmt.Errorf("--url %q must be as http://127.0.0.1:9001", raw))
			continue
		}
		b.addrs = append(b.addrs, u.Host)
		if ip := net.ParseIP(u.Hostname()); len(b.sources) == 0 && ip != nil && ip.IsLoopback() && ip.To4() != nil {
			for _, s := range load.Loopback(b.clients) {
				b.sources = append(b.sources, s.String())
			}
		}
	}
	for _, raw := range b.internal {
		page, err := metricsURL(raw)
		b.pages, errs = append(b.pages, page), append(errs, err)
	}
	for name, bad := range map[string]bool{
		"--clients 1 to 1000000":       b.clients < 1 || b.clients > maxClients,
		"--rate 1 to 1000000":          b.rate < 1 || b.rate > 1_000_000,
		"--rounds 1 to 100":            b.rounds < 1 || b.rounds > 100,
		"--duration 100ms to 24h":      b.duration < 100*time.Millisecond || b.duration > 24*time.Hour,
		"--within longer than nothing": b.within <= 0,
	} {
		if bad {
			errs = append(errs, errors.New("it must be "+name))
		}
	}
	if _, err := wire.ParseChannel(b.channel); err != nil {
		errs = append(errs, err)
	}
	if slices.Contains(b.scenarios(scenarios), "broadcast") {
		var err error
		b.grant, err = readGrant(b.grantFile)
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// scenarios are those that were asked for, or all.
func (b *bench) scenarios(asked []string) []string {
	if len(asked) > 0 {
		return asked
	}
	for _, s := range benchScenarios {
		asked = append(asked, s.name)
	}
	return asked
}

// run measures the scenarios in turn, round by round.
func (b *bench) run(ctx context.Context, asked []string, stdout, stderr io.Writer) (err error) {
	b.progress = report.NewProgress(stderr)
	defer b.progress.End()
	b.lines = report.NewWriter(io.Discard)
	if b.out != "" {
		f, err := os.OpenFile(b.out, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o666)
		if err != nil {
			return config.WithExit(config.ExitUsage, err)
		}
		defer f.Close()
		b.lines = report.NewWriter(f)
	}
	machine := report.ThisMachine()
	b.progress.Note("the clients' machine: " + machine.String())
	if err := b.lines.Write(report.Line{Run: &report.Run{Command: os.Args, Machine: machine, Load: report.Load()}}); err != nil {
		return err
	}
	var rounds []report.Round
	for n := range b.rounds {
		for _, s := range benchScenarios {
			if !slices.Contains(b.scenarios(asked), s.name) {
				continue
			}
			r := report.Round{Scenario: s.name, System: strings.Join(b.addrs, " "), Number: n + 1, Clients: b.clients}
			r.Values, r.Faults, err = b.round(ctx, s.measure)
			if err != nil {
				return fmt.Errorf("%s: %w", s.name, err)
			}
			r.Load = report.Load()
			if err := b.lines.Write(report.Line{Round: &r}); err != nil {
				return err
			}
			rounds = append(rounds, r)
		}
	}
	b.progress.End()
	all := report.Summarize(rounds, nil)
	if err := report.Table(stdout, all); err != nil {
		return err
	}
	for _, s := range all {
		if s.Faults != (crowd.Faults{}) {
			return fmt.Errorf("%s: %+v", s.Scenario, s.Faults)
		}
	}
	return nil
}

// round starts the clients' processes for one measurement, and ends them.
func (b *bench) round(ctx context.Context, measure func(*bench, context.Context, *crowd.Many) (map[string]float64, crowd.Faults, error)) (_ map[string]float64, _ crowd.Faults, err error) {
	spec := crowd.Spec{Clients: b.clients, Addrs: b.addrs, Sources: b.sources, Channel: b.channel, Grant: b.grant, Within: b.within,
		Opened: func(n int) { b.progress.Bar("connect", n, b.clients) }}
	if b.grant == "" {
		spec.Channel = "" // nobody publishes
	}
	if b.clients > crowd.PerProcess {
		self, err := os.Executable()
		if err != nil {
			return nil, crowd.Faults{}, err
		}
		spec.Command = []string{self, clientsName}
	}
	m, err := crowd.Join(spec)
	if err != nil {
		return nil, crowd.Faults{}, err
	}
	defer func() { err = errors.Join(err, m.Close()) }()
	return measure(b, ctx, m)
}

func (b *bench) connect(ctx context.Context, m *crowd.Many) (map[string]float64, crowd.Faults, error) {
	took, _, err := m.Connect(ctx)
	return map[string]float64{"connects_per_s": float64(b.clients) / took.Seconds()}, crowd.Faults{}, err
}

func (b *bench) idle(ctx context.Context, m *crowd.Many) (map[string]float64, crowd.Faults, error) {
	before, err := b.resident(ctx)
	if err != nil {
		return nil, crowd.Faults{}, err
	}
	if _, _, err := m.Connect(ctx); err != nil {
		return nil, crowd.Faults{}, err
	}
	b.progress.Status(fmt.Sprintf("%d clients idle for %v", b.clients, b.duration))
	select {
	case <-time.After(b.duration):
	case <-ctx.Done():
		return nil, crowd.Faults{}, context.Cause(ctx)
	}
	after, err := b.resident(ctx)
	if err != nil {
		return nil, crowd.Faults{}, err
	}
	b.progress.Status("every client pings")
	t, err := m.Echo(ctx, b.clients, max(1_000, b.clients/10)) // each once
	values := map[string]float64{"alive": float64(t.Got)}
	if len(b.pages) > 0 {
		values["rss_bytes_per_client"] = (after - before) / float64(b.clients)
	}
	return values, t.Faults, err
}

// resident is the memory of the workers whose internal addresses are given, in bytes.
func (b *bench) resident(ctx context.Context) (sum float64, err error) {
	for _, page := range b.pages {
		text, err := fetch(ctx, page)
		if err != nil {
			return 0, fmt.Errorf("%s: %w", page, err)
		}
		parser := expfmt.NewTextParser(model.LegacyValidation)
		families, err := parser.TextToMetricFamilies(text)
		text.Close()
		if err != nil {
			return 0, fmt.Errorf("%s: %w", page, err)
		}
		metric := families["process_resident_memory_bytes"].GetMetric()
		if len(metric) != 1 {
			return 0, fmt.Errorf("%s does not tell its memory", page)
		}
		sum += metric[0].GetGauge().GetValue()
	}
	return sum, nil
}

func (b *bench) echo(ctx context.Context, m *crowd.Many) (map[string]float64, crowd.Faults, error) {
	if _, _, err := m.Connect(ctx); err != nil {
		return nil, crowd.Faults{}, err
	}
	b.progress.Status(fmt.Sprintf("%d pings a second for %v", b.rate, b.duration))
	t, err := m.Echo(ctx, max(1, int(b.duration.Seconds()*float64(b.rate))), b.rate)
	return percentiles(t), t.Faults, err
}

func percentiles(t crowd.Tally) map[string]float64 {
	if t.Got == 0 {
		return nil
	}
	return map[string]float64{"p50_ms": t.Quantile(50), "p99_ms": t.Quantile(99), "max_ms": t.Quantile(100)}
}

const arriveWithin = 30 * time.Second // from the last publish to the last client

func (b *bench) broadcast(ctx context.Context, m *crowd.Many) (map[string]float64, crowd.Faults, error) {
	if _, _, err := m.Connect(ctx); err != nil {
		return nil, crowd.Faults{}, err
	}
	n := max(1, int(b.duration.Seconds()*float64(b.rate)))
	if err := m.Expect(ctx, int64(n)); err != nil {
		return nil, crowd.Faults{}, err
	}
	began := crowd.Now()
	err := crowd.Pace(ctx, n, b.rate, func(i int) error {
		b.progress.Bar("publish", i+1, n)
		p := publication{worker: b.urls[0], channels: []string{b.channel}, grant: b.grant, body: crowd.Message(crowd.Everybody, int64(i+1), crowd.Now())}
		return p.send(ctx)
	})
	if err != nil {
		return nil, crowd.Faults{}, err
	}
	t, err := m.Wait(ctx, arriveWithin)
	values := percentiles(t)
	if values != nil {
		values["deliveries_per_s"] = float64(t.Got) / (float64(t.Last-began) / 1e9)
	}
	return values, t.Faults, err
}

func (b *bench) reconnect(ctx context.Context, m *crowd.Many) (map[string]float64, crowd.Faults, error) {
	if _, _, err := m.Connect(ctx); err != nil {
		return nil, crowd.Faults{}, err
	}
	if err := m.Cut(ctx); err != nil {
		return nil, crowd.Faults{}, err
	}
	took, resumed, err := m.Connect(ctx)
	return map[string]float64{"all_back_s": took.Seconds(), "resumed": float64(resumed)}, crowd.Faults{}, err
}
