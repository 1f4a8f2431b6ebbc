package amqp

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/wscluster/wscluster/pkg/broker"
	"github.com/wscluster/wscluster/pkg/wire"
)

// A task is never held beyond the slots: it would wait for hours while another runner is idle.
func TestTasksBeyondTheSlotsAreLeftToOthers(t *testing.T) {
	const kinds = 8
	b := open(t, Options{})
	l, other := join(t, b, broker.Runner("busy")), join(t, b, broker.Runner("idle"))
	var list []string
	for i := range kinds {
		list = append(list, fmt.Sprintf("left-%d", i))
	}
	for round := range 5 {
		busy, err := l.OpenTasks(bounded(t), list, 1)
		if err != nil {
			t.Fatal(err)
		}
		// One of each kind at the same moment, while the taker waits on all of them.
		time.Sleep(5 * time.Millisecond)
		var publishers sync.WaitGroup
		for _, kind := range list {
			publishers.Go(func() { store(t, other, broker.ToTasks(kind, wire.Normal), kind) })
		}
		publishers.Wait()
		first := <-busy.Deliveries()
		idle, err := other.OpenTasks(bounded(t), list, kinds)
		if err != nil {
			t.Fatal(err)
		}
		seen := map[string]bool{first.ID: true}
		for range kinds - 1 {
			select {
			case d := <-idle.Deliveries():
				if seen[d.ID] {
					t.Errorf("round %d: %s twice", round, d.ID)
				}
				seen[d.ID] = true
				if err := idle.Ack(d.Tag); err != nil {
					t.Fatal(err)
				}
			case <-time.After(patience):
				t.Fatalf("round %d: only %v were left to others", round, seen)
			}
		}
		if err := busy.Ack(first.Tag); err != nil {
			t.Fatal(err)
		}
		for _, k := range []broker.Consumer{busy, idle} {
			if err := k.Close(bounded(t)); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func TestKindsTakeTurns(t *testing.T) {
	b := open(t, Options{})
	l := join(t, b, broker.Runner("turns"))
	kinds := []string{"turns-a", "turns-b", "turns-c"}
	k, err := l.OpenTasks(bounded(t), kinds, 1)
	if err != nil {
		t.Fatal(err)
	}
	if err := k.Close(bounded(t)); err != nil { // the queues exist now
		t.Fatal(err)
	}
	for range 4 {
		for _, kind := range kinds {
			store(t, l, broker.ToTasks(kind, wire.Normal), kind)
		}
	}
	if k, err = l.OpenTasks(bounded(t), kinds, 1); err != nil {
		t.Fatal(err)
	}
	for i := range 12 {
		if err := k.Ack(expect(t, k, kinds[i%3])[0]); err != nil {
			t.Fatal(err)
		}
	}
}

func TestTaskIsSettledOnce(t *testing.T) {
	kind := "settled-once"
	l := join(t, open(t, Options{}), broker.Runner("once"))
	k, err := l.OpenTasks(bounded(t), []string{kind, kind}, 1)
	if err != nil {
		t.Fatal(err)
	}
	store(t, l, broker.ToTasks(kind, wire.Normal), "1", "2", "3")
	tag := expect(t, k, "1")[0]
	if err := k.Ack(tag); err != nil {
		t.Fatal(err)
	}
	for what, f := range map[string]func(uint64) error{"ack": func(tag uint64) error { return k.Ack(tag) }, "requeue": k.Requeue} {
		if err := f(tag); err == nil || errors.Is(err, broker.ErrLinkGone) {
			t.Errorf("%s of what is settled: got %v, want an error of its own", what, err)
		}
	}
	expect(t, k, "2") // the slot was freed once only
	select {
	case d := <-k.Deliveries():
		t.Errorf("%s is beyond the slots", d.ID)
	case <-time.After(50 * time.Millisecond):
	}
	if l.Err() != nil {
		t.Errorf("the link ended: %v", l.Err())
	}
}

func TestTasksNeedKindsAndSlots(t *testing.T) {
	l := join(t, open(t, Options{}), broker.Runner("none"))
	for _, c := range []struct {
		kinds []string
		slots int
	}{{nil, 1}, {[]string{"k"}, 0}, {[]string{"k"}, maxPrefetch + 1}} {
		if _, err := l.OpenTasks(bounded(t), c.kinds, c.slots); err == nil || errors.Is(err, broker.ErrLinkGone) {
			t.Errorf("%v kinds, %d slots: got %v", c.kinds, c.slots, err)
		}
	}
}
