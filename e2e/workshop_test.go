package e2e

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/wscluster/wscluster/internal/rig"
	"github.com/wscluster/wscluster/pkg/wire"
)

// workshop has recipes whose programs tell by files what really ran, whoever believes what: for each task a
// journal, and a lock that its program holds, and a child of it outside its group and session, from its begin
// until both are gone. The kernel gives the lock back, nobody else.
//
// The kinds are hold, which writes lines, and fatal, which kills its runner.
type workshop struct {
	t    *testing.T // nil in a program
	dir  string
	mark string // in the environment of all that its tasks start, guards included
}

const (
	programVariable = "E2E_PROGRAM" // makes this binary the program of a kind
	markVariable    = "E2E_MARK"
)

// workshopRecipe is a recipe but for its kind, the mark, this binary and the workshop's folder.
const workshopRecipe = `
kind: %[1]s
params:
  type: object
  additionalProperties: false
  required: [task, lines, every_ms, again_ms]
  properties:
    task: {type: string, maxLength: 100}
    lines: {type: integer, minimum: 0, maximum: 100000}
    every_ms: {type: integer, minimum: 1, maximum: 60000, description: between two lines}
    again_ms: {type: integer, minimum: 1, maximum: 60000, description: the same in later runs}
grace: 1s
env:
  copy: [PATH, WSCLUSTER_NAME]
  set: {` + programVariable + `: "%[1]s", ` + markVariable + `: "%[2]s", GORACE: atexit_sleep_ms=0}
steps:
  - name: work
    argv: ["%[3]s", "%[4]s", "{task}", "{lines}", "{every_ms}", "{again_ms}"]
`

func newWorkshop(t *testing.T) *workshop {
	t.Helper()
	return &workshop{t: t, dir: t.TempDir(), mark: rand.Text()}
}

// recipes is the setting that gives runners these kinds.
func (w *workshop) recipes(kinds ...string) string {
	w.t.Helper()
	self, err := os.Executable()
	if err != nil {
		w.t.Fatal(err)
	}
	var files []string
	for _, kind := range kinds {
		file := filepath.Join(w.dir, kind+".yaml")
		if err := os.WriteFile(file, fmt.Appendf(nil, workshopRecipe, kind, w.mark, self, w.dir), 0o600); err != nil {
			w.t.Fatal(err)
		}
		files = append(files, file)
	}
	return "WSCLUSTER_RECIPES=" + strings.Join(files, ",")
}

// submit has each of the guests of a crowd, all unless some are named, submit a task: so many lines, one at a time
// in its first run, and in later ones.
func (w *workshop) submit(c *crowd, kind string, lines int, every, again time.Duration, guests ...*guest) {
	w.t.Helper()
	c.submit(kind, func(id wire.TaskID) any {
		return map[string]any{"task": id, "lines": lines, "every_ms": every.Milliseconds(), "again_ms": again.Milliseconds()}
	}, 1+lines, guests...) // the runner writes the command
}

// program is what a runner starts: the arguments are the recipe's.
func program(kind string, args []string) {
	var numbers [3]int // lines, and milliseconds between two
	for i := range numbers {
		var err error
		if numbers[i], err = strconv.Atoi(args[2+i]); err != nil {
			panic(err)
		}
	}
	w, task, every := &workshop{dir: args[0]}, wire.TaskID(args[1]), numbers[1]
	if len(w.journal(task)) > 0 {
		every = numbers[2]
	}
	w.note(task, "begin")
	switch kind {
	case "hold":
		w.hold(task, numbers[0], time.Duration(every)*time.Millisecond)
	case "fatal":
		killRunner()
	}
}

func (w *workshop) hold(task wire.TaskID, lines int, every time.Duration) {
	lock, err := os.OpenFile(w.file(task, "lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		panic(err)
	}
	defer lock.Close()
	if err := syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		w.note(task, "overlap")
		panic(err)
	}
	child := exec.Command("sleep", "300") // should its guard not end it
	child.ExtraFiles, child.SysProcAttr = []*os.File{lock}, &syscall.SysProcAttr{Setsid: true}
	if err := child.Start(); err != nil {
		panic(err)
	}
	for i := range lines {
		time.Sleep(every)
		fmt.Println(i)
	}
	w.note(task, "end")
}

// killRunner kills the runner of this program: the parent of its guard.
func killRunner() {
	_, runner, err := stat(os.Getppid())
	if err != nil {
		panic(err)
	}
	if name, _, err := stat(runner); err != nil || name != "taskrunner" {
		panic(fmt.Sprintf("process %d is %s: %v", runner, name, err))
	}
	if err := syscall.Kill(runner, syscall.SIGKILL); err != nil {
		panic(err)
	}
	time.Sleep(time.Minute) // its guard ends it
}

