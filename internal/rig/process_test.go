package rig

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	if os.Getenv("RIG_PARENT") != "" {
		parent()
	}
	goleak.VerifyTestMain(m)
}

// parent starts a program, tells its process ID and waits to be killed.
func parent() {
	p, err := Start(Program{Path: "sleep", Args: []string{"600"}})
	fmt.Println(p.PID(), err)
	select {}
}

func sh(t *testing.T, script string) *Process {
	t.Helper()
	p, err := Start(Program{Path: "sh", Args: []string{"-c", script}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Kill)
	return p
}

// gone waits until no process has this ID.
func gone(t *testing.T, pid int) {
	t.Helper()
	for limit := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		if err := syscall.Kill(pid, 0); errors.Is(err, syscall.ESRCH) || zombie(pid) {
			return
		}
		if time.Now().After(limit) {
			t.Fatalf("process %d still runs", pid)
		}
	}
}

// zombie reports whether pid has ended and waits for whoever inherited it.
func zombie(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	_, state, _ := bytes.Cut(stat, []byte(") "))
	return err == nil && bytes.HasPrefix(state, []byte("Z"))
}

func TestProcessThatCannotStart(t *testing.T) {
	if _, err := Start(Program{Path: "/no/such/program"}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v, want ErrNotExist", err)
	}
}

func TestProcessEndsWithItsExitCode(t *testing.T) {
	p := sh(t, "echo out; echo err >&2; exit 7")
	<-p.Done()
	if p.ExitCode() != 7 {
		t.Errorf("exit code %d, want 7", p.ExitCode())
	}
	if p.Tail() != "out\nerr" {
		t.Errorf("tail %q", p.Tail())
	}
	if err := p.Signal(syscall.SIGTERM); !errors.Is(err, os.ErrProcessDone) {
		t.Errorf("signal after the end: got %v, want ErrProcessDone", err)
	}
	if err := p.Stop(0); err != nil {
		t.Errorf("stop after the end: %v", err)
	}
}

func TestChildrenEndWithTheirLeader(t *testing.T) {
	for name, end := range map[string]func(*Process){
		"it ends":        func(p *Process) { p.Signal(syscall.SIGUSR1) },
		"it is killed":   (*Process).Kill,
		"it is stopped":  func(p *Process) { p.Stop(10 * time.Second) },
		"it will not":    func(p *Process) { p.Stop(0) },
		"it is frozen":   func(p *Process) { p.Freeze(); p.Stop(10 * time.Second) },
		"frozen, killed": func(p *Process) { p.Freeze(); p.Kill() },
	} {
		p := sh(t, `trap 'exit 0' USR1; sleep 600 & echo child $!; while :; do sleep 0.01; done`)
		line, err := p.WaitLine(t.Context(), regexp.MustCompile(`^child`))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		child, err := strconv.Atoi(strings.Fields(line)[1])
		if err != nil {
			t.Fatal(err)
		}
		end(p)
		<-p.Done()
		gone(t, child)
	}
}

func TestStopSaysThatItHadToKill(t *testing.T) {
	p := sh(t, `trap '' TERM; echo ready; while :; do sleep 0.01; done`)
	if _, err := p.WaitLine(t.Context(), regexp.MustCompile("ready")); err != nil {
		t.Fatal(err)
	}
	if err := p.Stop(50 * time.Millisecond); err == nil || !strings.Contains(err.Error(), "killed") {
		t.Errorf("got %v, want an error that says killed", err)
	}
}

func TestProgramsEndWhenTheirParentIsKilled(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), "RIG_PARENT=1")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, _ := bufio.NewReader(out).ReadString('\n')
	pid, err := strconv.Atoi(strings.Fields(line)[0])
	if err != nil || pid == 0 {
		t.Fatalf("the parent said %q", line)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	gone(t, pid)
}

func TestWaitLineSeesOldAndNewLines(t *testing.T) {
	p := sh(t, `echo one; read x; printf 'two\r\nthree'`)
	for _, pattern := range []string{"^one$", "^one$"} {
		if line, err := p.WaitLine(t.Context(), regexp.MustCompile(pattern)); line != "one" || err != nil {
			t.Errorf("%s: got %q, %v", pattern, line, err)
		}
	}
	for _, want := range []string{"two", "three"} { // three has no line end
		if line, err := p.WaitLine(t.Context(), regexp.MustCompile("^"+want+"$")); line != want || err != nil {
			t.Errorf("got %q, %v, want %s", line, err, want)
		}
	}
	_, err := p.WaitLine(t.Context(), regexp.MustCompile("four"))
	if ended, ok := errors.AsType[*EndedError](err); !ok || !strings.Contains(ended.Error(), "three") {
		t.Errorf("after the end: got %v, want an EndedError with the output", err)
	}
}

func TestWaitPortEndsWithTheProgram(t *testing.T) {
	addr, err := FreePort("127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	p := sh(t, "echo no port here; exit 3")
	err = p.WaitPort(t.Context(), addr)
	if ended, ok := errors.AsType[*EndedError](err); !ok || !strings.Contains(ended.Error(), "no port here") {
		t.Errorf("got %v, want an EndedError with the output", err)
	}

	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
	defer cancel()
	if err := sh(t, "sleep 600").WaitPort(ctx, addr); !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("got %v, want both reasons", err)
	}
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	if err := sh(t, "sleep 600").WaitPort(t.Context(), addr); err != nil {
		t.Error(err)
	}
}

func TestFreePortIsNeverGivenTwice(t *testing.T) {
	seen := map[string]bool{}
	for range 200 {
		addr, err := FreePort("127.0.0.1")
		if err != nil {
			t.Fatal(err)
		}
		if seen[addr] {
			t.Fatalf("%s twice", addr)
		}
		seen[addr] = true
	}
}
