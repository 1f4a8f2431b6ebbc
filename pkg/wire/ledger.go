package wire

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/wscluster/wscluster/pkg/socketmeta"
)

// LedgerRecord is one record of the ledger, the stream that says which runner runs which task. Every
// runner reads it in the same order, and that order decides: see docs/PROTOCOL.md section 11. Runners
// write it, and workers their clients' cancels.
type LedgerRecord struct {
	Op      LedgerOp        `json:"op"`
	Task    TaskID          `json:"task_id,omitempty"`   // of all but a mark
	Attempt int             `json:"attempt,omitempty"`   // of all but a mark and a cancel; from 1
	Run     RunID           `json:"run_id,omitempty"`    // of all but a cancel; of a mark: what tells it from others
	Runner  string          `json:"runner,omitempty"`    // the same; who wrote it, or in whose stead
	Client  string          `json:"client_id,omitempty"` // of all but a mark: whose task it is, a socketmeta.ClientID; task IDs are its own
	Fence   int64           `json:"fence_s,omitempty"`   // of a claim: seconds without a broker after which its runner gives the run up
	Spool   string          `json:"spool_id,omitempty"`  // of a claim: a UUIDv7, of the spool whose lock its process holds; may be left out
	Dead    DeadReason      `json:"dead,omitempty"`      // of a claim: the task was given up; whoever has it ends it and runs nothing. At most MaxID bytes of [a-z_]
	Body    json.RawMessage `json:"task,omitempty"`      // of a claim: the task as DecodeTask reads it; of a cancel: the same without what only its run needs, or left out
}

// LedgerOp is what a record says.
type LedgerOp string

// The records.
const (
	LedgerClaim  LedgerOp = "claim"  // Runner wants to run the attempt; who claims it first has it
	LedgerDone   LedgerOp = "done"   // the final event of the run is stored
	LedgerFree   LedgerOp = "free"   // the run was given up: somebody else may claim the next attempt
	LedgerCancel LedgerOp = "cancel" // its client wants the task to end
	LedgerMark   LedgerOp = "mark"   // nothing but its place: who waits for it has read all before it
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

// DecodeLedger reads a record. It keeps nothing of p. A record that cannot be read
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
	switch r.Op {
	case LedgerMark:
		return r.checkRun()
	case LedgerClaim, LedgerDone, LedgerFree, LedgerCancel:
	default:
		return fmt.Errorf("op: %w: %.64q", ErrUnknownType, r.Op)
	}
	if _, err := socketmeta.ParseClientID(r.Client); err != nil {
		return fmt.Errorf("client_id: %w", err)
	}
	if err := checkTaskID(r.Task); err != nil {
		return err
	}
	if r.Op == LedgerCancel {
		if r.Body == nil {
			return nil
		}
		return r.checkBody()
	}
	if r.Attempt < 1 || r.Attempt > MaxAttempt {
		return fmt.Errorf("attempt %d must be 1 to %d", r.Attempt, MaxAttempt)
	}
	if err := r.checkRun(); err != nil || r.Op != LedgerClaim {
		return err
	}
	if r.Fence < 1 || r.Fence > MaxFence {
		return fmt.Errorf("fence_s %d must be 1 to %d", r.Fence, MaxFence)
	}
	if _, err := ParseRunID(r.Spool); r.Spool != "" && err != nil {
		return fmt.Errorf("spool_id: %w", err)
	}
	if len(r.Dead) > MaxID || strings.Trim(string(r.Dead), "abcdefghijklmnopqrstuvwxyz_") != "" {
		return fmt.Errorf("dead %.80q must have at most %d bytes of [a-z_]", r.Dead, MaxID)
	}
	return r.checkBody()
}

func (r *LedgerRecord) checkBody() error {
	t, err := DecodeTask(r.Body)
	if err != nil {
		return err
	}
	if t.Task != r.Task || t.Client.String() != r.Client {
		return fmt.Errorf("task: it is %s of client %v, and the record's is %s of %s", t.Task, t.Client, r.Task, r.Client)
	}
	return nil
}

func (r *LedgerRecord) checkRun() error {
	if _, err := ParseRunID(string(r.Run)); err != nil {
		return fmt.Errorf("run_id: %w", err)
	}
	return CheckRunner(r.Runner)
}
