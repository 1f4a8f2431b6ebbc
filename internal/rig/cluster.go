package rig

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"
)

// ClusterOptions say what a private cluster is made of.
type ClusterOptions struct {
	Dir      string    // data, keys and workspaces; it must exist
	Bin      string    // the folder that holds the programs wsworker and taskrunner
	Workers  []string  // server IDs
	Runners  []string  // names of task runners
	HAProxy  string    // path of its configuration; "" for none
	Repos    []string  // folders whose repositories the runners may build
	Settings []string  // further "KEY=value" settings of workers and runners: WSCLUSTER_...
	Proxy    []string  // further "KEY=value" settings of HAProxy
	Log      io.Writer // gets the output of all of them; may be nil
}

// Cluster is a private cluster: RabbitMQ, workers, task runners and perhaps HAProxy, each a process.
type Cluster struct {
	Rabbit  *RabbitMQ
	HAProxy *HAProxy // nil without one
	Workers []*Member
	Runners []*Member
}

// Member is a worker or a runner: a program that can be killed and started again as itself.
type Member struct {
	Name     string
	Addr     string // workers: host:port of the traffic listener
	Internal string // workers: host:port of the internal listener

	*Process
	program Program
}

// StartCluster returns once every worker is ready, or an error with nothing left running.
func StartCluster(ctx context.Context, o ClusterOptions) (_ *Cluster, err error) {
	c := &Cluster{}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("start the cluster: %w", err), c.Stop())
		}
	}()
	metaKeys, routeKeys := filepath.Join(o.Dir, "meta.keys"), filepath.Join(o.Dir, "route.keys")
	for _, file := range []string{metaKeys, routeKeys} {
		if err := os.WriteFile(file, []byte("k1 "+rand.Text()+rand.Text()+"\n"), 0o600); err != nil {
			return nil, err
		}
	}
	data := filepath.Join(o.Dir, "rabbitmq")
	if err := os.Mkdir(data, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return nil, err
	}
	if c.Rabbit, err = StartRabbitMQ(ctx, RabbitOptions{Dir: data}); err != nil {
		return nil, err
	}
	settings := func(user string, own ...string) []string {
		return slices.Concat(os.Environ(), []string{"WSCLUSTER_AMQP_URL=" + c.Rabbit.URLFor(user), "WSCLUSTER_LOG_FORMAT=console"}, own, o.Settings)
	}
	for _, id := range o.Workers {
		w := &Member{Name: id}
		if w.Addr, err = FreePort("127.0.0.1"); err != nil {
			return nil, err
		}
		if w.Internal, err = FreePort("127.0.0.1"); err != nil {
			return nil, err
		}
		w.program = o.program("wsworker", id, settings("worker", "WSCLUSTER_SERVER_ID="+id, "WSCLUSTER_LISTEN="+w.Addr,
			"WSCLUSTER_INTERNAL_LISTEN="+w.Internal, "WSCLUSTER_META_KEYS_FILE="+metaKeys, "WSCLUSTER_ROUTE_KEY_FILE="+routeKeys))
		c.Workers = append(c.Workers, w)
	}
	for _, name := range o.Runners {
		work := filepath.Join(o.Dir, "work-"+name)
		if err := os.Mkdir(work, 0o700); err != nil {
			return nil, err
		}
		c.Runners = append(c.Runners, &Member{Name: name, program: o.program("taskrunner", name,
			settings("runner", "WSCLUSTER_NAME="+name, "WSCLUSTER_REPO_ROOTS="+strings.Join(o.Repos, ","),
				"WSCLUSTER_WORK_DIR="+work))})
	}
	for _, m := range slices.Concat(c.Workers, c.Runners) {
		if err := m.Start(); err != nil {
			return nil, err
		}
	}
	if o.HAProxy != "" {
		if c.HAProxy, err = StartHAProxy(ctx, HAProxyOptions{Config: o.HAProxy, Env: o.proxyEnv(c.Workers, routeKeys), Log: o.Log}); err != nil {
			return nil, err
		}
	}
	return c, c.AwaitReady(ctx)
}

func (o ClusterOptions) program(name, member string, env []string) Program {
	return Program{Path: filepath.Join(o.Bin, name), Args: []string{"run"}, Env: env, Name: member, Log: o.Log}
}

// proxyEnv tells HAProxy where the workers are: I1_W3 for i1-w3. Places without a worker point
// to where nobody listens.
func (o ClusterOptions) proxyEnv(workers []*Member, routeKeys string) map[string]string {
	env := map[string]string{"ROUTE_KEYS": routeKeys}
	for _, place := range []string{"I1_W1", "I1_W2", "I1_W3", "I1_W4", "I2_W1", "I2_W2", "I2_W3", "I2_W4"} {
		env[place] = "127.0.0.1:1"
	}
	for _, w := range workers {
		env[strings.ToUpper(strings.ReplaceAll(w.Name, "-", "_"))] = w.Addr
	}
	for _, setting := range o.Proxy {
		key, value, _ := strings.Cut(setting, "=")
		env[key] = value
	}
	return env
}

// Start starts the member, again if it has ended.
func (m *Member) Start() (err error) {
	m.Process, err = Start(m.program)
	return err
}

// takesTasks is what a runner logs when its kinds are offered.
var takesTasks = regexp.MustCompile("takes tasks")

// AwaitReady waits until every runner takes tasks, every worker says that it is ready, and
// HAProxy sees it.
func (c *Cluster) AwaitReady(ctx context.Context) error {
	names := make([]string, len(c.Workers))
	for i, w := range c.Workers {
		names[i] = w.Name
		if err := w.WaitReady(ctx, w.Ready); err != nil {
			return err
		}
	}
	for _, r := range c.Runners {
		if _, err := r.WaitLine(ctx, takesTasks); err != nil {
			return err
		}
	}
	if c.HAProxy != nil {
		return c.HAProxy.Await(ctx, "UP", names...)
	}
	return nil
}

// Double returns another member with the settings of worker m but ports of its own: a second
// process under one server ID. It is not part of the cluster: whoever starts it ends it.
func (m *Member) Double() (*Member, error) {
	d := &Member{Name: m.Name, program: m.program}
	var err, err2 error
	d.Addr, err = FreePort("127.0.0.1")
	d.Internal, err2 = FreePort("127.0.0.1")
	// The later of two settings of one variable counts.
	d.program.Env = append(slices.Clone(m.program.Env), "WSCLUSTER_LISTEN="+d.Addr, "WSCLUSTER_INTERNAL_LISTEN="+d.Internal)
	return d, errors.Join(err, err2)
}

// Worker returns the worker with the server ID, or nil.
func (c *Cluster) Worker(id string) *Member {
	at := slices.IndexFunc(c.Workers, func(m *Member) bool { return m.Name == id })
	if at < 0 {
		return nil
	}
	return c.Workers[at]
}

// stopGrace is what a member gets to end by itself.
const stopGrace = 15 * time.Second

// Stop ends everything, clients' side first, and returns when all of it is gone.
func (c *Cluster) Stop() error {
	var errs []error
	if c.HAProxy != nil {
		errs = append(errs, c.HAProxy.Stop())
	}
	members := slices.Concat(c.Workers, c.Runners)
	for _, m := range members { // all at once: each may take its time
		if m.Process != nil {
			_ = m.Signal(syscall.SIGTERM) // ended already: so much the better
		}
	}
	for _, m := range members {
		if m.Process != nil {
			errs = append(errs, m.Process.Stop(stopGrace))
		}
	}
	if c.Rabbit != nil {
		errs = append(errs, c.Rabbit.Stop())
	}
	return errors.Join(errs...)
}
