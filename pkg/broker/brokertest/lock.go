package brokertest

import (
	"errors"
	"slices"

	"github.com/wscluster/wscluster/pkg/broker"
	"github.com/wscluster/wscluster/pkg/socketmeta"
)

// locked takes a lock as soon as it is free.
func (c *testCase) locked(l broker.Link, name string) (release func()) {
	c.Helper()
	c.soon("lock "+name, broker.ErrLocked, func() (err error) {
		release, err = l.Lock(c.ctx, name)
		return err
	})
	return release
}

func lockHasOneHolder(c *testCase) {
	b := c.Broker()
	l, name := c.joinAs(b, c.worker()), c.name
	others := map[string]broker.Link{"the same link": l, "another link of the process": c.joinAs(b, c.worker()), "another process": c.join()}
	held := func() {
		c.Helper()
		for who, l := range others {
			if release, err := l.Lock(c.ctx, name); !errors.Is(err, broker.ErrLocked) || release != nil {
				c.Errorf("lock from %s: got %v, want ErrLocked", who, err)
			}
		}
	}
	release := c.locked(l, name)
	held()
	c.locked(l, name+"-2") // another name
	release()
	for who, l := range others {
		again, err := l.Lock(c.ctx, name)
		if err != nil {
			c.Fatalf("lock from %s after its release: %v", who, err)
		}
		release() // of a lock that it has released: this one stays
		held()
		again()
	}
}

func lockEndsWithItsLink(c *testCase) {
	for _, end := range []func(broker.Link){c.closeLink, c.cut} {
		l, next := c.join(), c.join()
		release := c.locked(l, c.name)
		end(l)
		again := c.locked(next, c.name)
		release() // too late: it is another's
		if _, err := c.join().Lock(c.ctx, c.name); !errors.Is(err, broker.ErrLocked) {
			c.Errorf("a release after the link's end: lock: got %v, want ErrLocked", err)
		}
		again()
	}
}

// registerRemembersServers, each once, also after those who registered them are gone.
func registerRemembersServers(c *testCase) {
	var want []socketmeta.ServerID
	for range 3 {
		s := c.server()
		l := c.joinAs(c.Broker(), broker.Worker(s))
		for range 2 {
			if err := l.Register(c.ctx, s); err != nil {
				c.Fatalf("register %s: %v", s, err)
			}
		}
		want = append(want, s)
		c.closeLink(l)
	}
	c.registered(want...)
}

// registered sees these in the register, which may hold others.
func (c *testCase) registered(want ...socketmeta.ServerID) {
	c.Helper()
	got, err := c.join().Servers(c.ctx)
	if err != nil {
		c.Fatalf("servers: %v", err)
	}
	if !slices.IsSorted(got) || len(slices.Compact(slices.Clone(got))) != len(got) {
		c.Errorf("servers %v are not sorted, or not each once", got)
	}
	for _, s := range want {
		if !slices.Contains(got, s) {
			c.Errorf("servers %v lack %s", got, s)
		}
	}
}
