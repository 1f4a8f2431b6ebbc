// Package guard is the process that keeps watch over the program of a step, and nothing else: it imports the
// standard library and x/sys only, so that a process which is a guard begins to be one before the packages that a
// runner needs have set themselves up. That takes 11 ms, for each program (jsonschema alone 6 ms).
package guard

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Name is what a guard is called (argv[0]). A guard is a process between a runner and the program of a step: this very program, under another
// name. The kernel makes it the parent of all that the program leaves behind (PR_SET_CHILD_SUBREAPER),
// so nothing outlives it, whatever forks twice or takes a session of its own. It ends all of it when
// the program ends, when the runner says so or is dead, and when the runner has not said for too long
// that it may go on. Where there are control groups the program has one (Leaf), which ends with it, even if the guard
// was killed.
//
// The runner writes lines to its standard input: "lease" and the milliseconds for which the program may
// go on, and "term". The guard writes how it ended to descriptor 3: "exit N", "signal N", "fenced", or
// "failed" and why it did not start.
const Name = "wscluster-guard"

// Status is the descriptor to which a guard writes how it ended.
const Status = 3

const (
	guardTick = time.Second          // between two looks at the lease
	killAgain = 5 * time.Millisecond // between two looks for what is left
	killFor   = 10 * time.Second     // then what cannot be killed (another user's) is left behind, and said
)

// init is where a guard lives, in every program that has this package.
func init() {
	if os.Args[0] == Name {
		if len(os.Args) > 1 { // else somebody tries whether one can be started (openCgroup)
			runGuard(os.Args[1:])
		}
		unix.Exit(0) // at once: the end of the program that it is a part of is none of its business
	}
}

// guard is the state of one.
type guard struct {
	pid   int    // of the program
	leaf  string // the control group that it is in; "" if it has none
	grace time.Duration
	until deadline

	term <-chan time.Time // when SIGTERM was not enough
	why  string           // it was ended by the guard
}

// runGuard starts the program that the arguments name: the lease and the grace as time.Duration, the path of
// its leaf or "", its own path, and its argument vector.
func runGuard(args []string) {
	status := os.NewFile(Status, "status")
	unix.CloseOnExec(Status)
	text, err := guardOver(args)
	if err != nil {
		text = "failed " + err.Error()
	}
	fmt.Fprintln(status, text)
}

func guardOver(args []string) (status string, err error) {
	g := guard{leaf: args[2]}
	lease, err := time.ParseDuration(args[0])
	if err == nil {
		g.grace, err = time.ParseDuration(args[1])
	}
	if err != nil {
		return "", err
	}
	g.until = after(lease)
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return "", fmt.Errorf("become the parent of orphans: %w", err)
	}
	children := make(chan os.Signal, 1)
	signal.Notify(children, unix.SIGCHLD)
	signal.Ignore(unix.SIGTERM, unix.SIGINT, unix.SIGHUP) // the runner decides, or its death does
	if g.pid, err = startProgram(g.leaf, args[3], args[4:]); err != nil {
		return "", err
	}
	words := make(chan string)
	go func() {
		defer close(words)
		for in := bufio.NewScanner(os.Stdin); in.Scan(); {
			words <- in.Text()
		}
	}()
	ended := g.watch(words, children)
	left := errors.Join(endLeaf(g.leaf), g.clear())
	switch {
	case left != nil:
		return "", left
	case g.why != "":
		return g.why, nil
	case ended.Signaled():
		return fmt.Sprint("signal ", int(ended.Signal())), nil
	}
	return fmt.Sprint("exit ", ended.ExitStatus()), nil
}

