package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"time"

	"github.com/wscluster/wscluster/internal/rig"
	"github.com/wscluster/wscluster/pkg/wire"
	"github.com/wscluster/wscluster/pkg/wsclient"
)

// Three figures of single tasks, one after the other, on one worker and one warm runner.
var (
	// acceptedP99 is from a submit to its accepted.
	acceptedP99 = figure{
		name: "submit-accepted-p99", unit: "ms", floor: floor{limit: 20},
		measure: func(ctx context.Context, l *lab) ([]sample, error) {
			return l.singleTasks(ctx, func(ctx context.Context, c *wsclient.Client) (sample, error) {
				return p99(500, func() (time.Duration, error) {
					began := time.Now()
					task, err := c.Submit(ctx, "trivial", struct{}{})
					took := time.Since(began)
					if err == nil {
						_, err = task.Wait(ctx)
					}
					return took, err
				})
			})
		},
	}
	// firstLineP99 is from a submit to the first line that its program wrote.
	firstLineP99 = figure{
		name: "submit-first-line-p99", unit: "ms", floor: floor{limit: 150},
		measure: func(ctx context.Context, l *lab) ([]sample, error) {
			return l.singleTasks(ctx, func(ctx context.Context, c *wsclient.Client) (sample, error) {
				return p99(200, func() (time.Duration, error) {
					began := time.Now()
					task, err := c.Submit(ctx, "lines", struct{}{})
					if err != nil {
						return 0, err
					}
					took := time.Duration(0)
					for e := range task.Events(ctx) {
						// The first line of all is the command, before the program has started.
						if took == 0 && e.Type == wire.EventLog && strings.Contains(string(e.Body), strings.Repeat("0", 98)) {
							took = time.Since(began)
						}
					}
					_, err = task.Wait(ctx)
					return took, err
				})
			})
		},
	}
	// trivialTask is what a runner spends on a task whose one program does nothing, until its final event is
	// stored. The baseline is that program alone.
	trivialTask = figure{
		name: "trivial-task-runner-time", unit: "ms", floor: floor{limit: 15},
		measure: func(ctx context.Context, l *lab) ([]sample, error) {
			return l.singleTasks(ctx, func(ctx context.Context, c *wsclient.Client) (sample, error) {
				const tasks = 300
				var spent time.Duration
				for range tasks {
					task, err := c.Submit(ctx, "trivial", struct{}{})
					if err != nil {
						return sample{}, err
					}
					began, ended := time.Time{}, time.Time{}
					for e := range task.Events(ctx) {
						at, err := timestampOf(e.Body)
						if err != nil {
							return sample{}, err
						}
						if e.Type == wire.EventStarted {
							began = at
						}
						ended = at
					}
					if _, err := task.Wait(ctx); err != nil {
						return sample{}, err
					}
					spent += ended.Sub(began)
				}
				bare := time.Now()
				for range tasks {
					if err := exec.CommandContext(ctx, "/bin/true").Run(); err != nil {
						return sample{}, err
					}
				}
				each := func(d time.Duration) float64 { return d.Seconds() * 1000 / tasks }
				return sample{each(spent), each(time.Since(bare))}, nil
			})
		},
	}
)

// timestampOf reads the timestamp of an event's body; zero if it has none.
func timestampOf(body json.RawMessage) (time.Time, error) {
	var b struct {
		Timestamp time.Time `json:"timestamp"`
	}
	err := json.Unmarshal(body, &b)
	return b.Timestamp, err
}

const taskRounds = 3

// singleTasks measures rounds on one cluster, with a client that has had a task before.
func (l *lab) singleTasks(ctx context.Context, round func(context.Context, *wsclient.Client) (sample, error)) (rounds []sample, err error) {
	c, err := l.taskCluster(ctx, "r1")
	if err != nil {
		return nil, err
	}
	defer l.Stop(c)
	client, stop, err := l.taskClient(ctx, c, nil)
	if err != nil {
		return nil, err
	}
	defer stop()
	for range taskRounds {
		s, err := round(ctx, client)
		if err != nil {
			return nil, err
		}
		rounds = append(rounds, s)
	}
	return rounds, nil
}

// taskCluster starts a cluster of one worker and runners with the figures' kinds.
func (l *lab) taskCluster(ctx context.Context, runners ...string) (*rig.Cluster, error) {
	recipes, err := l.recipes()
	if err != nil {
		return nil, err
	}
	return l.Cluster(ctx, rig.ClusterOptions{Workers: []string{"i1-w1"}, Runners: runners, RunnerSettings: []string{recipes, "WSCLUSTER_SLOTS=4"}})
}

// taskClient connects a client that gets every line, or calls each with every event, and warms the runner.
func (l *lab) taskClient(ctx context.Context, c *rig.Cluster, each func(*wsclient.Task, wsclient.Event)) (*wsclient.Client, func(), error) {
	client, err := wsclient.New(wsclient.Options{URL: "ws://" + c.Workers[0].Addr + "/v1/ws", Logs: true, OnEvent: each})
	if err != nil {
		return nil, nil, err
	}
	running, cancel := context.WithCancel(ctx)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = client.Run(running) // the calls on it say what failed
	}()
	stop := func() { cancel(); <-ended }
	for by := time.Now().Add(30 * time.Second); ; {
		task, err := client.Submit(ctx, "trivial", struct{}{})
		if err == nil {
			_, err = task.Wait(ctx)
		}
		if err == nil {
			return client, stop, nil
		}
		if time.Now().After(by) {
			stop()
			return nil, nil, fmt.Errorf("the first task: %w", err)
		}
		if err := pause(ctx, 100*time.Millisecond); err != nil {
			stop()
			return nil, nil, err
		}
	}
}

// p99 calls f n times and returns the 99th percentile in milliseconds.
func p99(n int, f func() (time.Duration, error)) (sample, error) {
	var all []time.Duration
	for range n {
		took, err := f()
		if err != nil {
			return sample{}, err
		}
		all = append(all, took)
	}
	slices.Sort(all)
	return sample{value: all[n*99/100].Seconds() * 1000}, nil
}
