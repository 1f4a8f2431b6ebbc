package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/wscluster/wscluster/internal/rig"
	"github.com/wscluster/wscluster/pkg/amqp"
	"github.com/wscluster/wscluster/pkg/broker"
	"github.com/wscluster/wscluster/pkg/socketmeta"
	"github.com/wscluster/wscluster/pkg/taskrunner"
	"github.com/wscluster/wscluster/pkg/wire"
	"github.com/wscluster/wscluster/pkg/wsclient"
)

// taskList is the time of one GET /v1/tasks, of the 100 latest of a client's 10,000 tasks, which 100 runners
// have among 100,000 in all.
var taskList = figure{
	name: "task-list-100-runners-p99", unit: "ms", floor: floor{limit: 1000},
	measure: measureTaskList,
}

const (
	listRunners = 100
	listClients = 10
	listEach    = 1_000 // runs that each runner has
)

func measureTaskList(ctx context.Context, l *lab) (_ []sample, err error) {
	c, err := l.Cluster(ctx, rig.ClusterOptions{Workers: []string{"i1-w1"}})
	if err != nil {
		return nil, err
	}
	defer l.Stop(c)
	var tokens []string
	var clients []socketmeta.ClientID
	for range listClients {
		meta, err := meet(ctx, c.Workers[0].Addr)
		if err != nil {
			return nil, err
		}
		tokens = append(tokens, meta.Token)
		clients = append(clients, meta.Client)
	}
	running, stop := context.WithCancel(ctx)
	var runners errgroup.Group
	defer func() {
		stop()
		err = errors.Join(err, runners.Wait())
	}()
	joined := make(chan struct{}, listRunners)
	for i := range listRunners {
		dir, err := os.MkdirTemp(l.Dir, "runner-")
		if err != nil {
			return nil, err
		}
		name := fmt.Sprintf("r%d", i)
		if err := writeRuns(filepath.Join(dir, "runs"), name, clients, i); err != nil {
			return nil, err
		}
		b, err := amqp.New(amqp.Options{URLs: []string{c.Rabbit.URLFor("runner")}})
		if err != nil {
			return nil, err
		}
		r := taskrunner.Runner{Name: name, Broker: b, SpoolDir: dir, Slots: 1, Grace: -1, Kinds: map[string]taskrunner.Kind{"none": {Handler: taskrunner.HandlerFunc(nothing)}}}
		first := true
		r.OnState = func(s broker.State) {
			if s.Phase == broker.Up && first {
				first = false
				joined <- struct{}{}
			}
		}
		runners.Go(func() error { return r.Run(running) })
	}
	for range listRunners {
		select {
		case <-joined:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
	var all []time.Duration
	for i := range 50 {
		began := time.Now()
		n, err := listTasks(ctx, c.Workers[0].Addr, tokens[i%listClients])
		if err != nil {
			return nil, err
		}
		if n != wire.MaxRuns {
			return nil, fmt.Errorf("%d tasks, want %d", n, wire.MaxRuns)
		}
		all = append(all, time.Since(began))
	}
	slices.Sort(all)
	l.Logf("  %d runners with %d runs each: p50 %v, p99 %v", listRunners, listEach, all[len(all)/2], all[len(all)*99/100])
	return []sample{{value: all[len(all)*99/100].Seconds() * 1000}}, nil
}

func nothing(context.Context, *taskrunner.Task) (any, error) { return nil, nil }

// meet connects a client and returns its socket meta.
func meet(ctx context.Context, addr string) (m wire.SocketMeta, err error) {
	met := make(chan wire.SocketMeta, 1)
	client, err := wsclient.New(wsclient.Options{URL: "ws://" + addr + "/v1/ws", OnMeta: func(m wire.SocketMeta) {
		select {
		case met <- m:
		default:
		}
	}})
	if err != nil {
		return m, err
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	ended := make(chan error, 1)
	go func() { ended <- client.Run(ctx) }()
	defer func() { cancel(); <-ended }()
	select {
	case m = <-met:
		return m, nil
	case <-ctx.Done():
		return m, fmt.Errorf("no socket meta: %w", context.Cause(ctx))
	}
}

// writeRuns writes the pages of runs that have ended, as a runner does.
func writeRuns(dir, runner string, clients []socketmeta.ClientID, number int) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	now := time.Now()
	for i := range listEach {
		run := wire.NewRunID()
		at := wire.Time{Time: now.Add(-time.Duration(i*listRunners+number) * time.Millisecond)}
		page := struct {
			Client socketmeta.ClientID `json:"client_id"`
			wire.RunInfo
		}{clients[i%len(clients)], wire.RunInfo{
			Task: wire.TaskID(fmt.Sprintf("t-%s-%d", runner, i)), Kind: "none", Status: wire.RunSucceeded, Attempt: 1, Run: run, Runner: runner,
			Submitted: at, Started: at, Ended: &at, CurrentStep: 3, TotalSteps: 3,
		}}
		raw, err := json.Marshal(page)
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, string(run)+".json"), raw, 0o600); err != nil {
			return err
		}
	}
	return nil
}

// listTasks returns how many tasks a client's list has.
func listTasks(ctx context.Context, addr, token string) (int, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, fmt.Sprintf("http://%s/v1/tasks?limit=%d", addr, wire.MaxRuns), nil)
	if err != nil {
		return 0, err
	}
	r.Header.Set("X-Socket-Meta", token)
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		return 0, err
	}
	defer answer.Body.Close()
	raw, err := io.ReadAll(answer.Body)
	if err != nil {
		return 0, err
	}
	var list struct {
		Tasks []wire.RunInfo `json:"tasks"`
	}
	if err := json.Unmarshal(raw, &list); err != nil {
		return 0, fmt.Errorf("%s: %.200s: %w", answer.Status, raw, err)
	}
	return len(list.Tasks), nil
}
