package web

import (
	"context"
	_ "embed"
	"fmt"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/chromedp"
)

//go:embed testdata/fake-worker.js
var fakeWorker string

// tab is a page of a headless Chromium with the fake worker in it.
type tab struct {
	t   *testing.T
	ctx context.Context
}

// browser starts one Chromium for all tests of the package; TestMain closes it.
var browser = sync.OnceValues(func() (context.Context, error) {
	bin, err := exec.LookPath("chromium")
	if err != nil {
		return nil, fmt.Errorf("%w: install Debian's chromium, as make deps does", err)
	}
	dir, err := os.MkdirTemp("", "console-test-*")
	if err != nil {
		return nil, err
	}
	alloc, stop := chromedp.NewExecAllocator(context.Background(), append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(bin), chromedp.NoSandbox, chromedp.DisableGPU, chromedp.UserDataDir(dir),
		chromedp.Flag("disable-quic", true), chromedp.Flag("disable-background-networking", true),
		chromedp.Flag("disable-component-update", true), chromedp.Flag("disable-sync", true))...)
	ctx, _ := chromedp.NewContext(alloc) // ended by Cancel below
	closeBrowser = func() error {
		err := chromedp.Cancel(ctx)
		stop()
		os.RemoveAll(dir) // best effort: its children may still write for a moment
		return err
	}
	return ctx, chromedp.Do(ctx) // the context of the first call is the browser's life: no deadline
})

var closeBrowser = func() error { return nil }

func TestMain(m *testing.M) {
	code := m.Run()
	if err := closeBrowser(); err != nil {
		fmt.Fprintln(os.Stderr, "closing the browser:", err)
		code = 1
	}
	os.Exit(code)
}

// openConsole opens the console in a fresh profile of the browser, in a window of that size, and waits
// until it is connected to the fake worker.
func openConsole(t *testing.T, width, height int64) *tab {
	t.Helper()
	parent, err := browser()
	if err != nil {
		t.Fatalf("starting the browser: %v", err)
	}
	server := httptest.NewServer(Handler())
	t.Cleanup(server.Close)
	own, closeTab := chromedp.NewContext(parent, chromedp.WithNewBrowserContext())
	t.Cleanup(closeTab)
	if err := chromedp.Do(own); err != nil {
		t.Fatalf("opening a tab: %v", err)
	}
	ctx, done := context.WithTimeout(own, time.Minute)
	t.Cleanup(done)
	inject := page.AddScriptToEvaluateOnNewDocumentParams{Source: fakeWorker}
	if _, err := chromedp.Call(ctx, page.AddScriptToEvaluateOnNewDocument, inject); err != nil {
		t.Fatal(err)
	}
	if err := chromedp.Do(ctx, chromedp.EmulateViewport(width, height), chromedp.Navigate(server.URL)); err != nil {
		t.Fatal(err)
	}
	b := &tab{t, ctx}
	b.until(`$("connection")?.dataset.state === "open"`)
	return b
}

// until waits until the JavaScript expression is true.
func (b *tab) until(condition string) {
	b.t.Helper()
	if _, err := chromedp.Run(b.ctx, chromedp.Evaluate[bool]("until(() => "+condition+")", chromedp.EvalAwaitPromise)); err != nil {
		text, _ := chromedp.Run(context.WithoutCancel(b.ctx), chromedp.Evaluate[string]("document.body.innerText.slice(0, 2000)"))
		b.t.Fatalf("waiting for %s: %v; the page says:\n%s", condition, err, text)
	}
}

// do runs JavaScript.
func (b *tab) do(script string) {
	b.t.Helper()
	if err := chromedp.Do(b.ctx, chromedp.Evaluate[chromedp.Void](script)); err != nil {
		b.t.Fatalf("%s: %v", script, err)
	}
}

// check compares what a JavaScript expression gives.
func check[T comparable](b *tab, expression string, want T) {
	b.t.Helper()
	got, err := chromedp.Run(b.ctx, chromedp.Evaluate[T](expression))
	if err != nil {
		b.t.Fatalf("%s: %v", expression, err)
	}
	if got != want {
		b.t.Errorf("%s: got %v, want %v", expression, got, want)
	}
}

