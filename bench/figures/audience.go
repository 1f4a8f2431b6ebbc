package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/wscluster/wscluster/bench/load"
	"github.com/wscluster/wscluster/internal/rig"
	"github.com/wscluster/wscluster/pkg/amqp"
	"github.com/wscluster/wscluster/pkg/socketmeta"
	"github.com/wscluster/wscluster/pkg/taskrunner"
	"github.com/wscluster/wscluster/pkg/wire"
	"github.com/wscluster/wscluster/pkg/wsclient"
)

// audience is clients behind HAProxy, each with one task of kind ticks under way. The runner of the
// tasks is in this process: what it told and what the clients' applications got is counted by the
// same clock, event by event.
type audience struct {
	members []*member
	every   time.Duration // between two durable events of a task

	mu   sync.Mutex
	gate chan struct{} // guarded by mu; closed to end the tasks that began with it
	told map[wire.TaskID]int
}

// member is one client.
type member struct {
	*wsclient.Client

	mu       sync.Mutex
	server   socketmeta.ServerID // guarded by mu, as all below: where it is
	arrivals []time.Time         // its socket metas
	events   []time.Time         // durable events of the present task
	got      map[wire.TaskID]int // durable events, the missing ones that a gap names left out
	gaps     int
	task     *wsclient.Task
}

const (
	ticksKind    = "ticks"
	slowStart    = time.Second // in which HAProxy gives a worker that it has just found less than its share
	ticksWithin  = time.Minute // for all clients to connect, or all tasks to begin or to end
	audienceSize = 4_096       // of one runner, at most
)

// gather connects the clients and starts the runner. stop ends both.
func gather(ctx context.Context, l *lab, c *rig.Cluster, clients int, every time.Duration) (_ *audience, stop func(), err error) {
	a := &audience{every: every, gate: make(chan struct{}), told: map[wire.TaskID]int{}}
	b, err := amqp.New(amqp.Options{URLs: []string{c.Rabbit.URLFor("runner")}})
	if err != nil {
		return nil, nil, err
	}
	spool, err := os.MkdirTemp(l.Dir, "spool-")
	if err != nil {
		return nil, nil, err
	}
	runner := taskrunner.Runner{
		Name: ticksKind, Broker: b, Slots: audienceSize, Grace: -1, SpoolDir: spool,
		Kinds: map[string]taskrunner.Kind{ticksKind: {Handler: taskrunner.HandlerFunc(a.run)}},
	}
	living, leave := context.WithCancel(ctx)
	var wg sync.WaitGroup
	stop = func() { leave(); wg.Wait() }
	wg.Go(func() {
		if err := runner.Run(living); err != nil {
			l.Logf("the runner in this process: %v", err)
		}
	})
	select {
	case <-time.After(slowStart + 500*time.Millisecond): // before, four of eight workers had 260 of 2,000
	case <-ctx.Done():
		stop()
		return nil, nil, context.Cause(ctx)
	}
	met := make(chan struct{}, clients)
	sources := load.Loopback(clients)
	for i := range clients {
		m := &member{got: map[wire.TaskID]int{}}
		a.members = append(a.members, m)
		dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: sources[i%len(sources)]}}
		m.Client, err = wsclient.New(wsclient.Options{
			URL: "ws://" + c.HAProxy.Addr + "/v1/ws", Dial: dialer.DialContext, OnEvent: m.take,
			OnMeta: func(meta wire.SocketMeta) {
				if m.arrive(meta) {
					met <- struct{}{}
				}
			},
		})
		if err != nil {
			stop()
			return nil, nil, err
		}
		wg.Go(func() {
			if err := m.Run(living); err != nil {
				l.Logf("a client ended: %v", err)
			}
		})
	}
	late := time.After(ticksWithin)
	for range clients {
		select {
		case <-met:
		case <-late:
			err = fmt.Errorf("not all of %d clients have a session after %v", clients, ticksWithin)
		case <-ctx.Done():
			err = context.Cause(ctx)
		}
		if err != nil {
			stop()
			return nil, nil, err
		}
	}
	return a, stop, nil
}

