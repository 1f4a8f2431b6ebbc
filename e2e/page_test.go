package e2e

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
)

// page is the console in a headless Chromium of its own.
type page struct {
	t   *testing.T
	ctx context.Context
}

// open opens the console at addr in a window of that size and waits until it is connected.
func open(t *testing.T, addr string, width, height int64) *page {
	t.Helper()
	alloc, stop := chromedp.NewExecAllocator(context.Background(), append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath("/usr/bin/chromium"), chromedp.NoSandbox, chromedp.DisableGPU, chromedp.UserDataDir(t.TempDir()),
		chromedp.Flag("disable-quic", true), chromedp.Flag("disable-background-networking", true),
		chromedp.Flag("disable-component-update", true), chromedp.Flag("disable-sync", true))...)
	t.Cleanup(stop)
	browser, _ := chromedp.NewContext(alloc) // ended by Cancel below
	if err := chromedp.Do(browser); err != nil {
		t.Fatalf("start Chromium: %v", err)
	}
	t.Cleanup(func() { _ = chromedp.Cancel(browser) }) // waits until it has gone, so that its folder can go
	ctx, cancel := context.WithTimeout(browser, 3*time.Minute)
	t.Cleanup(cancel)
	p := &page{t, ctx}
	p.do(chromedp.EmulateViewport(width, height), chromedp.Navigate("http://"+addr+"/"))
	p.await(`document.querySelector('[data-testid=connection]')?.dataset.state === 'open'`)
	return p
}

func (p *page) do(steps ...chromedp.Action[chromedp.Void]) {
	p.t.Helper()
	if err := chromedp.Do(p.ctx, steps...); err != nil {
		p.t.Fatal(err)
	}
}

// await waits until the expression is true in the page.
func (p *page) await(expression string) {
	p.t.Helper()
	if _, err := chromedp.Run(p.ctx, chromedp.Poll[bool](expression, chromedp.WithPollingInterval(50*time.Millisecond), chromedp.WithPollingTimeout(time.Minute))); err != nil {
		p.shot("failed")
		p.t.Fatalf("waiting for %s: %v\nthe page says:\n%s", expression, err, p.text("body"))
	}
}

// text returns the text of the first element that matches, as a person reads it.
func (p *page) text(selector string) string {
	p.t.Helper()
	return eval[string](p, fmt.Sprintf(`document.querySelector(%q)?.innerText ?? ''`, selector))
}

func eval[T any](p *page, expression string) T {
	p.t.Helper()
	v, err := chromedp.Run(p.ctx, chromedp.Evaluate[T](expression))
	if err != nil {
		p.t.Fatalf("%s: %v", expression, err)
	}
	return v
}

// submit chooses the kind, fills in the fields and submits.
func (p *page) submit(kind string, params map[string]string) {
	p.t.Helper()
	p.await(fmt.Sprintf(`[...document.querySelector('[data-testid=kind]').options].some(o => o.value === %q)`, kind)) // a runner has announced it
	p.do(chromedp.SetValue(`[data-testid=kind]`, kind))
	p.await(fmt.Sprintf(`document.querySelector('[data-testid=kind]').value === %q`, kind))
	for name, value := range params {
		field := fmt.Sprintf(`[data-testid=param-%s]`, name)
		p.do(chromedp.WaitVisible(field))
		// As if typed: the page hears of it.
		eval[bool](p, fmt.Sprintf(`(() => { const e = document.querySelector(%q);
			Object.getOwnPropertyDescriptor(HTMLInputElement.prototype, 'value').set.call(e, %q);
			return e.dispatchEvent(new Event('input', {bubbles: true})); })()`, field, value))
	}
	p.do(chromedp.Click(`[data-testid=submit]`))
	p.do(chromedp.WaitVisible(`[data-testid=task-pane]`))
}

// shot keeps a picture of the page in e2e/artifacts.
func (p *page) shot(name string) {
	p.t.Helper()
	png, err := chromedp.Run(p.ctx, chromedp.CaptureScreenshot())
	if err != nil {
		p.t.Errorf("screenshot: %v", err)
		return
	}
	dir := filepath.Join(root, "e2e", "artifacts")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		p.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, name+".png"), png, 0o644); err != nil {
		p.t.Fatal(err)
	}
}
