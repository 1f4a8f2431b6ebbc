package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	cdp "github.com/chromedp/cdproto/page"
	"github.com/chromedp/chromedp"

	"github.com/wscluster/wscluster/internal/rig"
)

// TestTheOverviewIsLiveInTwoBrowsers: what one browser submits, another one that knows nothing of it sees come, move on
// and end; and who comes late sees how it stands.
func TestTheOverviewIsLiveInTwoBrowsers(t *testing.T) {
	t.Parallel()
	c := start(t, withLogs(withHAProxy()), "i1-w1", "i2-w1")
	one := open(t, c.HAProxy.Addr, 1280, 800)
	two := open(t, c.HAProxy.Addr, 360, 740)
	two.do(chromedp.Navigate("http://" + c.HAProxy.Addr + "/#overview"))
	two.await(`document.querySelectorAll('[data-testid=worker]').length === 2 && document.querySelectorAll('[data-testid=runner]').length === 1`)
	one.submit("countdown", map[string]string{"lines": "100", "interval_ms": "100"})
	id := one.text("[data-testid=task-id]")
	row := fmt.Sprintf(`document.querySelector('[data-workflow=%q]')`, id)
	two.await(row + `?.dataset.status === 'running'`)
	const bar = `(([p]) => p ? p.value / p.max : 0)(%s.querySelectorAll('progress[max]'))`
	done := fmt.Sprintf(bar, row)
	two.await(done + ` > 0 && ` + done + ` < 1`)
	two.shot("overview-360")
	one.do(chromedp.Navigate("http://" + c.HAProxy.Addr + "/#workflow=" + id))
	one.await(`document.querySelector('[data-testid=workflow-status]')?.textContent === 'running'`)
	two.await(row + `.dataset.status === 'succeeded' && ` + done + ` === 1`)
	one.await(`document.querySelector('[data-testid=workflow-status]').textContent === 'succeeded'`)
	if wide := eval[bool](two, `document.documentElement.scrollWidth > window.innerWidth`); wide {
		t.Error("at 360 px the overview scrolls sideways")
	}
	one.do(chromedp.Navigate("http://" + c.HAProxy.Addr + "/#overview"))
	one.await(row + `?.dataset.status === 'succeeded'`) // of the snapshot
	one.shot("overview")
}

// TestAPageGoesOnWhereAProxyDeniesWebSocket: it takes an event stream by itself, and goes back to WebSocket in the
// midst of a task when that can be opened; every line is there, once.
func TestAPageGoesOnWhereAProxyDeniesWebSocket(t *testing.T) {
	t.Parallel()
	c := start(t, withLogs(withHAProxy()), "i1-w1", "i2-w1")
	mapFile := filepath.Join(t.TempDir(), "open.map")
	if err := os.WriteFile(mapFile, []byte("yes no\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	office, err := rig.StartHAProxy(t.Context(), rig.HAProxyOptions{
		Config: filepath.Join(root, "e2e/testdata/office.cfg"), Env: map[string]string{"CLUSTER": c.HAProxy.Addr, "OPEN_MAP": mapFile},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := office.Stop(); err != nil {
			t.Error(err)
		}
	})
	p := open(t, office.Addr, 1280, 800)
	const transport = `document.querySelector('[data-testid=connection]')?.dataset.transport`
	p.await(transport + ` === 'sse'`)
	// Its next page life has short minutes: three seconds.
	hurry := cdp.AddScriptToEvaluateOnNewDocumentParams{Source: `{ const wait = setTimeout; window.setTimeout = (fn, ms, ...more) => wait(fn, ms >= 60_000 && new Error().stack.includes('/console/main.js') ? ms / 20 : ms, ...more); }`}
	if _, err := chromedp.Call(p.ctx, cdp.AddScriptToEvaluateOnNewDocument, hurry); err != nil {
		t.Fatal(err)
	}
	p.do(chromedp.Reload())
	p.await(transport + ` === 'sse'`)
	p.submit("countdown", map[string]string{"lines": "200", "interval_ms": "50"})
	p.await(`document.querySelectorAll('[data-testid=log] .line').length >= 20`)
	if answer, err := office.Admin("set map " + mapFile + " yes yes"); err != nil || answer != "" {
		t.Fatalf("opening the office: %q, %v", answer, err)
	}
	p.await(transport + ` === 'ws'`)
	if n := eval[int](p, `document.querySelectorAll('[data-testid=log] .line').length`); n >= 200 {
		t.Errorf("the task was over before WebSocket was back")
	}
	if resumed := eval[string](p, `document.querySelector('[data-testid=resumed]').textContent`); resumed != "yes" {
		t.Errorf("resumed: %q, want yes", resumed)
	}
	p.await(finished)
	once(t, p, 200)
	p.shot("office")
}
