package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/wscluster/wscluster/internal/config"
	"github.com/wscluster/wscluster/pkg/wire"
	"github.com/wscluster/wscluster/pkg/wsclient"
)

// TestDevEndsQuietlyAlthoughATaskRuns is what Ctrl-C does: nobody waits for the task, which takes an hour, and nobody is warned
// of mailboxes whose events nobody takes over.
func TestDevEndsQuietlyAlthoughATaskRuns(t *testing.T) {
	ctx, interrupt := context.WithCancel(t.Context())
	out, in := io.Pipe()
	s := devSettings{Logging: config.Logging{LogFormat: "console", LogLevel: "warn"}, Repo: t.TempDir(), WorkDir: t.TempDir()}
	var warnings strings.Builder // dev's until it has ended
	ended := make(chan error, 1)
	go func() { ended <- dev(ctx, s, in, &warnings); in.Close() }()
	c := clientOf(t, out)
	running, stop := context.WithCancel(t.Context())
	gone := make(chan error, 1)
	go func() { gone <- c.Run(running) }()
	var task *wsclient.Task
	for task == nil {
		var err error
		task, err = c.Submit(t.Context(), "countdown", json.RawMessage(`{"seconds":3600}`))
		if refused, ok := errors.AsType[*wire.Error](err); ok && refused.Code == wire.CodeUnknownKind {
			time.Sleep(10 * time.Millisecond) // the runner has not said yet what it offers
		} else if err != nil {
			t.Fatal(err)
		}
	}
	for e := range task.Events(t.Context()) {
		if e.Type == wire.EventLog {
			break
		}
	}
	stop()
	<-gone // of no more interest
	interrupt()
	select {
	case err := <-ended:
		if err != nil {
			t.Errorf("dev: %v", err)
		}
		if strings.Contains(warnings.String(), "owner") {
			t.Errorf("dev says %s", &warnings)
		}
	case <-time.After(20 * time.Second): // a runner's own patience is 30 s
		t.Error("dev still waits for the task")
	}
}

// clientOf is a client of the console whose address dev prints.
func clientOf(t *testing.T, out io.Reader) *wsclient.Client {
	t.Helper()
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		if m := regexp.MustCompile(`Console +http://(\S+)`).FindStringSubmatch(lines.Text()); m != nil {
			go io.Copy(io.Discard, out) // until dev ends
			c, err := wsclient.New(wsclient.Options{URL: "ws://" + m[1] + "/v1/ws"})
			if err != nil {
				t.Fatal(err)
			}
			return c
		}
	}
	t.Fatal("dev has not said where its console is")
	return nil
}
