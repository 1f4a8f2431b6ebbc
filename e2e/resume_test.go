package e2e

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/wscluster/wscluster/internal/rig"
	"github.com/wscluster/wscluster/pkg/wsclient"
)

// seconds is how long the task of the source's n-5 case takes.
const seconds = 8

// TestAResultArrivesAfterItsClientWasAwayAtTheEnd is the source's n-5 case: the client of an
// n-second task disconnects at n-5 s and must not miss what comes meanwhile.
func TestAResultArrivesAfterItsClientWasAwayAtTheEnd(t *testing.T) {
	t.Parallel() // it waits more than it works
	c := start(t, rig.ClusterOptions{}, "i1-w1")
	awayAtTheEnd(c, func() {})
}

// TestAResultArrivesAlsoIfItsWorkerWasKilledMeanwhile is the same with the worker's memory gone.
func TestAResultArrivesAlsoIfItsWorkerWasKilledMeanwhile(t *testing.T) {
	t.Parallel()
	c := start(t, rig.ClusterOptions{}, "i1-w1")
	awayAtTheEnd(c, func() {
		w := c.Worker("i1-w1")
		w.Kill()
		if err := w.Start(); err != nil {
			t.Fatal(err)
		}
		if err := c.AwaitReady(t.Context()); err != nil {
			t.Fatal(err)
		}
	})
}

func awayAtTheEnd(c *cluster, meanwhile func()) {
	t := c.t
	before, leave := client(t, c.Workers[0].Addr)
	began := time.Now()
	task := submit(t, before, "countdown", countdown(seconds*10))
	var seqs []int64
	for e := range task.Events(t.Context()) {
		if e.Durable {
			seqs = append(seqs, e.Seq)
		}
		if time.Since(began) > (seconds-5)*time.Second {
			break
		}
	}
	leave()
	had := len(seqs)

	// The task ends and everything of it lies in the mailbox: delivered to the worker, which holds
	// it, and not acknowledged.
	time.Sleep(time.Until(began.Add((seconds + 1) * time.Second))) // the case is about real time
	await(t, 20*time.Second, func() error {
		if n := c.unacknowledged("mailbox.i1-w1"); n == 0 {
			return fmt.Errorf("nothing is unacknowledged in the mailbox")
		}
		return nil
	})
	meanwhile()

	after, _ := client(t, c.Workers[0].Addr, func(o *wsclient.Options) { o.State = before.State() })
	if !after.Meta().Resumed || after.Meta().Client != before.Meta().Client {
		t.Errorf("came back as %+v, want the client %v resumed", after.Meta(), before.Meta().Client)
	}
	last := after.Tasks()[0]
	for e := range last.Events(t.Context()) {
		if e.Durable {
			seqs = append(seqs, e.Seq)
		}
	}
	if _, err := last.Wait(t.Context()); err != nil {
		t.Errorf("the result: %v", err)
	}
	if len(seqs) <= had || !slices.IsSorted(seqs) || len(slices.Compact(slices.Clone(seqs))) != len(seqs) {
		t.Errorf("%d durable events before and %d in all, want more, each once and in order: %v", had, len(seqs), seqs)
	}
	await(t, 20*time.Second, func() error {
		if n := c.unacknowledged("mailbox.i1-w1"); n != 0 {
			return fmt.Errorf("%d are still unacknowledged", n)
		}
		return nil
	})
}
