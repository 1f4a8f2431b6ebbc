package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/wscluster/wscluster/internal/rig"
)

// endings are why connections of a million have ended: what its workers count by cause, and the kernel's counters of
// TCP that tell of cut, refused or repeated segments, which count since the machine began.
type endings map[string]float64

// kernelEndings are those of the kernel, by their names in /proc/net/netstat.
var kernelEndings = []string{"TCPAbortOnTimeout", "TCPAbortOnMemory", "TCPAbortOnData", "TCPTimeouts", "TCPRcvQDrop", "TCPMemoryPressures", "TCPBacklogDrop"}

const endingsWithin = 30 * time.Second // to ask all workers

func endingsOf(ctx context.Context, c *rig.Cluster) (endings, error) {
	e := endings{}
	text, err := os.ReadFile("/proc/net/netstat")
	if err != nil {
		return nil, err
	}
	if err := e.addKernel(text); err != nil {
		return nil, err
	}
	var errs []error
	for _, w := range c.Workers {
		if err := e.addWorker(ctx, w.Internal); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", w.Name, err))
		}
	}
	return e, errors.Join(errs...)
}

// addWorker adds the counters of one worker, whose internal listener is at addr.
func (e endings) addWorker(ctx context.Context, addr string) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+"/metrics", nil)
	if err != nil {
		return err
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	parser := expfmt.NewTextParser(model.LegacyValidation)
	families, err := parser.TextToMetricFamilies(answer.Body)
	if err != nil {
		return err
	}
	for _, m := range families["wscluster_connections_closed_total"].GetMetric() {
		for _, l := range m.GetLabel() {
			e["workers: "+l.GetValue()] += m.GetCounter().GetValue()
		}
	}
	return nil
}

// addKernel adds the counters of a text like /proc/net/netstat: a line of names, then one of values.
func (e endings) addKernel(text []byte) error {
	lines := bytes.Split(bytes.TrimSpace(text), []byte("\n"))
	for pair := range slices.Chunk(lines, 2) {
		if len(pair) < 2 {
			return errors.New("netstat has a line of names without values")
		}
		names, values := bytes.Fields(pair[0]), bytes.Fields(pair[1])
		for i, name := range names {
			if !slices.Contains(kernelEndings, string(name)) || i >= len(values) {
				continue
			}
			n, err := strconv.ParseFloat(string(values[i]), 64)
			if err != nil {
				return err
			}
			e["kernel: "+string(name)] += n
		}
	}
	return nil
}

// since tells what has been counted since before.
func (e endings) since(before endings) string {
	var told []string
	for name, n := range e {
		if d := n - before[name]; d != 0 {
			told = append(told, fmt.Sprintf("%s %.0f", name, d))
		}
	}
	if told == nil {
		return "none"
	}
	slices.Sort(told)
	return strings.Join(told, ", ")
}
