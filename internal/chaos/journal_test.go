package chaos

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestAJournalTellsWhatWasNoted(t *testing.T) {
	path := filepath.Join(t.TempDir(), "j")
	j, err := CreateJournal(path)
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now().Truncate(time.Millisecond)
	run := RunKey{"t1", 2, "run"}
	j.Met("c1", "client")
	j.Asked("c1", "t1", "chaos")
	j.Accepted("c1", "t1")
	j.Attempted("client", run, 1)
	j.Confirmed("client", run, 1)
	j.Wire("c1", run, 1)
	j.Got("c1", run, 1, 0, false)
	j.Gap("c1", run, 5, 2, true, "expired")
	j.Abandoned("c1", "t1", "it is gone")
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var got []Entry
	err = ReadJournal(bytes.NewReader(content), func(e Entry) {
		if e.Time.Before(began) || e.Time.After(time.Now()) {
			t.Errorf("%c was noted at %v", e.Op, e.Time)
		}
		e.Time = time.Time{}
		got = append(got, e)
	})
	if err != nil {
		t.Fatal(err)
	}
	task := RunKey{Task: "t1"}
	want := []Entry{
		{Op: OpMet, Who: "c1", Client: "client"},
		{Op: OpAsked, Who: "c1", Run: task, Text: "chaos"},
		{Op: OpAccepted, Who: "c1", Run: task},
		{Op: OpRun, N: 1, Who: "client", Run: run},
		{Op: OpAttempted, N: 1, Who: "client", Run: run, Seq: 1},
		{Op: OpConfirmed, N: 1, Who: "client", Run: run, Seq: 1},
		{Op: OpRun, N: 2, Who: "c1", Run: run},
		{Op: OpWire, N: 2, Who: "c1", Run: run, Seq: 1},
		{Op: OpGot, N: 2, Who: "c1", Run: run, Seq: 1},
		{Op: OpGap, N: 2, Who: "c1", Run: run, Seq: 5, Prev: 2, Last: true, Text: "expired"},
		{Op: OpAbandoned, Who: "c1", Run: task, Text: "it_is_gone"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestAJournalWhoseWriterWasKilledIsRead(t *testing.T) {
	count := 0
	if err := ReadJournal(strings.NewReader("t 1\ni c1 a\ni c2"), func(Entry) { count++ }); err != nil || count != 1 {
		t.Errorf("%d entries, %v", count, err)
	}
}

func TestAJournalThatIsNoneIsRefused(t *testing.T) {
	for _, text := range []string{"hello\n", "\n", "c 1 1\n", "n 1 c t x r\n", "i c\n", "t x\n", "z 1\n"} {
		if err := ReadJournal(strings.NewReader(text), func(Entry) {}); err == nil {
			t.Errorf("%q was read", text)
		}
	}
}
