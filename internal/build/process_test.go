package build

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/wscluster/wscluster/pkg/wire"
)

// one is a recipe of one step that has the test program do what.
func one(more, what string) string {
	return "kind: one\n" + more + "\nsteps: [{name: s, argv: ['%s', " + what + "]}]\n"
}

func TestATimeoutEndsTheWholeProcessGroup(t *testing.T) {
	dir := t.TempDir()
	kinds := kindsOf(t, Options{WorkDir: dir}, one("timeout: 500ms\ngrace: 100ms", "stubborn"))
	o := do(t, kinds, "one", nil)
	if o.failure.Code != wire.CodeTimeout || !strings.Contains(o.failure.Message, "500ms") {
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
	kinds := kindsOf(t, Options{}, one("timeout: 500ms\ngrace: 1m", "polite"))
	o := do(t, kinds, "one", nil)
	if o.failure.Code != wire.CodeTimeout || !slices.Equal(o.log[1:], []string{"ready", "bye"}) {
		t.Errorf("got %v, log %q", o.failure, o.log)
	}
}

// What a step leaves behind is killed; what has left its process group holds up nobody, although
// it holds the output.
func TestAStepLeavesNothingBehindThatHoldsItUp(t *testing.T) {
	kinds := kindsOf(t, Options{}, one("timeout: 1m", "leaver"))
	o := do(t, kinds, "one", nil)
	if len(o.result.Steps) != 1 || o.duration > 30*time.Second {
		t.Errorf("got %+v, %v after %v", o.result, o.failure, o.duration)
	}
	left := pids(t, o.log[1])
	wantGone(t, left[0])
	if err := syscall.Kill(left[1], syscall.SIGKILL); err != nil {
		t.Error(err)
	}
}

func TestOutputIsLimited(t *testing.T) {
	kinds := kindsOf(t, Options{}, one("output_limit_bytes: 100000", "flood"))
	o := do(t, kinds, "one", nil)
	if o.failure.Code != wire.CodeOutputLimit {
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
