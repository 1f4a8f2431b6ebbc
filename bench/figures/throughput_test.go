package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/wscluster/wscluster/bench/load"
	"github.com/wscluster/wscluster/pkg/socketmeta"
	"github.com/wscluster/wscluster/pkg/wire"
)

func twoTakers() *takers {
	meta := func() wire.SocketMeta {
		return wire.SocketMeta{Client: socketmeta.NewClientID(), Server: "i1-w1"}
	}
	return newTakers(load.Fleet{{Meta: meta()}, {Meta: meta()}})
}

// TestAnEventOfAnotherOrOutOfOrderSpoilsTheRate gives clients what they must not get.
func TestAnEventOfAnotherOrOutOfOrderSpoilsTheRate(t *testing.T) {
	c := twoTakers()
	c.send = func(int, wire.ClientMessage) error { return nil }
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

// TestTheClientsAcknowledgeAsTheProtocolSays plays one client's events; the other has one, and owes nothing after it.
func TestTheClientsAcknowledgeAsTheProtocolSays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, start := twoTakers(), time.Now()
		var acks []string
		c.send = func(client int, m wire.ClientMessage) error {
			acks = append(acks, fmt.Sprint(client, " next ", m.(*wire.Ack).Tasks[0].Next, " ", time.Since(start)))
			return nil
		}
		ctx, stop := context.WithCancel(t.Context())
		late := make(chan error, 1)
		go func() { late <- c.acknowledgeLate(ctx) }()
		take := func(client, events int) {
			for range events {
				if err := c.receive(client, wire.AppendEventFrame(nil, c.next(client))); err != nil {
					t.Error(err)
				}
			}
		}
		take(0, 1)
		take(1, 1)
		time.Sleep(32 * time.Millisecond)
		take(0, 2)
		time.Sleep(25 * time.Millisecond) // they are acknowledged 50 ms after the one before
		take(0, 33)                       // 32 at once, and one more
		time.Sleep(time.Second)
		take(0, 1)
		stop()
		if err := <-late; err != nil {
			t.Errorf("acknowledgeLate = %v", err)
		}
		want := []string{"0 next 2 0s", "1 next 2 0s", "0 next 4 50ms", "0 next 36 57ms", "0 next 37 110ms", "0 next 38 1.057s"}
		if !slices.Equal(acks, want) {
			t.Errorf("acknowledged %q, want %q", acks, want)
		}
	})
}

func TestNobodyAcknowledgesAtClosedSockets(t *testing.T) {
	for _, broken := range []error{net.ErrClosed, io.ErrShortWrite} {
		synctest.Test(t, func(t *testing.T) {
			c := twoTakers()
			c.mates[1].unacked = 1
			c.send = func(int, wire.ClientMessage) error { return broken }
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			if err := c.acknowledgeLate(ctx); (err == nil) != (broken == net.ErrClosed) {
				t.Errorf("after %v acknowledgeLate returns %v", broken, err)
			}
		})
	}
}
