// Package rig starts private servers on this machine for tests, demos and measurements: any
// program (Process), RabbitMQ and HAProxy, each with its own folders and free ports, listening on
// loopback only. What it starts ends with the process that started it, even if that one is
// killed. It needs Linux.
package rig

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Program says what to start.
type Program struct {
	Path string    // a path, or a name to look up in PATH
	Args []string  // without the program itself
	Env  []string  // "KEY=value"; nil means the environment of this process
	Dir  string    // working directory; "" means that of this process
	Name string    // for errors; "" means the last element of Path
	In   io.Reader // its input; nil is empty
	Log  io.Writer // gets all output, in one write at a time; nil keeps only the tail
}

// Process is a started program in a process group of its own. All methods are safe for concurrent
// use, and none but the waiting ones block for long.
//
// The program is killed when this process dies. When it ends, whatever is left of its process
// group is killed too, so that nothing outlives it.
type Process struct {
	name string
	cmd  *exec.Cmd
	out  *output
	done chan struct{} // closed once the program has ended and been waited for
	err  error         // how it ended; set before done is closed

	mu     sync.Mutex
	reaped bool // guarded by mu: its ID may be somebody else's by now
}

// Start starts p. An error means that nothing runs.
func Start(p Program) (*Process, error) {
	proc := &Process{
		name: cmp.Or(p.Name, filepath.Base(p.Path)),
		cmd:  exec.Command(p.Path, p.Args...),
		out:  newOutput(p.Log),
		done: make(chan struct{}),
	}
	proc.cmd.Env, proc.cmd.Dir = p.Env, p.Dir
	proc.cmd.Stdin, proc.cmd.Stdout, proc.cmd.Stderr = p.In, proc.out, proc.out
	proc.cmd.WaitDelay = time.Second // for pipes held open by whoever left the process group
	proc.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	started := make(chan error)
	go proc.run(started)
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start %s: %w", proc.name, err)
	}
	return proc, nil
}

// run starts the program and waits for its end.
func (p *Process) run(started chan<- error) {
	// Linux sends Pdeathsig when the thread that forked ends, so this goroutine keeps it.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	err := p.cmd.Start()
	started <- err
	if err != nil {
		return
	}
	defer close(p.done)
	pid := p.cmd.Process.Pid
	// The group's number is ours for as long as its leader is not reaped: kill the rest before.
	for unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil) == unix.EINTR {
	}
	p.mu.Lock()
	_ = syscall.Kill(-pid, syscall.SIGKILL)
	p.reaped = true
	p.mu.Unlock()
	p.err = p.cmd.Wait()
	p.out.close()
}

// PID is the program's process ID, and its process group's.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Done is closed when the program has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// ExitCode is what the ended program returned; -1 if a signal ended it, or if it still runs.
func (p *Process) ExitCode() int {
	select {
	case <-p.done:
		return p.cmd.ProcessState.ExitCode()
	default:
		return -1
	}
}

// Tail is the end of what the program wrote to both its outputs: at most tailLines lines.
func (p *Process) Tail() string { return p.out.tail() }

// Signal sends sig to the program alone; os.ErrProcessDone if it has ended.
func (p *Process) Signal(sig syscall.Signal) error { return p.kill(p.PID(), sig) }

// Freeze stops the program and all its children from running (SIGSTOP) until Thaw (SIGCONT). It
// returns once the program stands still: the signal alone may leave it a moment on another CPU.
func (p *Process) Freeze() error {
	if err := p.kill(-p.PID(), syscall.SIGSTOP); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), freezeWithin)
	defer cancel()
	return poll(ctx, p.stopped)
}

// freezeWithin bounds the wait for a program to stand still; one in the middle of a disk write may take a while.
const freezeWithin = 10 * time.Second