// submit fills the free form in, as a person would.
func (b *tab) submit(kind, params string) {
	b.t.Helper()
	b.do(`{ const k = $("kind"); k.value = "*"; k.dispatchEvent(new Event("change", { bubbles: true })); }`)
	b.until(`$("free-kind")`)
	b.do(`{ $("free-kind").value = "` + kind + `"; $("free-json").value = ` + "`" + params + "`" + `; $("submit").click(); }`)
}

func (b *tab) reload() {
	b.t.Helper()
	if err := chromedp.Do(b.ctx, chromedp.Reload()); err != nil {
		b.t.Fatal(err)
	}
}

// unharmed checks that the page ran no script of strangers, broke no policy and threw nothing.
func (b *tab) unharmed() {
	b.t.Helper()
	check(b, `harm.join("; ")`, "")
	check(b, `String(window.harmed)`, "undefined")
}

const ordered = `lines().every((n, i) => n === i + 1)`

func TestConsoleFollowsABuild(t *testing.T) {
	b := openConsole(t, 1280, 800)
	check(b, `$("server-id").textContent`, "i1-w3")
	check(b, `$("resumed").textContent`, "no")
	b.submit("build", `{"ref": "main"}`)
	b.until(`$("progress")?.max === 25 && $("message").textContent.startsWith("ok pkg")`)
	b.until(`$("task-state").textContent === "succeeded"`)
	b.until(`count() === 1004`)
	check(b, ordered, true)
	check(b, `$$("step").map((s) => s.dataset.status).join()`, "succeeded,succeeded,succeeded,succeeded")
	check(b, `$$("step").map((s) => s.querySelector(".name").textContent).join()`, "clone,go vet,go build,go test ./pkg/socketmeta ./pkg/wire")
	check(b, `JSON.stringify(JSON.parse($("result").textContent))`, `{"packages":60,"failed":0}`)
	check(b, `$("task-id").textContent === $("task").dataset.task`, true)
	check(b, `$$("artifact").map((a) => a.textContent).join("; ").slice(0, 80)`, "of-a-publisher-that-says-no-size ; app.tar.gz application/gzip, 1,048,576 bytes,")
	check(b, `$("again").textContent`, "Run again")
	if err := chromedp.Do(b.ctx, chromedp.EmulateViewport(1280, 500)); err != nil {
		t.Fatal(err)
	}
	b.until(`innerHeight === 500 && ` + atEnd) // it follows the end in a smaller room, too

	b.do(`$("again").click()`)
	b.until(`$$("task").length === 2 && $("task-state").textContent === "succeeded" && $("task-id").textContent === $$("task")[0].dataset.task`)
	check(b, `Object.values(JSON.parse(sessionStorage["fake-worker"]).tasks).map((t) => t.params.ref).join()`, "main,main")
	check(b, `new Set($$("task").map((t) => t.dataset.task)).size`, 2)
	b.unharmed()
}

func TestHostileLogLinesAreText(t *testing.T) {
	b := openConsole(t, 1280, 800)
	b.submit("hostile-end", "")
	b.until(`$("error-message") && count() === 8`)
	for i, want := range []string{
		`<img src=x onerror="window.harmed=1"><script>window.harmed=2</script>`,
		"link red",
		"  spaces\tand a tab ",
		"",
		`</div></div><a href="javascript:window.harmed=4">click</a>&lt;b&gt;<svg onload=window.harmed=5>`,
		"here there",
		"abcde",
		"ackground:url(//evil.example/)mstyle",
	} {
		check(b, fmt.Sprintf(`document.querySelectorAll(".line")[%d].textContent`, i), want)
	}
	check(b, `document.querySelectorAll(".line")[1].querySelector("span").className`, "fg1")
	check(b, `[...document.querySelectorAll(".lines *")].every((e) => ["DIV", "SPAN"].includes(e.tagName) && [...e.attributes].every((a) => ["class", "data-n", "style"].includes(a.name)))`, true)
	check(b, `document.title`, "wscluster")
	b.unharmed()
}

