package web

import (
	_ "embed"
	"fmt"
	"testing"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

//go:embed testdata/fake-channels.js
var fakeChannels string

// openOverview opens the console with channels, and some workflows in them, at that address.
func openOverview(t *testing.T, width, height int64, hash string) *tab {
	t.Helper()
	b := openConsole(t, width, height)
	b.do(fakeChannels)
	b.do(`workflow("old", "make", "failed", 1, 2, "failed (failed): exit status 2");
		workflow("waits", "go-build", "queued", 0, 0, "waits for a task runner");
		workflow("runs", "go-build", "running", 2, 4, "step 2 of 4: go vet"); engine()`)
	b.do(`location.hash = "` + hash + `"`)
	return b
}

const rows = `$$("workflow").map((e) => e.dataset.workflow + " " + e.dataset.status).join(", ")`

func (b *tab) press(key string) {
	b.t.Helper()
	if err := chromedp.Do(b.ctx, chromedp.KeyEvent(key)); err != nil {
		b.t.Fatal(err)
	}
}

func (b *tab) dark() {
	b.t.Helper()
	dark := emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: "dark"}}}
	if _, err := chromedp.Call(b.ctx, emulation.SetEmulatedMedia, dark); err != nil {
		b.t.Fatal(err)
	}
}

func TestTheOverviewShowsAllWorkflowsLive(t *testing.T) {
	b := openOverview(t, 1280, 800, "overview")
	b.until(`$$("workflow").length === 3`)
	check(b, rows, "runs running, waits queued, old failed")
	const bar = `(() => { const p = document.querySelector('[data-workflow="runs"] progress'); return p.value + "/" + p.max; })()`
	check(b, bar, "2/4")
	check(b, `document.querySelector('[data-workflow="runs"] [data-testid="workflow-message"]').textContent`, "step 2 of 4: go vet")
	b.do(`workflow("runs", "go-build", "running", 3, 4, "step 3 of 4: go build"); workflow("waits", "go-build", "running", 1, 4, "started")`)
	b.until(rows + ` === "waits running, runs running, old failed" && ` + bar + ` === "3/4"`)
	b.do(`workflow("runs", "go-build", "succeeded", 4, 4, "ended"); workflow("new", "make", "queued", 0, 0, "waits")`)
	b.until(rows + ` === "waits running, new queued, runs succeeded, old failed"`)
	check(b, `new Set($$("workflow").map((e) => e.offsetHeight)).size`, 1) // each has one line, however long its status

	b.do(`location.hash = ""`) // and back to the tasks: nobody looks any more
	b.until(`$("submit") && !subscribed.workflows && !subscribed.engine`)
	b.unharmed()
}

func TestTheOverviewShowsHowTheEngineStands(t *testing.T) {
	b := openOverview(t, 1280, 800, "overview")
	b.until(`$("broker")`)
	const words = `.innerText.replace(/\s+/g, " ").trim()`
	check(b, `$("broker")`+words, "Broker connected")
	check(b, `$$("worker").map((e) => e`+words+`).join("; ")`, "i1-w3 2 3 2; i2-w1 not ready 1 3 2")
	check(b, `$$("runner").map((e) => e`+words+`).join("; ")`, "r1 1 of 4 go-build, make")
	check(b, `$$("queue").map((e) => e`+words+`).join("; ")`, "make 7")
	b.do(`engine({ broker: { connected: true, blocked: true }, runners: [] })`)
	b.until(`$("broker").dataset.blocked === "true" && $$("runner").length === 0`)
	b.do(`engine({ broker: { connected: false, blocked: false } })`)
	b.until(`$("broker")` + words + ` === "Broker not connected"`)
}

func TestTheOverviewIsFilteredByStatusWithTheKeyboard(t *testing.T) {
	b := openOverview(t, 1280, 800, "overview")
	b.until(`$$("workflow").length === 3`)
	check(b, `$$("filter").map((e) => e.innerText.replace(/\s+/g, " ").trim()).join(", ")`, "all 3, running 1, queued 1, succeeded 0, failed 1, canceled 0")
	b.do(`$("to-overview").focus()`)
	for i := 0; i < 20; i++ {
		b.press(kb.Tab)
		if got, err := chromedp.Run(b.ctx, chromedp.Evaluate[bool](`document.activeElement.dataset.status === "failed"`)); err == nil && got {
			break
		}
	}
	check(b, `getComputedStyle(document.activeElement).outlineStyle`, "solid")
	b.press(kb.Enter)
	b.until(rows + ` === "old failed"`)
	check(b, `location.hash`, "#overview=failed")
	b.do(`workflow("other", "make", "failed", 0, 0, "failed (timeout)"); workflow("more", "make", "running", 0, 0, "started")`)
	b.until(rows + ` === "other failed, old failed"`)
	b.do(`location.hash = "overview=canceled"`)
	b.until(`$("no-workflows")?.textContent === "No workflow is canceled."`)
}

