package taskrunner

import (
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/wscluster/wscluster/pkg/socketmeta"
	"github.com/wscluster/wscluster/pkg/wire"
)

// ledgerClient has all tasks of records.
var ledgerClient = socketmeta.ClientID{6: 0x70, 8: 0x80, 15: 1}

func ledgerKey(t wire.TaskID) key { return key{ledgerClient.String(), t} }

func ledgerTask(t wire.TaskID) []byte {
	p, err := wire.EncodeTask(&wire.Task{
		Meta: socketmeta.Meta{Client: ledgerClient, Server: "i1-w1"},
		Task: t, Kind: "k", Submitted: wire.Time{Time: time.Unix(1, 0)},
	})
	if err != nil {
		panic(err)
	}
	return p
}

func runID(n int) wire.RunID { return wire.RunID(fmt.Sprintf("018f6d9a-30aa-7b11-9c22-%012x", n)) }

// record makes a record of the form "claim t 1 r1 7": op, task, attempt, runner, run.
func record(line string) *wire.LedgerRecord {
	var r wire.LedgerRecord
	var run int
	if _, err := fmt.Sscan(line, &r.Op, &r.Task, &r.Attempt, &r.Runner, &run); err != nil {
		panic(err)
	}
	r.Run, r.Client = runID(run), ledgerClient.String()
	if r.Op == wire.LedgerClaim {
		r.Fence, r.Body = 120, ledgerTask(r.Task)
	}
	return &r
}

// stand is "attempt runner run", with "free" where it is.
func (s *standing) String() string {
	text := fmt.Sprint(s.attempt, " ", s.runner, " ", s.run[len(s.run)-1:])
	if s.free {
		text += " free"
	}
	return text
}

func TestTheFirstClaimOfAnAttemptHasIt(t *testing.T) {
	for name, test := range map[string]struct {
		records []string
		want    string // who has t; "" if nobody
		known   bool
	}{
		"nobody":                                 {nil, "", false},
		"a claim":                                {[]string{"claim t 1 r1 1"}, "1 r1 1", true},
		"two claims of one attempt":              {[]string{"claim t 1 r1 1", "claim t 1 r2 2"}, "1 r1 1", true},
		"the next attempt":                       {[]string{"claim t 1 r1 1", "claim t 2 r2 2"}, "2 r2 2", true},
		"two claims of the next attempt":         {[]string{"claim t 1 r1 1", "claim t 2 r2 2", "claim t 2 r3 3"}, "2 r2 2", true},
		"an attempt left out":                    {[]string{"claim t 1 r1 1", "claim t 3 r2 2"}, "1 r1 1", true},
		"an earlier attempt":                     {[]string{"claim t 1 r1 1", "claim t 2 r2 2", "claim t 1 r3 3"}, "2 r2 2", true},
		"an old task whose claims are forgotten": {[]string{"claim t 5 r1 1"}, "5 r1 1", true},
		"the same run again":                     {[]string{"claim t 1 r1 1", "claim t 1 r1 1"}, "1 r1 1", true},
		"given up":                               {[]string{"claim t 1 r1 1", "free t 1 r1 1"}, "1 r1 1 free", true},
		"given up and claimed":                   {[]string{"claim t 1 r1 1", "free t 1 r1 1", "claim t 2 r2 2"}, "2 r2 2", true},
		"given up by who has lost it":            {[]string{"claim t 1 r1 1", "claim t 2 r2 2", "free t 1 r1 1"}, "2 r2 2", true},
		"done":                                   {[]string{"claim t 1 r1 1", "done t 1 r1 1"}, "", true},
		"done and claimed again":                 {[]string{"claim t 1 r1 1", "done t 1 r1 1", "claim t 1 r2 2", "claim t 2 r2 2"}, "", true},
		"done by who has lost it":                {[]string{"claim t 1 r1 1", "claim t 2 r2 2", "done t 1 r1 1"}, "2 r2 2", true},
		"done, and its claim is forgotten":       {[]string{"done t 4 r1 1"}, "", true},
	} {
		l := newLedger()
		for _, line := range test.records {
			l.add(record(line), time.Time{})
		}
		got := ""
		if s := l.open[ledgerKey("t")]; s != nil {
			got = s.String()
		}
		if got != test.want || l.knows(ledgerKey("t")) != test.known {
			t.Errorf("%s: has %q, known %t; want %q, %t", name, got, l.knows(ledgerKey("t")), test.want, test.known)
		}
	}
}

