// Package e2e shows the whole path on real parts: RabbitMQ, HAProxy and Chromium, each private to
// its test, on free ports of loopback, started and killed here.
package e2e

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/wscluster/wscluster/internal/rig"
	"github.com/wscluster/wscluster/pkg/wire"
	"github.com/wscluster/wscluster/pkg/wsclient"
)

// root is the folder of this repository, bin that of the programs as they are now.
var root, bin string

func TestMain(m *testing.M) {
	if kind := os.Getenv(programVariable); kind != "" {
		program(kind, os.Args[1:])
		return
	}
	os.Exit(func() int {
		var err error
		if root, err = rig.Root(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		if bin, err = os.MkdirTemp("", "e2e-bin-"); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(bin)
		build := exec.Command("go", "build", "-o", bin+"/", "./cmd/wsworker", "./cmd/taskrunner")
		build.Dir, build.Stdout, build.Stderr = root, os.Stdout, os.Stderr
		if err := build.Run(); err != nil {
			fmt.Fprintln(os.Stderr, "build the programs:", err)
			return 1
		}
		defer endTown()
		return m.Run()
	}())
}

// cluster is a private cluster that ends with its test.
type cluster struct {
	*rig.Cluster
	t *testing.T
}

// places bounds the clusters that run at once, beside the shared one: a RabbitMQ computes for some
// seconds as it starts.
var places = make(chan struct{}, 2)

// start starts a cluster of the workers, with one runner unless options say otherwise, once there is a
// place for it.
func start(t *testing.T, o rig.ClusterOptions, workers ...string) *cluster {
	t.Helper()
	places <- struct{}{}
	t.Cleanup(func() { <-places })
	c, log := startIn(t, t.TempDir(), o, workers...)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("what the cluster wrote last:\n%s", log)
		}
		if err := c.Stop(); err != nil {
			t.Errorf("stop the cluster: %v", err)
		}
	})
	return &cluster{c, t}
}

// startIn is start with the data in dir. Whoever calls it stops the cluster.
func startIn(t *testing.T, dir string, o rig.ClusterOptions, workers ...string) (*rig.Cluster, *tail) {
	t.Helper()
	o.Dir, o.Bin, o.Workers = dir, bin, workers
	// Unless a test says otherwise, lines are durable events: that is what the guarantee is tried with.
	o.RunnerSettings = append([]string{"WSCLUSTER_LOG_LIMIT_BYTES=0"}, o.RunnerSettings...)
	if o.Runners == nil {
		o.Runners = []string{"r1"}
	}
	if o.Repos == nil {
		o.Repos = []string{root}
	}
	log := &tail{}
	o.Log = log
	if all := os.Getenv("E2E_LOG"); all != "" { // a file for what all clusters write
		f, err := os.OpenFile(all, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		o.Log = io.MultiWriter(log, f)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	c, err := rig.StartCluster(ctx, o)
	if err != nil {
		t.Fatalf("%v\n%s", err, log)
	}
	return c, log
}

// logsKept has runners keep logs, as they do by default.
const logsKept = "WSCLUSTER_LOG_LIMIT_BYTES=1000000000"

// withHAProxy is a cluster behind the shipped HAProxy, cookie and ticket affinity.
func withHAProxy() rig.ClusterOptions {
	return rig.ClusterOptions{HAProxy: filepath.Join(root, "deploy/haproxy/haproxy.cfg")}
}

func withLogs(o rig.ClusterOptions) rig.ClusterOptions {
	o.RunnerSettings = append(o.RunnerSettings, logsKept)
	return o
}

// tail keeps the end of what it is written.
type tail struct {
	mu  sync.Mutex
	buf []byte // guarded by mu
}

const tailBytes = 64 << 10

func (l *tail) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.buf = append(l.buf, p...); len(l.buf) > 2*tailBytes {
		l.buf = bytes.Clone(l.buf[len(l.buf)-tailBytes:])
	}
	return len(p), nil
}

func (l *tail) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return string(l.buf)
}

var _ io.Writer = (*tail)(nil)

// client connects to addr and waits for its socket meta. It stops with the test, or by stop.
func client(t *testing.T, addr string, change ...func(*wsclient.Options)) (c *wsclient.Client, stop func()) {
	t.Helper()
	met := make(chan struct{})
	var once sync.Once
	o := wsclient.Options{URL: "ws://" + addr + "/v1/ws", OnMeta: func(wire.SocketMeta) { once.Do(func() { close(met) }) }}
	for _, f := range change {
		f(&o)
	}
	c, err := wsclient.New(o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- c.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		<-done
	})
	t.Cleanup(stop)
	select {
	case <-met:
	case <-time.After(20 * time.Second):
		t.Fatalf("no socket meta from %s within 20 s", addr)
	}
	return c, stop
}

// await polls until check returns nil.
func await(t *testing.T, within time.Duration, check func() error) {
	t.Helper()
	deadline := time.After(within)
	for {
		err := check()
		if err == nil {
			return
		}
		select {
		case <-deadline:
			t.Fatalf("after %v: %v", within, err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// submit submits a task once a runner offers its kind.
func submit(t *testing.T, c *wsclient.Client, kind string, params any) (task *wsclient.Task) {
	t.Helper()
	await(t, 20*time.Second, func() (err error) {
		task, err = c.Submit(t.Context(), kind, params)
		return err
	})
	return task
}

// unacknowledged asks RabbitMQ how many messages of a queue are delivered and not acknowledged.
func (c *cluster) unacknowledged(queue string) (n int) {
	c.t.Helper()
	out, err := c.Rabbit.Ctl(c.t.Context(), "--silent", "list_queues", "name", "messages_unacknowledged")
	if err != nil {
		c.t.Fatal(err)
	}
	for line := range strings.Lines(out) {
		if f := strings.Fields(line); len(f) == 2 && f[0] == queue {
			fmt.Sscan(f[1], &n)
			return n
		}
	}
	c.t.Fatalf("no queue %s among:\n%s", queue, out)
	return 0
}

// containsLine reports whether one of text's lines is line.
func containsLine(text, line string) bool {
	for have := range strings.Lines(text) {
		if strings.TrimSpace(have) == line {
			return true
		}
	}
	return false
}