// Whatever else a runner says is text as well: the name of a step, a message, an artifact, an error, a result.
func TestWhatARunnerSaysIsText(t *testing.T) {
	b := openConsole(t, 1280, 800)
	const evil = "<img src=x onerror=\"window.harmed=7\"><script>window.harmed=8</script>\x1b]8;;javascript:window.harmed=9\a\x1b[2J\"'><b>"
	b.submit("hostile-end", "")
	b.until(`$("error-message")`)
	check(b, `$("error-message").textContent`, evil)
	check(b, `$("message").textContent`, evil)
	check(b, `$("step").querySelector(".name").textContent`, evil)
	check(b, `[...document.querySelectorAll("header.task .quiet")].some((e) => e.textContent.startsWith("on <img"))`, true)
	b.submit("hostile-result", "")
	b.until(`$("result")`)
	check(b, `Object.entries(JSON.parse($("result").textContent))[0].join()`, evil+","+evil)
	check(b, `$("artifact").textContent.split("<script>").length`, 4)
	const strange = `document.querySelectorAll("img, a[href^=javascript], svg[onload], b, body script, [onerror], [onload]").length`
	check(b, strange, 0)
	b.reload() // what the journal kept is no better
	b.until(`$("result")`)
	check(b, strange, 0)
	check(b, `document.title`, "wscluster")
	b.unharmed()
}

func TestReloadMidBuildShowsEachLineOnce(t *testing.T) {
	b := openConsole(t, 1280, 800)
	b.submit("build", `{"ref": "main"}`)
	for _, enough := range []string{"100", "400", "700"} {
		b.until(`count() >= ` + enough)
		b.reload()
		b.until(`$("connection")?.dataset.state === "open" && count() >= ` + enough)
		check(b, ordered, true)
	}
	check(b, `$("resumed").textContent`, "yes")
	b.until(`$("task-state").textContent === "succeeded"`)
	b.until(`count() === 1004`)
	check(b, ordered, true)
	check(b, `$$("step").length`, 4)
	check(b, `$$("task").length`, 1)

	b.reload()
	b.until(`$("result") && count() === 1004`)
	check(b, `document.querySelectorAll(".gap").length`, 0)
	b.unharmed()
}

func TestAReloadBehindTheLastLineWaitsForTheEnd(t *testing.T) {
	b := openConsole(t, 1280, 800)
	b.submit("late", "")
	b.until(`count() === 3 && Object.values(JSON.parse(sessionStorage["fake-worker"]).tasks)[0].next === 3`) // its lines are acknowledged
	b.reload()
	b.until(`$("task-state")?.textContent === "succeeded"`)
	check(b, `lines().join()`, "1,2,3")
	check(b, `document.querySelectorAll(".gap").length`, 0)
	b.unharmed()
}

func TestLogOf20000LinesStaysUsable(t *testing.T) { longLog(t, "flood", 20_000) }

// longLog submits a kind of the fake worker that writes so many lines as fast as it may.
func longLog(t *testing.T, kind string, total int) {
	b := openConsole(t, 1280, 800)
	b.submit(kind, "")
	b.until(`count() > 5000`)
	b.until(atEnd)
	b.do(`$("log").scrollTop -= 2000`)
	b.until(`!$("follow").checked`)
	b.do(`stay = $("log").scrollTop`)
	b.until(`$("task-state").textContent === "succeeded"`)
	b.until(fmt.Sprintf(`$("log-count").textContent.replace(/\D/g, "") === "%d" && count() === %[1]d`, total))
	check(b, `Math.abs($("log").scrollTop - stay) < 100`, true)
	check(b, fmt.Sprintf(`find("line %d")`, total/2+321), true)
	b.do(`$("follow").click()`)
	b.until(atEnd)
	check(b, ordered, true)

	b.reload()
	b.until(fmt.Sprintf(`count() === %d`, total))
	b.until(atEnd)
	check(b, ordered, true)
	b.unharmed()
}

const atEnd = `(({ scrollTop, clientHeight, scrollHeight }) => scrollTop + clientHeight >= scrollHeight - 20)($("log"))`

