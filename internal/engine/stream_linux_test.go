package engine

import (
	"errors"
	"testing"
	"time"

	"github.com/wscluster/wscluster/internal/rig"
)

func TestHalfOpenStreamIsFound(t *testing.T) {
	eachEngine(t, func(t *testing.T, build newEngine) {
		s := start(t, build, &hooks{}, Options{HTTP: streams, PingEvery: 200 * time.Millisecond, PongTime: 500 * time.Millisecond, sweep: tick})
		good := listen(t, s)
		get(t, s.opened, "Open")
		c := listen(t, s)
		ref := get(t, s.opened, "Open")
		c.wantEvents(":")
		if err := rig.Vanish(c.nc); err != nil {
			t.Fatal(err)
		}
		e := get(t, s.ended, "Closed")
		if e.ref != ref || e.code != 1006 || !errors.Is(e.cause, ErrPeerSilent) {
			t.Errorf("got %+v, want 1006 and ErrPeerSilent", e)
		}
		if got := s.Stats().Closes["silent"]; got != 1 {
			t.Errorf("%d closes by silence, want 1", got)
		}
		good.wantEvents(":", ":", ":") // who acknowledges lives on
	})
}
