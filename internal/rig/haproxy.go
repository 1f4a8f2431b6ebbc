package rig

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// HAProxyOptions say what a private HAProxy runs with.
type HAProxyOptions struct {
	// Config is the path of the configuration file.
	Config string
	// Dir takes the admin socket and the server states. "" makes a folder that Stop and Kill remove.
	// A unix socket's path has room for some 90 bytes of it.
	Dir string
	// Env sets variables of the configuration, above those of this process. RUN_DIR is Dir; WS_BIND,
	// OPS_BIND and PEER_BIND are free ports of 127.0.0.1 unless set.
	Env map[string]string
	// Log gets what HAProxy writes, its traffic log among it; nil keeps only the tail, for errors.
	Log io.Writer
}

// HAProxy is a private HAProxy in master-worker mode. Its methods may be called from any goroutine,
// Reload, Kill and Stop one at a time.
type HAProxy struct {
	Addr string // host:port of the traffic listener (WS_BIND)
	Ops  string // host:port of the stats and metrics listener (OPS_BIND)

	// set once
	proc   *Process
	dir    string
	ownDir bool
}

const (
	haproxyStart = 10 * time.Second // from the start to the first accepted connection
	haproxyStop  = 5 * time.Second  // from SIGTERM to the end
)

// StartHAProxy returns once HAProxy accepts connections, or an error that shows what it wrote.
// Until its first health check HAProxy counts every server as up: see Await. ctx bounds the start only.
func StartHAProxy(ctx context.Context, o HAProxyOptions) (_ *HAProxy, err error) {
	// Reading the file tells go test that a cached result depends on it.
	if _, err := os.ReadFile(o.Config); err != nil {
		return nil, fmt.Errorf("start haproxy: %w", err)
	}
	h := &HAProxy{dir: o.Dir}
	if h.dir == "" {
		if h.dir, err = os.MkdirTemp("", "haproxy-"); err != nil {
			return nil, fmt.Errorf("start haproxy: %w", err)
		}
		h.ownDir = true
	}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("start haproxy: %w", err), h.removeDir())
		}
	}()

	env := map[string]string{"RUN_DIR": h.dir}
	maps.Copy(env, o.Env)
	for _, name := range []string{"WS_BIND", "OPS_BIND", "PEER_BIND"} {
		if env[name] == "" {
			if env[name], err = FreePort("127.0.0.1"); err != nil {
				return nil, err
			}
		}
	}
	h.Addr, h.Ops = env["WS_BIND"], env["OPS_BIND"]
	// A state file with nothing but its version: the first start has none to load.
	if err := os.WriteFile(h.statesFile(), []byte("1\n"), 0o600); err != nil {
		return nil, err
	}
	h.proc, err = Start(Program{
		Path: lookPath("haproxy"),
		Args: []string{"-W", "-db", "-f", o.Config}, // a master in the foreground, which reloads
		Env:  environ(env),
		Log:  o.Log,
	})
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, haproxyStart)
	defer cancel()
	if err := h.proc.WaitPort(ctx, h.Addr); err != nil {
		h.proc.Kill()
		return nil, err
	}
	return h, nil
}

// Stop ends HAProxy and every connection through it.
func (h *HAProxy) Stop() error { return errors.Join(h.proc.Stop(haproxyStop), h.removeDir()) }

// Kill ends HAProxy with SIGKILL, its processes from before a reload too.
func (h *HAProxy) Kill() error {
	h.proc.Kill()
	return h.removeDir()
}

// Done is closed when HAProxy has ended.
func (h *HAProxy) Done() <-chan struct{} { return h.proc.Done() }

func (h *HAProxy) removeDir() error {
	if !h.ownDir {
		return nil
	}
	return os.RemoveAll(h.dir)
}

// environ returns this process's environment with env on top.
func environ(env map[string]string) []string {
	out := os.Environ()
	for name, value := range env {
		out = append(out, name+"="+value) // the last one of a name counts
	}
	return out
}

// lookPath finds a program in PATH or where Debian puts what only root runs, which is not in
// everybody's PATH. What it does not find it returns as it is, for Start to complain of.
func lookPath(name string) string {
	for _, dir := range append(filepath.SplitList(os.Getenv("PATH")), "/usr/local/sbin", "/usr/sbin") {
		if path, err := exec.LookPath(filepath.Join(dir, name)); err == nil {
			return path
		}
	}
	return name
}
