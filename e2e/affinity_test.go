package e2e

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/wscluster/wscluster/internal/rig"
	"github.com/wscluster/wscluster/pkg/socketmeta"
	"github.com/wscluster/wscluster/pkg/wire"
	"github.com/wscluster/wscluster/pkg/wsclient"
)

// eight is the source design's topology: two instances of four workers.
var eight = []string{"i1-w1", "i1-w2", "i1-w3", "i1-w4", "i2-w1", "i2-w2", "i2-w3", "i2-w4"}

// from dials with the n-th of several loopback addresses as the source, for HAProxy counts by address.
func from(n int) func(*wsclient.Options) {
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 1, byte(1+n%8))}}
	return func(o *wsclient.Options) { o.Dial = dialer.DialContext }
}

func TestEightWorkersBehindHAProxy(t *testing.T) {
	o := withHAProxy()
	o.Runners = []string{"r1", "r2"}
	c := start(t, o, eight...)
	t.Run("every result reaches the client that asked and no other", c.everyResultReachesItsClient)
	t.Run("the cookie on the 101 names the worker and leads back to it", c.theCookieLeadsBack)
	t.Run("the route ticket alone leads back to the worker", c.theTicketLeadsBack)
	t.Run("a forged ticket falls back to balancing", c.aForgedTicketFallsBack)
	t.Run("event streams come back by cookie and ticket, and any worker takes a POST", c.streamsAreSticky)
	t.Run("a task by POST and event streams alone", c.aTaskByPostAlone)
	t.Run("each mailbox is bound to utils by its server ID", c.eachMailboxIsBound)
	t.Run("a killed worker's clients are on another within 3 s", c.aKilledWorkersClientsMove)
}

func (c *cluster) everyResultReachesItsClient(t *testing.T) {
	const clients = 200
	var mu sync.Mutex
	perWorker := map[socketmeta.ServerID]int{}
	all := make([]*wsclient.Client, clients)
	for i := range all {
		all[i], _ = client(t, c.HAProxy.Addr, from(i))
		mu.Lock()
		perWorker[all[i].Meta().Server]++
		mu.Unlock()
	}
	if len(perWorker) != len(eight) {
		t.Errorf("the clients are on %v, want all eight workers", perWorker)
	}
	submit(t, all[0], "countdown", countdown(1))
	var wg sync.WaitGroup
	for i, cl := range all {
		wg.Go(func() {
			task, err := cl.Submit(t.Context(), "countdown", countdown(1))
			if err != nil {
				t.Errorf("client %d: %v", i, err)
				return
			}
			finals := 0
			for e := range task.Events(t.Context()) {
				if e.Last {
					finals++
				}
			}
			if _, err := task.Wait(t.Context()); err != nil || finals != 1 {
				t.Errorf("client %d: %d final events, %v", i, finals, err)
			}
		})
	}
	wg.Wait()
	for i, cl := range all {
		if s := cl.Stats(); s.Unknown != 0 || s.Sockets != 1 {
			t.Errorf("client %d: %d events of others, %d sockets; want none and one", i, s.Unknown, s.Sockets)
		}
	}
}

// countdown is a task of so many lines, one each tenth of a second.
func countdown(lines int) map[string]any {
	return map[string]any{"lines": lines, "interval_ms": 100}
}

func (c *cluster) theCookieLeadsBack(t *testing.T) {
	u := &url.URL{Scheme: "http", Host: c.HAProxy.Addr}
	for i := range 8 {
		jar, err := cookiejar.New(nil)
		if err != nil {
			t.Fatal(err)
		}
		withJar := func(o *wsclient.Options) { o.Jar = jar }
		first, leave := client(t, c.HAProxy.Addr, from(i), withJar)
		server := first.Meta().Server
		if at := slices.IndexFunc(jar.Cookies(u), func(k *http.Cookie) bool { return names(k, server) }); at < 0 {
			t.Errorf("the cookies of the 101 are %v, want one that names %s", jar.Cookies(u), server)
		}
		leave()
		again, _ := client(t, c.HAProxy.Addr, from(i+1), withJar)
		if again.Meta().Server != server {
			t.Errorf("with the cookie of %s a new socket reached %s", server, again.Meta().Server)
		}
	}
}

// names reports whether an affinity cookie names the worker: its value is the server ID and, behind
// a bar, the dates by which HAProxy limits its life.
func names(k *http.Cookie, server socketmeta.ServerID) bool {
	value, _, _ := strings.Cut(k.Value, "|")
	return value == string(server)
}

