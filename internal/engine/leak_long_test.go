//go:build long

package engine

import "testing"

func TestNothingIsLeftBehindByAHundredThousand(t *testing.T) {
	eachEngine(t, func(t *testing.T, build newEngine) { leaveNothing(t, build, 100_000) })
}