func TestAfterACutTheOverviewForgetsWhatEndedUnseen(t *testing.T) {
	b := openOverview(t, 1280, 800, "overview")
	b.until(`$$("workflow").length === 3`)
	b.do(`subscribed.workflows.close(1006); workflow("runs", "go-build", "canceled", 2, 4, "canceled"); forget("workflows", "waits"); forget("workflows", "old")`)
	b.until(rows + ` === "runs canceled, old failed"`)
	b.do(`subscribed.workflows.give({ type: "missed", channel: "workflows", count: 12, reason: "slow" })`)
	b.until(`$("notes").textContent.startsWith("12 updates did not come")`)
	b.until(`$("notes").textContent === ""`) // it was asked for again
}

func TestOneWorkflowIsFollowedByItsID(t *testing.T) {
	b := openOverview(t, 1280, 800, "overview")
	b.until(`$("find-id")`)
	b.do(`$("find-id").value = "runs"; $("find").click()`)
	b.until(`$("workflow-status")?.textContent === "running"`)
	check(b, `location.hash`, "#workflow=runs")
	const bar = `$("workflow-progress").value + "/" + $("workflow-progress").max`
	check(b, bar, "2/4")
	check(b, `$("workflow-message").textContent`, "step 2 of 4: go vet")
	b.do(`workflow("runs", "go-build", "running", 3, 4, "step 3 of 4: go build"); workflow("other", "make", "failed", 1, 4, "of another")`)
	b.until(bar + ` === "3/4"`)
	check(b, `$("updates").children.length`, 2)
	b.do(`workflow("runs", "go-build", "succeeded", 4, 4, "ended with a result")`)
	b.until(`$("workflow-status").textContent === "succeeded" && $("updates").children.length === 3`)

	b.do(`location.hash = "workflow=nobody"`)
	b.until(`$("workflow-pane").innerText.includes("Nothing is known of this workflow")`)
	b.do(`location.hash = "workflow=" + encodeURIComponent("<img src=x onerror=harmed=1>")`)
	b.until(`$("workflow-pane").innerText.includes("That is no workflow ID")`)
	b.unharmed()
}

func TestWhatAWorkflowSaysIsText(t *testing.T) {
	const evil = `<img src=x onerror="window.harmed=1"><script>window.harmed=2</script>`
	b := openOverview(t, 1280, 800, "overview")
	b.do(fmt.Sprintf("workflow('evil', %[1]q, 'running', 1, 2, %[1]q); engine({ queues: [{ kind: %[1]q, waiting: 1 }] })", evil))
	b.until(`$("queue")?.textContent.startsWith("<img") && document.querySelector('[data-workflow="evil"]')`)
	check(b, `document.querySelector('[data-workflow="evil"] [data-testid="workflow-message"]').textContent`, evil)
	b.unharmed()
}

// widest names what is wider than the page, if the page scrolls sideways.
const widest = `document.documentElement.scrollWidth <= innerWidth ? "" : [...document.querySelectorAll("#app *")].filter((e) => e.getBoundingClientRect().right > innerWidth).map((e) => e.tagName + "." + e.className).join()`

func TestTheOverviewFitsASmallPhoneAndTheDark(t *testing.T) {
	b := openOverview(t, 360, 740, "overview")
	b.dark()
	b.do(`workflow("w".repeat(64), "k".repeat(64), "running", 4294967295, 4294967295, "long ".repeat(50) + "x".repeat(200));
		engine({ server_id: "i".repeat(64), runners: [{ runner: "r".repeat(64), slots: 1000, running: 1000, kinds: Array.from({ length: 20 }, (_, i) => "k".repeat(60) + i), seen_at: "" }] })`)
	b.until(`$$("workflow").length === 4 && $("runner")`)
	check(b, widest, "")
	for _, what := range []string{`.rows .state`, `.rows .which`, `.rows time`, `.filter a`, `.engine .quiet`, `.views a`} {
		check(b, `[...document.querySelectorAll("`+what+`")].every((e) => contrast(e, document.body) >= 4.5)`, true)
	}
	check(b, `$$("filter").every((e) => e.getBoundingClientRect().height >= 24)`, true) // WCAG 2.2: a target
	b.do(`document.querySelector('.rows a').click()`)
	b.until(`$("workflow-message")`)
	check(b, widest, "")
}
