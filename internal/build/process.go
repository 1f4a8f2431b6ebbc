package build

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/wscluster/wscluster/internal/guard"
)

const (
	drain      = time.Second      // for output once the guard has ended: what nobody could kill may hold the other end
	leaseEvery = time.Second      // between two words to the guard that all is well
	maxStatus  = 4 << 10          // bytes of a guard's last word
	patience   = 30 * time.Second // with a guard, beyond the grace: it gives up after 20 s on what does not die
)

// errLease says that a guard ended its program since the runner did not renew its lease.
var errLease = errors.New("the program was ended by its guard: the runner had no broker for too long, or stood still")

// process is one program to be run to its end.
type process struct {
	path   string // absolute
	argv   []string
	env    []string
	dir    string
	grace  time.Duration        // from SIGTERM to SIGKILL
	late   time.Duration        // beyond the grace, until the guard is killed; 0 means patience
	lease  func() time.Duration // how long it may go on from now without this runner
	cgroup *guard.Cgroup        // nil if there is none
}

// run starts p behind a guard and copies its output, both streams in the order written, to out. It
// returns the exit code, -1 if a signal ended it, when the program has ended, nothing that it started
// is left, and its output has been copied. An error means that it did not start, or was not ended by
// itself: errLease.
//
// When ctx ends, the program's process group gets SIGTERM and, after the grace, SIGKILL. Whatever it
// leaves behind when it ends is killed, in whatever group or session, and so is everything when this
// process dies or the lease is over. Without a cgroup that ends with the guard: a program that kills it dies
// itself, and what it has started goes on. A program can stop its guard too (SIGSTOP): the guard is killed 30 s
// after the grace. After an error of out the rest of the output is read and thrown
// away, so that the program does not block on it.
func (p process) run(ctx context.Context, out io.Writer) (code int, err error) {
	var pipes pipes
	defer pipes.close()
	output, outputIn := pipes.open()
	status, statusIn := pipes.open()
	wordsOut, words := pipes.open()
	if pipes.err != nil {
		return 0, pipes.err
	}
	leaf, err := p.cgroup.Leaf()
	if err != nil {
		return 0, fmt.Errorf("make a control group for %s: %w", p.path, err)
	}
	cmd := &exec.Cmd{
		Path: "/proc/self/exe", // also once another program has taken its place on disk
		Args: append([]string{guard.Name, p.lease().String(), p.grace.String(), leaf.Path(), p.path}, p.argv...),
		Env:  p.env, Dir: p.dir, Stdin: wordsOut, Stdout: outputIn, Stderr: outputIn, ExtraFiles: []*os.File{statusIn},
		SysProcAttr: &syscall.SysProcAttr{Setpgid: true},
	}
	if err := cmd.Start(); err != nil {
		return 0, fmt.Errorf("start the guard of %s: %w", p.path, errors.Join(err, leaf.End()))
	}
	for _, f := range []*os.File{wordsOut, outputIn, statusIn} {
		_ = f.Close() // the guard has them
	}

	var ended atomic.Bool
	var copying, telling sync.WaitGroup
	copying.Go(func() { copyOutput(out, output, &ended) })
	gone := make(chan struct{})
	telling.Go(func() { p.tell(ctx, words, gone) })
	telling.Go(func() { p.outlast(ctx, cmd.Process, gone) })
	last, _ := bufio.NewReader(io.LimitReader(status, maxStatus)).ReadString('\n') // "" from one that was killed
	close(gone)
	telling.Wait()
	waited := cmd.Wait()
	left := leaf.End() // the guard has done so, unless it was killed
	ended.Store(true)
	// Wakes a read that began before that. An error would mean that it is closed.
	_ = output.SetReadDeadline(time.Now().Add(drain))
	copying.Wait()
	if left != nil {
		return 0, left
	}
	return p.outcome(last, waited)
}

// tell gives the guard its leases, and SIGTERM when ctx ends.
func (p process) tell(ctx context.Context, words io.Writer, gone <-chan struct{}) {
	tick := time.NewTicker(leaseEvery)
	defer tick.Stop()
	done := ctx.Done()
	for {
		// A guard that is gone hears nothing: its status says why.
		select {
		case <-gone:
			return
		case <-done:
			done = nil
			_, _ = io.WriteString(words, "term\n")
		case <-tick.C:
			_, _ = fmt.Fprintf(words, "lease %d\n", p.lease().Milliseconds())
		}
	}
}

// outlast kills a guard that does not come to an end after ctx has: it stands still. tell may wait for it.
func (p process) outlast(ctx context.Context, proc *os.Process, gone <-chan struct{}) {
	select {
	case <-gone:
		return
	case <-ctx.Done():
	}
	select {
	case <-gone:
	case <-time.After(p.grace + cmp.Or(p.late, patience)):
		_ = proc.Kill()
	}
}

// outcome reads a guard's last word.
func (p process) outcome(last string, waited error) (code int, err error) {
	word, rest, _ := strings.Cut(strings.TrimSuffix(last, "\n"), " ")
	switch word {
	case "exit":
		return strconv.Atoi(rest)
	case "signal":
		return -1, nil
	case "fenced":
		return 0, errLease
	case "failed":
		return 0, fmt.Errorf("start %s: %s", p.path, rest)
	}
	return 0, fmt.Errorf("the guard of %s has died (%v)", p.path, waited)
}

// pipes are the ends of pipes, closed together.
type pipes struct {
	files []*os.File
	err   error
}

func (p *pipes) open() (r, w *os.File) {
	r, w, err := os.Pipe()
	if err != nil {
		p.err = errors.Join(p.err, err)
		return nil, nil
	}
	p.files = append(p.files, r, w)
	return r, w
}

func (p *pipes) close() {
	for _, f := range p.files {
		_ = f.Close() // some are closed already
	}
}

// copyOutput copies until the end, or until nothing has come for the time drain after ended.
func copyOutput(out io.Writer, r *os.File, ended *atomic.Bool) {
	buf := make([]byte, 32<<10)
	for {
		if ended.Load() {
			_ = r.SetReadDeadline(time.Now().Add(drain)) // out may have taken its time
		}
		n, err := r.Read(buf)
		if n > 0 {
			if _, failed := out.Write(buf[:n]); failed != nil {
				out = io.Discard
			}
		}
		if err != nil {
			return
		}
	}
}
