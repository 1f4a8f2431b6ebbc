//go:build long

package e2e

import (
	"fmt"
	"testing"
	"time"

	"github.com/wscluster/wscluster/internal/rig"
)

// TestARollingRestartLosesNothingAndSpreadsItsReconnects restarts all eight workers under load, one
// after the other, behind HAProxy, as a deploy does: SIGTERM, wait for the end, start, wait until
// HAProxy sees it.
func TestARollingRestartLosesNothingAndSpreadsItsReconnects(t *testing.T) {
	const guests, drainWindow, slowStart = 320, 8 * time.Second, time.Second
	o := withHAProxy()
	o.Runners, o.RunnerSettings = []string{"r1", "r2"}, []string{"WSCLUSTER_SLOTS=400"}
	o.WorkerSettings = []string{"WSCLUSTER_DRAIN_WINDOW=" + drainWindow.String()}
	o.Proxy = []string{"CONN_PER_IP=1000", "WS_PER_IP=1000", "WS_RATE_PER_IP=100000", "SLOWSTART=" + slowStart.String()}
	c := start(t, o, eight...)
	time.Sleep(slowStart + 500*time.Millisecond) // before, those that HAProxy saw last get few: two of eight had 272 of the 320
	crowd := gather(t, guests, c.HAProxy.Addr)
	crowd.forgetArrivals()
	deployed := make(chan struct{})
	go func() { // each guest has a task at all times
		defer close(deployed)
		for _, w := range c.Workers {
			c.redeploy(w)
		}
	}()
	began := time.Now()
	for going := true; going; {
		crowd.ask(30, 500*time.Millisecond)
		crowd.ended(crowd.all...)
		select {
		case <-deployed:
			going = false
		default:
		}
	}
	took := time.Since(began)
	crowd.goHome(c)

	perSecond := make([]int, int(took.Seconds())+1)
	total := len(crowd.arrivals)
	for range total {
		a := <-crowd.arrivals
		if s := int(a.at.Sub(began).Seconds()); s < len(perSecond) {
			perSecond[s]++
		}
	}
	// Two seconds together: some of few clients come late on a machine that has more to do. The figure
	// rolling-deploy-reconnect-peak judges each second, with 2,000 clients.
	most := 0
	for s := range len(perSecond) - 1 {
		most = max(most, perSecond[s]+perSecond[s+1])
	}
	mean := 2 * float64(total) / (float64(len(eight)) * drainWindow.Seconds())
	t.Logf("%d reconnects in %v, %.1f in two seconds of all drain windows, %d at most: %v", total, took, mean, most, perSecond)
	if float64(most) > 3*mean {
		t.Errorf("%d reconnects in two seconds, more than three times the mean of %.1f", most, mean)
	}
	if total < guests {
		t.Errorf("%d reconnects, want one of each of %d clients at least", total, guests)
	}
}

// redeploy ends a worker in good order and starts it again. HAProxy sees both.
func (c *cluster) redeploy(w *rig.Member) {
	ctx := c.ctx()
	for _, err := range []error{w.Drain(ctx), w.Restart(ctx), c.HAProxy.Await(ctx, "UP", w.Name)} {
		if err != nil {
			c.t.Error(fmt.Errorf("redeploy %s: %w", w.Name, err))
		}
	}
}
