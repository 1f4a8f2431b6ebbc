package haproxy_test

import (
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"
)

// eachAffinity runs test with the stick table and with the hash.
func eachAffinity(t *testing.T, test func(t *testing.T, c *cluster)) {
	t.Parallel()
	for _, affinity := range []string{"table", "hash"} {
		t.Run(affinity, func(t *testing.T) {
			t.Parallel()
			test(t, start(t, networkConfig, map[string]string{"AFFINITY": affinity}, "i1-w1", "i1-w2", "i2-w1", "i2-w2"))
		})
	}
}

func TestOneAddressHasOneWorkerAndManyHaveMany(t *testing.T) {
	eachAffinity(t, func(t *testing.T, c *cluster) {
		workers := make(map[string]bool)
		for i := range 40 {
			v := c.visitor(i)
			v.stay(t, 3)
			workers[v.home] = true
			if v.cookie != "" {
				t.Errorf("it was given the cookie %q", v.cookie)
			}
		}
		if len(workers) != 4 {
			t.Errorf("40 addresses use %d of 4 workers", len(workers))
		}
	})
}

func TestAddressKeepsItsWorkerOverAReload(t *testing.T) {
	eachAffinity(t, func(t *testing.T, c *cluster) {
		visitors := make([]*visitor, 20)
		for i := range visitors {
			visitors[i] = c.visitor(i)
			visitors[i].stay(t, 1)
		}
		table := strings.HasSuffix(t.Name(), "/table")
		if table {
			c.awaitPeers(t)
		}
		c.reload(t)
		if table {
			c.awaitAddresses(t, len(visitors))
		}
		for _, v := range visitors {
			v.comesBackTo(t, v.home)
		}
	})
}

// awaitPeers waits until HAProxy has given up to learn the table from a process before it, some ten
// seconds after its start. Before that it would not hand its own table over.
func (c *cluster) awaitPeers(t *testing.T) {
	t.Helper()
	flags := regexp.MustCompile(`id=lbs .*flags=0x[0-9a-f]*[37bf] `) // both bits of "resync finished"
	c.eventually(t, "the peers to settle", func() bool {
		answer, err := c.Admin("show peers")
		return err == nil && flags.MatchString(answer)
	})
}

// awaitAddresses waits until the table holds n addresses: after a reload the old process hands its
// rows over while the new one serves already.
func (c *cluster) awaitAddresses(t *testing.T, n int) {
	t.Helper()
	began := time.Now()
	c.eventually(t, fmt.Sprintf("%d addresses in the table", n), func() bool {
		answer, err := c.Admin("show table workers")
		return err == nil && strings.Count(answer, " key=") >= n
	})
	t.Logf("the table was whole %v after the reload", time.Since(began).Round(time.Millisecond))
}

func TestAddressMovesWhenItsWorkerDies(t *testing.T) {
	eachAffinity(t, func(t *testing.T, c *cluster) {
		visitors := make([]*visitor, 40)
		for i := range visitors {
			visitors[i] = c.visitor(i)
			visitors[i].stay(t, 1)
		}
		gone := c.workers["i1-w1"]
		gone.kill()
		c.await(t, "DOWN", gone.id)
		for _, v := range visitors {
			if v.home != gone.id {
				v.comesBackTo(t, v.home)
			} else if refuge := v.open(t).worker; refuge == gone.id {
				t.Errorf("an address was sent to %s, which is dead", refuge)
			}
		}
	})
}

func TestReturnedWorkerGetsItsAddressesBackByHashOnly(t *testing.T) {
	eachAffinity(t, func(t *testing.T, c *cluster) {
		var evicted []*visitor
		for i := range 40 {
			if v := c.visitor(i); v.open(t).worker == "i1-w1" {
				evicted = append(evicted, v)
			}
		}
		gone := c.workers["i1-w1"]
		gone.kill()
		c.await(t, "DOWN", gone.id)
		for _, v := range evicted {
			v.stay(t, 1)
		}
		gone.start(t)
		c.await(t, "UP", gone.id)

		atHome := func() (n int) {
			for _, v := range evicted {
				if v.open(t).worker == gone.id {
					n++
				}
			}
			return n
		}
		if strings.HasSuffix(t.Name(), "/table") {
			if n := atHome(); n != 0 {
				t.Errorf("%d of %d went back, want all to stay where they are", n, len(evicted))
			}
			return
		}
		c.eventually(t, "all addresses back on the returned worker", func() bool { return atHome() == len(evicted) })
	})
}
