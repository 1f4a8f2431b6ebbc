package main

import (
	"bytes"
	"context"
	"errors"
	"regexp"
	"strings"
	"testing"
	"time"
)

// fixed is a figure that measures what it is told to.
func fixed(name string, f floor, rounds ...sample) figure {
	return figure{name, "us", f, func(context.Context, *lab) ([]sample, error) { return rounds, nil }}
}

var (
	atMost60  = floor{limit: 60}
	halfRatio = floor{ofRatio: true, atLeast: true, limit: 0.5}
)

func TestALineTellsWhatWasMeasuredAndWhetherItHolds(t *testing.T) {
	for _, test := range []struct {
		figure figure
		want   string
	}{
		{fixed("a", atMost60, sample{value: 59.96}), "a 60.0 us - - value<=60 ok"},
		{fixed("a", atMost60, sample{value: 60.01}), "a 60.0 us - - value<=60 short"},
		{fixed("b", halfRatio, sample{0.25, 0.5}), "b 0.25 us 0.50 0.50 ratio>=0.5 ok"},
		{fixed("b", halfRatio, sample{2400, 5000}), "b 2400 us 5000 0.48 ratio>=0.5 short"},
		{fixed("c", floor{ofRatio: true, limit: 2}, sample{30, 12}), "c 30.0 us 12.0 2.50 ratio<=2 short"},
		{fixed("c", floor{ofRatio: true, limit: 2}, sample{value: 30}), "c 30.0 us - - ratio<=2 short"},
		{fixed("d", floor{atLeast: true, limit: 1e6}, sample{value: 2e7}), "d 20000000 us - - value>=1000000 ok"},
	} {
		var out, progress bytes.Buffer
		code := run(t.Context(), []figure{test.figure}, nil, &out, &progress)
		if out.String() != test.want+"\n" {
			t.Errorf("got line %q, want %q", out.String(), test.want)
		}
		if want := strings.HasSuffix(test.want, "short"); (code == 1) != want || code > 1 {
			t.Errorf("%s: got exit code %d", test.want, code)
		}
		if fields := len(strings.Fields(out.String())); fields != len(strings.Fields(columns)) {
			t.Errorf("the line has %d fields, its head %d", fields, len(strings.Fields(columns)))
		}
		for _, want := range []string{columns, "machine: ", " cores ("} {
			if !strings.Contains(progress.String(), want) {
				t.Errorf("progress does not tell %q: %q", want, progress.String())
			}
		}
	}
}

func TestTheMedianRoundCounts(t *testing.T) {
	for _, test := range []struct {
		rounds []sample
		want   sample
	}{
		{[]sample{{value: 3}, {value: 1}, {value: 2}}, sample{value: 2}},
		{[]sample{{value: 4}, {value: 3}, {value: 1}, {value: 2}}, sample{value: 2}},
		{[]sample{{100, 50}, {10, 1}, {5, 1}}, sample{5, 1}}, // by ratio: 2, 10, 5
		{[]sample{{7, 2}}, sample{7, 2}},
	} {
		if got := median(test.rounds); got != test.want {
			t.Errorf("median of %v: got %v, want %v", test.rounds, got, test.want)
		}
	}
}

func TestTheExitCodeIsThatOfTheWorstFigure(t *testing.T) {
	good, bad := fixed("good", atMost60, sample{value: 1}), fixed("bad", atMost60, sample{value: 61})
	broken := figure{"broken", "s", atMost60, func(context.Context, *lab) ([]sample, error) {
		return nil, errors.New("no rabbit")
	}}
	for _, test := range []struct {
		args  string
		code  int
		lines int
	}{
		{"", 1, 2},
		{"-run good", 0, 1},
		{"-run good|bad", 1, 2},
		{"-run broken", 1, 0},
		{"-run ^goo$", 2, 0},
		{"-run (", 2, 0},
		{"good", 2, 0},
		{"-fast", 2, 0},
		{"-h", 0, 0},
	} {
		var out, progress bytes.Buffer
		code := run(t.Context(), []figure{good, broken, bad}, strings.Fields(test.args), &out, &progress)
		if lines := strings.Count(out.String(), "\n"); code != test.code || lines != test.lines {
			t.Errorf("figures %s: got exit code %d and %d lines, want %d and %d", test.args, code, lines, test.code, test.lines)
		}
		if strings.Contains(test.args, "broken") && !strings.Contains(progress.String(), "no rabbit") {
			t.Errorf("the reason is not told: %q", progress.String())
		}
	}
}

func TestAStoppedRunPrintsNoMoreLines(t *testing.T) {
	ctx, stop := context.WithCancel(t.Context())
	stopping := figure{"first", "s", atMost60, func(ctx context.Context, _ *lab) ([]sample, error) {
		stop()
		return nil, context.Cause(ctx)
	}}
	var out, progress bytes.Buffer
	code := run(ctx, []figure{stopping, fixed("second", atMost60, sample{value: 1})}, nil, &out, &progress)
	if code != 1 || out.Len() > 0 {
		t.Errorf("got exit code %d and %q, want 1 and nothing", code, out.String())
	}
}

func TestFiguresHaveNamesOfTheirOwn(t *testing.T) {
	seen := map[string]bool{}
	for _, f := range figures {
		if seen[f.name] || !regexp.MustCompile(`^[a-z0-9-]+$`).MatchString(f.name) || f.unit == "" || f.measure == nil {
			t.Errorf("figure %+v has no name of its own, or lacks something", f.name)
		}
		seen[f.name] = true
	}
}

func TestAMessageIs256BytesAndTellsItsAge(t *testing.T) {
	at := began.Add(100 * time.Second)
	body := stamp(at)
	if len(body) != 256 {
		t.Errorf("the body has %d bytes, want 256", len(body))
	}
	if took, err := age(body, at.Add(1500)); err != nil || took != 1500 {
		t.Errorf("got %v, %v; want 1.5us", took, err)
	}
}
