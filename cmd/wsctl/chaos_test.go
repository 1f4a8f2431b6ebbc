package main

import (
	"path/filepath"
	"strings"
	"testing"

	"github.com/wscluster/wscluster/internal/config"
)

func TestChaosRefusesWhatItCannotDo(t *testing.T) {
	for _, tt := range []struct{ args, want string }{
		{"--faults flood", `there is no fault "flood"`},
		{"--duration 1s", "duration 1s: it must be 3s or more"},
		{"--clients 0", "0 clients: there must be 1 to"},
		{"--workers 9", "9 workers: there must be 1 to 8"},
		{"--keep " + t.TempDir(), "file exists"},
		{"now", "unknown command"},
	} {
		if code, _, stderr := execute(t, append([]string{"chaos"}, strings.Fields(tt.args)...)...); code != config.ExitUsage || !strings.Contains(stderr, tt.want) {
			t.Errorf("%s: exit code %d, %q, want %q", tt.args, code, stderr, tt.want)
		}
	}
}

func TestChaosWithoutProgramsFails(t *testing.T) {
	code, stdout, stderr := execute(t, "chaos", "--bin", t.TempDir(), "--keep", filepath.Join(t.TempDir(), "kept"))
	if code != config.ExitFailed || stdout != "" || !strings.Contains(stderr, "wsworker") {
		t.Errorf("exit code %d, %q, %q", code, stdout, stderr)
	}
}

func TestThePublisherIsNotForPeople(t *testing.T) {
	if code, _, stderr := execute(t, "chaos-publisher"); code != config.ExitFailed || !strings.Contains(stderr, "wsctl chaos") {
		t.Errorf("exit code %d, %q", code, stderr)
	}
	if _, stdout, _ := execute(t, "--help"); strings.Contains(stdout, "chaos-publisher") {
		t.Errorf("help shows it:\n%s", stdout)
	}
}
