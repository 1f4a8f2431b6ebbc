package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"github.com/wscluster/wscluster/internal/rig"
	"github.com/wscluster/wscluster/pkg/wire"
	"github.com/wscluster/wscluster/pkg/wsclient"
)

// cloneToFirstLogLine is what a newcomer waits for: git clone, make run, a press on the console's
// submit button, and the first line of a build's log. Go's build cache is empty, its module cache
// too if modules can be fetched; else it is this machine's, which progress says. The clone comes
// from this folder, so that the network's part of it is missing. It is measured once: it takes a
// minute, and its bound is far from noise.
var cloneToFirstLogLine = figure{
	name: "clone-to-first-log-line", unit: "s",
	floor:   floor{limit: 60},
	measure: measureClone,
}

const (
	firstLineWithin = 5 * time.Minute
	stopWithin      = 10 * time.Second
)

func measureClone(ctx context.Context, l *lab) ([]sample, error) {
	ctx, cancel := context.WithTimeout(ctx, firstLineWithin)
	defer cancel()
	dir, err := os.MkdirTemp(l.Dir, "newcomer-")
	if err != nil {
		return nil, err
	}
	env, err := l.newcomer(ctx, dir)
	if err != nil {
		return nil, err
	}

	began := time.Now()
	phase := func(what string) { l.Logf("  %5.1f s %s", time.Since(began).Seconds(), what) }
	clone := filepath.Join(dir, "wscluster")
	if out, err := exec.CommandContext(ctx, "git", "clone", "--quiet", l.Root, clone).CombinedOutput(); err != nil {
		return nil, fmt.Errorf("git clone: %w\n%s", err, out)
	}
	phase("cloned")
	running, err := rig.Start(rig.Program{Path: "make", Args: []string{"run"}, Env: env, Dir: clone, Name: "make run"})
	if err != nil {
		return nil, err
	}
	defer func() {
		if err := running.Stop(stopWithin); err != nil {
			l.Logf("%v", err)
		}
	}()
	line, err := running.WaitLine(ctx, consoleLine)
	if err != nil {
		return nil, err
	}
	phase("the console's address")
	text, err := firstLogLine(ctx, consoleLine.FindStringSubmatch(line)[1])
	if err != nil {
		return nil, err
	}
	took := time.Since(began)
	phase("first log line: " + text)
	return []sample{{value: took.Seconds()}}, nil
}

// consoleLine finds the console's address in what make run prints.
var consoleLine = regexp.MustCompile(`Console +http://(\S+)`)

// newcomer is the environment of somebody who has Go and nothing else, with all its folders in dir.
func (l *lab) newcomer(ctx context.Context, dir string) ([]string, error) {
	tmp := filepath.Join(dir, "tmp")
	if err := os.Mkdir(tmp, 0o700); err != nil {
		return nil, err
	}
	env := append(os.Environ(), "TMPDIR="+tmp, "GOCACHE="+filepath.Join(dir, "build-cache"))
	// The cache must be writable to be removed.
	cold := append(env, "GOMODCACHE="+filepath.Join(dir, "modules"), "GOFLAGS="+strings.TrimSpace(os.Getenv("GOFLAGS")+" -modcacherw"))
	if out, err := l.probeModules(ctx, cold, filepath.Join(dir, "probe")); err != nil {
		l.Logf("  modules cannot be fetched (%v: %s): the module cache is this machine's", err, out)
		return env, nil
	}
	l.Logf("  build cache and module cache are empty")
	return cold, nil
}

// probeModules fetches one small module of go.mod into a cache of its own.
func (l *lab) probeModules(ctx context.Context, env []string, cache string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	fetch := exec.CommandContext(ctx, "go", "mod", "download", "go.uber.org/goleak")
	fetch.Dir, fetch.Env = l.Root, append(env, "GOMODCACHE="+cache)
	out, err := fetch.CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

// firstLogLine submits what the console's form holds when it opens, and returns the first line of
// the task's log.
func firstLogLine(ctx context.Context, addr string) (string, error) {
	kind, params, err := firstForm(ctx, addr)
	if err != nil {
		return "", fmt.Errorf("the console's form: %w", err)
	}
	c, err := wsclient.New(wsclient.Options{URL: "ws://" + addr + "/v1/ws"})
	if err != nil {
		return "", err
	}
	running, stop := context.WithCancel(ctx)
	ended := make(chan error, 1)
	go func() { ended <- c.Run(running) }()
	defer func() {
		stop()
		<-ended // of no more interest
	}()
	task, err := c.Submit(ctx, kind, params)
	if err != nil {
		return "", err
	}
	for e := range task.Events(ctx) {
		switch e.Type {
		case wire.EventLog:
			var log wire.Log
			if err := json.Unmarshal(e.Body, &log); err != nil {
				return "", err
			}
			return log.Lines[0], nil
		case wire.EventError:
			return "", fmt.Errorf("the %s task failed before its first line: %s", kind, e.Body)
		}
	}
	_, err = task.Wait(ctx) // over, or ctx is
	return "", fmt.Errorf("the %s task had no log: %w", kind, cmp.Or(err, errors.New("it ended with a result")))
}

// firstForm is what the console's form holds when it opens: the defaults of go-build, once a runner has announced it.
func firstForm(ctx context.Context, addr string) (kind string, params map[string]json.RawMessage, err error) {
	for {
		kinds, err := announced(ctx, addr)
		if err != nil {
			return "", nil, err
		}
		for _, k := range kinds {
			if k.Kind != "go-build" {
				continue
			}
			params := map[string]json.RawMessage{}
			for name, p := range k.Schema.Properties {
				if p.Default != nil {
					params[name] = p.Default
				}
			}
			return k.Kind, params, nil
		}
		select {
		case <-time.After(50 * time.Millisecond):
		case <-ctx.Done():
			return "", nil, context.Cause(ctx)
		}
	}
}

// announcedKind is what firstForm reads of an entry of GET /v1/kinds.
type announcedKind struct {
	Kind   string
	Schema struct {
		Properties map[string]struct{ Default json.RawMessage }
	}
}

func announced(ctx context.Context, addr string) ([]announcedKind, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+"/v1/kinds", nil)
	if err != nil {
		return nil, err
	}
	answer, err := http.DefaultClient.Do(r)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	var found struct{ Kinds []announcedKind }
	err = json.NewDecoder(io.LimitReader(answer.Body, 1<<20)).Decode(&found)
	return found.Kinds, err
}
