package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/wscluster/wscluster/bench/report"
	"github.com/wscluster/wscluster/internal/rig"
)

// plots writes a summary to the folder, and has bench/plot draw it. That is a module of its own.
func plots(ctx context.Context, dir string, run report.Run, all []*report.Summary) error {
	root, err := rig.Root()
	if err != nil {
		return err
	}
	if dir, err = filepath.Abs(dir); err != nil {
		return err
	}
	text, err := json.MarshalIndent(map[string]any{"run": run, "systems": all}, "", " ")
	if err != nil {
		return err
	}
	file := filepath.Join(dir, "summary.json")
	if err := os.WriteFile(file, append(text, '\n'), 0o666); err != nil {
		return err
	}
	draw := exec.CommandContext(ctx, "go", "run", ".", file, dir)
	draw.Dir = filepath.Join(root, "bench", "plot")
	if out, err := draw.CombinedOutput(); err != nil {
		return fmt.Errorf("the plots are not drawn: %w\n%s", err, out)
	}
	return nil
}
