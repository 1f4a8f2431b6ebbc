package main

import (
	"image/png"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

var systems = []measured{
	{Scenario: "broadcast", System: "slow", Clients: 9, Values: map[string]float64{"last_ms": 120}, Spread: map[string][2]float64{"last_ms": {80, 300}}},
	{Scenario: "broadcast", System: "wscluster", Clients: 9, Values: map[string]float64{"last_ms": 12}},
	{Scenario: "broadcast", System: "failed", Clients: 9},
	{Scenario: "unicast-throughput", System: "wscluster", Clients: 9, Values: map[string]float64{"messages_per_s": 40_000}},
	{Scenario: "unicast-throughput", System: "slow", Clients: 9, Values: map[string]float64{"messages_per_s": 400}},
}

func TestTheBestIsOnTop(t *testing.T) {
	for _, c := range charts {
		bars, clients := c.bars(systems)
		var names []string
		for _, b := range bars {
			names = append(names, b.system)
		}
		if c.scenario == "broadcast" || c.value == "messages_per_s" {
			if !slices.Equal(names, []string{"wscluster", "slow"}) || clients != 9 {
				t.Errorf("%s: %v of %d clients", c.file, names, clients)
			}
		} else if len(bars) > 0 {
			t.Errorf("%s has %v", c.file, names)
		}
	}
}

func TestChartsAreDrawn(t *testing.T) {
	dir := t.TempDir()
	for _, c := range charts {
		bars, _ := c.bars(systems)
		if len(bars) == 0 {
			continue
		}
		if err := c.draw(bars, "a test", filepath.Join(dir, c.file)); err != nil {
			t.Fatal(err)
		}
		f, err := os.Open(filepath.Join(dir, c.file))
		if err != nil {
			t.Fatal(err)
		}
		picture, err := png.Decode(f)
		f.Close()
		if err != nil {
			t.Fatal(err)
		}
		if r, g, b, _ := picture.At(1, 1).RGBA(); r != 0xffff || g != 0xffff || b != 0xffff {
			t.Errorf("%s: its background is not white", c.file)
		}
	}
}

func TestNumbersAreShort(t *testing.T) {
	for v, want := range map[float64]string{0.123456: "0.123", 5: "5", 99.96: "100", 100: "100", 1234.5: "1,234", 1_000_000: "1,000,000"} {
		if got := number(v); got != want {
			t.Errorf("%v: %s, want %s", v, got, want)
		}
	}
}
