package report

import (
	"bytes"
	"strings"
	"testing"
)

func TestProgressIsOneLineOnATerminalOnly(t *testing.T) {
	var plain, tty bytes.Buffer
	for out, p := range map[*bytes.Buffer]*Progress{&plain: {out: &plain}, &tty: {out: &tty, tty: true}} {
		p.Status("one")
		p.Note("a fault")
		p.Status("two")
		p.End()
		if got := out.String(); strings.Count(got, "\n") != map[bool]int{false: 3, true: 1}[p.tty] || !strings.Contains(got, "a fault\n") || p.tty && !strings.Contains(got, "one\r\x1b[Ka fault\n") {
			t.Errorf("terminal %t: %q", p.tty, got)
		}
	}
}

func TestABarIsDrawnNowAndThenAndAtItsEnd(t *testing.T) {
	var out bytes.Buffer
	p := NewProgress(&out)
	for done := range 101 {
		p.Bar("connect", done, 100)
	}
	const want = "connect [..............................] 0 of 100\nconnect [##############################] 100 of 100\n"
	if out.String() != want {
		t.Errorf("got %q, want %q", out.String(), want)
	}
	if got := bar("x", 7, 0); !strings.Contains(got, "7 of 0") {
		t.Errorf("a bar of nothing: %q", got)
	}
}
