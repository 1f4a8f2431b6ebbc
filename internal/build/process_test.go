package build

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/wscluster/wscluster/internal/guard"
	"github.com/wscluster/wscluster/pkg/wire"
)

// one is a recipe of one step that has the test program do what.
func one(more, what string) string {
	return "kind: one\n" + more + "\nsteps: [{name: s, argv: ['%s', " + what + "]}]\n"
}

func TestATimeoutEndsTheWholeProcessGroup(t *testing.T) {
	dir := t.TempDir()
	kinds := kindsOf(t, Options{WorkDir: dir}, one("timeout: 3s\ngrace: 100ms", "stubborn"))
	o := do(t, kinds, "one", nil)
	if o.failure.Code != wire.CodeTimeout || !strings.Contains(o.failure.Message, "3s") {
		t.Errorf("got %v", o.failure)
	}
	wantGone(t, pids(t, o.log[1])...)
	wantEmpty(t, dir)
}

func TestAStepHasItsOwnTimeout(t *testing.T) {
	kinds := kindsOf(t, Options{}, "kind: one\ngrace: 100ms\nsteps: [{name: first, argv: ['%s', print, a]}, {name: second, argv: ['%s', stubborn], timeout: 500ms}]\n")
	o := do(t, kinds, "one", nil)
	if o.failure.Code != wire.CodeTimeout || o.failure.Message != `step "second" ran longer than 500ms` {
		t.Errorf("got %v", o.failure)
	}
	if want := []string{"first running", "first succeeded", "second running", "second failed"}; !slices.Equal(o.events, want) {
		t.Errorf("got %q, want %q", o.events, want)
	}
}

func TestAProcessHasTimeToSayGoodbye(t *testing.T) {
	kinds := kindsOf(t, Options{}, one("timeout: 3s\ngrace: 1m", "polite"))
	o := do(t, kinds, "one", nil)
	if o.failure.Code != wire.CodeTimeout || !slices.Equal(o.log[1:], []string{"ready", "bye"}) {
		t.Errorf("got %v, log %q", o.failure, o.log)
	}
}

// TestAStepLeavesNothingBehind: neither in its group nor in a session of its own.
func TestAStepLeavesNothingBehind(t *testing.T) {
	kinds := kindsOf(t, Options{}, one("timeout: 1m", "leaver"))
	o := do(t, kinds, "one", nil)
	if len(o.result.Steps) != 1 || o.duration > 30*time.Second {
		t.Errorf("got %+v, %v after %v", o.result, o.failure, o.duration)
	}
	wantGone(t, pids(t, o.log[1])...)
}

func TestOutputIsLimited(t *testing.T) {
	kinds := kindsOf(t, Options{}, one("output_limit_bytes: 100000", "flood"))
	o := do(t, kinds, "one", nil)
	var wrote, dropped int
	_, err := fmt.Sscanf(o.failure.Message, "the task wrote %d bytes of output and its recipe's output_limit_bytes is 100000: %d bytes were dropped", &wrote, &dropped)
	if o.failure.Code != wire.CodeOutputLimit || err != nil || dropped < 1 || wrote != 100_000+dropped {
		t.Errorf("got %v", o.failure)
	}
	bytes := 0
	for _, line := range o.log[1:] {
		bytes += len(line) + 1
	}
	if bytes < 99_000 || bytes > 100_001 {
		t.Errorf("%d bytes of output, want 100000", bytes)
	}
}

func TestTheStepsShareTheOutputLimit(t *testing.T) {
	step := "{name: %d, argv: ['%%s', print, " + strings.Repeat("x", 59) + "]}"
	kinds := kindsOf(t, Options{}, "kind: one\noutput_limit_bytes: 100\nsteps: ["+fmt.Sprintf(step, 1)+","+fmt.Sprintf(step, 2)+"]\n")
	o := do(t, kinds, "one", nil)
	if o.failure.Code != wire.CodeOutputLimit || !slices.Contains(o.events, "1 succeeded") || !slices.Contains(o.events, "2 failed") {
		t.Errorf("got %v, %q", o.failure, o.events)
	}
}

