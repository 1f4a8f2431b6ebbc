package guard

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

func TestTheControlGroupOfAProcessIsFoundWhereItIsMounted(t *testing.T) {
	const hybrid = "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n" +
		"35 31 0:32 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n" +
		"41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n"
	const plain = "26 23 0:23 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
	const bound = "26 23 0:23 /docker/a /sys/fs/cgroup ro - cgroup2 cgroup rw\n"
	for _, test := range []struct{ name, own, mounts, dir, err string }{
		{"systemd", "0::/system.slice/r1.service\n", plain, "/sys/fs/cgroup/system.slice/r1.service", ""},
		{"a namespace's root", "0::/\n", plain, "/sys/fs/cgroup", ""},
		{"both versions", "4:memory:/m\n0::/u\n", hybrid, "/sys/fs/cgroup/unified/u", ""},
		{"a part is mounted", "0::/docker/a/b\n", bound, "/sys/fs/cgroup/b", ""},
		{"another part is mounted", "0::/docker/ab\n", bound, "", "/docker/ab, which this process is in, is mounted nowhere"},
		{"outside of the namespace", "0::/../r1\n", plain, "", "/../r1, which this process is in, is mounted nowhere"},
		{"version 1 alone", "4:memory:/m\n", hybrid, "", "this process is in none of version 2"},
		{"not mounted", "0::/u\n", "31 23 0:28 / /sys rw - sysfs sysfs rw\n", "", "/u, which this process is in, is mounted nowhere"},
	} {
		dir, err := cgroupDir(test.own, test.mounts)
		text := ""
		if err != nil {
			text = err.Error()
		}
		if dir != test.dir || text != test.err {
			t.Errorf("%s: got %q, %q; want %q, %q", test.name, dir, text, test.dir, test.err)
		}
	}
}

// A folder that is no control group stands for one that cannot be used.
func TestWithoutAControlGroupTheOperatorIsToldWhyAndHowToGetOne(t *testing.T) {
	empty := t.TempDir()
	for dir, why := range map[string]string{
		empty:                      "fork/exec /proc/self/exe: ",
		filepath.Join(empty, "no"): "no such file or directory",
		"/proc/self/fdinfo":        "mkdir ",
	} {
		c, err := openCgroup(dir)
		if c != nil || err == nil || !strings.Contains(err.Error(), why) || !strings.Contains(err.Error(), "Delegate=yes") {
			t.Errorf("%s: got %v, want why (%q) and how", dir, err, why)
		}
	}
	if left, _ := os.ReadDir(empty); len(left) > 0 {
		t.Errorf("it left %v", left)
	}
}

// testCgroup is a control group for the test alone, which other runners on this machine do not see.
func testCgroup(t *testing.T) *Cgroup {
	t.Helper()
	all, err := OpenCgroup()
	if err != nil {
		t.Skip(err)
	}
	own, err := all.Leaf()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := own.End(); err != nil {
			t.Error(err)
		}
	})
	c, err := openCgroup(own.path)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// sleeper starts a process in l that would live for long; killed waits for its end.
func sleeper(t *testing.T, l *Leaf) (pid int, killed func() bool) {
	t.Helper()
	cmd := exec.Command("sleep", "60")
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(l.dir.Fd())}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return cmd.Process.Pid, func() bool {
		_ = cmd.Wait() // it was killed
		return cmd.ProcessState.Sys().(syscall.WaitStatus).Signal() == syscall.SIGKILL
	}
}

func leaf(t *testing.T, c *Cgroup) *Leaf {
	t.Helper()
	l, err := c.Leaf()
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestTheEndOfALeafIsThatOfAllInItAndBelowIt(t *testing.T) {
	l := leaf(t, testCgroup(t))
	below := filepath.Join(l.path, "a", "b")
	if err := os.MkdirAll(below, 0o700); err != nil {
		t.Fatal(err)
	}
	_, killed := sleeper(t, l)
	moved, movedKilled := sleeper(t, l)
	if err := os.WriteFile(filepath.Join(below, "cgroup.procs"), []byte(strconv.Itoa(moved)), 0); err != nil {
		t.Fatal(err)
	}
	if err := l.End(); err != nil {
		t.Error(err)
	}
	if !killed() || !movedKilled() {
		t.Error("a process was not killed")
	}
	if _, err := os.Stat(l.path); !os.IsNotExist(err) {
		t.Errorf("the leaf is there: %v", err)
	}
	if err := endLeaf(l.path); err != nil { // as the runner does after its guard
		t.Error(err)
	}
}

// TestARunnerEndsWhatADeadOneHasLeft and leaves those alone that are held: of another runner in the same group.
func TestARunnerEndsWhatADeadOneHasLeft(t *testing.T) {
	c := testCgroup(t)
	dead, lives := leaf(t, c), leaf(t, c)
	_, killed := sleeper(t, dead)
	pid, livesKilled := sleeper(t, lives)
	dead.dir.Close() // as its death does
	if _, err := openCgroup(c.dir); err != nil {
		t.Fatal(err)
	}
	if !killed() {
		t.Error("the dead one's process was not killed")
	}
	if _, err := os.Stat(dead.path); !os.IsNotExist(err) {
		t.Errorf("the dead one's leaf is there: %v", err)
	}
	if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
		t.Errorf("the other one's process has ended: %v", err)
	}
	if livesKilled() {
		t.Error("the other one's process was killed")
	}
	if err := lives.End(); err != nil {
		t.Error(err)
	}
}
