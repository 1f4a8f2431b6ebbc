package guard

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Cgroup is the control group (version 2) that this process is in, and may make others in: a leaf for each program. It
// takes part in no distribution of resources and enables no controller, so it does not matter that it has
// processes of its own (cgroups(7), "no internal processes"). All methods are safe for concurrent use. A nil Cgroup makes
// no leaves.
type Cgroup struct{ dir string }

// OpenCgroup returns the control group of this process once it was seen that a process can be started in a leaf of it, that
// the leaf can be killed, and that it can be removed. It also ends what runners that are dead have left in their leaves
// there: some milliseconds, and 10 s for each such leaf that cannot be emptied. The error is a sentence for the operator: why
// there are no leaves here, and how to get them.
func OpenCgroup() (*Cgroup, error) {
	own, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return nil, noCgroup(err)
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, noCgroup(err)
	}
	dir, err := cgroupDir(string(own), string(mounts))
	if err != nil {
		return nil, noCgroup(err)
	}
	return openCgroup(dir)
}

func noCgroup(why error) error {
	return fmt.Errorf("steps have no control groups of their own: %w. They need Linux 5.14 or later and a control group (version 2) that this user may write to: Delegate=yes in a systemd unit, or a container with a writable /sys/fs/cgroup", why)
}

// cgroupDir finds the control group of a process in the texts of its /proc/PID/cgroup (cgroups(7)) and
// /proc/PID/mountinfo (proc_pid_mountinfo(5)).
func cgroupDir(own, mounts string) (string, error) {
	path, ok := "", false
	for line := range strings.Lines(own) {
		if p, is := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "0::"); is {
			path, ok = p, true
		}
	}
	if !ok {
		return "", errors.New("this process is in none of version 2")
	}
	for line := range strings.Lines(mounts) {
		mount, filesystem, _ := strings.Cut(line, " - ")
		f := strings.Fields(mount) // ID, parent's ID, device, root within the file system, mount point, options
		if len(f) < 5 || !strings.HasPrefix(filesystem, "cgroup2 ") {
			continue
		}
		// Beginning with "/.." it is outside of what this namespace shows.
		below, is := strings.CutPrefix(path, strings.TrimSuffix(f[3], "/"))
		if is && !strings.HasPrefix(path, "/..") && (below == "" || below[0] == '/') {
			return filepath.Join(f[4], below), nil
		}
	}
	return "", fmt.Errorf("%s, which this process is in, is mounted nowhere", path)
}

func openCgroup(dir string) (*Cgroup, error) {
	c := &Cgroup{dir}
	l, err := c.Leaf()
	if err != nil {
		return nil, noCgroup(err)
	}
	try := exec.Cmd{Path: "/proc/self/exe", Args: []string{Name}, SysProcAttr: &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(l.dir.Fd())}}
	if err = try.Run(); err == nil {
		err = killLeaf(l.path)
	}
	if err := errors.Join(err, l.End()); err != nil {
		return nil, noCgroup(err)
	}
	c.sweep()
	return c, nil
}

// sweep ends the leaves of the dead: a leaf that nobody holds has nobody who will. What cannot be ended now has been
// killed all the same, and its leaf is there for the next sweep.
func (c *Cgroup) sweep() {
	all, _ := os.ReadDir(c.dir) // there was a leaf in it a moment ago
	for _, e := range all {
		if !strings.HasPrefix(e.Name(), leafPrefix) {
			continue
		}
		if l, err := holdLeaf(filepath.Join(c.dir, e.Name())); err == nil {
			_ = l.End()
		}
	}
}

// leafPrefix is before the random part of a leaf's name. No systemd unit has such a one.
const leafPrefix = Name + "."

// Leaf is a control group for one program and all that it starts, whatever forks twice, takes a session of its own or
// becomes another user's. It is held (flock) by the process that made it, until End or that process's death.
type Leaf struct {
	path string
	dir  *os.File
}

// Leaf makes one.
func (c *Cgroup) Leaf() (*Leaf, error) {
	if c == nil {
		return nil, nil
	}
	for {
		path, err := os.MkdirTemp(c.dir, leafPrefix)
		if err != nil {
			return nil, err
		}
		l, err := holdLeaf(path)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.EWOULDBLOCK) {
			continue // a runner that has just started took it for a dead one's
		}
		return l, err
	}
}

// holdLeaf does not wait: it returns EWOULDBLOCK for a leaf that is held, and fs.ErrNotExist for one that is gone.
func holdLeaf(path string) (l *Leaf, err error) {
	dir, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	if err = unix.Flock(int(dir.Fd()), unix.LOCK_EX|unix.LOCK_NB); err == nil {
		_, err = os.Stat(path) // it may have been removed before the lock was taken
	}
	if err != nil {
		_ = dir.Close()
		return nil, err
	}
	return &Leaf{path, dir}, nil
}

// Path is what a guard is told; "" of no leaf.
func (l *Leaf) Path() string {
	if l == nil {
		return ""
	}
	return l.path
}

// End kills all that is in the leaf, waits until it is empty and removes it. It blocks for 10 s at most: an error says
// that processes are left which were killed and do not die, for the kernel does something for them (state D).
func (l *Leaf) End() error {
	if l == nil {
		return nil
	}
	defer l.dir.Close()
	return endLeaf(l.path)
}

// endLeaf is End. That there is no such leaf, or no more, is no error.
func endLeaf(path string) error {
	if path == "" {
		return nil
	}
	for began := time.Now(); ; time.Sleep(killAgain) {
		err := unix.Rmdir(path) // EBUSY while processes live in it or below it ("populated 1" in cgroup.events), or groups are below it
		if err == nil || errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		err = errors.Join(err, killLeaf(path))
		removeBelow(path)
		if time.Since(began) > killFor {
			return fmt.Errorf("control group %s cannot be emptied: %w", path, err)
		}
	}
}

// killLeaf kills whatever is in a leaf and below it, also what forks meanwhile.
func killLeaf(path string) error {
	f, err := os.OpenFile(filepath.Join(path, "cgroup.kill"), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString("1")
	return errors.Join(err, f.Close())
}

// removeBelow removes the groups that the program has made in its leaf, as a container's engine or another runner
// does, as far as they are empty.
func removeBelow(path string) {
	all, _ := os.ReadDir(path) // it may be gone
	for _, e := range all {
		if e.IsDir() {
			below := filepath.Join(path, e.Name())
			removeBelow(below)
			_ = unix.Rmdir(below) // the next look tells
		}
	}
}
