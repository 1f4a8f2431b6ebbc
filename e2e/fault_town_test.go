package e2e

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/wscluster/wscluster/internal/rig"
	"github.com/wscluster/wscluster/pkg/broker"
)

// The fault tests are those of DELIVERY.md section 10 that need real processes; docs/FAULTS.md
// names all of them. Unless a test says otherwise its outcome is: each application got every
// durable event once and in order, and nothing is left in the parked queue, among the dead or in
// any mailbox.

// shared is the cluster of the tests that leave it as they found it. One has it at a time, beside
// others that have clusters of their own.
var shared struct {
	sync.Mutex
	*rig.Cluster
	log *tail
	dir string
}

// town returns the shared cluster, whole: three workers and two runners, each with its own way to
// the broker. A test that fails leaves none to the next one.
func town(t *testing.T) *cluster {
	t.Helper()
	t.Parallel()
	shared.Lock()
	t.Cleanup(shared.Unlock)
	if shared.Cluster == nil {
		dir, err := os.MkdirTemp("", "e2e-town-")
		if err != nil {
			t.Fatal(err)
		}
		shared.dir = dir
		shared.Cluster, shared.log = startIn(t, dir, rig.ClusterOptions{
			Proxies: true, Runners: []string{"r1", "r2"},
			RunnerSettings: []string{"WSCLUSTER_SLOTS=100"},
			WorkerSettings: []string{"WSCLUSTER_DRAIN_WINDOW=1s", "WSCLUSTER_GRANT_KEYS=" + townGrantKeys},
		}, "i1-w1", "i1-w2", "i2-w1")
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("what the cluster wrote last:\n%s", shared.log)
			endTown()
		}
	})
	c := &cluster{shared.Cluster, t}
	c.isWhole() // the fault before may have left a mailbox with nobody for a moment
	return c
}

// endTown stops the shared cluster, if there is one.
func endTown() {
	if shared.Cluster != nil {
		if err := shared.Stop(); err != nil {
			fmt.Fprintln(os.Stderr, "stop the shared cluster:", err)
		}
		shared.Cluster = nil
	}
	if err := os.RemoveAll(shared.dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
}

// addrs are the workers' own addresses.
func (c *cluster) addrs() (all []string) {
	for _, w := range c.Workers {
		all = append(all, w.Addr)
	}
	return all
}

// ctx bounds a step that prepares or mends a fault.
func (c *cluster) ctx() context.Context {
	ctx, cancel := context.WithTimeout(c.t.Context(), homeWithin)
	c.t.Cleanup(cancel)
	return ctx
}

// must ends the test if something that prepares or mends a fault has failed.
func (c *cluster) must(err error) {
	c.t.Helper()
	if err != nil {
		c.t.Fatal(err)
	}
}

// isQuietBut waits until no mailbox, overflow or queue of tasks holds anything, and so many events
// lie among the dead.
func (c *cluster) isQuietBut(dead int) {
	c.t.Helper()
	c.isEmpty("mailbox.", "hold.", "tasks.", broker.QueueParked, broker.QueueDeadTasks)
	if n := c.dead(); n != dead {
		c.t.Errorf("%d events lie among the dead, want %d", n, dead)
	}
}

// isEmpty waits until no queue whose name begins so holds anything.
func (c *cluster) isEmpty(prefixes ...string) {
	c.t.Helper()
	ctx := c.ctx()
	await(c.t, homeWithin, func() error {
		queues, err := c.Rabbit.ListQueues(ctx)
		if err != nil {
			return err
		}
		var full []string
		for _, q := range queues {
			if q.Ready+q.Unacked > 0 && slices.ContainsFunc(prefixes, func(p string) bool { return strings.HasPrefix(q.Name, p) }) {
				full = append(full, fmt.Sprintf("%+v", q))
			}
		}
		if len(full) > 0 {
			return fmt.Errorf("queues hold messages: %s", strings.Join(full, ", "))
		}
		return nil
	})
}

// owns waits until the worker is ready: it owns its mailbox. It returns how long that took.
func (c *cluster) owns(m *rig.Member) time.Duration {
	c.t.Helper()
	began := time.Now()
	c.must(m.Await(c.ctx()))
	return time.Since(began)
}

// isWhole waits until the workers own as many mailboxes as there are, the parked one among them.
func (c *cluster) isWhole() {
	c.t.Helper()
	all := float64(len(c.Workers) + 1)
	await(c.t, homeWithin, func() error {
		var owned float64
		for _, w := range c.Workers {
			n, err := metric(w, "wscluster_mailboxes_owned")
			if err != nil {
				return err
			}
			owned += n
		}
		if owned != all {
			return fmt.Errorf("%v mailboxes are owned of %v", owned, all)
		}
		return nil
	})
}

// adopter waits until a worker has adopted one more mailbox than before says, and returns it.
func (c *cluster) adopter(before map[string]float64) (adopter *rig.Member) {
	c.t.Helper()
	await(c.t, homeWithin, func() error {
		for _, w := range c.Workers {
			if n, err := metric(w, "wscluster_mailboxes_adopted_total"); err == nil && n > before[w.Name] {
				adopter = w
				return nil
			}
		}
		return fmt.Errorf("nobody has adopted a mailbox")
	})
	return adopter
}

// adoptions is how many mailboxes each worker has adopted so far. It waits until none is missing.
func (c *cluster) adoptions() map[string]float64 {
	c.t.Helper()
	c.isWhole()
	n := map[string]float64{}
	for _, w := range c.Workers {
		n[w.Name], _ = metric(w, "wscluster_mailboxes_adopted_total") // one that is down has none
	}
	return n
}

// metric returns the sum of a worker's metric over all its labels; a name may go on with those that it begins with.
func metric(w *rig.Member, name string) (sum float64, err error) {
	r, err := metrics.Get("http://" + w.Internal + "/metrics")
	if err != nil {
		return 0, err
	}
	defer r.Body.Close()
	lines := bufio.NewScanner(r.Body)
	found := false
	for lines.Scan() {
		rest, ok := strings.CutPrefix(lines.Text(), name)
		if ok && (strings.Contains(name, "{") || strings.IndexAny(rest, " {") == 0) {
			value := rest[strings.LastIndexByte(rest, ' ')+1:]
			n, err := strconv.ParseFloat(value, 64)
			if err != nil {
				return 0, fmt.Errorf("%s: metric %s: %w", w.Name, name, err)
			}
			sum, found = sum+n, true
		}
	}
	if !found {
		return 0, fmt.Errorf("%s: no metric %s (%v)", w.Name, name, lines.Err())
	}
	return sum, nil
}

var metrics = http.Client{Timeout: 2 * time.Second}

// dead is how many events lie among the dead.
func (c *cluster) dead() int {
	c.t.Helper()
	q, err := c.Rabbit.QueueDepth(c.ctx(), broker.QueueDeadEvents)
	c.must(err)
	return q.Ready
}
