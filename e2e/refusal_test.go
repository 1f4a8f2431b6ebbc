package e2e

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/wscluster/wscluster/pkg/wire"
)

func TestBadRequestsAreRefusedAndCostNothingElse(t *testing.T) {
	c := town(t)
	cl, _ := client(t, c.Workers[0].Addr)
	good := submit(t, cl, "countdown", countdown(20))

	if _, err := cl.Submit(t.Context(), "bake", nil); codeOf(err) != wire.CodeUnknownKind {
		t.Errorf("a kind that nobody offers: %v, want %s", err, wire.CodeUnknownKind)
	}
	for _, ref := range []string{"; id", "$(id)", "-o/x", "../../etc/passwd", "a\x00b", "a\nb"} {
		task, err := cl.Submit(t.Context(), "go-build", map[string]any{"repo": root, "ref": ref, "packages": []string{"./pkg/wire"}})
		if err == nil {
			_, err = task.Wait(t.Context())
		}
		if code := codeOf(err); code != wire.CodeBadParams {
			t.Errorf("ref %q: %v, want %s", ref, err, wire.CodeBadParams)
		}
	}
	if _, err := good.Wait(t.Context()); err != nil {
		t.Errorf("the good task beside them: %v", err)
	}
}

func codeOf(err error) wire.Code {
	if e, ok := errors.AsType[*wire.Error](err); ok {
		return e.Code
	}
	return ""
}

func TestBadConfigurationIsOneLineThatNamesTheKeyAndExit3(t *testing.T) {
	good := map[string]string{
		"WSCLUSTER_SERVER_ID": "i1-w1", "WSCLUSTER_AMQP_URL": "amqp://127.0.0.1:1/", "WSCLUSTER_LISTEN": "127.0.0.1:0",
		"WSCLUSTER_META_KEYS": "k1 " + strings.Repeat("x", 40), "WSCLUSTER_ROUTE_KEY": "k1 " + strings.Repeat("y", 40),
	}
	for _, c := range []struct{ program, key, value, names string }{
		{"wsworker", "WSCLUSTER_SERVER_ID", "i1", "server_id"},
		{"wsworker", "WSCLUSTER_SERVER_ID", "", "server_id"},
		{"wsworker", "WSCLUSTER_RESUME_WINDOW", "soon", "resume_window"},
		{"wsworker", "WSCLUSTER_META_KEYS", "k1 short", "meta_keys"},
		{"wsworker", "WSCLUSTER_ORIGINS", "build.example", "origins"},
		{"wsworker", "WSCLUSTER_AMQP_URL", "http://x", "amqp_url"},
		{"wsworker", "WSCLUSTER_COLOUR", "red", "colour"},
		{"wsworker", "WSCLUSTER_MAX_HELD", "70000", "max_held"},
		{"taskrunner", "WSCLUSTER_SLOTS", "many", "slots"},
	} {
		t.Run(c.key+"="+c.value, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			cmd := exec.CommandContext(ctx, filepath.Join(bin, c.program), "run")
			cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + os.Getenv("HOME")}
			if c.program == "wsworker" {
				for k, v := range good {
					if k != c.key {
						cmd.Env = append(cmd.Env, k+"="+v)
					}
				}
			} else {
				cmd.Env = append(cmd.Env, "WSCLUSTER_NAME=r1", "WSCLUSTER_AMQP_URL=amqp://127.0.0.1:1/")
			}
			cmd.Env = append(cmd.Env, c.key+"="+c.value)
			out, err := cmd.CombinedOutput()
			if cmd.ProcessState.ExitCode() != 3 {
				t.Fatalf("exit code %d (%v), want 3:\n%s", cmd.ProcessState.ExitCode(), err, out)
			}
			if text := strings.TrimSpace(string(out)); strings.Count(text, "\n") != 0 || !strings.Contains(strings.ToLower(text), c.names) {
				t.Errorf("want one line that names %s, got:\n%s", c.names, text)
			}
		})
	}
}
