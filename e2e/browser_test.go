package e2e

import (
	"slices"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
)

const finished = `['succeeded', 'failed', 'refused'].includes(document.querySelector('[data-testid=task-pane]')?.dataset.state)`

// TestABrowserBuildsThisRepository is the whole path: a page behind HAProxy submits a build of this
// repository, a runner runs it as real processes, and every step, line and the result come back.
func TestABrowserBuildsThisRepository(t *testing.T) {
	c := start(t, withLogs(withHAProxy()), "i1-w1", "i2-w1")
	p := open(t, c.HAProxy.Addr, 1280, 900)
	p.submit("go-build", map[string]string{"repo": root, "ref": "HEAD", "packages": "./pkg/socketmeta ./pkg/wire"})
	p.await(finished)
	p.shot("build")
	if state := eval[string](p, `document.querySelector('[data-testid=task-pane]').dataset.state`); state != "succeeded" {
		t.Fatalf("the build %s:\n%s", state, p.text("[data-testid=task-pane]"))
	}
	steps := eval[[]string](p, `[...document.querySelectorAll('[data-testid=step]')].map(e => e.dataset.status + ' ' + e.innerText)`)
	for _, word := range []string{"fetch", "vet", "build", "test"} {
		if !slices.ContainsFunc(steps, func(s string) bool { return strings.HasPrefix(s, "succeeded "+word) }) {
			t.Errorf("no step %s succeeded among %q", word, steps)
		}
	}
	if at := slices.IndexFunc(steps, func(s string) bool { return !strings.HasPrefix(s, "succeeded") }); at >= 0 {
		t.Errorf("step %q, want all to have succeeded", steps[at])
	}
	log := p.text("[data-testid=log]")
	for _, pkg := range []string{"pkg/socketmeta", "pkg/wire"} {
		if !strings.Contains(log, "github.com/wscluster/wscluster/"+pkg) {
			t.Errorf("the log does not name %s:\n%s", pkg, log)
		}
	}
	if server := p.text("[data-testid=server-id]"); server != "i1-w1" && server != "i2-w1" {
		t.Errorf("the page says it is on %q", server)
	}
	if p.text("[data-testid=result]") == "" {
		t.Error("the page shows no result")
	}
	once(t, p, len(numbers(p)))

	p.do(chromedp.EmulateViewport(360, 740))
	p.shot("build-360")
	if wide := eval[bool](p, `document.documentElement.scrollWidth > window.innerWidth`); wide {
		t.Error("at 360 px the page scrolls sideways")
	}
}

// TestAReloadMidBuildLosesNoLine reloads the page while lines come: 1 to N are there, each once.
func TestAReloadMidBuildLosesNoLine(t *testing.T) {
	t.Parallel()
	c := start(t, withLogs(withHAProxy()), "i1-w1", "i2-w1")
	p := open(t, c.HAProxy.Addr, 1024, 768)
	p.submit("countdown", map[string]string{"lines": "120", "interval_ms": "50"})
	for _, lines := range []string{"20", "60"} {
		p.await(`document.querySelectorAll('[data-testid=log] .line').length >= ` + lines)
		p.do(chromedp.Reload())
		p.await(`document.querySelector('[data-testid=connection]')?.dataset.state === 'open'`)
		if resumed := eval[string](p, `document.querySelector('[data-testid=resumed]').textContent`); resumed != "yes" {
			t.Errorf("resumed: %q, want yes", resumed)
		}
		p.await(`document.querySelector('[data-testid=task-pane]') !== null`)
	}
	p.await(finished)
	once(t, p, 120)
	bar := eval[[]float64](p, `(() => { const b = document.querySelector('[data-testid=progress]'); return b ? [b.value, b.max] : []; })()`)
	if len(bar) != 2 || bar[0] != bar[1] {
		t.Errorf("the progress bar stands at %v, want it full", bar)
	}
	p.shot("reload")
}

func TestABuildIsCanceledInTheConsole(t *testing.T) {
	t.Parallel()
	c := start(t, withLogs(withHAProxy()), "i1-w1")
	p := open(t, c.HAProxy.Addr, 360, 640)
	p.submit("countdown", map[string]string{"lines": "2000", "interval_ms": "50"})
	p.await(`document.querySelectorAll('[data-testid=log] .line').length >= 5`)
	p.shot("cancel")
	eval[bool](p, `(document.querySelector('[data-testid=cancel]').click(), true)`)
	p.await(`document.querySelector('[data-testid=task-pane]').dataset.state === 'canceled'`)
	if got := p.text(`[data-testid=error-code]`); got != "canceled" {
		t.Errorf("it ended with %q, want canceled", got)
	}
	if eval[bool](p, `document.querySelector('[data-testid=cancel]') !== null || document.querySelector('[data-testid=again]') === null`) {
		t.Error("what is canceled cannot be canceled again, and can be submitted again")
	}
	p.shot("canceled")
}

// numbers returns the line numbers that the page shows, top to bottom.
func numbers(p *page) []int {
	return eval[[]int](p, `[...document.querySelectorAll('[data-testid=log] .line')].map(e => Number(e.dataset.n))`)
}

// once checks that the page shows the lines 1 to n, each once and in order.
func once(t *testing.T, p *page, n int) {
	t.Helper()
	got := numbers(p)
	if len(got) != n || n == 0 {
		t.Errorf("%d lines, want %d", len(got), n)
	}
	for i, line := range got {
		if line != i+1 {
			t.Fatalf("line %d stands where line %d should: %v", line, i+1, got)
		}
	}
}
