package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"github.com/spf13/cobra"

	"github.com/wscluster/wscluster/internal/config"
)

// balance is the operator's sum over a cluster: every event that runners published is delivered,
// dead for a reason, or held. Counters begin with their process: a worker or runner that was
// started again since takes its share of the sum with it.
type balance struct {
	published float64 // durable events of runners that the broker confirmed
	delivered float64 // acknowledged by their clients
	dead      map[string]float64
	held      float64 // by workers, for clients that have not acknowledged them
	duplicate float64 // came again to a client that had them; for people only
}

// difference is how many published events are neither delivered nor dead nor held.
func (b balance) difference() float64 {
	d := b.published - b.delivered - b.held
	for _, n := range b.dead {
		d -= n
	}
	return d
}

func (b balance) equal(o balance) bool {
	return b.published == o.published && b.delivered == o.delivered && b.held == o.held && b.duplicate == o.duplicate && maps.Equal(b.dead, o.dead)
}

func (b balance) String() string {
	var s strings.Builder
	row := func(name string, n float64, what string) { fmt.Fprintf(&s, "%-24s %12.0f  %s\n", name, n, what) }
	row("published", b.published, "durable events of runners, confirmed by the broker")
	row("delivered", b.delivered, "acknowledged by their clients")
	for _, reason := range slices.Sorted(maps.Keys(b.dead)) {
		row("dead, "+reason, b.dead[reason], "in the queue dead.events")
	}
	row("held", b.held, "by workers, for their clients")
	row("duplicate", b.duplicate, "came again to clients that had them; not part of the sum")
	fmt.Fprintf(&s, "balance: published=%.0f delivered=%.0f dead=%.0f held=%.0f difference=%.0f",
		b.published, b.delivered, b.published-b.delivered-b.held-b.difference(), b.held, b.difference())
	return s.String()
}

// add adds one page of metrics, a worker's or a runner's.
func (b *balance) add(page io.Reader) error {
	parser := expfmt.NewTextParser(model.LegacyValidation)
	families, err := parser.TextToMetricFamilies(page)
	if err != nil {
		return err
	}
	each := func(name string, f func(labels map[string]string, value float64)) {
		for _, m := range families[name].GetMetric() {
			labels := map[string]string{}
			for _, l := range m.GetLabel() {
				labels[l.GetName()] = l.GetValue()
			}
			f(labels, m.GetCounter().GetValue()+m.GetGauge().GetValue())
		}
	}
	each("wscluster_runner_events_total", func(labels map[string]string, n float64) {
		if labels["outcome"] == "confirmed" && labels["durable"] == "true" {
			b.published += n
		}
	})
	each("wscluster_mailbox_events_total", func(labels map[string]string, n float64) {
		switch labels["outcome"] {
		case "delivered":
			b.delivered += n
		case "duplicate":
			b.duplicate += n
		}
	})
	each("wscluster_events_dead_total", func(labels map[string]string, n float64) {
		if n > 0 {
			b.dead[labels["reason"]] += n
		}
	})
	each("wscluster_mailbox_held_events", func(_ map[string]string, n float64) { b.held += n })
	return nil
}

func balanceCommand() *cobra.Command {
	var workers, runners []string
	var settle time.Duration
	c := &cobra.Command{
		Use:   "balance --worker URL... --runner URL...",
		Short: "Check that every published event is delivered, dead for a reason, or held",
		Long: `Read the metrics of all workers and runners of a cluster, wait until they stand still, and print
published = delivered + dead + held, with the difference. The exit code is 1 if it is not 0, or if
the cluster does not come to rest.

Counters begin with their process: it is a check for a cluster none of whose processes has been
started again since the runners began.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			var errs []error
			var pages []string
			for _, list := range [][]string{workers, runners} {
				if len(list) == 0 {
					errs = append(errs, errors.New("--worker and --runner must both be given, each as often as there are some"))
				}
				for _, raw := range list {
					page, err := metricsURL(raw)
					pages, errs = append(pages, page), append(errs, err)
				}
			}
			if settle <= 0 {
				errs = append(errs, fmt.Errorf("--settle %v must be longer than nothing, as in 5s", settle))
			}
			if err := errors.Join(errs...); err != nil {
				return config.WithExit(config.ExitUsage, err)
			}
			b, err := rest(c.Context(), settle, func(ctx context.Context) (balance, error) { return read(ctx, pages) })
			if err != nil {
				return err
			}
			fmt.Fprintln(c.OutOrStdout(), b)
			if d := b.difference(); d != 0 {
				return fmt.Errorf("%.0f events of %.0f are unaccounted for", d, b.published)
			}
			return nil
		},
	}
	c.Flags().StringArrayVar(&workers, "worker", nil, "internal address of a worker, as in http://127.0.0.1:9101; once for each")
	c.Flags().StringArrayVar(&runners, "runner", nil, "internal address of a runner, as in http://127.0.0.1:9201; once for each")
	c.Flags().DurationVar(&settle, "settle", 5*time.Second, "how long nothing must change before the sum counts")
	return c
}

// metricsURL is the page of metrics at an address.
func metricsURL(raw string) (string, error) {
	u, err := url.Parse(raw)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return "", fmt.Errorf("%q must be a URL, as in http://127.0.0.1:9101", raw)
	}
	if u.Path == "" || u.Path == "/" {
		u.Path = "/metrics"
	}
	return u.String(), nil
}

const (
	lookEvery = 250 * time.Millisecond
	restless  = 12 // times the time of rest: then it is given up
)

// rest reads until nothing has changed for settle, and returns what it read last.
func rest(ctx context.Context, settle time.Duration, read func(context.Context) (balance, error)) (balance, error) {
	began := time.Now()
	since := began
	last, err := read(ctx)
	for err == nil && time.Since(since) < settle {
		if time.Since(began) > restless*settle {
			return last, fmt.Errorf("the cluster did not come to rest within %v: events still flow; the sum so far:\n%v", restless*settle, last)
		}
		select {
		case <-time.After(lookEvery):
		case <-ctx.Done():
			return last, context.Cause(ctx)
		}
		var now balance
		if now, err = read(ctx); err == nil && !now.equal(last) {
			since, last = time.Now(), now
		}
	}
	return last, err
}

// pageWithin bounds the reading of one page of metrics.
const pageWithin = 5 * time.Second

// read adds up the pages.
func read(ctx context.Context, pages []string) (balance, error) {
	b := balance{dead: map[string]float64{}}
	for _, page := range pages {
		if err := b.fetch(ctx, page); err != nil {
			return b, fmt.Errorf("%s: %w", page, err)
		}
	}
	return b, nil
}

func (b *balance) fetch(ctx context.Context, page string) error {
	ctx, cancel := context.WithTimeout(ctx, pageWithin)
	defer cancel()
	text, err := fetch(ctx, page)
	if err != nil {
		return err
	}
	defer text.Close()
	return b.add(text)
}

// fetch gets a page, which is read before ctx ends.
func fetch(ctx context.Context, page string) (io.ReadCloser, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, page, nil)
	if err != nil {
		return nil, err
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		return nil, err
	}
	if answer.StatusCode != http.StatusOK {
		answer.Body.Close()
		return nil, fmt.Errorf("the answer was %s", answer.Status)
	}
	return answer.Body, nil
}
