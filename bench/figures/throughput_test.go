package main

import (
	"strings"
	"testing"

	"github.com/wscluster/wscluster/bench/load"
	"github.com/wscluster/wscluster/pkg/socketmeta"
	"github.com/wscluster/wscluster/pkg/wire"
)

// TestAnEventOfAnotherOrOutOfOrderSpoilsTheRate gives clients what they must not get.
func TestAnEventOfAnotherOrOutOfOrderSpoilsTheRate(t *testing.T) {
	meta := func() wire.SocketMeta {
		return wire.SocketMeta{Client: socketmeta.NewClientID(), Server: "i1-w1"}
	}
	c := newTakers(load.Fleet{{Meta: meta()}, {Meta: meta()}})
	first, second := c.next(0), c.next(0)
	other := c.next(1)
	take := func(client int, e *wire.Event) error { return c.receive(client, wire.AppendEventFrame(nil, e)) }
	if err := take(0, second); err == nil || !strings.Contains(err.Error(), "event 2 after 0") {
		t.Errorf("one is missing before it: %v", err)
	}
	if err := take(0, other); err == nil || !strings.Contains(err.Error(), "client 0 got") {
		t.Errorf("another client's: %v", err)
	}
	for _, e := range []*wire.Event{first, first, second} {
		if err := take(0, e); err != nil {
			t.Errorf("event %d: %v", e.Seq, err)
		}
	}
	if c.got != 2 {
		t.Errorf("%d events were counted, want 2 without the copy", c.got)
	}
}
