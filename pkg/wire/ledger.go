package wire

import (
	"encoding/json"
	"fmt"
)

// LedgerRecord is one record of the ledger, the stream that says which runner runs which task. Every
// runner reads it in the same order, and that order decides: see docs/PROTOCOL.md section 11.
type LedgerRecord struct {
	Op      LedgerOp        `json:"op"`
	Task    TaskID          `json:"task_id,omitempty"`  // of all but a mark
	Attempt int             `json:"attempt,omitempty"`  // the same; from 1
	Run     RunID           `json:"run_id"`             // of a mark: what tells it from others
	Runner  string          `json:"runner"`             // who wrote it
	Fence   int64           `json:"fence_s,omitempty"`  // of a claim: seconds without a broker after which its runner gives the run up
	Spool   string          `json:"spool_id,omitempty"` // of a claim: a UUIDv7, of the spool whose lock its process holds; may be left out
	Body    json.RawMessage `json:"task,omitempty"`     // of a claim: the task as DecodeTask reads it
}

// LedgerOp is what a record says.
type LedgerOp string

// The records.
const (
	LedgerClaim LedgerOp = "claim" // Runner wants to run the attempt; who claims it first has it
	LedgerDone  LedgerOp = "done"  // the final event of the run is stored
	LedgerFree  LedgerOp = "free"  // the run was given up: somebody else may claim the next attempt
	LedgerMark  LedgerOp = "mark"  // nothing but its place: who waits for it has read all before it
)

const (
	MaxAttempt = 1_000_000 // bounds what a record may name; runners give up long before
	MaxFence   = 7 * 86400 // seconds
)

// EncodeLedger returns r as it crosses the broker, or an error for one that DecodeLedger would refuse.
func EncodeLedger(r *LedgerRecord) ([]byte, error) {
	if err := r.check(); err != nil {
		return nil, fmt.Errorf("ledger record: %w", err)
	}
	p, err := marshal(r)
	if err != nil {
		return nil, fmt.Errorf("ledger record: %w", err)
	}
	return p, nil
}

// DecodeLedger reads a record that a runner wrote. It keeps nothing of p. A record that cannot be read
// says nothing, and is the same to every reader: pass over it.
func DecodeLedger(p []byte) (*LedgerRecord, error) {
	if err := checkObject(p, 2*MaxTask); err != nil {
		return nil, fmt.Errorf("ledger record: %w", err)
	}
	r := new(LedgerRecord)
	if err := json.Unmarshal(p, r); err != nil {
		return nil, fmt.Errorf("ledger record: %s", describe(err))
	}
	if err := r.check(); err != nil {
		return nil, fmt.Errorf("ledger record: %w", err)
	}
	return r, nil
}

func (r *LedgerRecord) check() error {
	if _, err := ParseRunID(string(r.Run)); err != nil {
		return fmt.Errorf("run_id: %w", err)
	}
	if CheckKind(r.Runner) != nil { // a runner's name has the letters of a kind
		return fmt.Errorf("runner %.80q must have 1 to %d bytes of [a-z0-9-]", r.Runner, MaxID)
	}
	switch r.Op {
	case LedgerMark:
		return nil
	case LedgerClaim, LedgerDone, LedgerFree:
	default:
		return fmt.Errorf("op: %w: %.64q", ErrUnknownType, r.Op)
	}
	if _, err := ParseTaskID(string(r.Task)); err != nil {
		return fmt.Errorf("task_id: %w", err)
	}
	if r.Attempt < 1 || r.Attempt > MaxAttempt {
		return fmt.Errorf("attempt %d must be 1 to %d", r.Attempt, MaxAttempt)
	}
	if r.Op == LedgerClaim {
		if r.Fence < 1 || r.Fence > MaxFence {
			return fmt.Errorf("fence_s %d must be 1 to %d", r.Fence, MaxFence)
		}
		if _, err := ParseRunID(r.Spool); r.Spool != "" && err != nil {
			return fmt.Errorf("spool_id: %w", err)
		}
		t, err := DecodeTask(r.Body)
		if err != nil {
			return err
		}
		if t.Task != r.Task {
			return fmt.Errorf("task: its ID is %s and the record's %s", t.Task, r.Task)
		}
	}
	return nil
}
