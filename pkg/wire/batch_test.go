package wire

import (
	"bytes"
	"encoding/hex"
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/wscluster/wscluster/pkg/socketmeta"
)

// goldenBatch is testdata/batch.hex: a step, and the progress of another client's task.
func goldenBatch() []*Event {
	step, progress := brokerEvent(), brokerEvent()
	progress.Client = mustClient("018f6d9a-2b3c-7d4e-8f50-00000000ab1e")
	progress.Task, progress.Attempt, progress.Seq, progress.Prev, progress.Hops = "t2", 300, 7, 6, 1
	progress.Type, progress.Durable, progress.Body = EventProgress, false, goldenBody(EventProgress)
	return []*Event{&step, &progress}
}

func TestABatchIsItsGoldenFile(t *testing.T) {
	got := hex.Dump(EncodeBatch(goldenBatch()))
	if *update {
		if err := os.WriteFile("testdata/batch.hex", []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile("testdata/batch.hex")
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("testdata/batch.hex differs from the Go value; -update writes it (-file +value):\n%s", cmp.Diff(string(want), got))
	}
}

func mustBatch(t testing.TB, p []byte) (events []*Event) {
	t.Helper()
	all, err := DecodeBatch(p)
	if err != nil {
		t.Fatal(err)
	}
	for i := range all {
		if all[i].Err != nil {
			t.Fatal(all[i].Err)
		}
		events = append(events, &all[i].Event)
	}
	return events
}

// drawEvent draws a numbered event.
func drawEvent(t *rapid.T) *Event {
	e := brokerEvent()
	number := rapid.Int64Range(0, MaxNumber)
	e.Client = socketmeta.ClientID(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "client"))
	e.Client[6], e.Client[8] = e.Client[6]&0x0f|0x70, e.Client[8]&0x3f|0x80
	e.Task = TaskID(rapid.StringMatching(`[A-Za-z0-9_][A-Za-z0-9_.-]{0,63}`).Draw(t, "task"))
	e.Attempt = int(number.Draw(t, "attempt"))
	if e.Attempt == 0 && rapid.Bool().Draw(t, "no run") {
		e.Run = ""
	}
	e.Prev = rapid.Int64Range(0, MaxNumber-1).Draw(t, "prev")
	e.Seq = rapid.Int64Range(e.Prev+1, MaxNumber).Draw(t, "seq")
	e.Epoch, e.Hops = socketmeta.Epoch(number.Draw(t, "epoch")), int(number.Draw(t, "hops"))
	if rapid.Bool().Draw(t, "no home") {
		e.Home = ""
	}
	e.Type = rapid.SampledFrom([]EventType{EventStarted, EventStep, EventProgress, EventLog, EventArtifact, EventResult, EventError}).Draw(t, "type")
	e.Last = e.Type.final()
	e.Durable = e.Last || rapid.Bool().Draw(t, "durable")
	e.Body = []byte(`{"a":"` + strings.Repeat("x", rapid.IntRange(0, 900).Draw(t, "size")) + `"}`)
	return &e
}

func TestABatchComesBackAsItWas(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := rapid.SliceOfN(rapid.Custom(drawEvent), 1, MaxBatch).Draw(t, "events")
		p, size := EncodeBatch(want), batchHead
		for _, e := range want {
			size += BatchedSize(e)
		}
		if size != len(p) {
			t.Fatalf("%d bytes, and the sizes say %d", len(p), size)
		}
		all, err := DecodeBatch(p)
		if size > MaxBatchBytes {
			if !errors.Is(err, ErrTooLarge) {
				t.Fatalf("%d bytes: got %v, want ErrTooLarge", size, err)
			}
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		if len(all) != len(want) {
			t.Fatalf("%d events came of %d", len(all), len(want))
		}
		for i := range all {
			if all[i].Err != nil {
				t.Fatal(all[i].Err)
			}
			if diff := cmp.Diff(want[i], &all[i].Event); diff != "" {
				t.Fatalf("event %d changed on its way (-want +got):\n%s", i, diff)
			}
		}
	})
}

