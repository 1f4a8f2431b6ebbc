package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"testing"
	"time"

	"github.com/wscluster/wscluster/internal/rig"
	"github.com/wscluster/wscluster/pkg/wire"
	"github.com/wscluster/wscluster/pkg/wsclient"
)

// TestATaskIsFollowedFromEveryWorker: who is subscribed before a task sees each of its statuses, who comes
// after its end sees that, and the overview has it in both cases, on whichever worker they are.
func TestATaskIsFollowedFromEveryWorker(t *testing.T) {
	t.Parallel() // it waits more than it works
	c := start(t, rig.ClusterOptions{}, "i1-w1", "i1-w2")
	id := wire.NewTaskID()
	owner, _ := client(t, c.Workers[0].Addr)
	watcher, _ := client(t, c.Workers[1].Addr)
	one, all := c.subscribe(watcher, wire.WorkflowChannel(id)), c.subscribe(watcher, wire.ChannelWorkflows)
	var task *wsclient.Task
	await(t, 20*time.Second, func() (err error) {
		task, err = owner.SubmitAs(t.Context(), id, "countdown", map[string]any{"lines": 4, "interval_ms": 50, "steps": 2})
		return err
	})
	_, err := task.Wait(c.ctx())
	c.must(err)
	for _, s := range []*wsclient.Subscription{one, all} {
		steps := c.follow(s, id)
		for _, want := range []wire.WorkflowStatus{wire.WorkflowQueued, wire.WorkflowRunning, wire.WorkflowSucceeded} {
			if steps[want] == nil {
				t.Errorf("%s: the task is never %s", s.Channel(), want)
			}
		}
		if end := steps[wire.WorkflowSucceeded]; end != nil && (end.CurrentStep != 2 || end.TotalSteps != 2) {
			t.Errorf("%s: the end is %+v, want both steps", s.Channel(), end)
		}
	}
	for i, w := range c.Workers {
		late, _ := client(t, w.Addr)
		for _, channel := range []wire.Channel{wire.WorkflowChannel(id), wire.ChannelWorkflows} {
			if c.follow(c.subscribe(late, channel), id)[wire.WorkflowSucceeded] == nil {
				t.Errorf("worker %d: who comes late to %s does not see the end", i, channel)
			}
		}
	}
}

// TestTheEngineShowsAllWorkersAndRunners as they come and go, also after the broker was killed.
func TestTheEngineShowsAllWorkersAndRunners(t *testing.T) {
	t.Parallel()
	c := start(t, rig.ClusterOptions{Runners: []string{"r1", "r2"}}, "i1-w1", "i1-w2")
	cl, _ := client(t, c.Workers[0].Addr)
	s := c.subscribe(cl, wire.ChannelEngine)
	c.engine(s, 2, 2)
	c.Runners[1].Kill()
	c.must(c.Runners[1].Restart(c.ctx()))
	c.Rabbit.Kill()
	c.must(c.Rabbit.Restart(c.ctx()))
	await(t, time.Minute, c.Workers[1].Ready) // one that stops without a link can tell nobody, and is forgotten after 100 s
	c.engine(s, 2, 2)
	c.must(c.Workers[1].Drain(c.ctx()))
	c.engine(s, 1, 2)
}

func (c *cluster) subscribe(cl *wsclient.Client, channel wire.Channel) *wsclient.Subscription {
	c.t.Helper()
	s, err := cl.Subscribe(c.ctx(), channel, wsclient.SubscribeOptions{})
	c.must(err)
	return s
}

// follow takes messages until a task has ended, and returns what was said of it, the last of each status.
func (c *cluster) follow(s *wsclient.Subscription, id wire.TaskID) map[wire.WorkflowStatus]*wire.Workflow {
	c.t.Helper()
	seen := map[wire.WorkflowStatus]*wire.Workflow{}
	ctx, cancel := context.WithTimeout(c.ctx(), 20*time.Second)
	defer cancel()
	for m := range s.Messages(ctx) {
		if m.Post == nil || m.Post.Key != string(id) {
			continue
		}
		var w wire.Workflow
		c.must(json.Unmarshal(m.Post.Body, &w))
		seen[w.Status] = &w
		switch w.Status {
		case wire.WorkflowSucceeded, wire.WorkflowFailed, wire.WorkflowCanceled:
			return seen
		}
	}
	c.t.Errorf("%s: the task has not ended within 20 s: %v", s.Channel(), seen)
	return seen
}

// engine takes messages until so many workers and runners are there.
func (c *cluster) engine(s *wsclient.Subscription, workers, runners int) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(c.ctx(), time.Minute)
	defer cancel()
	last := "nothing"
	for m := range s.Messages(ctx) {
		if m.Post == nil {
			continue
		}
		var e wire.Engine
		c.must(json.Unmarshal(m.Post.Body, &e))
		ready := 0
		for _, w := range e.Workers {
			if w.Ready {
				ready++
			}
		}
		last = fmt.Sprintf("%d workers, %d runners, broker %+v", ready, len(e.Runners), e.Broker)
		if ready == workers && len(e.Runners) == runners && e.Broker.Connected {
			return
		}
	}
	c.t.Errorf("the last that engine said is %s; want %d workers and %d runners", last, workers, runners)
}