func TestARecordSaysWhoBeginsAndWhoLoses(t *testing.T) {
	l := newLedger()
	for _, step := range []struct {
		record, began, lost string
		ended               bool
	}{
		{"claim t 1 r1 1", "1 r1 1", "", false},
		{"claim t 1 r2 2", "", "", false},
		{"claim t 2 r2 3", "2 r2 3", "1", false},
		{"claim t 2 r2 3", "", "", false},
		{"done t 1 r1 1", "", "", false},
		{"done t 2 r2 3", "", "", true},
		{"done t 2 r2 3", "", "", false},
	} {
		c := l.add(record(step.record), time.Time{})
		var began, lost string
		if c.began != nil {
			began = c.began.String()
		}
		if c.lost != "" {
			lost = string(c.lost[len(c.lost)-1:])
		}
		if began != step.began || lost != step.lost || c.ended != step.ended {
			t.Errorf("%s: began %q, lost %q, ended %t; want %q, %q, %t", step.record, began, lost, c.ended, step.began, step.lost, step.ended)
		}
	}
}

func TestOrphansComeInTheOrderInWhichTheyWereLeft(t *testing.T) {
	l := newLedger()
	for _, line := range []string{
		"claim mine 1 r1 1", "claim forgotten 1 r1 2", "claim theirs 1 r2 3", "claim dead 1 r3 4",
		"claim freed 1 r2 5", "claim over 1 r3 6", "free freed 1 r2 5", "done over 1 r3 6",
	} {
		l.add(record(line), time.Time{})
	}
	var names []string
	for _, s := range l.orphans(func(s *standing) bool { return s.free || s.runner != "r2" && s.task.Task != "mine" }) {
		names = append(names, string(s.task.Task))
	}
	if want := []string{"forgotten", "dead", "freed"}; !slices.Equal(names, want) {
		t.Errorf("orphans %v, want %v", names, want)
	}
	if owners := l.owners(func(s *standing) bool { return s.runner != "r1" }); !slices.Equal(owners, []string{"r2", "r3"}) {
		t.Errorf("owners %v, want r2 and r3", owners)
	}
}

func TestALedgerRemembersABoundedNumberOfEndedTasks(t *testing.T) {
	l := newLedger()
	for n := range rememberEnded + 10 {
		l.add(&wire.LedgerRecord{Op: wire.LedgerDone, Task: wire.TaskID(fmt.Sprint(n)), Attempt: 1, Run: runID(n), Runner: "r1"}, time.Time{})
	}
	if len(l.ended) != rememberEnded || l.knows(key{task: "9"}) || !l.knows(key{task: "10"}) {
		t.Errorf("%d remembered, the tenth %t, the eleventh %t; want the last %d", len(l.ended), l.knows(key{task: "9"}), l.knows(key{task: "10"}), rememberEnded)
	}
}

// TestNoTwoRunsHaveATaskWhateverIsWritten: whatever runners write, a task passes from one run to the next
// one attempt higher, ends once, and two readers agree, also if one of them reads in two parts.
func TestNoTwoRunsHaveATaskWhateverIsWritten(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		lines := rapid.SliceOf(rapid.Custom(func(t *rapid.T) string {
			run := rapid.IntRange(1, 6).Draw(t, "run")
			return fmt.Sprint(rapid.SampledFrom([]string{"claim", "claim", "free", "done"}).Draw(t, "op"),
				rapid.SampledFrom([]string{" a ", " b "}).Draw(t, "task"), rapid.IntRange(1, 4).Draw(t, "attempt"), " r", run%3+1, " ", run)
		})).Draw(t, "records")
		l, other := newLedger(), newLedger()
		holder, ends := map[wire.TaskID]wire.RunID{}, map[wire.TaskID]int{}
		for _, line := range lines {
			r := record(line)
			had := l.open[ledgerKey(r.Task)]
			c := l.add(r, time.Time{})
			other.add(r, time.Time{})
			if c.began != nil {
				if ends[r.Task] > 0 || c.lost != holder[r.Task] || had != nil && c.began.attempt != had.attempt+1 {
					t.Fatalf("%s: %v began after %v, %v lost, ended %d times", line, c.began, had, c.lost, ends[r.Task])
				}
				holder[r.Task] = c.began.run
			}
			if c.ended {
				if ends[r.Task]++; ends[r.Task] > 1 || had != nil && had.run != r.Run {
					t.Fatalf("%s: ended %d times, %v had it", line, ends[r.Task], had)
				}
			}
		}
		stand := func(l *ledger) map[string]string {
			out := map[string]string{}
			for k, s := range l.open {
				out[string(k.task)] = s.String()
			}
			for k := range l.ended {
				out[string(k.task)] = "ended"
			}
			return out
		}
		if diff := cmp.Diff(stand(l), stand(other)); diff != "" {
			t.Fatalf("two readers differ: %s", diff)
		}
		for id := range maps.Keys(l.open) {
			if l.ended[id] {
				t.Fatalf("%s is open and has ended", id)
			}
		}
	})
}
