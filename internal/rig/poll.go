package rig

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// pollEvery is the pause between two looks at a condition that cannot be waited for otherwise.
const pollEvery = 10 * time.Millisecond

// poll calls done until it returns nil, or ctx ends: then it returns ctx's cause and what done said
// last before that, unless it was the end of ctx that done failed with.
func poll(ctx context.Context, done func() error) error {
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	var last error
	for {
		err := done()
		if err == nil {
			return nil
		}
		if last == nil || ctx.Err() == nil {
			last = err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", context.Cause(ctx), last)
		}
	}
}

// Root returns the folder of this repository: the nearest one above the working directory that
// has a go.mod. Tests and tools run inside it.
func Root() (string, error) {
	wd, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for dir := wd; ; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		if dir == filepath.Dir(dir) {
			return "", fmt.Errorf("no go.mod above %s: run it inside the repository", wd)
		}
	}
}
