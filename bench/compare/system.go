package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/wscluster/wscluster/bench/crowd"
	"github.com/wscluster/wscluster/bench/lab"
	"github.com/wscluster/wscluster/bench/load"
	"github.com/wscluster/wscluster/internal/rig"
)

// system is one of those that are compared. Each has a file of its own.
type system struct {
	name  string
	start func(ctx context.Context, l *lab.Lab) (server, error) // errMissing if something of it is not installed
}

// server is a system that runs. Its methods are called one at a time, but for publish.
type server interface {
	// clients says how they connect, each subscribed to what is published to its number, or, if everybody, to
	// crowd.Everybody. errNoSuch says that they do not.
	clients(n int, everybody bool) (load.Plan, crowd.Options, error)
	// publish hands over one message, the n-th to a client or to crowd.Everybody, and need not wait for what comes of it. Any
	// number of goroutines may call it.
	publish(ctx context.Context, to int, n int64, body []byte) error
	holders() []int // the processes that hold the connections
	others() []int  // further processes on the way of a message: brokers
	// kill ends the holders with SIGKILL, revive starts them again and returns when they take connections.
	kill()
	revive(ctx context.Context) error
	stop()
}

// gatherer is a server whose clients have more to them when what is published goes to one of them.
type gatherer interface {
	gather(ctx context.Context, clients int) (*crowd.Crowd, error)
}

// gather connects clients and reads from them.
func gather(ctx context.Context, s server, clients int, everybody bool) (*crowd.Crowd, error) {
	if g, ok := s.(gatherer); ok && !everybody {
		return g.gather(ctx, clients)
	}
	p, o, err := s.clients(clients, everybody)
	if err != nil {
		return nil, err
	}
	return crowd.Gather(ctx, p, o)
}

// errMissing says that a system is not installed.
var errMissing = errors.New("not installed")

// systems in the order in which they take turns.
var systems = []system{loopSystem, relaySystem, rawSystem, oursSystem, stompSystem, mqttSystem, nchanSystem, socketioSystem, socketioRedisSystem, pushpinSystem}

// channelOf is the name of what is published to one client or to everybody.
func channelOf(to int) string {
	if to == crowd.Everybody {
		return "all"
	}
	return "c" + strconv.Itoa(to)
}

// subscription is the channel of a client in gather.
func subscription(client int, everybody bool) string {
	if everybody {
		client = crowd.Everybody
	}
	return channelOf(client)
}

// planAt connects clients to one address, where target says how a client subscribes to a channel.
func planAt(clients int, everybody bool, target func(channel func(client int) string) load.Target) load.Plan {
	t := target(func(client int) string { return subscription(client, everybody) })
	return load.Plan{Clients: clients, Targets: []load.Target{t}, Sources: load.Loopback(clients)}
}

// process is a server's one program. It is started by start, again after a kill.
type process struct {
	*rig.Process
	start func() (*rig.Process, error)
	addr  string // where it takes connections
}

func (p *process) holders() []int { return children(p.PID()) }
func (p *process) others() []int  { return nil }
func (p *process) kill()          { p.Kill() }
func (p *process) stop()          { p.Kill() }

func (p *process) revive(ctx context.Context) error {
	started, err := p.start()
	if err != nil {
		return err
	}
	p.Process = started
	return p.WaitPort(ctx, p.addr)
}

// installed finds a program, where only root has it in the PATH too.
func installed(name, debian string) (string, error) {
	for _, dir := range append(filepath.SplitList(os.Getenv("PATH")), "/usr/local/sbin", "/usr/sbin") {
		if path, err := exec.LookPath(filepath.Join(dir, name)); err == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("%w: Debian's package %s", errMissing, debian)
}

// freePorts are host:port on loopback.
func freePorts(n int) (addrs []string, err error) {
	for range n {
		addr, err := rig.FreePort("127.0.0.1")
		if err != nil {
			return nil, err
		}
		addrs = append(addrs, addr)
	}
	return addrs, nil
}

func portOf(addr string) string {
	_, port, _ := net.SplitHostPort(addr)
	return port
}

// children are a process and all that descend from it.
func children(pid int) []int {
	all := []int{pid}
	for i := 0; i < len(all); i++ {
		files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", all[i]))
		for _, file := range files {
			text, _ := os.ReadFile(file) // it may have ended
			for _, word := range strings.Fields(string(text)) {
				if child, err := strconv.Atoi(word); err == nil {
					all = append(all, child)
				}
			}
		}
	}
	return all
}
