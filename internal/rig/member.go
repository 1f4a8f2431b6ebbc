package rig

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"slices"
	"syscall"
	"time"
)

// Member is a worker or a runner: a program that can be killed and started again as itself.
type Member struct {
	Name     string
	Addr     string  // workers: host:port of the traffic listener
	Internal string  // workers: host:port of the internal listener
	Proxy    Proxies // its ways to the nodes of RabbitMQ, if ClusterOptions.Proxies asked for them

	*Process
	program Program
}

// Start starts the member, again if it has ended.
func (m *Member) Start() (err error) {
	m.Process, err = Start(m.program)
	return err
}

// Ready returns nil if the worker takes new clients, else what it says about why not.
func (m *Member) Ready() error {
	r, err := prober.Get("http://" + m.Addr + "/readyz")
	if err != nil {
		return err
	}
	defer r.Body.Close()
	body, err := io.ReadAll(io.LimitReader(r.Body, 4<<10))
	if err != nil {
		return err
	}
	if r.StatusCode != http.StatusOK {
		return fmt.Errorf("%s is not ready: %s: %s", m.Name, r.Status, body)
	}
	return nil
}

var prober = http.Client{Timeout: 2 * time.Second}

// takesTasks is what a runner logs when its kinds are offered.
var takesTasks = regexp.MustCompile("takes tasks")

// Await waits until the member does its work: a worker says that it is ready, a runner that it
// takes tasks.
func (m *Member) Await(ctx context.Context) error {
	if m.Addr != "" {
		return m.WaitReady(ctx, m.Ready)
	}
	_, err := m.WaitLine(ctx, takesTasks)
	return err
}

// Restart kills the member if it runs, starts it as itself and returns once it does its work.
func (m *Member) Restart(ctx context.Context) error {
	m.Kill()
	if err := m.Start(); err != nil {
		return err
	}
	return m.Await(ctx)
}

// Drain asks the member to end (SIGTERM) and waits until it has ended by itself, in good order:
// any exit code but 0 is an error. When ctx ends, it still runs.
func (m *Member) Drain(ctx context.Context) error {
	if err := m.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	select {
	case <-m.Done():
	case <-ctx.Done():
		return fmt.Errorf("drain %s: %w%s", m.Name, context.Cause(ctx), m.quote())
	}
	if m.ExitCode() != 0 {
		return fmt.Errorf("drain: %w", m.ended())
	}
	return nil
}

// Double returns another member with the settings of worker m and its ways to RabbitMQ, but ports
// of its own: a second process under one server ID. It is not part of the cluster: whoever starts
// it ends it.
func (m *Member) Double() (*Member, error) {
	d := &Member{Name: m.Name, program: m.program}
	var err, err2 error
	d.Addr, err = FreePort("127.0.0.1")
	d.Internal, err2 = FreePort("127.0.0.1")
	// The later of two settings of one variable counts.
	d.program.Env = append(slices.Clone(m.program.Env), "WSCLUSTER_LISTEN="+d.Addr, "WSCLUSTER_INTERNAL_LISTEN="+d.Internal)
	return d, errors.Join(err, err2)
}

// Renamed returns another member with the settings of runner m, its folders and its ways to RabbitMQ, but another
// name. It is not started yet, and not part of the cluster: whoever starts it ends it.
func (m *Member) Renamed(name string) *Member {
	r := &Member{Name: name, Proxy: m.Proxy, program: m.program}
	r.program.Name = name
	r.program.Env = append(slices.Clone(m.program.Env), "WSCLUSTER_NAME="+name) // the later of two counts
	return r
}

// end ends what there is of the member, and returns when it is gone.
func (m *Member) end() (err error) {
	if m.Process != nil {
		err = m.Stop(stopGrace)
	}
	for _, p := range m.Proxy {
		p.Stop()
	}
	return err
}

// stopGrace is what a member gets to end by itself.
const stopGrace = 15 * time.Second
