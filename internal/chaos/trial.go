package chaos

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// trial is one run on a site.
type trial struct {
	*site
	o      Options
	ledger *Ledger
	began  time.Time

	mu     sync.Mutex // guards the ledger while faults strike
	struck int        // guarded by mu
}

// load lives the clients and strikes by schedule until the duration is over or ctx ends, then
// mends all, and waits until nothing is under way. It returns when the clients have gone.
func (t *trial) load(ctx context.Context) error {
	journal, err := CreateJournal(filepath.Join(t.o.Dir, "clients.journal"))
	if err != nil {
		return err
	}
	t.fleet = newFleet("ws://"+t.cluster.HAProxy.Addr+"/v1/ws", journal, t.o.Clients, t.o.Task, t.o.Seed)
	living, leave := context.WithCancel(context.WithoutCancel(ctx))
	var fleet sync.WaitGroup
	fleet.Go(func() { t.fleet.run(living) })
	t.began = time.Now()
	loading, cancel := context.WithTimeout(ctx, t.o.Duration)
	defer cancel()
	var strikes sync.WaitGroup
	strikes.Go(func() { t.strikeAll(loading) })
	for loading.Err() == nil {
		t.status(fmt.Sprintf("%v of %v", time.Since(t.began).Round(time.Second), t.o.Duration))
		wait(loading, time.Second)
	}
	close(t.fleet.over)
	t.status("mending")
	strikes.Wait()
	t.settle(living)
	leave()
	fleet.Wait()
	return journal.Close()
}

// strikeAll strikes by schedule until ctx ends, and returns when all is mended.
func (t *trial) strikeAll(ctx context.Context) {
	var strikes sync.WaitGroup
	defer strikes.Wait()
	for _, f := range t.plan().Schedule() {
		wait(ctx, time.Until(t.began.Add(f.At)))
		if ctx.Err() != nil {
			return
		}
		strikes.Go(func() {
			if err := t.strike(ctx, f, func() { t.count(f) }); err != nil {
				t.note(fmt.Sprintf("%v: %v", f, err))
			}
		})
	}
}

func (t *trial) count(f Fault) {
	t.mu.Lock()
	t.struck++
	t.ledger.Fault(f, time.Now())
	t.mu.Unlock()
	t.note(f.String())
}

// settle waits until no task is open and no queue holds anything, but not for ever.
func (t *trial) settle(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, t.o.Settle)
	defer cancel()
	began := time.Now()
	var open, left []string
	for ctx.Err() == nil {
		open = t.fleet.busy()
		var err error
		if left, err = t.backlog(ctx); err == nil && len(open)+len(left) == 0 {
			return
		}
		t.status(fmt.Sprintf("settling for %v: %d tasks open, %s", time.Since(began).Round(time.Second), len(open), strings.Join(left, ", ")))
		wait(ctx, time.Second)
	}
	t.note(fmt.Sprintf("not settled within %v: %d tasks open, %s", t.o.Settle, len(open), strings.Join(left, ", ")))
}

func (t *trial) status(phase string) {
	t.mu.Lock()
	struck := t.struck
	t.mu.Unlock()
	t.o.Status(fmt.Sprintf("%s; clients %d/%d, delivered %d, faults %d", phase, t.fleet.open.Load(), t.o.Clients, t.fleet.got.Load(), struck))
}

func (t *trial) note(what string) {
	t.o.Note(fmt.Sprintf("%7.1fs  %s", time.Since(t.began).Seconds(), what))
}

func (t *trial) plan() Plan {
	return Plan{
		Seed: t.o.Seed, Duration: t.o.Duration, Every: t.o.Every, Heartbeat: heartbeat, Kinds: t.o.Kinds,
		Workers: t.o.Workers, Runners: t.o.Runners, Publishers: t.o.Publishers, Nodes: t.o.Nodes,
	}
}
