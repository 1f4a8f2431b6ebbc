package memory

import (
	"context"
	"fmt"

	"github.com/wscluster/wscluster/pkg/broker"
)

// ledger is the records that the broker holds: at most as many as a queue; the oldest are forgotten.
type ledger struct {
	opened  bool
	first   int64 // the offset of the first in records
	records []broker.Message
}

func (l *ledger) append(m broker.Message, most int) broker.Outcome {
	if !l.opened {
		return broker.Returned
	}
	l.records = append(l.records, m)
	if len(l.records) > most {
		l.records[0] = broker.Message{}
		l.records = l.records[1:]
		l.first++
	}
	return broker.Stored
}

// OpenLedger makes the ledger, if it is new: from then on it takes records.
func (s *Store) OpenLedger() { s.ledger.opened = true }

// Record returns the first record at offset from or after it; false if there is none yet.
func (s *Store) Record(from int64) (broker.Record, bool) {
	at := max(from, s.ledger.first)
	n := at - s.ledger.first
	if n >= int64(len(s.ledger.records)) {
		return broker.Record{}, false
	}
	return broker.Record{Message: s.ledger.records[n], Offset: at}, true
}

// reader is one reader of the ledger.
type reader struct {
	link *link
	next int64 // Next's own
}

func (l *link) OpenLedger(ctx context.Context, from int64) (broker.Ledger, error) {
	err := l.call(ctx, func() error {
		l.b.store.OpenLedger()
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("open the ledger: %w", err)
	}
	return &reader{l, from}, nil
}

func (r *reader) Next(ctx context.Context) (broker.Record, error) {
	b := r.link.b
	for {
		b.mu.Lock()
		record, ok := b.store.Record(r.next)
		ended, gone := r.link.stopped, error(nil)
		if ended {
			gone = r.link.gone()
		}
		if b.recorded == nil {
			b.recorded = make(chan struct{})
		}
		recorded := b.recorded
		b.mu.Unlock()
		switch {
		case ended:
			return broker.Record{}, fmt.Errorf("read the ledger: %w", gone)
		case ok:
			r.next = record.Offset + 1
			return record, nil
		}
		select {
		case <-recorded:
		case <-r.link.stop:
		case <-ctx.Done():
			return broker.Record{}, fmt.Errorf("read the ledger: %w", context.Cause(ctx))
		}
	}
}

// noteRecord wakes the readers of the ledger. b.mu is held.
func (b *Broker) noteRecord() {
	if b.recorded != nil {
		close(b.recorded)
		b.recorded = nil
	}
}
