//go:build long

package web

import "testing"

func TestLogOf100000LinesStaysUsable(t *testing.T) { longLog(t, "long-flood", 100_000) }

func TestLogBeyondItsBoundsIsCutAndSaysSo(t *testing.T) {
	b := openConsole(t, 1280, 800)
	b.submit("heavy", "")
	b.until(`$("task-state")?.textContent === "succeeded" && lines().at(-1) === 140`)
	check(b, `lines()[0] > 1 && document.querySelector(".gap").textContent === "lines 1–" + (lines()[0] - 1) + " not shown any more"`, true)
	check(b, `document.querySelector(".line").textContent.endsWith("x… 233,616 more characters")`, true)
	check(b, `$("unkept").textContent.includes("no room")`, true)
	b.reload()
	b.until(`$("result") && lines().at(-1) === 134`) // 33,554,432 characters hold 134 lines
	b.unharmed()
}
