package worker_test

import (
	"context"
	"net"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/wscluster/wscluster/internal/worker"
	"github.com/wscluster/wscluster/pkg/broker/memory"
	"github.com/wscluster/wscluster/pkg/socketmeta"
	"github.com/wscluster/wscluster/pkg/taskrunner"
	"github.com/wscluster/wscluster/pkg/wsclient"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// cluster is workers and runners in this process, on one broker in memory.
type cluster struct {
	t      *testing.T
	broker *memory.Broker
	keys   socketmeta.Keys
}

func newCluster(t *testing.T) *cluster {
	return &cluster{t: t, broker: memory.New(memory.Options{}), keys: socketmeta.RandomKeys()}
}

// running is one worker. It stops at the end of the test, or before by stop.
type running struct {
	*worker.Worker
	addr     string
	internal string
	stop     func()
}

// worker starts a worker and waits until it is ready. change, if given, may set options.
func (c *cluster) worker(id socketmeta.ServerID, change ...func(*worker.Options)) *running {
	c.t.Helper()
	w := c.start(id, change...)
	await(c.t, func() error { return w.Ready() })
	return w
}

func (c *cluster) start(id socketmeta.ServerID, change ...func(*worker.Options)) *running {
	c.t.Helper()
	o := worker.Options{Server: id, Broker: c.broker, Keys: c.keys, RouteKeys: c.keys, DrainWindow: 10 * time.Millisecond}
	for _, f := range change {
		f(&o)
	}
	w, err := worker.New(o)
	if err != nil {
		c.t.Fatal(err)
	}
	traffic, internal := listen(c.t), listen(c.t)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- w.Run(ctx, traffic, internal) }()
	r := &running{Worker: w, addr: traffic.Addr().String(), internal: internal.Addr().String()}
	r.stop = func() {
		cancel()
		if err, first := <-done; first {
			close(done)
			if err != nil {
				c.t.Errorf("the worker %s ended with %v", id, err)
			}
		}
	}
	c.t.Cleanup(r.stop)
	return r
}

func listen(t *testing.T) net.Listener {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return ln
}

// runner starts a task runner. Its kinds are offered soon after: see submit.
func (c *cluster) runner(kinds map[string]taskrunner.Kind) (stop func()) {
	return c.runnerIn("r1", c.t.TempDir(), kinds)
}

// runnerIn starts a task runner that keeps its logs in dir. Stopped, it gives back what it has at once, unless change gives it a grace.
func (c *cluster) runnerIn(name, dir string, kinds map[string]taskrunner.Kind, change ...func(*taskrunner.Runner)) (stop func()) {
	r := taskrunner.Runner{Name: name, Broker: c.broker, Kinds: kinds, Slots: 16, Grace: -1, SpoolDir: dir}
	for _, f := range change {
		f(&r)
	}
	return c.background(r.Run)
}

func (c *cluster) background(run func(context.Context) error) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := run(ctx); err != nil {
			c.t.Error(err)
		}
	}()
	stop = func() { cancel(); <-done }
	c.t.Cleanup(stop)
	return stop
}

// client connects to w and waits for its socket meta.
func (c *cluster) client(w *running, change ...func(*wsclient.Options)) (client *wsclient.Client, stop func()) {
	c.t.Helper()
	met := make(chan struct{}, 100)
	o := wsclient.Options{URL: "ws://" + w.addr + "/v1/ws", BaseDelay: time.Millisecond, AckDelay: time.Millisecond,
		OnStatus: func(s wsclient.Status) {
			if s.Phase == wsclient.Open {
				select {
				case met <- struct{}{}:
				default:
				}
			}
		}}
	for _, f := range change {
		f(&o)
	}
	client, err := wsclient.New(o)
	if err != nil {
		c.t.Fatal(err)
	}
	stop = c.background(func(ctx context.Context) error { client.Run(ctx); return nil })
	select {
	case <-met:
	case <-time.After(10 * time.Second):
		c.t.Fatal("no socket meta within 10 s")
	}
	return client, stop
}

// await polls until check returns nil, for what nothing can be waited on.
func await(t *testing.T, check func() error) {
	t.Helper()
	deadline := time.After(10 * time.Second)
	for {
		err := check()
		if err == nil {
			return
		}
		select {
		case <-deadline:
			t.Fatalf("after 10 s: %v", err)
		case <-time.After(2 * time.Millisecond):
		}
	}
}