func TestFailedBuildOffersAnotherTry(t *testing.T) {
	b := openConsole(t, 1280, 800)
	b.submit("broken", `{"ref": "x"}`)
	b.until(`$("error-code")?.textContent === "failed"`)
	check(b, `$("error-message").textContent`, "step go vet: exit status 1")
	check(b, `$("step").dataset.status`, "failed")
	b.do(`$("again").click()`)
	b.until(`$$("task").length === 2 && $$("task").every((t) => t.dataset.state === "failed")`)
	check(b, `Object.values(JSON.parse(sessionStorage["fake-worker"]).tasks).map((t) => t.params.ref).join()`, "x,x")
	b.unharmed()
}

func TestRefusalIsToldAtTheFormAndInTheTask(t *testing.T) {
	b := openConsole(t, 1280, 800)
	b.submit("build", `[1]`)
	b.until(`$("form-error")?.textContent.includes("JSON object")`)
	check(b, `$$("task").length`, 0)
	b.submit("nope", "")
	b.until(`$("error-code")?.textContent === "unknown_kind"`)
	check(b, `$$("again").length`, 0)
}

// fill types into a field of the form.
func (b *tab) fill(name, text string) {
	b.t.Helper()
	b.do(fmt.Sprintf(`{
		const e = $("param-%s"), type = e.tagName === "SELECT" || e.type === "checkbox" ? "change" : "input";
		e.type === "checkbox" ? (e.checked = %[2]q === "true") : (e.value = %[2]q);
		e.dispatchEvent(new Event(type, { bubbles: true }));
	}`, name, text))
}

// choose chooses a kind that runners announce.
func (b *tab) choose(kind string) {
	b.t.Helper()
	b.until(fmt.Sprintf(`[...$("kind").options].some((o) => o.value === %q)`, kind))
	b.do(fmt.Sprintf(`{ const k = $("kind"); k.value = %q; k.dispatchEvent(new Event("change", { bubbles: true })); }`, kind))
	b.until(fmt.Sprintf(`$("kind").value === %q`, kind))
}

func TestTheFormIsMadeOfTheSchemaThatRunnersAnnounce(t *testing.T) {
	b := openConsole(t, 1280, 800)
	b.choose("form")
	b.until(`$("param-repo")`)
	check(b, `[...document.querySelectorAll(".field label")].map((l) => l.textContent.trim()).join()`, "Kind,mode required,repo required,count,env,fast,packages")
	check(b, `$("kind-hint").textContent`, "a field of each shape")
	check(b, `[...$("param-mode").options].map((o) => o.textContent).join()`, "choose one,debug,release")
	check(b, `["count", "env", "packages", "repo"].map((n) => $("param-" + n).value).join(";")`, "3;;./a ./b;")
	check(b, `$("param-fast").type + $("param-count").inputMode + $("param-env").tagName`, "checkboxnumericTEXTAREA")

	b.fill("count", "0")
	b.do(`$("submit").click()`)
	b.until(`$$("fault").length === 3`)
	check(b, `$$("fault").map((f) => f.textContent).join("; ")`, "mode is missing; repo is missing; count must be at least 1")
	b.until(`document.activeElement === $("param-mode")`) // the first that is wrong
	check(b, `$$("task").length`, 0)
	b.fill("count", "7")
	b.until(`$$("fault").length === 2`) // what is mended is not told any more

	b.fill("mode", `"release"`)
	b.fill("repo", "/srv/git")
	b.fill("fast", "true")
	b.fill("env", `{"A": "b"}`)
	b.do(`$("submit").click()`)
	b.until(`$("task-state")?.textContent === "succeeded"`)
	check(b, `JSON.stringify(Object.values(JSON.parse(sessionStorage["fake-worker"]).tasks)[0].params)`,
		`{"mode":"release","repo":"/srv/git","count":7,"env":{"A":"b"},"fast":true,"packages":["./a","./b"]}`)

	b.choose("unsaid") // nobody says what its parameters are
	b.until(`$("free-json") && !$("free-kind")`)
	b.unharmed()
}

