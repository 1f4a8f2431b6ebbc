package rig

import (
	"context"
	"encoding/csv"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// adminTimeout bounds one exchange on the admin socket.
const adminTimeout = 5 * time.Second

// Admin sends one command to the admin socket of the newest HAProxy process and returns its answer.
// A refused command is an answer, not an error: HAProxy says so in words.
func (h *HAProxy) Admin(cmd string) (string, error) {
	conn, err := net.DialTimeout("unix", filepath.Join(h.dir, "admin.sock"), adminTimeout)
	if err != nil {
		return "", fmt.Errorf("haproxy admin %q: %w", cmd, err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(adminTimeout))
	if _, err := io.WriteString(conn, cmd+"\n"); err != nil {
		return "", fmt.Errorf("haproxy admin %q: %w", cmd, err)
	}
	answer, err := io.ReadAll(conn)
	if err != nil {
		return "", fmt.Errorf("haproxy admin %q: %w", cmd, err)
	}
	return strings.TrimSpace(string(answer)), nil
}

// ServerStates returns the state of each server by its name: UP, DOWN, NOLB (it answers 404:
// no new clients), DRAIN, MAINT, or INI until its first health check.
func (h *HAProxy) ServerStates() (map[string]string, error) {
	answer, err := h.Admin("show stat -1 4 -1")
	if err != nil {
		return nil, err
	}
	rows, err := csv.NewReader(strings.NewReader(strings.TrimPrefix(answer, "# "))).ReadAll()
	if err != nil || len(rows) == 0 {
		return nil, fmt.Errorf("haproxy show stat: not a table (%v): %.200q", err, answer)
	}
	column := make(map[string]int)
	for i, name := range rows[0] {
		column[name] = i
	}
	states := make(map[string]string)
	for _, row := range rows[1:] {
		// "UP 1/2" is up and one check away from down.
		state, _, _ := strings.Cut(row[column["status"]], " ")
		if strings.TrimPrefix(row[column["check_status"]], "* ") == "INI" && state != "MAINT" {
			state = "INI"
		}
		states[row[column["svname"]]] = state
	}
	return states, nil
}

// Await waits until every one of the servers is in the state, or ctx ends.
func (h *HAProxy) Await(ctx context.Context, state string, servers ...string) error {
	return poll(ctx, func() error {
		states, err := h.ServerStates()
		if err != nil {
			return err
		}
		for _, s := range servers {
			if states[s] != state {
				return fmt.Errorf("haproxy: server %s is %q, not %q", s, states[s], state)
			}
		}
		return nil
	})
}

// Reload starts a new HAProxy process from the configuration file as it is now, in the steps of
// deploy/haproxy/README.md, and returns once it has taken over. The old one ends with its last
// connection. If the new one does not start, the old one goes on and ctx ends the wait.
func (h *HAProxy) Reload(ctx context.Context) error {
	states, err := h.Admin("show servers state")
	if err != nil {
		return err
	}
	if err := os.WriteFile(h.statesFile(), []byte(states+"\n"), 0o600); err != nil {
		return fmt.Errorf("reload haproxy: %w", err)
	}
	old, err := h.pid()
	if err != nil {
		return err
	}
	var asked time.Time
	return poll(ctx, func() error {
		if time.Since(asked) > reloadAgain {
			asked = time.Now()
			if err := h.proc.Signal(syscall.SIGUSR2); err != nil {
				return fmt.Errorf("reload haproxy: %w", err)
			}
		}
		now, err := h.pid()
		if err == nil && now == old {
			err = fmt.Errorf("reload haproxy: process %s still serves\n%s", old, h.proc.Tail())
		}
		return err
	})
}

// reloadAgain is when the master is asked again: it forgets a SIGUSR2 that comes while it starts a
// worker, as after a reload just before.
const reloadAgain = 2 * time.Second

// pid returns the process that answers on the admin socket.
func (h *HAProxy) pid() (string, error) {
	info, err := h.Admin("show info")
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(info) {
		if pid, ok := strings.CutPrefix(line, "Pid: "); ok {
			return strings.TrimSpace(pid), nil
		}
	}
	return "", fmt.Errorf("haproxy show info: no Pid in %.200q", info)
}

func (h *HAProxy) statesFile() string { return filepath.Join(h.dir, "servers.state") }
