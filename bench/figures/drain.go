package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/wscluster/wscluster/internal/rig"
	"github.com/wscluster/wscluster/pkg/wire"
	"github.com/wscluster/wscluster/pkg/wsclient"
)

// queuedTasks is how many of 10,000 tasks, which were accepted while there was no runner, did not end
// exactly once after two runners came: final events are counted as they come from the socket, before the client drops
// what it has already, until none has come for a second.
var queuedTasks = figure{
	name: "queued-10k-lost-or-doubled", unit: "tasks", floor: floor{limit: 0},
	measure: measureQueued,
}

const (
	queueClients = 100
	queueEach    = 100 // as many as one session may have open
	queueWithin  = 10 * time.Minute
	queueQuiet   = time.Second // then no second end comes any more
)

func measureQueued(ctx context.Context, l *lab) (_ []sample, err error) {
	ctx, cancel := context.WithTimeout(ctx, queueWithin)
	defer cancel()
	c, err := l.Cluster(ctx, rig.ClusterOptions{Workers: []string{"i1-w1"}, Runners: []string{"r1", "r2"}, RunnerSettings: []string{"WSCLUSTER_SLOTS=20"}})
	if err != nil {
		return nil, err
	}
	defer l.Stop(c)
	if err := pause(ctx, 3*time.Second); err != nil { // the runners have made the queues
		return nil, err
	}
	for _, r := range c.Runners {
		r.Kill()
	}
	var mu sync.Mutex
	ends, last := map[wire.TaskID]int{}, time.Time{} // final events by task, and when the last one came
	running, stop := context.WithCancel(ctx)
	var clients errgroup.Group
	defer func() {
		stop()
		err = errors.Join(err, clients.Wait())
	}()
	tasks := make([]*wsclient.Task, 0, queueClients*queueEach)
	g, submitting := errgroup.WithContext(ctx)
	for range queueClients {
		client, err := wsclient.New(wsclient.Options{
			URL: "ws://" + c.Workers[0].Addr + "/v1/ws", OnEvent: func(*wsclient.Task, wsclient.Event) {},
			Faults: wsclient.Faults{Receive: func(m wire.ServerMessage) wsclient.Fate {
				if e, ok := m.(*wire.Event); ok && (e.Type == wire.EventResult || e.Type == wire.EventError) {
					mu.Lock()
					ends[e.Task]++
					last = time.Now()
					mu.Unlock()
				}
				return wsclient.Pass
			}},
		})
		if err != nil {
			return nil, err
		}
		clients.Go(func() error {
			if err := client.Run(running); running.Err() == nil {
				return err
			}
			return nil
		})
		g.Go(func() error {
			for range queueEach {
				t, err := client.Submit(submitting, "countdown", map[string]int{"lines": 1, "interval_ms": 1})
				if err != nil {
					return err
				}
				mu.Lock()
				tasks = append(tasks, t)
				mu.Unlock()
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return nil, fmt.Errorf("submit: %w", err)
	}
	began := time.Now()
	for _, r := range c.Runners {
		if err := r.Start(); err != nil {
			return nil, err
		}
	}
	wrong := map[wire.TaskID]bool{}
	for _, t := range tasks {
		if _, err := t.Wait(ctx); err != nil {
			wrong[t.ID()] = true
		}
	}
	took := time.Since(began)
	for quiet := time.Duration(0); quiet < queueQuiet; {
		if err := pause(ctx, queueQuiet-quiet); err != nil {
			return nil, err
		}
		mu.Lock()
		quiet = time.Since(last)
		mu.Unlock()
	}
	mu.Lock()
	defer mu.Unlock()
	finals := 0
	for _, t := range tasks {
		finals += ends[t.ID()]
		if ends[t.ID()] != 1 {
			wrong[t.ID()] = true
		}
	}
	l.Logf("  %d tasks ended in %.1f s, by %d final events", len(tasks), took.Seconds(), finals)
	return []sample{{value: float64(len(wrong))}}, nil
}
