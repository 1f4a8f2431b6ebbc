package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/wscluster/wscluster/internal/config"
	"github.com/wscluster/wscluster/internal/guard"
)

func TestMain(m *testing.M) {
	code := m.Run()
	err := errors.Join(stopRabbit(), goleak.Find())
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = max(code, 1)
	}
	os.Exit(code)
}

// execute runs the program as main does.
func execute(ctx context.Context, args ...string) (code int, stderr string) {
	var out, err bytes.Buffer
	code = config.Execute(ctx, command(), args, &out, &err)
	return code, err.String()
}

// configured is a command line with this configuration and, unless it says otherwise, what is
// required, for a broker that is not there.
func configured(t *testing.T, yaml string) []string {
	t.Helper()
	for _, required := range []string{"name: r1\n", "amqp_url: amqp://127.0.0.1:1/\n"} {
		if key, _, _ := strings.Cut(required, ":"); !strings.Contains(yaml, key+":") {
			yaml += required
		}
	}
	path := filepath.Join(t.TempDir(), "r.yaml")
	if err := os.WriteFile(path, []byte(yaml), 0o600); err != nil {
		t.Fatal(err)
	}
	return []string{"run", "--config", path}
}

func TestBadConfigurationIsOneLineAndExitCode3(t *testing.T) {
	dir := t.TempDir()
	write := func(name, content string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for _, tt := range []struct{ name, yaml, want string }{
		{"name", "name: R 1\n", `"R 1" must have 1 to 64 characters of [a-z0-9-]`},
		{"slots", "slots: 0\n", "slots: 0 must be between 1 and 65535"},
		{"grace", "grace: -1s\n", "grace: -1s must not be negative"},
		{"unknown key", "slot: 1\n", "slot: there is no such key"},
		{"log level", "log_level: loud\n", `log_level: "loud" must be debug, info, warn or error`},
		{"spool limit", "spool_limit_bytes: -1\n", "spool_limit_bytes: -1 must not be negative"},
		{"spool folder", "spool_dir: /dev/null\nwork_dir: " + dir + "\nlog_level: error\n", "spool_dir: runner: SpoolDir cannot be used: mkdir /dev/null: "},
		{"internal address", "internal_listen: nowhere\nlog_level: error\n", "internal_listen: address nowhere: missing port"},
		{"internal port", "internal_listen: 127.0.0.1:http\nlog_level: error\n", `internal_listen: port "http" must be a number`},
		{"work directory", "work_dir: /no/such\n", "work directory: "},
		{"repository root", "repo_roots: [/no/such]\n", "repository root: "},
		{"recipe file", "recipes: [/no/such.yaml]\n", "open /no/such.yaml: "},
		{"recipe", "recipes: [" + write("bad.yaml", "kind: k\n") + "]\n", "bad.yaml: steps: there must be at least one"},
		{"program", "recipes: [" + write("p.yaml", "kind: k\nprograms: [no-such]\nsteps: [{name: s, argv: [no-such]}]\n") + "]\n", `recipe k: step "s": exec: "no-such"`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			code, stderr := execute(t.Context(), configured(t, tt.yaml)...)
			if code != config.ExitConfig || !strings.Contains(stderr, tt.want) || strings.Count(stderr, "\n") != 1 {
				t.Errorf("exit code %d, stderr %q, want one line with %q", code, stderr, tt.want)
			}
		})
	}
}

func TestAPasswordIsNotShown(t *testing.T) {
	code, stderr := execute(t.Context(), configured(t, "amqp_url: 'amqp://u:hush@h:x/'\n")...)
	if code != config.ExitConfig || strings.Contains(stderr, "hush") {
		t.Errorf("exit code %d, stderr %q", code, stderr)
	}
}

// stopAt calls stop once it was written a text.
type stopAt struct {
	bytes.Buffer
	text string
	stop func()
}

func (s *stopAt) Write(p []byte) (int, error) {
	n, err := s.Buffer.Write(p)
	if strings.Contains(s.String(), s.text) {
		s.stop()
	}
	return n, err
}

func TestWithoutABrokerItTriesUntilItIsStopped(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	stderr := stopAt{text: "no link to the broker", stop: cancel}
	code := config.Execute(ctx, command(), configured(t, "grace: 0s\nwork_dir: "+t.TempDir()+"\n"), io.Discard, &stderr)
	if code != config.ExitOK || !strings.Contains(stderr.String(), stderr.text) {
		t.Errorf("exit code %d, stderr %q", code, stderr.String())
	}
	want := 0
	if _, err := guard.OpenCgroup(); err != nil {
		want = 1
	}
	if said := strings.Count(stderr.String(), "Delegate=yes"); said != want {
		t.Errorf("said %d times how to get control groups, want %d: %s", said, want, stderr.String())
	}
}

func TestUnknownFlagIsExitCode2(t *testing.T) {
	if code, stderr := execute(t.Context(), "run", "--nope"); code != config.ExitUsage {
		t.Errorf("exit code %d, stderr %q", code, stderr)
	}
}
