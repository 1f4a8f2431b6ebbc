package peers

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// request is what a browser sends.
const request = "GET /v1/ws HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nConnection: Upgrade\r\nPragma: no-cache\r\nCache-Control: no-cache\r\n" +
	"User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/156.0.0.0 Safari/537.36\r\n" +
	"Upgrade: websocket\r\nOrigin: http://127.0.0.1:8080\r\nSec-WebSocket-Version: 13\r\nAccept-Encoding: gzip, deflate, br, zstd\r\n" +
	"Accept-Language: en-US,en;q=0.9\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"

// burst is how many clients come at once: as many as fit into the queue of a listener, half of it used.
const burst = 2048

// serverIs names, in the environment of this program, the server that it is to be; listensOn, where: "tcp" for any loopback
// port, or the path of a unix socket.
const serverIs, listensOn = "PEERS_SERVER", "PEERS_LISTEN"

func TestMain(m *testing.M) {
	if name := os.Getenv(serverIs); name != "" {
		if err := beServer(name, os.Getenv(listensOn)); err != nil {
			fmt.Fprintln(os.Stderr, "server:", err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// beServer serves until stdin ends, says where, and answers each line with its report.
func beServer(name, where string) error {
	var lc net.ListenConfig
	lc.SetMultipathTCP(false) // as a worker's
	network, addr := "unix", where
	if where == "tcp" {
		network, addr = "tcp", "127.0.0.1:0"
	}
	ln, err := lc.Listen(context.Background(), network, addr)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	served := make(chan error, 1)
	n := new(counts)
	go func() { served <- servers[name](ctx, ln, n) }()
	fmt.Println(ln.Addr())
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		var u unix.Rusage
		if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
			return err
		}
		fmt.Println(u.Utime.Nano()+u.Stime.Nano(), n.opened.Load(), n.ended.Load())
	}
	cancel()
	return <-served
}

// server is one in a process of its own, so that what the clients use is not counted.
type server struct {
	t      testing.TB
	cmd    *exec.Cmd
	in     io.Writer
	out    *bufio.Reader
	family int
	addr   unix.Sockaddr
}

// report is what a server says of itself: user and system time in ns, connections opened and ended so far.
type report struct{ cpu, opened, ended int64 }

func start(t testing.TB, name, network string) *server {
	t.Helper()
	s := &server{t: t, cmd: exec.Command(os.Args[0]), family: unix.AF_INET}
	where := network
	if network == "unix" {
		where = filepath.Join(t.TempDir(), "s")
		s.family, s.addr = unix.AF_UNIX, &unix.SockaddrUnix{Name: where}
	}
	s.cmd.Env = append(os.Environ(), serverIs+"="+name, listensOn+"="+where)
	s.cmd.Stderr = os.Stderr
	in, err := s.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := s.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	s.in, s.out = in, bufio.NewReader(out)
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = in.Close() // which ends it
		if err := s.cmd.Wait(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	})
	line, err := s.out.ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	if network == "tcp" {
		addr := netip.MustParseAddrPort(strings.TrimSpace(line))
		s.addr = &unix.SockaddrInet4{Port: int(addr.Port()), Addr: addr.Addr().As4()}
	}
	return s
}

func (s *server) ask() (r report) {
	s.t.Helper()
	if _, err := fmt.Fprintln(s.in, "report"); err != nil {
		s.t.Fatal(err)
	}
	line, err := s.out.ReadString('\n')
	if err != nil {
		s.t.Fatal(err)
	}
	if _, err := fmt.Sscan(line, &r.cpu, &r.opened, &r.ended); err != nil {
		s.t.Fatal(err)
	}
	return r
}

// burst has clients connect and ask while the server stands still, lets it go on, and returns what a handshake took of
// CPU time, from accept to the answer, once all have theirs. Then they reset their connections. So the server
// is never idle in between, and is charged with no waking up, its own or its clients'.
func (s *server) burst() time.Duration {
	s.t.Helper()
	before := s.ask()
	s.signal(unix.SIGSTOP)
	fds := make([]int, burst)
	for i := range fds {
		fd, err := unix.Socket(s.family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err == nil {
			err = unix.Connect(fd, s.addr)
		}
		if err == nil {
			_, err = unix.Write(fd, []byte(request))
		}
		if err != nil {
			s.t.Fatal(err)
		}
		fds[i] = fd
	}
	s.signal(unix.SIGCONT)
	r := s.ask()
	for ; r.opened < before.opened+burst; r = s.ask() {
		time.Sleep(5 * time.Millisecond)
	}
	buf := make([]byte, 4096)
	for _, fd := range fds {
		n, err := unix.Read(fd, buf)
		if err != nil || !bytes.HasPrefix(buf[:n], []byte("HTTP/1.1 101 ")) {
			s.t.Fatalf("the handshake was answered with %q, %v", buf[:n], err)
		}
		if err := unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}); err != nil {
			s.t.Fatal(err)
		}
		_ = unix.Close(fd)
	}
	for s.ask().ended < r.opened {
		time.Sleep(5 * time.Millisecond)
	}
	return time.Duration(r.cpu-before.cpu) / burst
}

func (s *server) signal(sig unix.Signal) {
	s.t.Helper()
	if err := s.cmd.Process.Signal(sig); err != nil {
		s.t.Fatal(err)
	}
}

// BenchmarkHandshakeCPU reports, for each server, the CPU time of its process for one handshake, in microseconds: the median
// of all rounds, in each of which every server gets its turn; and how much more each takes than the engine. On loopback TCP the
// sender's process pays for the receiver's half of the kernel's work too, all servers alike; on unix sockets, as a proxy on the
// same machine may use them, there is little of that.
func BenchmarkHandshakeCPU(b *testing.B) {
	for _, network := range []string{"tcp", "unix"} {
		b.Run(network, func(b *testing.B) { handshakes(b, network) })
	}
}

func handshakes(b *testing.B, network string) {
	names := slices.Sorted(maps.Keys(servers))
	all, took := make(map[string]*server), make(map[string][]time.Duration)
	for _, name := range names {
		all[name] = start(b, name, network)
		all[name].burst() // what comes once
	}
	for b.Loop() {
		for _, name := range names {
			took[name] = append(took[name], all[name].burst())
		}
	}
	median := func(name string) float64 {
		slices.Sort(took[name])
		return float64(took[name][len(took[name])/2].Nanoseconds()) / 1e3
	}
	b.ReportMetric(0, "ns/op") // is the clients' too
	for _, name := range names {
		b.ReportMetric(median(name), name+"-us")
		if name != "engine" {
			b.ReportMetric(median(name)/median("engine"), name+"/engine")
		}
	}
}
