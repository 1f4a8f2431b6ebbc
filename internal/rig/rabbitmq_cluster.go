package rig

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// RabbitMQCluster is a private cluster of nodes on 127.0.0.1, numbered from 0. Each finds each
// other one through a Proxy, so that they can be parted while clients reach all of them; no rights
// and no network devices are needed. Its methods may be called from any goroutine, those that
// start, end or part nodes one at a time.
//
// A minority stops serving (pause_minority). A silent cut is noticed after some 6 to 10 s.
type RabbitMQCluster struct {
	Nodes []*RabbitMQ // set once

	dir     string
	ownDir  bool
	links   map[link]*Proxy
	aliases []net.Conn // each keeps a link's entry in a port mapper
}

// link is the way on which node from finds node to.
type link struct{ from, to int }

// netTicktime is after how many seconds of silence a node takes another for gone, 60 by default. A
// quarter of it passes between two ticks, which a busy machine must not miss.
const netTicktime = 8

// StartRabbitMQCluster starts n nodes at once, each as StartRabbitMQ does with its own folder in
// o.Dir, and returns once each sees all others serve. All have the same users and passwords.
// ctx bounds the start only.
func StartRabbitMQCluster(ctx context.Context, n int, o RabbitOptions) (_ *RabbitMQCluster, err error) {
	c := &RabbitMQCluster{dir: o.Dir, links: map[link]*Proxy{}}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("start a cluster of %d rabbitmq: %w", n, err), c.Stop())
		}
	}()
	if c.dir == "" {
		if c.dir, err = os.MkdirTemp("", "rabbitmq-"); err != nil {
			return nil, err
		}
		c.ownDir = true
	}
	secret := rand.Text()
	for i := range n {
		r := &RabbitMQ{dir: filepath.Join(c.dir, strconv.Itoa(i)), log: o.Log, secret: secret}
		if err := r.choosePorts(); err != nil {
			return nil, err
		}
		c.Nodes = append(c.Nodes, r)
	}
	for i, r := range c.Nodes {
		config := fmt.Sprintf("%s\nnet_ticktime = %d\ncluster_formation.classic_config.nodes.1 = %s\n", o.Config, netTicktime, r.name)
		if i > 0 {
			config += fmt.Sprintf(joins, c.Nodes[0].name)
		}
		if err := r.install(config, o.Plugins); err != nil {
			return nil, err
		}
		if err := r.startMapper(ctx); err != nil {
			return nil, err
		}
	}
	for from := range n {
		for to := range n {
			if from == to {
				continue
			}
			if err := c.connect(ctx, link{from, to}); err != nil {
				return nil, err
			}
		}
	}
	// The nodes boot side by side, but none finds node 0 before that one is the cluster to join: it
	// would hold the lock for which node 0 waits, and both would try again for seconds.
	for _, p := range c.links {
		p.Cut()
	}
	return c, c.restart(ctx, c.Heal)
}

// joins has a node try until it can join another one, for as long as rabbitStart, in milliseconds.
const joins = `cluster_formation.classic_config.nodes.2 = %s
cluster_formation.discovery_retry_limit = 1800
cluster_formation.discovery_retry_interval = 100
`

// connect makes the link's proxy and has the port mapper of its node name it.
func (c *RabbitMQCluster) connect(ctx context.Context, l link) (err error) {
	from, to := c.Nodes[l.from], c.Nodes[l.to]
	if c.links[l], err = StartProxy(to.dist()); err != nil {
		return err
	}
	alias, err := register(ctx, from.mapper(), to.name, c.links[l].Addr)
	if err != nil {
		return err
	}
	c.aliases = append(c.aliases, alias)
	return nil
}

// register has the port mapper say that the node is at addr for as long as the connection stays
// open (ALIVE2_REQ and its answer: Erlang's "Distribution Protocol", section 14.2).
func register(ctx context.Context, mapper, node, addr string) (_ net.Conn, err error) {
	name, _, _ := strings.Cut(node, "@")
	_, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	number, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		return nil, err
	}
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", mapper)
	if err != nil {
		return nil, err
	}
	const request, normal, tcp, highest, lowest = 120, 77, 0, 6, 5
	b := append([]byte{0, 0, request}, byte(number>>8), byte(number), normal, tcp, 0, highest, 0, lowest)
	b = append(binary.BigEndian.AppendUint16(b, uint16(len(name))), name+"\x00\x00"...) // and no extra
	binary.BigEndian.PutUint16(b, uint16(len(b)-2))
	answer := make([]byte, 2)
	_ = conn.SetDeadline(time.Now().Add(mapperTimeout))
	_, err = conn.Write(b)
	if err == nil {
		_, err = io.ReadFull(conn, answer)
	}
	if err == nil && answer[1] != 0 {
		err = fmt.Errorf("the answer was %v", answer)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("name %s to the port mapper on %s: %w", node, mapper, err), conn.Close())
	}
	return conn, nil
}

