package wsclient

import (
	"slices"
	"testing"
	"time"

	"github.com/wscluster/wscluster/pkg/wire"
)

func TestAcknowledgesAtOnceThenByTimeOrNumber(t *testing.T) {
	bubble(t, func(t *testing.T, s *server) {
		c, p := s.open(Options{})
		task := p.submit(c)
		for i := range int64(36) {
			p.events(step(i+1, i))
		}
		start := time.Now()
		ack := func(next int64, after time.Duration) {
			t.Helper()
			if a := receive[*wire.Ack](p); a.Tasks[0].Next != next || time.Since(start) != after {
				t.Errorf("acknowledged %+v after %v, want next %d after %v", a.Tasks, time.Since(start), next, after)
			}
		}
		numbers(t, task, 1)
		ack(2, 0)
		time.Sleep(30 * time.Millisecond)
		numbers(t, task, 1)
		p.silent()
		ack(3, 50*time.Millisecond) // since the one before, not since the event
		numbers(t, task, 31)
		p.silent()
		numbers(t, task, 1)
		ack(35, 50*time.Millisecond)
		numbers(t, task, 1)
		p.silent()
		ack(36, 100*time.Millisecond) // since the one that 32 events made
		p.silent()
		time.Sleep(50 * time.Millisecond)
		p.silent() // nothing is owed
		numbers(t, task, 1)
		ack(37, 150*time.Millisecond)
	})
}

// TestEventsOfOneTurnShareAnAcknowledgement has the application take 20 events before the writer looks.
func TestEventsOfOneTurnShareAnAcknowledgement(t *testing.T) {
	c, err := New(Options{URL: "ws://example.test/"})
	if err != nil {
		t.Fatal(err)
	}
	c.in.begin(wire.Position{Task: "t"})
	c.in.begin(wire.Position{Task: "u"})
	for i := range int64(10) {
		for _, id := range []wire.TaskID{"t", "u"} {
			e := step(i+1, i)
			e.Task = id
			c.in.put(&e)
			c.in.take(id)
			c.in.took(id)
		}
	}
	var turn turn
	c.acknowledge(new(socket), time.Now(), &turn)
	if len(turn.messages) != 1 {
		t.Fatalf("%d messages, want one: %+v", len(turn.messages), turn.messages)
	}
	for _, p := range turn.messages[0].(*wire.Ack).Tasks {
		if p.Next != 11 {
			t.Errorf("acknowledged %+v, want next 11 of both tasks", p)
		}
	}
}

func TestARunThatWasReplacedDoesNotFillTheWindow(t *testing.T) {
	bubble(t, func(t *testing.T, s *server) {
		c, p := s.open(Options{})
		task := p.submit(c)
		p.events(event(2, runB, 2, 1, wire.EventStep), step(1, 0), step(2, 1))
		want := wire.Position{Task: "t", Attempt: 2, Run: runB, Next: 1}
		if a := receive[*wire.Ack](p); !slices.Equal(a.Tasks, []wire.Position{want}) {
			t.Errorf("acknowledged %+v, want %+v", a.Tasks, want)
		}
		p.events(event(2, runB, 1, 0, wire.EventStep))
		if got := numbers(t, task, 2); got != "1 2" {
			t.Errorf("the application got %s", got)
		}
	})
}

func TestAcknowledgesWhenItLeaves(t *testing.T) {
	bubble(t, func(t *testing.T, s *server) {
		c, p := s.open(Options{})
		task := p.submit(c)
		p.events(step(1, 0), step(2, 1))
		numbers(t, task, 1)
		p.acked(2)
		numbers(t, task, 1)
		p.silent()
		_ = c.stop()
		p.acked(3)
	})
}
