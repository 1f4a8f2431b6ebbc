package rig

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
)

func TestOutputKeepsItsTailOnly(t *testing.T) {
	var log bytes.Buffer
	o := newOutput(&log)
	for i := range 3 * tailLines {
		fmt.Fprintf(o, "line %d\n", i)
	}
	lines := strings.Split(o.tail(), "\n")
	if len(lines) != tailLines || lines[0] != fmt.Sprintf("line %d", 2*tailLines) {
		t.Errorf("%d lines from %q, want %d", len(lines), lines[0], tailLines)
	}
	if n := strings.Count(log.String(), "\n"); n != 3*tailLines {
		t.Errorf("%d lines were passed on, want all %d", n, 3*tailLines)
	}

	_, _ = o.Write(bytes.Repeat([]byte("x"), 1000*lineBytes+5))
	if n := len(o.tail()); n > tailLines*(lineBytes+1)+5 {
		t.Errorf("a line without an end left %d bytes", n)
	}
	if len(o.partial) != 5 {
		t.Errorf("%d bytes wait for a line end, want 5", len(o.partial))
	}
}