func TestAFailedStepIsTheLast(t *testing.T) {
	kinds := kindsOf(t, Options{}, "kind: one\nsteps: [{name: a, argv: ['%s', exit, '0']}, {name: b, argv: ['%s', exit, '3']}, {name: c, argv: ['%s', exit, '0']}]\n")
	o := do(t, kinds, "one", nil)
	if o.failure.Code != wire.CodeFailed || o.failure.Message != `step "b" failed with exit code 3` {
		t.Errorf("got %v", o.failure)
	}
	if want := []string{"a running", "a succeeded", "b running", "b failed"}; !slices.Equal(o.events, want) {
		t.Errorf("got %q, want %q", o.events, want)
	}
}

func TestTheEnvironmentIsWhatTheRecipeLists(t *testing.T) {
	dir := t.TempDir()
	kinds := kindsOf(t, Options{WorkDir: dir, Environ: []string{"A=1", "SECRET=2", "B=x=y", "bad"}},
		one("env: {copy: [A, B, C], set: {D: '{workspace}/d', E: 'e{workspace}'}}", "env"))
	var got []string
	if err := json.Unmarshal([]byte(do(t, kinds, "one", nil).log[1]), &got); err != nil {
		t.Fatal(err)
	}
	tmp := got[len(got)-2]
	workspace := filepath.Dir(strings.TrimPrefix(tmp, "TMPDIR="))
	want := []string{"A=1", "B=x=y", "D=" + workspace + "/d", "E=e{workspace}", "GORACE=atexit_sleep_ms=0", "TMPDIR=" + workspace + "/tmp", programVariable + "=1"}
	if !slices.Equal(got, want) || filepath.Dir(workspace) != dir {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestAWorkspaceIsRemovedHoweverItWasLeft(t *testing.T) {
	dir, outside := t.TempDir(), t.TempDir()
	if err := os.WriteFile(filepath.Join(outside, "kept"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	kinds := kindsOf(t, Options{WorkDir: dir}, one("", "mess, '"+outside+"'"))
	if o := do(t, kinds, "one", nil); len(o.result.Steps) != 1 {
		t.Fatalf("got %v, log %q", o.failure, o.log)
	}
	wantEmpty(t, dir)
	if _, err := os.Stat(filepath.Join(outside, "kept")); err != nil {
		t.Error(err)
	}
}

func TestOutputTellsProgressAndValues(t *testing.T) {
	kinds := kindsOf(t, Options{}, `
kind: one
steps:
  - {name: list, argv: ["%s", print, x, y, z], progress: {match: .}, capture: first}
  - {name: test, argv: ["%s", print, ok a, noise, ok b, FAIL c], progress: {match: '^(ok|FAIL) ', total_of: list}}
`)
	o := do(t, kinds, "one", nil)
	if o.result.Values["first"] != "x" {
		t.Errorf("captured %q", o.result.Values)
	}
	for _, want := range []string{"3/0 z", "3/3 FAIL c"} { // the latest of each step always comes
		if !slices.Contains(o.events, want) {
			t.Errorf("no %q in %q", want, o.events)
		}
	}
	if want := []string{"ok a", "noise", "ok b", "FAIL c"}; !slices.Equal(o.log[len(o.log)-4:], want) {
		t.Errorf("log %q", o.log)
	}
}

// guarded starts the test program behind a guard, without a runner, as p says: its lease is an hour if it has none. line
// waits for its next line.
func guarded(ctx context.Context, t *testing.T, p process, what string) (line func() string, ended func() (int, error)) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	p.path, p.argv, p.env, p.dir = self, []string{self, what}, []string{programVariable + "=1"}, t.TempDir()
	if p.lease == nil {
		p.lease = func() time.Duration { return time.Hour }
	}
	r, w := io.Pipe()
	code, failed, done := 0, error(nil), make(chan struct{})
	go func() {
		defer close(done)
		code, failed = p.run(ctx, w)
		w.Close()
	}()
	t.Cleanup(func() { <-done })
	lines := bufio.NewScanner(r)
	line = func() string {
		if !lines.Scan() {
			t.Fatal("it says nothing more")
		}
		return lines.Text()
	}
	ended = func() (int, error) { <-done; return code, failed }
	return line, ended
}

func TestAProgramIsEndedWhenItsLeaseIsOver(t *testing.T) {
	until := time.Now().Add(2 * time.Second)
	line, ended := guarded(t.Context(), t, process{grace: time.Minute, lease: func() time.Duration { return time.Until(until) }}, "stubborn")
	all := pids(t, line())
	if _, err := ended(); !errors.Is(err, errLease) || time.Now().Before(until) {
		t.Errorf("ended by %v, %v before its lease", err, time.Until(until))
	}
	wantGone(t, all...)
}

func TestAProgramDoesNotOutliveItsGuard(t *testing.T) {
	line, ended := guarded(t.Context(), t, process{}, "stubborn")
	all := pids(t, line())
	if err := syscall.Kill(parentOf(t, all[0]), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if code, err := ended(); err == nil || !strings.Contains(err.Error(), "guard") {
		t.Errorf("got %d, %v", code, err)
	}
	wantGone(t, all[0])
	_ = syscall.Kill(all[1], syscall.SIGKILL) // its child: nobody is left to end that without a control group
}

func TestAProgramThatKillsItsGuardLeavesNothingBehind(t *testing.T) {
	cgroup, err := guard.OpenCgroup()
	if err != nil {
		t.Skip(err)
	}
	line, ended := guarded(t.Context(), t, process{cgroup: cgroup}, "patricide")
	all := pids(t, line())
	if code, err := ended(); err == nil || !strings.Contains(err.Error(), "has died") {
		t.Errorf("got %d, %v", code, err)
	}
	wantGone(t, all...)
}

// TestAProgramWhoseGuardWasStoppedIsEndedAllTheSame: it does not take its place for ever.
func TestAProgramWhoseGuardWasStoppedIsEndedAllTheSame(t *testing.T) {
	cgroup, _ := guard.OpenCgroup() // the program itself ends without too
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	line, ended := guarded(ctx, t, process{cgroup: cgroup, grace: time.Millisecond, late: 500 * time.Millisecond}, "stubborn")
	all := pids(t, line())
	if err := syscall.Kill(parentOf(t, all[0]), syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	cancel()
	if code, err := ended(); err == nil || !strings.Contains(err.Error(), "has died") {
		t.Errorf("got %d, %v", code, err)
	}
	wantGone(t, all[0])
	_ = syscall.Kill(all[1], syscall.SIGKILL) // its child: nobody is left to end that without a control group
}

// TestNothingOutlivesItsRunner: a runner that is killed (SIGKILL) tells nobody.
func TestNothingOutlivesItsRunner(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	runner := exec.Command(self, "runner", "leave")
	runner.Env = append(os.Environ(), programVariable+"=1")
	out, err := runner.StdoutPipe()
	if err == nil {
		err = runner.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	in := bufio.NewScanner(out)
	in.Scan()
	all := pids(t, in.Text())
	if err := runner.Process.Kill(); err != nil {
		t.Error(err)
	}
	_ = runner.Wait() // it was killed
	wantGone(t, all...)
}

func TestAProgramThatCannotStartSaysWhy(t *testing.T) {
	p := process{path: filepath.Join(t.TempDir(), "none"), argv: []string{"none"}, lease: func() time.Duration { return time.Hour }}
	if _, err := p.run(t.Context(), io.Discard); err == nil || !strings.Contains(err.Error(), "no such file") {
		t.Errorf("got %v", err)
	}
}

func parentOf(t *testing.T, pid int) (parent int) {
	t.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err == nil {
		_, err = fmt.Sscan(strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))[1], &parent)
	}
	if err != nil {
		t.Fatal(err)
	}
	return parent
}

func pids(t *testing.T, line string) (all []int) {
	t.Helper()
	for f := range strings.FieldsSeq(line) {
		var pid int
		if _, err := fmt.Sscan(f, &pid); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		all = append(all, pid)
	}
	if len(all) != 2 {
		t.Fatalf("two processes, not %q", line)
	}
	return all
}

// wantGone checks that processes have ended. An orphan that is dead may wait a moment for init.
func wantGone(t *testing.T, pids ...int) {
	t.Helper()
	for _, pid := range pids {
		for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
			stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
			if err != nil || strings.Contains(string(stat), ") Z ") {
				break
			}
			if time.Now().After(deadline) {
				t.Errorf("process %d lives: %s", pid, stat)
				break
			}
		}
	}
}
