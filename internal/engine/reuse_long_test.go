//go:build long

package engine

import "testing"

func TestNoFrameReachesAnotherClientInAStorm(t *testing.T) {
	eachEngine(t, func(t *testing.T, build newEngine) { storm(t, build, 64, 300) })
}
