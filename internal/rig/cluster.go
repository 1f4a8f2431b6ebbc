package rig

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// ClusterOptions say what a private cluster is made of.
type ClusterOptions struct {
	Dir     string    // data, keys and workspaces; it must exist
	Bin     string    // the folder that holds the programs wsworker and taskrunner
	Nodes   int       // of RabbitMQ; 0 is one alone, more are a cluster, where mailboxes are quorum queues
	Proxies bool      // gives each worker and runner its own way to RabbitMQ, which can be cut
	Workers []string  // server IDs
	Runners []string  // names of task runners
	HAProxy string    // path of its configuration; "" for none
	Repos   []string  // folders whose repositories the runners may build
	Proxy   []string  // further "KEY=value" settings of HAProxy
	Broker  string    // more lines for rabbitmq.conf, after those of deploy/rabbitmq
	Log     io.Writer // gets the output of all of them, from several goroutines; may be nil

	// Further "KEY=value" settings, WSCLUSTER_...: of workers and runners, and of one of them only,
	// for neither takes a key that it does not know.
	Settings, WorkerSettings, RunnerSettings []string
}

// Cluster is a private cluster: RabbitMQ, workers, task runners and perhaps HAProxy, each a process.
type Cluster struct {
	Rabbit  *RabbitMQ        // its first node
	Brokers *RabbitMQCluster // nil if that is the only one
	HAProxy *HAProxy         // nil without one
	Workers []*Member
	Runners []*Member

	options ClusterOptions // set once
}

// StartCluster returns once every worker is ready, or an error with nothing left running.
func StartCluster(ctx context.Context, o ClusterOptions) (_ *Cluster, err error) {
	c := &Cluster{options: o}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("start the cluster: %w", err), c.Stop())
		}
	}()
	for _, file := range []string{c.metaKeys(), c.routeKeys()} {
		if err := os.WriteFile(file, []byte("k1 "+rand.Text()+rand.Text()+"\n"), 0o600); err != nil {
			return nil, err
		}
	}
	data := filepath.Join(o.Dir, "rabbitmq")
	if err := os.Mkdir(data, 0o700); err != nil && !errors.Is(err, os.ErrExist) {
		return nil, err
	}
	if err := c.startBroker(ctx, RabbitOptions{Dir: data, Config: o.Broker}); err != nil {
		return nil, err
	}
	for _, id := range o.Workers {
		if _, err = c.newWorker(id); err != nil {
			return nil, err
		}
	}
	for _, name := range o.Runners {
		if _, err = c.newRunner(name); err != nil {
			return nil, err
		}
	}
	for _, m := range c.members() {
		if err := m.Start(); err != nil {
			return nil, err
		}
	}
	if o.HAProxy != "" {
		if c.HAProxy, err = StartHAProxy(ctx, HAProxyOptions{Config: o.HAProxy, Env: o.proxyEnv(c.Workers, c.routeKeys()), Log: o.Log}); err != nil {
			return nil, err
		}
	}
	return c, c.AwaitReady(ctx)
}

func (c *Cluster) startBroker(ctx context.Context, o RabbitOptions) (err error) {
	if c.options.Nodes < 2 {
		c.Rabbit, err = StartRabbitMQ(ctx, o)
		return err
	}
	c.Brokers, err = StartRabbitMQCluster(ctx, c.options.Nodes, o)
	if err == nil {
		c.Rabbit = c.Brokers.Nodes[0]
	}
	return err
}

func (c *Cluster) brokers() []*RabbitMQ {
	if c.Brokers != nil {
		return c.Brokers.Nodes
	}
	return []*RabbitMQ{c.Rabbit}
}

func (c *Cluster) metaKeys() string   { return filepath.Join(c.options.Dir, "meta.keys") }
func (c *Cluster) routeKeys() string  { return filepath.Join(c.options.Dir, "route.keys") }
func (c *Cluster) members() []*Member { return slices.Concat(c.Workers, c.Runners) }

// newWorker adds a worker that is not started yet.
func (c *Cluster) newWorker(id string) (w *Member, err error) {
	w = &Member{Name: id}
	c.Workers = append(c.Workers, w)
	if w.Addr, err = FreePort("127.0.0.1"); err != nil {
		return nil, err
	}
	if w.Internal, err = FreePort("127.0.0.1"); err != nil {
		return nil, err
	}
	settings := []string{"WSCLUSTER_SERVER_ID=" + id, "WSCLUSTER_LISTEN=" + w.Addr, "WSCLUSTER_INTERNAL_LISTEN=" + w.Internal,
		"WSCLUSTER_META_KEYS_FILE=" + c.metaKeys(), "WSCLUSTER_ROUTE_KEY_FILE=" + c.routeKeys()}
	if c.Brokers != nil {
		settings = append(settings, "WSCLUSTER_MAILBOX_TYPE=quorum")
	}
	return w, c.equip(w, "wsworker", "worker", len(c.Workers)-1, append(settings, c.options.WorkerSettings...))
}

