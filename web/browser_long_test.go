//go:build long

package web

import "testing"

func TestLogOf100000LinesStaysUsable(t *testing.T) { longLog(t, "long-flood", 100_000) }
