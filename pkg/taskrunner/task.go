package taskrunner

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/wscluster/wscluster/pkg/channel"
	"github.com/wscluster/wscluster/pkg/socketmeta"
	"github.com/wscluster/wscluster/pkg/wire"
)

// Task is one run of one task, as its handler sees it: what was asked, and the means to tell how
// it goes. The methods may be called by several goroutines.
//
// Step, Log, Progress and Artifact tell the client at once. When the broker is away or takes
// nothing, or the client's mailbox is full, they go on until Runner.BufferBytes wait in memory and
// Runner.SpoolBytes on disk, and then block, except Progress, which forgets. A call that blocks
// ends when the handler's context does. What is told after Run has returned is dropped.
type Task struct {
	ID        wire.TaskID
	Kind      string
	Meta      socketmeta.Meta // whose it is, and where the client was when it asked
	Subject   string          // who asked, as the worker knows; "" where nobody is asked
	Attempt   int             // from 1: how often this task has been started, counting this run
	Run       wire.RunID      // names this run and no other; it can be a file's name
	Submitted time.Time

	params string // one JSON object
	run    *run
}

// Params decodes the parameters into a pointer, as encoding/json does, and refuses fields that it
// does not have. The error is a *wire.Error with code bad_params: return it as it is.
func (t *Task) Params(into any) error {
	d := json.NewDecoder(strings.NewReader(t.params))
	d.DisallowUnknownFields()
	err := d.Decode(into)
	if err == nil {
		return nil
	}
	what := strings.TrimPrefix(err.Error(), "json: ")
	if wrong, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		what = fmt.Sprintf("%s cannot be %s", wrong.Field, wrong.Value)
	}
	return refusal(wire.CodeBadParams, what)
}

// Lease returns for how long from now the run may go on if this process stands still or dies: a handler
// whose work goes on without it, as a process of its own, has to see that it is over by then, for another
// runner may begin the task. It is renewed for as long as there is a broker.
func (t *Task) Lease() time.Duration { return t.run.lease() }

// Steps says how many steps there will be. It is told with the next step.
func (t *Task) Steps(total uint32) { t.run.setSteps(total) }

// Step ends the step that was begun before, as succeeded, and begins the next one. The last step
// ends with the run: as succeeded if the handler returns no error, else as failed.
func (t *Task) Step(name string) { t.run.begin(name) }

// Progress says that done of total units of the current step are done, with total 0 if it is not
// known. The client hears of the latest call, at most ten times a second, or never if it is away.
func (t *Task) Progress(done, total uint32, message string) { t.run.setProgress(done, total, message) }

// Log returns a writer for the task's output. It is cut into lines of at most MaxLine bytes and
// numbered; lines go to Runner.SpoolDir, and from there to who reads them, within 100 ms or when 16 KiB
// are together. What exceeds Runner.MaxLogBytes, or what the disk does not take, is dropped; the log's last
// line and the final event say how much. A Write waits for nothing but the disk; one that returns an error
// wrote less. With Runner.LogBytes below 0 lines are durable events instead, and Write blocks as they do.
func (t *Task) Log() io.Writer { return logWriter{t.run} }

// Artifact tells of something that the task has made. The error says that it cannot be told, for
// its size.
func (t *Task) Artifact(a wire.Artifact) error { return t.run.artifact(a) }

// Publish publishes body, any value that encoding/json can write, to the subscribers of a channel that there are
// now; name says what it is, and may be "". It neither waits nor fails because nobody is subscribed or the broker is
// away; the error is channel.ErrFull, or says what is wrong with an argument. Nothing is kept on disk: what the client must
// have is for Step, Artifact or the result. Runner.Channels publishes to several channels at once, and with a key.
func (t *Task) Publish(c wire.Channel, name string, body any) error {
	encoded, err := json.Marshal(body)
	if err != nil {
		return fmt.Errorf("publish to %s: %w", c, err)
	}
	return t.run.posts.Publish(channel.Message{Name: name, Body: encoded}, c)
}

type logWriter struct{ run *run }

func (w logWriter) Write(p []byte) (int, error) { return w.run.write(p) }