// run is the handler of the tasks.
func (a *audience) run(ctx context.Context, t *taskrunner.Task) (any, error) {
	a.mu.Lock()
	gate := a.gate
	a.mu.Unlock()
	tick := time.NewTicker(a.every)
	defer tick.Stop()
	for n := 0; ; n++ {
		if err := t.Artifact(wire.Artifact{Name: fmt.Sprint(n), ContentType: "text/plain"}); err != nil {
			return nil, err
		}
		select {
		case <-tick.C:
		case <-gate:
			a.mu.Lock()
			a.told[t.ID] = n + 3 // with the one just told, the first and the last event
			a.mu.Unlock()
			return nil, nil
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// arrive reports whether it is the first time.
func (m *member) arrive(meta wire.SocketMeta) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.server = meta.Server
	m.arrivals = append(m.arrivals, time.Now())
	return len(m.arrivals) == 1
}

func (m *member) take(t *wsclient.Task, e wsclient.Event) {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch {
	case !e.Durable:
	case e.Type == wire.EventGap:
		m.gaps++
	default:
		if e.Reset {
			m.got[t.ID()] = 0
		}
		m.got[t.ID()]++
		m.events = append(m.events, time.Now())
	}
}

// on returns the clients that are on a worker.
func (a *audience) on(server string) (all []*member) {
	for _, m := range a.members {
		m.mu.Lock()
		if string(m.server) == server {
			all = append(all, m)
		}
		m.mu.Unlock()
	}
	return all
}

// begin has every client submit a task, and returns when each has had some events of it.
func (a *audience) begin(ctx context.Context) error {
	a.mu.Lock()
	a.gate = make(chan struct{})
	a.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, ticksWithin)
	defer cancel()
	g, ctx := errgroup.WithContext(ctx)
	for _, m := range a.members {
		g.Go(func() error { return m.begin(ctx) })
	}
	return g.Wait()
}

func (m *member) begin(ctx context.Context) (err error) {
	id := wire.NewTaskID()
	m.mu.Lock()
	m.events = nil
	m.mu.Unlock()
	for {
		m.task, err = m.SubmitAs(ctx, id, ticksKind, nil)
		refused, isRefused := errors.AsType[*wire.Error](err)
		if errors.Is(err, wsclient.ErrTaskOver) { // it ran although it was refused, and this client did not see it
			id = wire.NewTaskID()
			continue
		}
		if err == nil || !isRefused || !refused.Retryable && refused.Code != wire.CodeUnknownKind { // the runner may not be there yet
			break
		}
		if !rest(ctx, 100*time.Millisecond) {
			return err
		}
	}
	for err == nil && m.count() < 3 {
		if !rest(ctx, 10*time.Millisecond) {
			err = fmt.Errorf("a client has had %d events of its task: %w", m.count(), context.Cause(ctx))
		}
	}
	return err
}

func (m *member) count() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.events)
}

// end ends the tasks and returns how many durable events of them did not reach their application.
func (a *audience) end(ctx context.Context) (lost int, err error) {
	a.mu.Lock()
	close(a.gate)
	a.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, ticksWithin)
	defer cancel()
	for _, m := range a.members {
		select {
		case <-m.task.Done():
		case <-ctx.Done(): // what it misses is counted
		}
		m.mu.Lock()
		got := m.got[m.task.ID()]
		m.mu.Unlock()
		a.mu.Lock()
		told := a.told[m.task.ID()]
		a.mu.Unlock()
		if told == 0 {
			return 0, fmt.Errorf("task %s has not ended at its runner", m.task.ID())
		}
		lost += max(0, told-got)
	}
	return lost, nil
}

// rest returns after d, or false when ctx ends.
func rest(ctx context.Context, d time.Duration) bool {
	select {
	case <-time.After(d):
		return true
	case <-ctx.Done():
		return false
	}
}