func TestWhyTheServerRefusesParametersIsToldAtTheForm(t *testing.T) {
	b := openConsole(t, 1280, 800)
	b.choose("form")
	b.until(`$("param-repo")`)
	b.fill("mode", `"debug"`)
	b.fill("repo", "/refused")
	b.do(`$("submit").click()`)
	b.until(`$("form-error").textContent === "repo is no directory in the runner’s repository roots"`)
	check(b, `$("form-error").getAttribute("role")`, "alert")
	check(b, `$("param-repo").getAttribute("aria-invalid") + $("param-mode").getAttribute("aria-invalid")`, "truefalse")
	check(b, `document.getElementById($("param-repo").getAttribute("aria-describedby").split(" ").at(-1)).textContent`, "repo is no directory in the runner’s repository roots")
	check(b, `$("error-code").textContent`, "bad_params")
	b.fill("repo", "/srv/git")
	b.until(`$("form-error").textContent === "" && $("param-repo").getAttribute("aria-invalid") === "false"`)
	b.unharmed()
}

// Whoever cannot see the page, or has no mouse, fills the form in as well.
func TestEachControlOfTheFormHasALabelAndTheKeyboardReachesIt(t *testing.T) {
	b := openConsole(t, 360, 720)
	for _, kind := range []string{"form", "unsaid", "*"} {
		b.choose(kind)
		b.until(`$("free-json") || $("param-repo")`)
		const named = `[...document.querySelectorAll(".submit :is(input, select, textarea)")].every((e) => e.labels.length === 1 && e.labels[0].textContent.trim() && e.tabIndex === 0)`
		check(b, named, true)
		check(b, `[...document.querySelectorAll(".submit [aria-describedby]")].every((e) => e.getAttribute("aria-describedby").split(" ").every((id) => document.getElementById(id)))`, true)
		check(b, `document.documentElement.scrollWidth <= innerWidth`, true)
	}
}

func TestTasksOfEarlierPagesAreListedAndTheirLogsOpen(t *testing.T) {
	b := openConsole(t, 360, 720)
	dark := emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: "dark"}}}
	if _, err := chromedp.Call(b.ctx, emulation.SetEmulatedMedia, dark); err != nil {
		t.Fatal(err)
	}
	b.do(`sessionStorage.setItem("fake-earlier", "1")`)
	b.reload()
	b.until(`$$("earlier").length === 4`)
	check(b, `$$("earlier").map((t) => t.dataset.state).join()`, "succeeded,failed,running,canceled")
	check(b, `$$("earlier")[0].querySelector("time").dateTime`, "2026-03-14T07:56:00.000Z")
	check(b, `$("missing").textContent`, "r7 did not answer: tasks that ran there may be missing.")
	check(b, `$$("earlier").every((e) => e.getBoundingClientRect().right <= innerWidth) && document.documentElement.scrollWidth <= innerWidth`, true)
	check(b, `[...$$("earlier")[1].querySelectorAll("span:not(.dot), time")].every((e) => contrast(e, document.body) >= 4.5)`, true)
	const legible = `$$("earlier").every((e) => e.querySelector(".name").clientWidth > 50 && [...e.children].every((c) => c.getBoundingClientRect().right <= e.getBoundingClientRect().right))`
	check(b, legible, true)
	if err := chromedp.Do(b.ctx, chromedp.EmulateViewport(1280, 800)); err != nil {
		t.Fatal(err)
	}
	check(b, legible, true)
	b.do(`$("older").click()`)
	b.until(`$$("earlier").length === 5 && !$("older")`)

	b.do(`$$("earlier")[1].click()`)
	b.until(`$("task-pane")?.dataset.task === "earlier-2" && count() === 3`)
	check(b, `document.querySelector(".line").textContent`, "line 1 of earlier-2")
	check(b, `$("error-message").textContent`, "step go vet: exit status 1")
	check(b, `$$("again").length + $$("cancel").length`, 0) // its parameters are not known here, and it is over
	b.do(`$$("earlier")[0].click()`)
	b.until(`$("task-pane").dataset.task === "earlier-1" && count() === 3`)
	check(b, `document.querySelector(".outcome").textContent`, "Its result went to the page that submitted it, and is not kept by the server.")
	b.reload() // the address names it
	b.until(`$("task-pane")?.dataset.task === "earlier-1" && count() === 3`)
	b.unharmed()
}

