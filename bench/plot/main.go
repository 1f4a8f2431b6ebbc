// Command plot draws what compare measured: a PNG of bars for each value that is compared, a bar for each system with
// its rounds as a whisker from the lowest to the highest.
//
//	go run . SUMMARY.json FOLDER
//
// It is a module of its own, so that nobody else needs what it draws with.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
)

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: plot SUMMARY.json FOLDER")
		os.Exit(2)
	}
	if err := run(os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, "plot:", err)
		os.Exit(1)
	}
}

// summary is what is read of compare's summary.json.
type summary struct {
	Run struct {
		Machine struct {
			Cores int    `json:"cores"`
			CPU   string `json:"cpu"`
		} `json:"machine"`
		Load float64 `json:"load"`
	} `json:"run"`
	Systems []measured `json:"systems"`
}

// measured is one system in one scenario.
type measured struct {
	Scenario, System string
	Clients, Rounds  int
	Values           map[string]float64
	Spread           map[string][2]float64
}

func run(file, folder string) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var s summary
	if err := json.Unmarshal(text, &s); err != nil {
		return fmt.Errorf("%s: %w", file, err)
	}
	where := fmt.Sprintf("%d cores, load %.1f at the start", s.Run.Machine.Cores, s.Run.Load)
	for _, c := range charts {
		bars, clients := c.bars(s.Systems)
		if len(bars) == 0 {
			continue
		}
		subtitle := fmt.Sprintf("%d clients, %s; bar: median, whisker: lowest to highest round", clients, where)
		if err := c.draw(bars, subtitle, filepath.Join(folder, c.file)); err != nil {
			return fmt.Errorf("%s: %w", c.file, err)
		}
	}
	return nil
}