// startProgram starts it in its leaf, and in a process group of its own. It dies with this thread, which is the
// main one and as old as the process.
func startProgram(leaf, path string, argv []string) (pid int, err error) {
	null, err := os.Open(os.DevNull)
	if err != nil {
		return 0, err
	}
	defer null.Close()
	sys := &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if leaf != "" {
		dir, err := os.Open(leaf)
		if err != nil {
			return 0, err
		}
		defer dir.Close()
		sys.UseCgroupFD, sys.CgroupFD = true, int(dir.Fd()) // it is never outside, not even to be moved
	}
	p, err := os.StartProcess(path, argv, &os.ProcAttr{Env: os.Environ(), Files: []*os.File{null, os.Stdout, os.Stderr}, Sys: sys})
	if err != nil {
		return 0, err
	}
	pid = p.Pid
	return pid, p.Release() // the guard waits for all its children at once
}

// watch returns how the program ended.
func (g *guard) watch(words <-chan string, children <-chan os.Signal) unix.WaitStatus {
	tick := time.NewTicker(guardTick)
	defer tick.Stop()
	for {
		select {
		case <-children:
			for {
				pid, status := reap()
				if pid == g.pid {
					return status
				}
				if pid <= 0 {
					break
				}
			}
		case word, ok := <-words:
			if !ok { // the runner is dead
				words = nil
				g.kill("fenced")
				continue
			}
			g.hear(word)
		case <-g.term:
			g.kill(g.why)
		case <-tick.C:
			if g.until.passed() {
				g.kill("fenced")
			}
		}
	}
}

// hear is a word of the runner.
func (g *guard) hear(word string) {
	if word == "term" {
		signalGroup(g.pid, unix.SIGTERM)
		g.term = time.After(g.grace)
		return
	}
	var ms int64
	if _, err := fmt.Sscanf(word, "lease %d", &ms); err == nil {
		g.until = after(time.Duration(ms) * time.Millisecond)
	}
}

func (g *guard) kill(why string) {
	g.why = why
	signalGroup(g.pid, unix.SIGKILL)
	if g.leaf != "" {
		_ = killLeaf(g.leaf) // also what is another user's; endLeaf says what went wrong
	}
}

// clear ends what the program has left behind. Each one's children become the guard's own when it dies.
func (g *guard) clear() error {
	for began := time.Now(); ; time.Sleep(killAgain) {
		for {
			pid, _ := reap()
			if pid < 0 { // there is none
				return nil
			}
			if pid == 0 {
				break
			}
		}
		children := childrenOf(os.Getpid())
		for _, pid := range children {
			_ = unix.Kill(pid, unix.SIGKILL) // it may have ended, or be another user's
		}
		if time.Since(began) > killFor {
			return fmt.Errorf("%d processes cannot be killed: %v", len(children), children)
		}
	}
}

// reap takes one child that has ended; 0 if none has, and -1 if there is none.
func reap() (pid int, status unix.WaitStatus) {
	for {
		pid, err := unix.Wait4(-1, &status, unix.WNOHANG, nil)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return -1, status
		}
		return pid, status
	}
}

// childrenOf lists the children of a process, as far as they can be seen.
func childrenOf(parent int) (pids []int) {
	stats, _ := filepath.Glob("/proc/[0-9]*/stat") // the pattern is good
	for _, path := range stats {
		text, err := os.ReadFile(path)
		if err != nil {
			continue // it has ended
		}
		// pid (name) state ppid ...: the name may have anything in it (proc(5))
		fields := bytes.Fields(text[bytes.LastIndexByte(text, ')')+1:])
		if len(fields) < 2 || string(fields[1]) != strconv.Itoa(parent) {
			continue
		}
		if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path))); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}

// deadline is a moment by both clocks, for only one of them goes on while the machine sleeps, and only
// the other cannot be set.
type deadline struct{ monotonic, wall time.Time }

func after(d time.Duration) deadline {
	at := time.Now().Add(d)
	return deadline{at, at.Round(0)}
}

func (d deadline) passed() bool {
	now := time.Now()
	return !now.Before(d.monotonic) || !now.Round(0).Before(d.wall)
}

// signalGroup sends sig to the process group. That there is none any more is no error.
func signalGroup(group int, sig syscall.Signal) { _ = syscall.Kill(-group, sig) }
