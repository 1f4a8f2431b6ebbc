package peers

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// request is what a browser sends.
const request = "GET /v1/ws HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nConnection: Upgrade\r\nPragma: no-cache\r\nCache-Control: no-cache\r\n" +
	"User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/156.0.0.0 Safari/537.36\r\n" +
	"Upgrade: websocket\r\nOrigin: http://127.0.0.1:8080\r\nSec-WebSocket-Version: 13\r\nAccept-Encoding: gzip, deflate, br, zstd\r\n" +
	"Accept-Language: en-US,en;q=0.9\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"

// batch is how many clients come at once.
const batch = 64

// clientOf names the server's address in the environment of this program as a client.
const clientOf = "PEERS_CLIENT_OF"

func TestMain(m *testing.M) {
	if addr := os.Getenv(clientOf); addr != "" {
		if err := beClients(netip.MustParseAddrPort(addr)); err != nil {
			fmt.Fprintln(os.Stderr, "client:", err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// beClients makes as many handshakes as each line of stdin says, in batches, with bare descriptors, and answers each line. A
// client whose handshake is answered resets its connection.
func beClients(server netip.AddrPort) error {
	to := &unix.SockaddrInet4{Port: int(server.Port()), Addr: server.Addr().As4()}
	buf := make([]byte, 4096)
	fds := make([]int, batch)
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); fmt.Println() {
		n, err := strconv.Atoi(lines.Text())
		if err != nil {
			return err
		}
		for ; n > 0; n -= batch {
			for i := range fds {
				if fds[i], err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0); err != nil {
					return err
				}
				if err := unix.Connect(fds[i], to); err != nil {
					return err
				}
				if _, err := unix.Write(fds[i], []byte(request)); err != nil {
					return err
				}
			}
			for _, fd := range fds {
				n, err := unix.Read(fd, buf)
				if err != nil {
					return err
				}
				if !bytes.HasPrefix(buf[:n], []byte("HTTP/1.1 101 ")) {
					return fmt.Errorf("the handshake was answered with %q", buf[:n])
				}
				if err := unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}); err != nil {
					return err
				}
				_ = unix.Close(fd)
			}
		}
	}
	return nil
}

// clients is the process of the clients, so that what they use is not the server's.
type clients struct {
	ask    func(n int) error
	answer *bufio.Reader
}

func startClients(t testing.TB, addr net.Addr) *clients {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), clientOf+"="+addr.String())
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = in.Close() // which ends it
		if err := cmd.Wait(); err != nil {
			t.Errorf("the clients: %v", err)
		}
	})
	c := &clients{answer: bufio.NewReader(out)}
	c.ask = func(n int) error {
		if _, err := fmt.Fprintln(in, n); err != nil {
			return err
		}
		_, err := c.answer.ReadString('\n')
		return err
	}
	return c
}

// cpu is what this process has used, in user mode and in the kernel.
func cpu(t testing.TB) time.Duration {
	t.Helper()
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkHandshakeCPU reports, for each server, the CPU time of its process for one handshake and the end of its connection, in
// microseconds: the median of all rounds, in each of which every server gets its turn. And how much more each takes than the engine.
func BenchmarkHandshakeCPU(b *testing.B) {
	const each = 64 * batch
	type one struct {
		*clients
		*counts
		took []float64 // us for a handshake, of each round
	}
	all := make([]*one, len(servers))
	for i, s := range servers {
		ln := listen(b)
		o := &one{counts: new(counts), clients: startClients(b, ln.Addr())}
		all[i] = o
		ctx, cancel := context.WithCancel(context.Background())
		served := make(chan error, 1)
		go func() { served <- s.serve(ctx, ln, o.counts) }()
		b.Cleanup(func() {
			cancel()
			if err := <-served; err != nil {
				b.Errorf("%s: %v", s.name, err)
			}
		})
	}
	round := func(o *one, n int) time.Duration {
		target := o.ended.Load() + int64(n)
		before := cpu(b)
		if err := o.ask(n); err != nil {
			b.Fatal(err)
		}
		for o.ended.Load() < target {
			time.Sleep(time.Millisecond)
		}
		return cpu(b) - before
	}
	for _, o := range all {
		round(o, each) // what comes once
	}
	for b.Loop() {
		for _, o := range all {
			o.took = append(o.took, float64(round(o, each).Nanoseconds())/1e3/each)
		}
	}
	median := func(o *one) float64 {
		slices.Sort(o.took)
		return o.took[len(o.took)/2]
	}
	b.ReportMetric(0, "ns/op") // is the clients' too
	for i, s := range servers {
		b.ReportMetric(median(all[i]), s.name+"-us")
		if i > 0 {
			b.ReportMetric(median(all[i])/median(all[0]), s.name+"/engine")
		}
	}
	for i, s := range servers {
		if opened, ended := all[i].opened.Load(), all[i].ended.Load(); opened != ended {
			b.Errorf("%s: %d opened, %d ended", s.name, opened, ended)
		}
	}
}