// stat reads the name and the parent of a process (proc(5), /proc/PID/stat).
func stat(pid int) (name string, parent int, err error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return "", 0, err
	}
	begin, end := bytes.IndexByte(text, '('), bytes.LastIndexByte(text, ')')
	_, err = fmt.Sscan(strings.Fields(string(text[end+1:]))[1], &parent)
	return string(text[begin+1 : end]), parent, err
}

func (w *workshop) file(task wire.TaskID, what string) string {
	return filepath.Join(w.dir, string(task)+"."+what)
}

// note adds a line to the journal of a task.
func (w *workshop) note(task wire.TaskID, what string) {
	f, err := os.OpenFile(w.file(task, "journal"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err == nil {
		_, err = fmt.Fprintln(f, what, os.Getenv("WSCLUSTER_NAME"), time.Now().UnixMilli())
		err = errors.Join(err, f.Close())
	}
	if err != nil {
		panic(err)
	}
}

// deed is a line of a journal.
type deed struct {
	what   string // begin, overlap or end
	runner string
	at     time.Time
}

func (d deed) String() string { return d.what + " on " + d.runner + d.at.Format(" 15:04:05.000") }

// journal is what the programs of a task did, oldest first.
func (w *workshop) journal(task wire.TaskID) (deeds []deed) {
	text, err := os.ReadFile(w.file(task, "journal"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		panic(err)
	}
	for line := range strings.Lines(string(text)) {
		var d deed
		var ms int64
		if _, err := fmt.Sscan(line, &d.what, &d.runner, &ms); err != nil {
			panic(fmt.Sprintf("journal of %s: %q: %v", task, line, err))
		}
		d.at = time.UnixMilli(ms)
		deeds = append(deeds, d)
	}
	return deeds
}

// runs are the begins of a task. The test ends if one of its runs found another one there.
func (w *workshop) runs(task wire.TaskID) (begins []deed) {
	w.t.Helper()
	all := w.journal(task)
	for _, d := range all {
		switch d.what {
		case "begin":
			begins = append(begins, d)
		case "overlap":
			w.t.Fatalf("two runs of task %s at once: %v", task, all)
		}
	}
	return begins
}

// awaitRuns waits until each of the tasks was begun so often.
func (w *workshop) awaitRuns(times int, tasks ...wire.TaskID) {
	w.t.Helper()
	await(w.t, takenWithin, func() error {
		for _, task := range tasks {
			if n := len(w.runs(task)); n < times {
				return fmt.Errorf("task %s was begun %d times, want %d: %v", task, n, times, w.journal(task))
			}
		}
		return nil
	})
}

// takenWithin bounds the wait for a task to be begun: after a fence of 10 s, the minute behind it, and looks every
// 15 s.
const takenWithin = 3 * time.Minute

// wantRuns checks that each of the tasks was begun least to most times, and that its last run came to its end.
func (w *workshop) wantRuns(least, most int, tasks ...wire.TaskID) {
	w.t.Helper()
	for _, task := range tasks {
		all, n := w.journal(task), len(w.runs(task))
		if n < least || n > most || all[len(all)-1].what != "end" {
			w.t.Errorf("task %s: %v; want %d to %d begins, and an end behind them", task, all, least, most)
		}
	}
}

// wantNoProcess waits until nothing is left of what the workshop's tasks started, and no runner has a child, not even
// a dead one.
func (w *workshop) wantNoProcess(c *cluster) {
	w.t.Helper()
	await(w.t, 10*time.Second, func() error { // the kernel needs a moment, and for an orphan init does
		if left := w.processes(c); len(left) > 0 {
			return fmt.Errorf("processes are left: %s", strings.Join(left, "; "))
		}
		return nil
	})
}

// processes lists what carries the workshop's mark, and the children of runners: those that are dead and that nobody
// has waited for carry nothing any more.
func (w *workshop) processes(c *cluster) (found []string) {
	w.t.Helper()
	all, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		w.t.Fatal(err)
	}
	for _, dir := range all {
		pid, err := strconv.Atoi(filepath.Base(dir))
		if err != nil {
			w.t.Fatal(err)
		}
		name, parent, gone := stat(pid)
		env, _ := os.ReadFile(filepath.Join(dir, "environ")) // one that has ended has none, and another user's is none of ours
		ofRunner := slices.ContainsFunc(c.Runners, func(r *rig.Member) bool { return r.PID() == parent })
		if gone == nil && (ofRunner || bytes.Contains(env, []byte(markVariable+"="+w.mark))) {
			found = append(found, fmt.Sprintf("%d %s, child of %d", pid, name, parent))
		}
	}
	return found
}