func (c *cluster) theTicketLeadsBack(t *testing.T) {
	for i := range 8 {
		byTicket := func(o *wsclient.Options) { o.Affinity = wsclient.AffinityRoute }
		first, leave := client(t, c.HAProxy.Addr, from(i), byTicket)
		leave()
		again, _ := client(t, c.HAProxy.Addr, from(i+1), byTicket, func(o *wsclient.Options) { o.State.Route = first.Meta().Route })
		if a, b := first.Meta().Server, again.Meta().Server; a != b {
			t.Errorf("with the ticket of %s a new socket reached %s", a, b)
		}
	}
}

func (c *cluster) aForgedTicketFallsBack(t *testing.T) {
	forged, err := socketmeta.RandomKeys().SignRoute(socketmeta.Route{Server: "i1-w1", Expires: time.Now().Add(time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	reached := map[socketmeta.ServerID]bool{}
	for i := range 16 {
		cl, _ := client(t, c.HAProxy.Addr, from(i), func(o *wsclient.Options) {
			o.Affinity, o.State.Route = wsclient.AffinityRoute, forged
		})
		reached[cl.Meta().Server] = true
	}
	if len(reached) < 4 {
		t.Errorf("16 forged tickets of one worker reached %v, want them balanced", reached)
	}
}

func (c *cluster) eachMailboxIsBound(t *testing.T) {
	out, err := c.Rabbit.Ctl(t.Context(), "--silent", "list_bindings", "source_name", "routing_key", "destination_name")
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range eight {
		if want := fmt.Sprintf("utils\t%s\tmailbox.%s", id, id); !containsLine(out, want) {
			t.Errorf("no binding %q among:\n%s", want, out)
		}
	}
	exchanges, err := c.Rabbit.Ctl(t.Context(), "--silent", "list_exchanges", "name", "type")
	if err != nil {
		t.Fatal(err)
	}
	if !containsLine(exchanges, "utils\tdirect") {
		t.Errorf("no direct exchange utils among:\n%s", exchanges)
	}
}

func (c *cluster) aKilledWorkersClientsMove(t *testing.T) {
	const victim, within = "i1-w2", 3 * time.Second
	type arrival struct {
		client int
		server socketmeta.ServerID
	}
	arrivals := make(chan arrival, 1000)
	var of []*wsclient.Client // the victim's
	var others []func()
	for i := range 40 {
		cl, leave := client(t, c.HAProxy.Addr, from(i), func(o *wsclient.Options) {
			met := o.OnMeta
			o.OnMeta = func(m wire.SocketMeta) { met(m); arrivals <- arrival{i, m.Server} }
		})
		if cl.Meta().Server == victim {
			of = append(of, cl)
		} else {
			others = append(others, leave)
		}
	}
	for _, leave := range others {
		leave()
	}
	if len(of) == 0 {
		t.Fatalf("none of 40 clients is on %s", victim)
	}
	for len(arrivals) > 0 {
		<-arrivals
	}
	c.Worker(victim).Kill()
	killed := time.Now()
	deadline := time.After(within)
	for range of {
		select {
		case a := <-arrivals:
			if a.server == victim {
				t.Errorf("client %d came back to the dead worker", a.client)
			}
		case <-deadline:
			t.Fatalf("not all of %d clients are back within %v", len(of), within)
		}
	}
	t.Logf("%d clients are back after %v", len(of), time.Since(killed))
	for _, cl := range of {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		task, err := cl.Submit(ctx, "countdown", countdown(1))
		if err == nil {
			_, err = task.Wait(ctx)
		}
		cancel()
		if err != nil {
			t.Errorf("the new socket does not work: %v", err)
		}
	}
}

func TestNetworkAffinityKeepsAnAddressOnItsWorker(t *testing.T) {
	t.Parallel()
	c := start(t, rig.ClusterOptions{HAProxy: root + "/deploy/haproxy/haproxy-network.cfg"}, "i1-w1", "i1-w2", "i2-w1", "i2-w2")
	none := func(o *wsclient.Options) { o.Affinity = wsclient.AffinityNone }
	for i := range 8 {
		first, leave := client(t, c.HAProxy.Addr, from(i), none)
		leave()
		again, leave := client(t, c.HAProxy.Addr, from(i), none)
		leave()
		if a, b := first.Meta().Server, again.Meta().Server; a != b {
			t.Errorf("one address reached %s, then %s", a, b)
		}
	}
}
