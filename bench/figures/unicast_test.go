package main

import (
	"strings"
	"testing"
	"time"

	"github.com/wscluster/wscluster/bench/load"
	"github.com/wscluster/wscluster/pkg/socketmeta"
	"github.com/wscluster/wscluster/pkg/wire"
)

// TestAnEventOfAnotherOrOutOfOrderSpoilsTheMeasurement gives clients what they must not get.
func TestAnEventOfAnotherOrOutOfOrderSpoilsTheMeasurement(t *testing.T) {
	for _, test := range []struct {
		name   string
		client int
		seq    int64
	}{
		{"another client's", 1, 1},
		{"one is missing before it", 0, 2},
	} {
		t.Run(test.name, func(t *testing.T) {
			meta := wire.SocketMeta{Client: socketmeta.NewClientID(), Server: "i1-w1"}
			r := newReceivers(load.Fleet{{Meta: meta}, {Meta: meta}})
			e := r.next()
			r.sent(e)
			e.Seq, e.Body = test.seq, stamp(time.Now())
			err := r.receive(test.client, wire.AppendEventFrame(nil, &e))
			if err == nil || !strings.Contains(err.Error(), "want event 1 of task") {
				t.Errorf("got %v, want an error that says what should have come", err)
			}
		})
	}
}

func TestEventsGoToTheClientsInTurn(t *testing.T) {
	r := newReceivers(load.Fleet{{}, {}})
	var seqs []int64
	tasks := map[wire.TaskID]int{}
	for range 4 {
		e := r.next()
		tasks[e.Task]++
		seqs = append(seqs, e.Seq)
		if e.Prev != e.Seq-1 {
			t.Errorf("event %d names %d as the one before it", e.Seq, e.Prev)
		}
		r.sent(e)
	}
	if len(tasks) != 2 || seqs[0] != 1 || seqs[1] != 1 || seqs[2] != 2 || seqs[3] != 2 {
		t.Errorf("got %v to %d tasks, want 1, 1, 2, 2 to two", seqs, len(tasks))
	}
}