// stopped returns nil if every thread of the program is stopped (proc(5), /proc/PID/task/TID/stat: state T).
func (p *Process) stopped() error {
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", p.PID()))
	if err != nil {
		return err
	}
	for _, file := range threads {
		stat, err := os.ReadFile(file)
		if err != nil {
			continue // the thread has ended
		}
		state := stat[bytes.LastIndexByte(stat, ')')+2]
		if state != 'T' {
			return fmt.Errorf("%s still runs: %s is in state %c", p.name, file, state)
		}
	}
	return nil
}

// Thaw lets a frozen program go on.
func (p *Process) Thaw() error { return p.kill(-p.PID(), syscall.SIGCONT) }

func (p *Process) kill(id int, sig syscall.Signal) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.reaped {
		return fmt.Errorf("signal %s: %w", p.name, os.ErrProcessDone)
	}
	if err := syscall.Kill(id, sig); err != nil {
		return fmt.Errorf("signal %s: %w", p.name, err)
	}
	return nil
}

// Kill ends the program and its children with SIGKILL and returns when it is gone. Killing what
// has ended does nothing.
func (p *Process) Kill() {
	_ = p.kill(-p.PID(), syscall.SIGKILL) // only fails if it has ended
	<-p.done
}

// Stop asks the program to end (SIGTERM), and kills it once grace is over. It returns when the
// program is gone: nil if it ended by itself in time, whatever its exit code. Stopping what has
// ended does nothing.
func (p *Process) Stop(grace time.Duration) error {
	if err := p.Signal(syscall.SIGTERM); errors.Is(err, os.ErrProcessDone) {
		<-p.done
		return nil
	}
	_ = p.Thaw() // a frozen program would not hear it
	select {
	case <-p.done:
		return nil
	case <-time.After(grace):
		p.Kill()
		return fmt.Errorf("stop %s: killed, as it still ran %v after SIGTERM%s", p.name, grace, p.quote())
	}
}

// WaitLine returns the first line of output that matches, among those still in the tail and those
// to come. It fails if ctx or the program ends before.
func (p *Process) WaitLine(ctx context.Context, pattern *regexp.Regexp) (string, error) {
	found, cancel := p.out.watch(pattern)
	defer cancel()
	select {
	case line := <-found:
		return line, nil
	case <-p.done:
		select {
		case line := <-found:
			return line, nil
		default:
			return "", p.ended()
		}
	case <-ctx.Done():
		return "", fmt.Errorf("%s: no line matched %q: %w%s", p.name, pattern, context.Cause(ctx), p.quote())
	}
}

// WaitReady calls ready every few milliseconds until it returns nil. It fails, with ready's last
// error and the tail of the output, if ctx or the program ends before.
func (p *Process) WaitReady(ctx context.Context, ready func() error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	var watch sync.WaitGroup
	defer func() { cancel(nil); watch.Wait() }()
	watch.Go(func() {
		select {
		case <-p.done:
			cancel(p.ended())
		case <-ctx.Done():
		}
	})
	if err := poll(ctx, ready); err != nil {
		if ended, ok := errors.AsType[*EndedError](err); ok {
			return ended
		}
		return fmt.Errorf("%s is not ready: %w%s", p.name, err, p.quote())
	}
	return nil
}

// WaitPort waits until addr accepts TCP connections. It fails if ctx or the program ends before.
func (p *Process) WaitPort(ctx context.Context, addr string) error {
	return p.WaitReady(ctx, func() error { return dialable(addr) })
}

// EndedError says that a program ended while something was expected of it.
type EndedError struct {
	Name string
	How  error  // *exec.ExitError, or nil after exit code 0
	Tail string // the end of its output
}

func (e *EndedError) Error() string {
	how := "exit status 0"
	if e.How != nil {
		how = e.How.Error()
	}
	return fmt.Sprintf("%s has ended (%s); its last output:\n%s", e.Name, how, e.Tail)
}

func (e *EndedError) Unwrap() error { return e.How }

func (p *Process) ended() error {
	<-p.done
	return &EndedError{p.name, p.err, p.Tail()}
}

func (p *Process) quote() string {
	if tail := bytes.TrimSpace([]byte(p.Tail())); len(tail) > 0 {
		return "; its last output:\n" + string(tail)
	}
	return ""
}
