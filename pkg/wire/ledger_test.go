package wire

import (
	"encoding/json"
	"strings"
	"testing"
)

func TestLedgerRecordRefusedBothWays(t *testing.T) {
	other := *goldenTaskMessage
	other.Task = "other"
	for name, change := range map[string]func(*LedgerRecord){
		"no op":                    func(r *LedgerRecord) { r.Op = "" },
		"another op":               func(r *LedgerRecord) { r.Op = "stolen" },
		"no client":                func(r *LedgerRecord) { r.Client = "" },
		"client is no UUIDv7":      func(r *LedgerRecord) { r.Client = "me" },
		"claim of another client":  func(r *LedgerRecord) { r.Client = "018f6d9a-2b3c-7d4e-8f50-123456789abd" },
		"no task ID":               func(r *LedgerRecord) { r.Task = "" },
		"task ID is a path":        func(r *LedgerRecord) { r.Task = "../x" },
		"attempt 0":                func(r *LedgerRecord) { r.Attempt = 0 },
		"attempt over the limit":   func(r *LedgerRecord) { r.Attempt = MaxAttempt + 1 },
		"no run":                   func(r *LedgerRecord) { r.Run = "" },
		"run is no UUIDv7":         func(r *LedgerRecord) { r.Run = "018f6d9a-30aa-4b11-9c22-abcdefabcdef" },
		"no runner":                func(r *LedgerRecord) { r.Runner = "" },
		"runner is a routing key":  func(r *LedgerRecord) { r.Runner = "r.1" },
		"no fence":                 func(r *LedgerRecord) { r.Fence = 0 },
		"fence over the limit":     func(r *LedgerRecord) { r.Fence = MaxFence + 1 },
		"spool is no UUIDv7":       func(r *LedgerRecord) { r.Spool = "spool" },
		"dead for a sentence":      func(r *LedgerRecord) { r.Dead = "too often" },
		"dead for too long":        func(r *LedgerRecord) { r.Dead = DeadReason(strings.Repeat("x", MaxID+1)) },
		"claim without a task":     func(r *LedgerRecord) { r.Body = nil },
		"claim of another's task":  func(r *LedgerRecord) { r.Body = must(EncodeTask(&other)) },
		"cancel of no client":      func(r *LedgerRecord) { r.Op, r.Client = LedgerCancel, "" },
		"cancel of another's task": func(r *LedgerRecord) { r.Op, r.Body = LedgerCancel, must(EncodeTask(&other)) },
		"cancel of half a task":    func(r *LedgerRecord) { r.Op, r.Body = LedgerCancel, []byte(`{"kind":"k"}`) },
	} {
		r := *goldenLedger["ledger_claim"]
		change(&r)
		if p, err := EncodeLedger(&r); err == nil {
			t.Errorf("%s: encoded as %.200s", name, p)
		}
		p, err := json.Marshal(&r)
		if err != nil {
			t.Fatal(err)
		}
		got, err := DecodeLedger(p)
		if err == nil {
			t.Errorf("%s: decoded as %+v", name, got)
		} else if !beyond(err) {
			refusedBySchema(t, name, "ledger", string(r.Op), p)
		}
	}
}

func FuzzDecodeLedger(f *testing.F) {
	for _, r := range goldenLedger {
		f.Add(must(EncodeLedger(r)))
	}
	f.Add([]byte(`{"op":"mark","run_id":"018f6d9a-30aa-7b11-9c22-abcdefabcdef","runner":"r1","task":[]}`))
	f.Fuzz(func(t *testing.T, p []byte) {
		r, err := DecodeLedger(p)
		if err != nil {
			return
		}
		again, err := EncodeLedger(r)
		if err != nil {
			t.Fatalf("%s was read and cannot be written: %v", p, err)
		}
		if r2, err := DecodeLedger(again); err != nil || r2.Op != r.Op || r2.Task != r.Task || r2.Attempt != r.Attempt || r2.Run != r.Run {
			t.Fatalf("%s became %s, %v", p, again, err)
		}
	})
}
