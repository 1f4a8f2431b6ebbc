package taskrunner

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/wscluster/wscluster/pkg/channel"
	"github.com/wscluster/wscluster/pkg/wire"
	"go.uber.org/zap"
)

// This file says how tasks stand to who watches them: on workflow.<task ID> and on workflows, for an overview.

// maxMessage is how many bytes of a step's name, a progress message or an error's text a watcher reads: an
// overview has a hundred tasks, and each runner keeps thousands.
const maxMessage = 300

// tellWorkflow says how the task stands now: after the page of the run says so, and beside its events.
func (s *story) tellWorkflow(status wire.WorkflowStatus, message string, now time.Time) {
	if s.watch == nil {
		return
	}
	s.watch(&wire.Workflow{
		WorkflowID: s.task.Task, Kind: s.task.Kind, Status: status, CurrentStep: s.step, TotalSteps: s.steps,
		Message: clipTo(message, maxMessage), Timestamp: saidAt(s.task.Submitted.Time, now),
	})
}

// tellRunning says where the run is; message is of the step's progress, or "".
func (s *story) tellRunning(message string, now time.Time) {
	at := fmt.Sprintf("started on %s", s.runner)
	switch {
	case s.attempt > 1 && s.step == 0:
		at = fmt.Sprintf("started on %s, attempt %d", s.runner, s.attempt)
	case s.step > 0:
		at = fmt.Sprintf("step %d of %d: %s", s.step, s.steps, s.stepName)
	}
	if message != "" {
		at += ": " + message
	}
	s.tellWorkflow(wire.WorkflowRunning, at, now)
}

// howFar is progress in words.
func howFar(p *wire.Update) string {
	switch {
	case p.TotalSteps == 0:
		return p.Message
	case p.Message == "":
		return fmt.Sprintf("%d of %d", p.CurrentStep, p.TotalSteps)
	}
	return fmt.Sprintf("%d of %d, %s", p.CurrentStep, p.TotalSteps, p.Message)
}

// tellEnd says how the task ended.
func (s *story) tellEnd(now time.Time) {
	status, message := ending(s.fault)
	s.tellWorkflow(status, message, now)
}

// ending is an end with that fault, or nil, in words.
func ending(fault *wire.Error) (wire.WorkflowStatus, string) {
	switch {
	case fault == nil:
		return wire.WorkflowSucceeded, "ended with a result"
	case fault.Code == wire.CodeCanceled:
		return wire.WorkflowCanceled, "ended because its client asked for it"
	}
	return wire.WorkflowFailed, fmt.Sprintf("failed (%s): %s", fault.Code, fault.Message)
}

// tellWaiting says that the run was given up, and its task waits for another one.
func (s *story) tellWaiting(why string, now time.Time) {
	s.tellWorkflow(wire.WorkflowQueued, fmt.Sprintf("attempt %d %s; it waits for another one", s.attempt, why), now)
}

// saidAt is the time of what is said at now of a task: later than its submit, which another machine's clock has
// told, so that it is no older than the word of who accepted it.
func saidAt(submitted, now time.Time) wire.Time {
	if first := submitted.Add(time.Millisecond); now.Before(first) {
		now = first
	}
	return wire.Time{Time: now}
}

// workflowOf is how a run of the logbook stands.
func workflowOf(r *wire.RunInfo) *wire.Workflow {
	w := &wire.Workflow{
		WorkflowID: r.Task, Kind: r.Kind, CurrentStep: r.CurrentStep, TotalSteps: r.TotalSteps,
		Timestamp: saidAt(r.Submitted.Time, r.Started.Time),
	}
	if r.Ended != nil {
		w.Timestamp = saidAt(r.Submitted.Time, r.Ended.Time)
	}
	switch r.Status {
	case wire.RunSucceeded:
		w.Status, w.Message = ending(nil)
	case wire.RunFailed:
		fault := r.Error
		if fault == nil {
			fault = refusal(wire.CodeFailed, "the reason is not known any more")
		}
		w.Status, w.Message = ending(fault)
	case wire.RunGivenUp:
		w.Status, w.Message = wire.WorkflowQueued, fmt.Sprintf("attempt %d was given up; it waits for another one", r.Attempt)
	default:
		w.Status, w.Message = wire.WorkflowRunning, fmt.Sprintf("runs on %s", r.Runner)
	}
	w.Message = clipTo(w.Message, maxMessage)
	return w
}

// workflowMessage is how w is published.
func workflowMessage(w *wire.Workflow) channel.Message {
	body, err := json.Marshal(w)
	if err != nil {
		panic(fmt.Sprintf("taskrunner: encode a workflow: %v", err)) // nothing in it can fail
	}
	return channel.Message{Name: "workflow", Key: string(w.WorkflowID), Body: body, Time: w.Timestamp.Time}
}

// publishWorkflow publishes w for its own watchers and those of all. It does not block; what the queue has no room for is
// counted there.
func (s *shift) publishWorkflow(w *wire.Workflow) {
	err := s.posts.Publish(workflowMessage(w), wire.WorkflowChannel(w.WorkflowID), wire.ChannelWorkflows)
	if err != nil && !errors.Is(err, channel.ErrFull) {
		s.log.Error("how a task stands cannot be published", zap.String("task_id", string(w.WorkflowID)), zap.Error(err))
	}
}

// remember has the overview go on where it was before a restart.
func (s *shift) remember() error {
	for _, w := range s.book.workflows("", wire.MaxKept) {
		if err := s.posts.Prime(workflowMessage(w), wire.ChannelWorkflows); err != nil {
			return err
		}
	}
	return nil
}

// findChannels answers a worker whose first client has subscribed: with what was published lately, or with what the
// logbook says of a task.
func (s *shift) findChannels(q *wire.FindChannels) *wire.ChannelsFound {
	found := &wire.ChannelsFound{Ask: q.Ask, Name: "r." + s.name, Channels: []wire.FoundChannel{}}
	for _, c := range q.Channels {
		kept := s.posts.Kept(c)
		if len(kept) == 0 {
			kept = s.fromBook(c)
		}
		if len(kept) > 0 {
			found.Channels = append(found.Channels, wire.FoundChannel{Channel: c, Kept: kept})
		}
	}
	found.Channels = channel.Fit(found.Channels)
	return found
}

// fromBook is what the logbook has for a channel: posts without numbers, the oldest first.
func (s *shift) fromBook(c wire.Channel) (posts []wire.Post) {
	task, one := strings.CutPrefix(string(c), string(wire.WorkflowChannel("")))
	limit := 1
	if c == wire.ChannelWorkflows {
		task, limit = "", wire.MaxKept
	} else if !one || task == "" {
		return nil
	}
	for _, w := range s.book.workflows(wire.TaskID(task), limit) {
		m := workflowMessage(w)
		posts = append(posts, wire.Post{Channel: c, Name: m.Name, Key: m.Key, Time: w.Timestamp, Body: m.Body})
	}
	return posts
}