const mapperTimeout = 10 * time.Second

// URLs is where a user of deploy/rabbitmq reaches the nodes: one URL for each, in their order.
func (c *RabbitMQCluster) URLs(user string) []string {
	urls := make([]string, len(c.Nodes))
	for i, r := range c.Nodes {
		urls[i] = r.URLFor(user)
	}
	return urls
}

// Restart starts all nodes at once, killing those that run, and waits until all see each other.
// After a Kill of all it must be this: a node alone waits for those that ended after it. One node
// is killed and restarted by its own methods.
func (c *RabbitMQCluster) Restart(ctx context.Context) error {
	return c.restart(ctx, func() error { return nil })
}

// restart calls first once node 0 serves.
func (c *RabbitMQCluster) restart(ctx context.Context, first func() error) error {
	for _, r := range c.Nodes {
		r.Kill()
	}
	errs := make([]error, len(c.Nodes))
	var wg sync.WaitGroup
	for i, r := range c.Nodes {
		wg.Go(func() {
			if errs[i] = r.Restart(ctx); i == 0 && errs[i] == nil {
				errs[i] = first()
			}
		})
	}
	wg.Wait()
	return errors.Join(append(errs, c.AwaitWhole(ctx))...)
}

// Cut cuts node i from the other nodes, but not from clients, until Heal. All of them notice at
// once. Nodes may be cut off one after the other.
func (c *RabbitMQCluster) Cut(i int) { c.around(i).Cut() }

// Stall is Cut without a sound: the nodes notice after some 6 to 10 s.
func (c *RabbitMQCluster) Stall(i int) error { return c.around(i).Stall() }

// Heal lets all nodes reach each other again. AwaitWhole waits until they do.
func (c *RabbitMQCluster) Heal() error { return Proxies(slices.Collect(maps.Values(c.links))).Heal() }

// around is all links from and to node i.
func (c *RabbitMQCluster) around(i int) Proxies {
	var all Proxies
	for l, p := range c.links {
		if l.from == i || l.to == i {
			all = append(all, p)
		}
	}
	return all
}

// AwaitWhole waits until every node sees every node serve, and is done with its last pause: RabbitMQ pauses from a process of that name, and
// ignores a partition that comes before that process has ended (rabbit_node_monitor).
func (c *RabbitMQCluster) AwaitWhole(ctx context.Context) error {
	for _, r := range c.Nodes {
		err := poll(ctx, func() error {
			seen, err := r.Eval(ctx, `true = rabbit:is_running(), undefined = whereis(rabbit_outside_app_process), io:format("~p", [rabbit_mnesia:cluster_nodes(running)])`)
			for _, other := range c.Nodes {
				if err == nil && !strings.Contains(seen, other.name) {
					err = fmt.Errorf("%s does not see %s serve, only %s", r.name, other.name, seen)
				}
			}
			return err
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// AwaitPaused waits until node i has stopped to serve, as a minority does.
func (c *RabbitMQCluster) AwaitPaused(ctx context.Context, i int) error {
	r := c.Nodes[i]
	return poll(ctx, func() error {
		_, err := r.Eval(ctx, "false = rabbit:is_running()")
		if err == nil && speaksAMQP(r.addr) == nil {
			err = fmt.Errorf("%s still answers clients", r.name)
		}
		return err
	})
}

// Leader returns the number of the node on which the queue lives: for a quorum queue that of its
// leader. It asks the first node that answers. No leader is an error.
func (c *RabbitMQCluster) Leader(ctx context.Context, queue string) (int, error) {
	var errs []error
	for _, r := range c.Nodes {
		name, err := r.leader(ctx, queue)
		if at := slices.IndexFunc(c.Nodes, func(r *RabbitMQ) bool { return r.name == name }); at >= 0 {
			return at, nil
		}
		errs = append(errs, err)
	}
	return 0, fmt.Errorf("no node names the leader of %s: %w", queue, errors.Join(errs...))
}

// Sync is RabbitMQ's Sync on all nodes.
func (c *RabbitMQCluster) Sync(ctx context.Context) error {
	var errs []error
	for _, r := range c.Nodes {
		errs = append(errs, r.Sync(ctx))
	}
	return errors.Join(errs...)
}

// Stop ends all nodes, their port mappers and links, and removes their data if the folder was
// their own. Stopping them twice does nothing more.
func (c *RabbitMQCluster) Stop() error {
	var errs []error
	for _, r := range c.Nodes {
		errs = append(errs, r.Stop())
	}
	for _, conn := range c.aliases {
		_ = conn.Close()
	}
	for _, p := range c.links {
		if p != nil {
			p.Stop()
		}
	}
	if c.ownDir {
		errs = append(errs, os.RemoveAll(c.dir))
	}
	return errors.Join(errs...)
}