// newRunner adds a runner that is not started yet. Of its own settings and those of all runners its own count.
func (c *Cluster) newRunner(name string, own ...string) (r *Member, err error) {
	r = &Member{Name: name}
	c.Runners = append(c.Runners, r)
	work, spool := filepath.Join(c.options.Dir, "work-"+name), filepath.Join(c.options.Dir, "spool-"+name)
	if err := os.Mkdir(work, 0o700); err != nil {
		return nil, err
	}
	settings := []string{"WSCLUSTER_NAME=" + name, "WSCLUSTER_REPO_ROOTS=" + strings.Join(c.options.Repos, ","), "WSCLUSTER_WORK_DIR=" + work, "WSCLUSTER_SPOOL_DIR=" + spool}
	return r, c.equip(r, "taskrunner", "runner", len(c.Runners)-1, slices.Concat(settings, c.options.RunnerSettings, own))
}

// equip gives m its program, its settings and its way to RabbitMQ. Each begins with another node,
// so that they spread over a cluster.
func (c *Cluster) equip(m *Member, program, user string, number int, settings []string) error {
	nodes := c.brokers()
	urls := make([]string, len(nodes))
	for i := range nodes {
		node := nodes[(number+i)%len(nodes)]
		urls[i] = node.URLFor(user)
		if c.options.Proxies {
			p, err := StartProxy(node.addr)
			if err != nil {
				return err
			}
			m.Proxy = append(m.Proxy, p)
			urls[i] = node.urlAt(user, p.Addr)
		}
	}
	m.program = c.options.program(program, m.Name, slices.Concat(os.Environ(),
		[]string{"WSCLUSTER_AMQP_URL=" + strings.Join(urls, ","), "WSCLUSTER_LOG_FORMAT=console"}, settings, c.options.Settings))
	return nil
}

// AddWorker starts one more worker and returns once it is ready. HAProxy sends clients to it if it
// has a place of this name: the shipped files have eight, i1-w1 to i2-w4. Any other worker is
// reached at its Addr only. An error leaves nothing running of it.
func (c *Cluster) AddWorker(ctx context.Context, id string) (_ *Member, err error) {
	if c.Worker(id) != nil {
		return nil, fmt.Errorf("add worker %s: there is one; start that one again", id)
	}
	w, err := c.newWorker(id)
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("add worker %s: %w", id, err), w.end())
			c.Workers = slices.DeleteFunc(c.Workers, func(m *Member) bool { return m == w })
		}
	}()
	if err != nil {
		return nil, err
	}
	if err := w.Start(); err != nil {
		return nil, err
	}
	if err := w.Await(ctx); err != nil || c.HAProxy == nil {
		return w, err
	}
	places, err := c.HAProxy.ServerStates()
	if _, ok := places[id]; err != nil || !ok {
		return w, err
	}
	host, port, _ := net.SplitHostPort(w.Addr)
	answer, err := c.HAProxy.Admin(fmt.Sprintf("set server workers/%s addr %s port %s", id, host, port))
	if err != nil {
		return nil, err
	}
	if err := c.HAProxy.Await(ctx, "UP", id); err != nil {
		return nil, fmt.Errorf("%w; HAProxy was told its address, and answered %q", err, answer)
	}
	return w, nil
}

// AddRunner starts one more runner, with further "KEY=value" settings of its own, and returns once it takes tasks.
// After an error Stop ends what there is of it.
func (c *Cluster) AddRunner(ctx context.Context, name string, own ...string) (*Member, error) {
	r, err := c.newRunner(name, own...)
	if err == nil {
		err = r.Start()
	}
	if err == nil {
		err = r.Await(ctx)
	}
	if err != nil {
		return nil, fmt.Errorf("add runner %s: %w", name, err)
	}
	return r, nil
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

// AwaitReady waits until every runner takes tasks, every worker says that it is ready, and
// HAProxy sees it.
func (c *Cluster) AwaitReady(ctx context.Context) error {
	for _, m := range c.members() {
		if err := m.Await(ctx); err != nil {
			return err
		}
	}
	if c.HAProxy == nil {
		return nil
	}
	names := make([]string, len(c.Workers))
	for i, w := range c.Workers {
		names[i] = w.Name
	}
	return c.HAProxy.Await(ctx, "UP", names...)
}

// Worker returns the worker with the server ID, or nil.
func (c *Cluster) Worker(id string) *Member {
	at := slices.IndexFunc(c.Workers, func(m *Member) bool { return m.Name == id })
	if at < 0 {
		return nil
	}
	return c.Workers[at]
}

// Stop ends everything, clients' side first, and returns when all of it is gone.
func (c *Cluster) Stop() error {
	var errs []error
	if c.HAProxy != nil {
		errs = append(errs, c.HAProxy.Stop())
	}
	for _, w := range c.Workers { // a politer end would wait for somebody to take its mailbox over
		if w.Process != nil {
			w.Kill()
		}
	}
	for _, r := range c.Runners { // all at once: each may have a build to end
		if r.Process != nil {
			_ = r.Signal(syscall.SIGTERM) // ended already: so much the better
		}
	}
	for _, m := range c.members() {
		errs = append(errs, m.end())
	}
	if c.Brokers != nil {
		errs = append(errs, c.Brokers.Stop())
	} else if c.Rabbit != nil {
		errs = append(errs, c.Rabbit.Stop())
	}
	return errors.Join(errs...)
}
