package build

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// The test binary is also the program that the recipes of the tests start: with this variable set
// it does what the first argument says.
const programVariable = "WSCLUSTER_BUILD_TEST_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(programVariable) != "" {
		program(os.Args[1], os.Args[2:])
		return
	}
	goleak.VerifyTestMain(m)
}

func program(what string, args []string) {
	switch what {
	case "bytes": // prints each argument on a line, as shown does
		for _, a := range args {
			fmt.Println(shown(a))
		}
	case "env": // prints its environment
		fmt.Println(asJSON(os.Environ()))
	case "print": // prints each argument on a line
		fmt.Println(strings.Join(args, "\n"))
	case "exit":
		if args[0] == "3" {
			os.Exit(3)
		}
	case "flood": // prints for ever
		for {
			fmt.Println(strings.Repeat("x", 1000))
		}
	case "write": // prints a text, as it stands between quotes, so many times
		text, _ := strconv.Unquote(args[0])
		left, _ := strconv.Atoi(args[1])
		for many := max(1, 32<<10/len(text)); left > 0; left -= many {
			os.Stdout.WriteString(strings.Repeat(text, min(many, left)))
		}
	case "replace": // puts a symbolic link in the place of what is there; "." is where it is itself
		if args[0] == "." {
			args[0], _ = os.Getwd()
			os.Chdir("/")
		}
		os.RemoveAll(args[0])
		if err := os.Symlink(args[1], args[0]); err != nil {
			panic(err)
		}
	case "touch": // makes a file where it is
		os.WriteFile("touched", nil, 0o600)
	case "polite": // takes its time to end, and says so
		term := make(chan os.Signal, 1)
		signal.Notify(term, syscall.SIGTERM)
		fmt.Println("ready")
		<-term
		fmt.Println("bye")
	case "stubborn": // never ends by itself, nor does its child
		signal.Ignore(syscall.SIGTERM)
		if len(args) == 0 {
			fmt.Println(os.Getpid(), child(false, "stubborn", "child"))
		}
		time.Sleep(2 * time.Minute) // if the test dies too
	case "deaf": // says of a SIGTERM that it came, and stays, with a daemon
		term := make(chan os.Signal, 10)
		signal.Notify(term, syscall.SIGTERM)
		daemon()
		for sig := range term {
			fmt.Println(sig)
		}
	case "patricide": // kills its guard, with a daemon
		daemon()
		syscall.Kill(os.Getppid(), syscall.SIGKILL)
		time.Sleep(2 * time.Minute)
	case "daemon": // ends at once, and leaves a child that nobody has started; says who it was, and its child
		fmt.Println(args[0], child(true, "stubborn", "child"))
	case "leave": // stays, with a child outside its group
		fmt.Println(os.Getpid(), child(true, "stubborn", "child"))
		time.Sleep(2 * time.Minute)
	case "runner": // runs a program behind a guard, until it is killed
		p := process{path: os.Args[0], argv: append(os.Args[:1], args...), env: os.Environ(), dir: os.TempDir(), lease: func() time.Duration { return time.Hour }}
		if code, err := p.run(context.Background(), os.Stdout); err != nil {
			fmt.Println(code, err)
		}
	case "leaver": // ends, and leaves a child in its group and one outside, which keep the output open
		fmt.Println(child(false, "stubborn", "child"), child(true, "stubborn", "child"))
		time.Sleep(100 * time.Millisecond) // so that who reads the output waits for more
	case "mess": // leaves what is hard to remove
		os.MkdirAll("deep/er", 0o700)
		os.WriteFile("deep/er/file", nil, 0o400)
		os.Symlink(args[0], "deep/link")
		os.Chmod("deep/er", 0o500)
		os.Chmod("deep", 0o500)
	}
}

// daemon forks twice.
func daemon() {
	cmd := exec.Command(os.Args[0], "daemon", strconv.Itoa(os.Getpid()))
	cmd.Stdout = os.Stdout
	if err := cmd.Run(); err != nil {
		panic(err)
	}
}

func child(ownSession bool, args ...string) (pid int) {
	cmd := exec.Command(os.Args[0], args...)
	cmd.Stdout = os.Stdout
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: ownSession}
	if err := cmd.Start(); err != nil {
		panic(err)
	}
	return cmd.Process.Pid
}

func asJSON(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return string(b)
}