func TestAnEventThatCannotBeReadSpoilsNoOther(t *testing.T) {
	for name, spoil := range map[string]func(*Event){
		"body":    func(e *Event) { e.Body = []byte(`{"a":`) },
		"utf-8":   func(e *Event) { e.Body = []byte("{\"a\":\"\xff\"}") },
		"nothing": func(e *Event) { e.Body = nil },
		"client":  func(e *Event) { e.Client[6] = 0x40 },
		"task":    func(e *Event) { e.Task = "../x" },
		"run":     func(e *Event) { e.Run = "r" },
		"no run":  func(e *Event) { e.Run = "" },
		"home":    func(e *Event) { e.Home = "nowhere" },
		"type":    func(e *Event) { e.Type = "stop" },
		"plain":   func(e *Event) { e.Seq, e.Prev = 0, 0 },
		"prev":    func(e *Event) { e.Prev = e.Seq },
		"last":    func(e *Event) { e.Last = true },
		"number":  func(e *Event) { e.Epoch = MaxNumber + 1 },
	} {
		events := goldenBatch()
		third := *events[1]
		spoil(events[1])
		p := EncodeBatch(append(events, &third))
		all, err := DecodeBatch(p)
		if err != nil || len(all) != 3 {
			t.Errorf("%s: %d events, %v", name, len(all), err)
			continue
		}
		if all[0].Err != nil || all[1].Err == nil || all[2].Err != nil {
			t.Errorf("%s: got %v, %v and %v", name, all[0].Err, all[1].Err, all[2].Err)
		}
		if want := EncodeBatch(events[1:2]); !bytes.Equal(all[1].Alone, want) {
			t.Errorf("%s: alone it is\n%x, want\n%x", name, all[1].Alone, want)
		}
		if _, err := DecodeEvents(BatchType, "", nil, p); err == nil {
			t.Errorf("%s: DecodeEvents took it", name)
		}
	}
}

func TestWhatIsNoBatchIsRefused(t *testing.T) {
	good := EncodeBatch(goldenBatch())
	announced := append(bytes.Clone(good[:batchHead]), bytes.Repeat([]byte{0xff}, 200)...)
	for name, test := range map[string]struct {
		p    []byte
		want string
	}{
		"empty":       {nil, "only 0 bytes"},
		"no count":    {good[:1], "only 1 bytes"},
		"JSON":        {[]byte(`{"a":1}`), "version 123"},
		"version":     {append([]byte{2}, good[1:]...), "version 2"},
		"no events":   {[]byte{1, 0}, "cannot be 0 events"},
		"too many":    {append([]byte{1, MaxBatch + 1}, make([]byte, 8000)...), "cannot be 65 events"},
		"announced":   {announced, "longer than what is left"},
		"cut off":     {good[:len(good)-1], "event 2 of 2 is longer"},
		"more":        {append(bytes.Clone(good), 0), "1 bytes follow"},
		"fewer":       {append([]byte{1, 1}, good[2:]...), "follow the last event"},
		"over limits": {append(bytes.Clone(good), make([]byte, MaxBatchBytes)...), "message is too large"},
	} {
		if all, err := DecodeBatch(test.p); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: got %d events, %v, want %q", name, len(all), err, test.want)
		}
	}
	if got := testing.AllocsPerRun(100, func() { _, _ = DecodeBatch(announced) }); got > 10 {
		t.Errorf("%v allocations for what is only announced", got)
	}
}

func TestOneEventOrABatchIsRead(t *testing.T) {
	batch := goldenBatch()
	got, err := DecodeEvents(BatchType, "", nil, EncodeBatch(batch))
	if err != nil || len(got) != 2 {
		t.Fatalf("%d events, %v", len(got), err)
	}
	if diff := cmp.Diff(*batch[1], got[1]); diff != "" {
		t.Error(diff)
	}
	e := brokerEvent()
	got, err = DecodeEvents(string(e.Type), string(e.Task), e.Headers(), e.Body)
	if err != nil || len(got) != 1 || cmp.Diff(e, got[0]) != "" {
		t.Errorf("alone: %+v, %v", got, err)
	}
}

func FuzzDecodeBatch(f *testing.F) {
	good := EncodeBatch(goldenBatch())
	f.Add(good)
	f.Add(good[:40])
	f.Add([]byte{1, 64})
	f.Add(append([]byte{1, 3}, bytes.Repeat([]byte{0x80}, 300)...))
	f.Fuzz(func(t *testing.T, p []byte) {
		all, err := DecodeBatch(p)
		if err != nil {
			return
		}
		if len(all) < 1 || len(all) > MaxBatch {
			t.Fatalf("%d events", len(all))
		}
		var good []*Event
		for i := range all {
			if all[i].Err == nil {
				good = append(good, &all[i].Event)
				continue
			}
			if alone, err := DecodeBatch(all[i].Alone); err != nil || len(alone) != 1 || alone[0].Err == nil {
				t.Fatalf("event %d alone is %v, %v", i, alone, err)
			}
		}
		if len(good) == 0 {
			return
		}
		for i, e := range mustBatch(t, EncodeBatch(good)) {
			if diff := cmp.Diff(good[i], e); diff != "" {
				t.Fatalf("the event changed on its way (-want +got):\n%s", diff)
			}
			if single, err := DecodeEvent(string(e.Type), string(e.Task), e.Headers(), e.Body); err != nil || cmp.Diff(*e, single) != "" {
				t.Fatalf("alone it is %+v, %v", single, err)
			}
		}
	})
}

func BenchmarkDecodeBatch(b *testing.B) {
	e := brokerEvent()
	var events []*Event
	for range MaxBatch {
		events = append(events, &e)
	}
	p := EncodeBatch(events)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := DecodeBatch(p); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/MaxBatch, "ns/event")
}
