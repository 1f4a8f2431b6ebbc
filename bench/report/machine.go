// Package report writes down what was measured: JSON lines, medians and ratios of rounds, a table, and the
// machine that it was measured on.
package report

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Machine is where something is measured. What cannot be found out is zero.
type Machine struct {
	CPU      string            `json:"cpu"`
	Cores    int               `json:"cores"`
	MemoryGB float64           `json:"memory_gib"`
	Kernel   string            `json:"kernel"`
	Go       string            `json:"go"`
	OS       string            `json:"os"`
	Versions map[string]string `json:"versions,omitempty"` // of servers
}

// ThisMachine describes the machine and this program's Go.
func ThisMachine() Machine {
	m := Machine{Cores: runtime.NumCPU(), Go: runtime.Version(), OS: runtime.GOOS + "/" + runtime.GOARCH}
	if text, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		m.CPU = field(text, "model name")
	}
	var info unix.Sysinfo_t
	if unix.Sysinfo(&info) == nil {
		m.MemoryGB = float64(info.Totalram) * float64(info.Unit) / (1 << 30)
	}
	var name unix.Utsname
	if unix.Uname(&name) == nil {
		m.Kernel = unix.ByteSliceToString(name.Release[:])
	}
	return m
}

func (m Machine) String() string {
	return fmt.Sprintf("%d cores (%s), %.1f GiB, %s %s, %s, load %.1f", m.Cores, m.CPU, m.MemoryGB, m.OS, m.Kernel, m.Go, Load())
}

// field is the value of the first "name : value" line.
func field(text []byte, name string) string {
	for lines := bufio.NewScanner(bytes.NewReader(text)); lines.Scan(); {
		key, value, _ := strings.Cut(lines.Text(), ":")
		if strings.TrimSpace(key) == name {
			return strings.TrimSpace(value)
		}
	}
	return ""
}

// Load is the load average of the last minute: near the number of cores and above it, absolute values are
// worth little.
func Load() float64 {
	var info unix.Sysinfo_t
	if unix.Sysinfo(&info) != nil {
		return 0
	}
	return float64(info.Loads[0]) / (1 << 16)
}

// Resident is a process's private memory in bytes: RssAnon of proc_pid_status(5), which no other process shares and no
// file backs.
func Resident(pid int) (int64, error) {
	file := fmt.Sprintf("/proc/%d/status", pid)
	text, err := os.ReadFile(file)
	if err != nil {
		return 0, err
	}
	kb, err := strconv.ParseInt(strings.TrimSuffix(field(text, "RssAnon"), " kB"), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("%s has no RssAnon: %w", file, err)
	}
	return kb << 10, nil
}

// CPU is the processor time in seconds that a process has had, in user space and in the kernel (proc_pid_stat(5)).
func CPU(pid int) (float64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	return parseCPU(text)
}

// ticks of a second: USER_HZ, which Linux tells programs on every machine.
const ticks = 100

func parseCPU(stat []byte) (float64, error) {
	fields := bytes.Fields(stat[bytes.LastIndexByte(stat, ')')+1:]) // a name may hold anything
	if len(fields) < 13 {
		return 0, fmt.Errorf("stat %.200q has too few fields", stat)
	}
	user, err := strconv.ParseFloat(string(fields[11]), 64)
	if err != nil {
		return 0, err
	}
	system, err := strconv.ParseFloat(string(fields[12]), 64)
	return (user + system) / ticks, err
}
