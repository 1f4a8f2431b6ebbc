// Package lab is what measurements share: the repository, a folder that goes away, the programs as they are now, and
// private clusters of them.
package lab

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

// Lab is for one run of measurements, which are made one at a time.
type Lab struct {
	Root string // the repository
	Dir  string // goes away with Close

	progress io.Writer
	bin      string // the programs; "" until they are built
}

// New makes a lab whose folder's name begins with name. Progress goes to a writer.
func New(name string, progress io.Writer) (*Lab, error) {
	root, err := rig.Root()
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", name+"-")
	if err != nil {
		return nil, err
	}
	return &Lab{Root: root, Dir: dir, progress: progress}, nil
}

// Close removes the folder.
func (l *Lab) Close() {
	if err := os.RemoveAll(l.Dir); err != nil {
		l.Logf("remove the folder of this run: %v", err)
	}
}

// Logf writes a line of progress.
func (l *Lab) Logf(format string, args ...any) { fmt.Fprintf(l.progress, format+"\n", args...) }

// clusterStart bounds the start of RabbitMQ, a few workers and HAProxy, eachWorker is what each worker more gets.
const (
	clusterStart = 90 * time.Second
	eachWorker   = 3 * time.Second
)

// Cluster starts a private cluster of the programs as they are now. Dir and Bin of o are the lab's.
// Whoever starts it stops it.
func (l *Lab) Cluster(ctx context.Context, o rig.ClusterOptions) (*rig.Cluster, error) {
	bin, err := l.Programs(ctx)
	if err != nil {
		return nil, err
	}
	if o.Dir, err = os.MkdirTemp(l.Dir, "cluster-"); err != nil {
		return nil, err
	}
	o.Bin = bin
	o.WorkerSettings = append([]string{"WSCLUSTER_LOG_LEVEL=warn"}, o.WorkerSettings...) // runners have to say that they take tasks
	ctx, cancel := context.WithTimeout(ctx, clusterStart+time.Duration(len(o.Workers))*eachWorker)
	defer cancel()
	return rig.StartCluster(ctx, o)
}

// Programs builds the programs as they are now, once, and returns their folder.
func (l *Lab) Programs(ctx context.Context) (string, error) {
	if l.bin == "" {
		bin := filepath.Join(l.Dir, "bin")
		build := exec.CommandContext(ctx, "go", "build", "-o", bin+"/", "./cmd/...")
		build.Dir = l.Root
		if out, err := build.CombinedOutput(); err != nil {
			return "", fmt.Errorf("build the programs: %w\n%s", err, out)
		}
		l.bin = bin
	}
	return l.bin, nil
}

// Stop stops c and says what went wrong, which spoils nothing that was measured.
func (l *Lab) Stop(c *rig.Cluster) {
	if err := c.Stop(); err != nil {
		l.Logf("stop the cluster: %v", err)
	}
}
