package e2e

import (
	"errors"
	"testing"

	"github.com/wscluster/wscluster/pkg/wire"
	"github.com/wscluster/wscluster/pkg/wsclient"
)

// TestACanceledTaskEndsAndOthersGoOn cancels tasks at once, twice, and after a move to another worker.
func TestACanceledTaskEndsAndOthersGoOn(t *testing.T) {
	c := town(t)
	crowd := gather(t, 6, c.addrs()...)
	crowd.ask(100, lineEvery)
	crowd.flows(3)
	for i, g := range crowd.all[:4] {
		g.mu.Lock()
		g.mayFail = wire.CodeCanceled
		g.mu.Unlock()
		if i >= 2 {
			g.away()
			g.come()
		}
	}
	ends := map[*guest][]*wsclient.Task{}
	for _, g := range crowd.all[:4] {
		ends[g] = g.client.Tasks()
		for _, task := range ends[g] {
			task.Cancel()
			task.Cancel()
		}
	}
	for g, tasks := range ends {
		for _, task := range tasks {
			_, err := task.Wait(c.ctx())
			if e, ok := errors.AsType[*wire.Error](err); !ok || e.Code != wire.CodeCanceled {
				t.Errorf("guest %d: ended by %v, want canceled", g.id, err)
			}
		}
		if len(tasks) != 1 {
			t.Errorf("guest %d has %d open tasks, want one", g.id, len(tasks))
		}
	}
	crowd.goHome(c)
}
