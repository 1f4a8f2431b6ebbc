// Package haproxy_test holds the two configurations to their promises, on a real HAProxy between
// small workers and raw clients.
package haproxy_test

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"maps"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/wscluster/wscluster/internal/rig"
)

func TestMain(m *testing.M) {
	// These tests wait for health checks and clocks most of the time: more at once than there are CPUs.
	flag.Parse()
	if err := flag.Set("test.parallel", "10"); err != nil {
		panic(err)
	}
	goleak.VerifyTestMain(m)
}

// cluster is a HAProxy before some workers; the configuration's other servers have nobody behind.
type cluster struct {
	*rig.HAProxy
	workers map[string]*worker
	log     *lines
}

// start runs config before a worker for each ID, and waits until all were checked healthy.
func start(t *testing.T, config string, env map[string]string, ids ...string) *cluster {
	t.Helper()
	c := &cluster{workers: make(map[string]*worker), log: new(lines)}
	all := map[string]string{"SLOWSTART": "1s", "MAXCONN": "1000", "SOFT_CAP": "900", "WS_PER_IP": "200", "WS_RATE_PER_IP": "1000", "CONN_PER_IP": "400"}
	var absent []string
	for i := range 8 {
		id := fmt.Sprintf("i%d-w%d", i/4+1, i%4+1)
		addr := "127.0.0.1:1" // nobody listens there
		if slices.Contains(ids, id) {
			c.workers[id] = startWorker(t, id)
			addr = c.workers[id].addr
		} else {
			absent = append(absent, id)
		}
		all[strings.ToUpper(strings.ReplaceAll(id, "-", "_"))] = addr
	}
	maps.Copy(all, env)
	h, err := rig.StartHAProxy(t.Context(), rig.HAProxyOptions{Config: config, Env: all, Log: c.log})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := h.Stop(); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Logf("haproxy wrote:\n%s", c.log)
		}
	})
	c.HAProxy = h
	c.await(t, "UP", ids...)
	c.await(t, "DOWN", absent...) // until it is checked, a server counts as up
	return c
}

func (c *cluster) await(t *testing.T, state string, ids ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := c.Await(ctx, state, ids...); err != nil {
		t.Fatal(err)
	}
}

func (c *cluster) reload(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := c.Reload(ctx); err != nil {
		t.Fatal(err)
	}
}

// loadFrom opens a socket from each of n addresses, beginning with the i-th, and returns how many
// each worker got.
func (c *cluster) loadFrom(t *testing.T, i, n int) map[string]int {
	t.Helper()
	share := make(map[string]int)
	for j := range n {
		share[open(t, request{addr: c.Addr, from: address(i + j)}).worker]++
	}
	return share
}

// eventually waits until it is so, or fails saying what did not come.
func (c *cluster) eventually(t *testing.T, what string, so func() bool) {
	t.Helper()
	deadline := time.After(patience)
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for !so() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("waited in vain for %s; haproxy wrote:\n%s", what, c.log)
		}
	}
}

// address returns the i-th of many loopback addresses other than 127.0.0.1.
func address(i int) string { return fmt.Sprintf("127.0.%d.%d", 1+i/200, 1+i%200) }

// lines keeps what HAProxy writes. It is safe for concurrent use.
type lines struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

const (
	cookieConfig  = "haproxy.cfg"
	networkConfig = "haproxy-network.cfg"
)

// both runs test against each of the two configurations.
func both(t *testing.T, test func(t *testing.T, config string)) {
	t.Parallel()
	for _, config := range []string{cookieConfig, networkConfig} {
		t.Run(strings.TrimSuffix(config, filepath.Ext(config)), func(t *testing.T) {
			t.Parallel()
			test(t, config)
		})
	}
}

func TestConfigurationsPassTheirCheck(t *testing.T) {
	dir := t.TempDir()
	for name, env := range map[string][]string{
		cookieConfig + " plain":   nil,
		cookieConfig + " TLS":     {"WSS_CERT=" + certificate(t, dir)},
		cookieConfig + " tickets": {"ROUTE_KEYS=" + keyFile(t, dir, routeKey)},
		networkConfig + " table":  {"TABLE_EXPIRE=7d"},
		networkConfig + " hash":   {"AFFINITY=hash"},
		networkConfig + " TLS":    {"WSS_CERT=" + certificate(t, dir)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			config, _, _ := strings.Cut(name, " ")
			cmd := exec.Command("haproxy", "-c", "-f", config)
			cmd.Env = slices.Concat(cmd.Environ(), env)
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("haproxy -c -f %s: %v\n%s", config, err, out)
			}
		})
	}
}

// visitor is a client that comes back: with its cookie, from its address.
type visitor struct {
	addr   string
	from   string
	cookie string
	home   string // its worker, after stay
}

func (c *cluster) visitor(i int) *visitor { return &visitor{addr: c.Addr, from: address(i)} }

// open opens one more socket, keeps the cookie as a browser would, and returns the socket. All of a
// visitor's sockets stay open, so that its worker is the last one that balancing would choose.
func (v *visitor) open(t *testing.T) *answer {
	t.Helper()
	a := open(t, request{addr: v.addr, from: v.from, cookie: v.cookie})
	if set := a.cookie(); set != nil {
		v.cookie = set.Value
	}
	return a
}

// comesBackTo opens one more socket and fails unless it is on the worker.
func (v *visitor) comesBackTo(t *testing.T, worker string) {
	t.Helper()
	if got := v.open(t).worker; got != worker {
		t.Fatalf("came back to %s, want %s", got, worker)
	}
}

// stay opens n sockets, all on the worker of the first one.
func (v *visitor) stay(t *testing.T, n int) {
	t.Helper()
	v.home = v.open(t).worker
	for range n - 1 {
		v.comesBackTo(t, v.home)
	}
}
