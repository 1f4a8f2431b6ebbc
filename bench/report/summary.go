package report

import (
	"fmt"
	"io"
	"slices"
	"strconv"
	"text/tabwriter"

	"github.com/wscluster/wscluster/bench/crowd"
)

// Summary is one system in one scenario: what its rounds come to.
type Summary struct {
	Scenario, System string
	Clients          int
	Rounds           int                   // that have values
	Values           map[string]float64    // medians
	Ratios           map[string]float64    // medians of the rounds' ratios to the baseline in the same round; of systems with a baseline
	Spread           map[string][2]float64 // lowest and highest
	Faults           crowd.Faults          // of all rounds
	Errors           []string
}

// Summarize sums up the rounds in the order in which scenarios and systems come first. baselines names the
// system that each scenario's others are compared with; "" is none.
func Summarize(rounds []Round, baselines map[string]string) (all []*Summary) {
	of := map[[2]string][]Round{}
	for _, r := range rounds {
		key := [2]string{r.Scenario, r.System}
		if _, ok := of[key]; !ok {
			all = append(all, &Summary{Scenario: r.Scenario, System: r.System, Clients: r.Clients})
		}
		of[key] = append(of[key], r)
	}
	var scenarios []string
	for _, s := range all {
		if !slices.Contains(scenarios, s.Scenario) {
			scenarios = append(scenarios, s.Scenario)
		}
		s.sum(of[[2]string{s.Scenario, s.System}], of[[2]string{s.Scenario, baselines[s.Scenario]}])
	}
	slices.SortStableFunc(all, func(a, b *Summary) int { // scenarios stay together
		return slices.Index(scenarios, a.Scenario) - slices.Index(scenarios, b.Scenario)
	})
	return all
}

func (s *Summary) sum(rounds, baseline []Round) {
	s.Values, s.Ratios, s.Spread = map[string]float64{}, map[string]float64{}, map[string][2]float64{}
	values, ratios := map[string][]float64{}, map[string][]float64{}
	for _, r := range rounds {
		s.Faults.Add(r.Faults)
		if r.Error != "" {
			s.Errors = append(s.Errors, r.Error)
			continue
		}
		s.Rounds++
		for name, v := range r.Values {
			values[name] = append(values[name], v)
			for _, b := range baseline {
				if b.Number == r.Number && b.Error == "" && b.Values[name] != 0 {
					ratios[name] = append(ratios[name], v/b.Values[name])
				}
			}
		}
	}
	for name, v := range values {
		s.Values[name], s.Spread[name] = Median(v), [2]float64{slices.Min(v), slices.Max(v)}
	}
	for name, v := range ratios {
		s.Ratios[name] = Median(v)
	}
}

// Median is the value in the middle, of an even number the mean of the two; there must be one.
func Median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	n := len(sorted)
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}

// Table writes a table for each scenario: the medians, behind each in parentheses the ratio to the baseline, and what
// was lost, doubled, out of order or led astray in all rounds.
func Table(out io.Writer, all []*Summary) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	for i, s := range all {
		if i == 0 || all[i-1].Scenario != s.Scenario {
			if i > 0 {
				fmt.Fprintln(w)
			}
			fmt.Fprintf(w, "%s, %d clients\t", s.Scenario, s.Clients)
			for _, name := range columns(all, s.Scenario) {
				fmt.Fprintf(w, "%s\t\t", name)
			}
			fmt.Fprintln(w, "rounds\tlost\tdoubled\tmisordered\tmisrouted\t")
		}
		fmt.Fprintf(w, "%s\t", s.System)
		for _, name := range columns(all, s.Scenario) {
			value, ratio := "-", ""
			if v, ok := s.Values[name]; ok {
				value = Number(v)
			}
			if r, ok := s.Ratios[name]; ok {
				ratio = fmt.Sprintf("(%.2f)", r)
			}
			fmt.Fprintf(w, "%s\t%s\t", value, ratio)
		}
		f := s.Faults
		fmt.Fprintf(w, "%d\t%d\t%d\t%d\t%d\t", s.Rounds, f.Lost, f.Duplicated, f.Misordered, f.Misrouted)
		if len(s.Errors) > 0 {
			fmt.Fprintf(w, "%d failed\t", len(s.Errors))
		}
		fmt.Fprintln(w)
	}
	return w.Flush()
}

// columns are the names of all values in a scenario, sorted.
func columns(all []*Summary, scenario string) (names []string) {
	for _, s := range all {
		for name := range s.Values {
			if s.Scenario == scenario && !slices.Contains(names, name) {
				names = append(names, name)
			}
		}
	}
	slices.Sort(names)
	return names
}

// Number writes v with three digits at least, and never an exponent.
func Number(v float64) string {
	switch {
	case v >= 100:
		return strconv.FormatFloat(v, 'f', 0, 64)
	case v >= 10:
		return strconv.FormatFloat(v, 'f', 1, 64)
	}
	return strconv.FormatFloat(v, 'f', 2, 64)
}
