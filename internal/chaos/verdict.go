package chaos

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
)

// verdict stops all who take from queues, looks into the queues, and adds up.
func (t *trial) verdict(ctx context.Context) (*Report, error) {
	t.o.Status("stopping, and looking into the queues")
	t.rest()
	ctx, cancel := context.WithTimeout(ctx, mendWithin)
	defer cancel()
	events, left, err := t.search(ctx)
	if err != nil {
		return nil, err
	}
	journals, err := filepath.Glob(filepath.Join(t.o.Dir, "*.journal"))
	if err != nil {
		return nil, err
	}
	slices.Sort(journals)
	for _, name := range journals {
		f, err := os.Open(name)
		if err != nil {
			return nil, err
		}
		if err := errors.Join(t.ledger.Read(f), f.Close()); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	for _, e := range events {
		if holdsDead(e.queue) {
			t.ledger.Dead(e.run, e.seq, e.reason)
		}
	}
	r := t.ledger.Report()
	r.Left = left
	for i, lost := range r.Lost {
		at := slices.IndexFunc(events, func(e found) bool { return e.run == lost.Run && e.seq == lost.Seq })
		if at >= 0 {
			r.Lost[i].Seen = "lies in " + events[at].queue
		}
	}
	return &r, nil
}