func TestCutIsShownWithItsCountdown(t *testing.T) {
	b := openConsole(t, 1280, 800)
	b.do(`sockets.at(-1).give({ type: "bye", code: 1012, reason: "drain", retry_after_ms: 1500 }); sockets.at(-1).close(1012)`)
	b.until(`$("connection").dataset.state === "waiting" && /try 1 in [12] s/.test($("retry-countdown").textContent)`)
	check(b, `$("connection").textContent`, "Disconnected (drain)")
	b.until(`$("connection").dataset.state === "open"`)
	b.do(`sockets.at(-1).give({ type: "bye", code: 4000, reason: "replaced" }); sockets.at(-1).close(4000)`)
	b.until(`$("reconnect")`)
	b.do(`$("reconnect").click()`)
	b.until(`$("connection").dataset.state === "open"`)
}

func TestFullBrowserStorageIsSaid(t *testing.T) {
	b := openConsole(t, 1280, 800)
	b.do(`IDBObjectStore.prototype.put = () => { throw new DOMException("full", "QuotaExceededError") }`)
	b.submit("broken", "")
	b.until(`$("error-code") && $("unkept")`)
	check(b, `lines().join()`, "1")
}

func TestWhatWasNotKeptIsSaidInTheLog(t *testing.T) {
	b := openConsole(t, 360, 720)
	dark := emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: "dark"}}}
	if _, err := chromedp.Call(b.ctx, emulation.SetEmulatedMedia, dark); err != nil {
		t.Fatal(err)
	}
	b.submit("away", "")
	b.until(`$("task-state")?.textContent === "succeeded" && lines().at(-1) === 32`)
	const notes = `[...document.querySelectorAll(".lines .gap")].map((e) => e.textContent).join("; ")`
	const told = "events 3–8 were not kept: this page was away for longer than the server waits; lines 4–28 were among them"
	check(b, notes, told)
	check(b, `lines().join()`, "1,2,3,29,30,31,32")
	check(b, `document.querySelectorAll(".line")[2].nextElementSibling.className`, "gap")
	b.do(`$("log").scrollLeft = 1000`) // the last line is wide, the notes stay in sight
	b.until(`$("log").scrollLeft > 900`)
	check(b, `[...document.querySelectorAll(".lines .gap")].every((e) => { const r = e.getBoundingClientRect(); return r.left >= 0 && r.right <= innerWidth && r.height < 80; })`, true)
	check(b, `document.documentElement.scrollWidth <= innerWidth`, true)
	check(b, `contrast(document.querySelector(".lines .gap"), $("log").parentElement) >= 4.5`, true)

	b.reload()
	b.until(`$("result") && lines().at(-1) === 32`)
	check(b, notes, told)
	b.unharmed()
}

func TestATaskWhoseEndWasNotKeptIsOver(t *testing.T) {
	b := openConsole(t, 1280, 800)
	b.submit("vanished", "")
	b.until(`$("task-state")?.textContent === "lost" && $("again")`)
	check(b, `$("error-code").textContent`, "missed")
	check(b, `$("error-message").textContent`, "the task is over, but how it ended was not kept: more waited for this page than the server keeps for one")
	check(b, `document.querySelector(".lines .gap").textContent`, "event 3 was not kept: more waited for this page than the server keeps for one")
	b.unharmed()
}

func TestPageFitsASmallPhone(t *testing.T) {
	b := openConsole(t, 360, 720)
	b.submit("build", `{"ref": "`+strings.Repeat("long", 50)+`"}`)
	b.until(`$("task-state")?.textContent === "succeeded"`)
	check(b, `document.documentElement.scrollWidth <= innerWidth`, true)
	check(b, `$$("submit").concat($$("task"), $$("copy-id")).every((e) => e.getBoundingClientRect().right <= innerWidth)`, true)
}
