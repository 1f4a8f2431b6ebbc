package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/wscluster/wscluster/internal/rig"
)

// lab is what all figures share: the repository, a folder that goes away, and how to start servers.
type lab struct {
	root     string
	dir      string
	progress io.Writer
	bin      string // the programs; "" until they are built

	kills   *kills   // nil until they are measured
	rolling *rolling // nil until it is measured

	rates []eventRates // nil until they are measured
}

func newLab(progress io.Writer) (*lab, error) {
	root, err := rig.Root()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", "figures-")
	if err != nil {
		return nil, err
	}
	return &lab{root: root, dir: dir, progress: progress}, nil
}

func (l *lab) close() {
	if err := os.RemoveAll(l.dir); err != nil {
		l.logf("remove the folder of this run: %v", err)
	}
}

func (l *lab) logf(format string, args ...any) { fmt.Fprintf(l.progress, format+"\n", args...) }

// clusterStart bounds the start of RabbitMQ, the workers and HAProxy.
const clusterStart = 90 * time.Second

// cluster starts a private cluster of the programs as they are now. Dir and Bin of o are the lab's.
// Whoever starts it stops it.
func (l *lab) cluster(ctx context.Context, o rig.ClusterOptions) (*rig.Cluster, error) {
	bin, err := l.programs(ctx)
	if err != nil {
		return nil, err
	}
	if o.Dir, err = os.MkdirTemp(l.dir, "cluster-"); err != nil {
		return nil, err
	}
	o.Bin = bin
	o.WorkerSettings = append([]string{"WSCLUSTER_LOG_LEVEL=warn"}, o.WorkerSettings...) // runners have to say that they take tasks
	ctx, cancel := context.WithTimeout(ctx, clusterStart)
	defer cancel()
	return rig.StartCluster(ctx, o)
}

// programs builds the programs as they are now, once, and returns their folder.
func (l *lab) programs(ctx context.Context) (string, error) {
	if l.bin == "" {
		bin := filepath.Join(l.dir, "bin")
		build := exec.CommandContext(ctx, "go", "build", "-o", bin+"/", "./cmd/...")
		build.Dir = l.root
		if out, err := build.CombinedOutput(); err != nil {
			return "", fmt.Errorf("build the programs: %w\n%s", err, out)
		}
		l.bin = bin
	}
	return l.bin, nil
}

// stop stops c and says what went wrong, which spoils nothing that was measured.
func (l *lab) stop(c *rig.Cluster) {
	if err := c.Stop(); err != nil {
		l.logf("stop the cluster: %v", err)
	}
}
