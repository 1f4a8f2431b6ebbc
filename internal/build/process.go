package build

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// drain bounds the wait for output after a process has ended: something that left its process
// group may hold the other end for ever.
const drain = time.Second

// process is one program to be run to its end.
type process struct {
	path  string // absolute
	argv  []string
	env   []string
	dir   string
	grace time.Duration // from SIGTERM to SIGKILL
}

// run starts p in a process group of its own and copies its output, both streams in the order
// written, to out. It returns the exit code, -1 if a signal ended it, when the program has ended,
// nothing of its group is left, and its output has been copied. An error means that it did not
// start.
//
// When ctx ends, the group gets SIGTERM and, after the grace, SIGKILL. Whatever the group leaves
// behind when the program ends is killed. After an error of out the rest of the output is read and
// thrown away, so that the program does not block on it.
func (p process) run(ctx context.Context, out io.Writer) (code int, err error) {
	r, w, err := os.Pipe()
	if err != nil {
		return 0, err
	}
	defer r.Close()
	cmd := &exec.Cmd{
		Path: p.path, Args: p.argv, Env: p.env, Dir: p.dir, Stdout: w, Stderr: w,
		SysProcAttr: &syscall.SysProcAttr{Setpgid: true},
	}
	err = cmd.Start()
	w.Close()
	if err != nil {
		return 0, fmt.Errorf("start %s: %w", p.path, err)
	}

	var exited atomic.Bool
	var copying, ending sync.WaitGroup
	copying.Go(func() { copyOutput(out, r, &exited) })
	gone := make(chan struct{})
	ending.Go(func() { p.end(ctx, cmd.Process.Pid, gone) })

	// Until the program is reaped, no other process group can have its number.
	waitExit(cmd.Process.Pid)
	close(gone)
	ending.Wait()
	signalGroup(cmd.Process.Pid, syscall.SIGKILL)
	waited := cmd.Wait()
	exited.Store(true)
	// Wakes a read that began before exited was set. An error would mean that r is closed.
	_ = r.SetReadDeadline(time.Now().Add(drain))
	copying.Wait()
	if e, ok := errors.AsType[*exec.ExitError](waited); ok {
		return e.ExitCode(), nil
	}
	return 0, waited
}

// waitExit blocks until the child has ended, and leaves it to be reaped.
func waitExit(pid int) {
	for unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil) == unix.EINTR {
	}
}

// end ends the group when ctx ends, unless it is gone before.
func (p process) end(ctx context.Context, pid int, gone <-chan struct{}) {
	select {
	case <-gone:
		return
	case <-ctx.Done():
	}
	signalGroup(pid, syscall.SIGTERM)
	select {
	case <-gone:
	case <-time.After(p.grace):
		signalGroup(pid, syscall.SIGKILL)
	}
}

// signalGroup sends sig to the process group. That there is none any more is no error.
func signalGroup(group int, sig syscall.Signal) { _ = syscall.Kill(-group, sig) }

// copyOutput copies until the end, or until nothing has come for the time drain after exited.
func copyOutput(out io.Writer, r *os.File, exited *atomic.Bool) {
	buf := make([]byte, 32<<10)
	for {
		if exited.Load() {
			_ = r.SetReadDeadline(time.Now().Add(drain)) // out may have taken its time
		}
		n, err := r.Read(buf)
		if _, failed := out.Write(buf[:n]); failed != nil {
			out = io.Discard
		}
		if err != nil {
			return
		}
	}
}
