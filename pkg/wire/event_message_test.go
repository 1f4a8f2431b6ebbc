package wire

import (
	"encoding/json"
	"errors"
	"maps"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/wscluster/wscluster/pkg/socketmeta"
)

func brokerEvent() Event {
	e := *goldenEvent(5, 4, EventStep)
	e.Client, e.Epoch, e.Home = goldenMeta.Client, goldenMeta.Epoch, goldenMeta.Server
	return e
}

func TestEventComesBackFromTheBroker(t *testing.T) {
	numbered := brokerEvent()
	transient := numbered
	transient.Type, transient.Durable = EventProgress, false
	final := numbered
	final.Type, final.Last = EventError, true
	passedOn := numbered
	passedOn.Hops = 3
	gap := numbered
	gap.Type, gap.Prev, gap.Body = EventGap, 1, goldenBody(EventGap)
	lastGap := gap
	lastGap.Last = true
	byWorker := numbered // a plain event that a worker numbered
	byWorker.Attempt, byWorker.Run = 0, ""
	plain := byWorker
	plain.Seq, plain.Prev = 0, 0
	bare := plain
	bare.Epoch, bare.Home = 0, ""
	for _, want := range []Event{numbered, transient, final, passedOn, gap, lastGap, byWorker, plain, bare} {
		got, err := DecodeEvent(string(want.Type), string(want.Task), want.Headers(), want.Body)
		if err != nil {
			t.Errorf("%+v: %v", want, err)
		} else if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("the event changed on its way (-want +got):\n%s", diff)
		}
	}
}

func TestHeadersAreStringsIntegersAndBooleans(t *testing.T) {
	e := brokerEvent()
	for name, v := range e.Headers() {
		switch v.(type) {
		case string, int64, bool:
		default:
			t.Errorf("header %s is a %T", name, v)
		}
	}
}

func TestIntegersOfAnyWidthAreRead(t *testing.T) {
	e := brokerEvent()
	for _, seq := range []any{int64(5), int32(5), int16(5), int8(5), int(5), uint8(5), uint16(5), uint32(5), uint64(5)} {
		h := e.Headers()
		h[headerSeq] = seq
		got, err := DecodeEvent("step", "t", h, e.Body)
		if err != nil || got.Seq != 5 {
			t.Errorf("%T: got %d, %v", seq, got.Seq, err)
		}
	}
}

// TestPlainEvent is what an author of a runner in another language may leave out.
func TestPlainEvent(t *testing.T) {
	const inBody = `{"client_id":"` + goldenClient + `","task_id":"t1","type":"error","code":"failed"}`
	client := map[string]any{headerClient: goldenClient}
	tests := map[string]struct {
		typ, correlation string
		headers          map[string]any
		body             string
		want             Event
	}{
		"all in the body":           {"", "", nil, inBody, Event{Task: "t1", Type: EventError, Last: true}},
		"the correlation wins":      {"", "t2", nil, inBody, Event{Task: "t2", Type: EventError, Last: true}},
		"a result if nothing says":  {"", "t2", client, `{"ok":true}`, Event{Task: "t2", Type: EventResult, Last: true}},
		"the property wins":         {"log", "t2", client, inBody, Event{Task: "t2", Type: EventLog}},
		"progress is durable here":  {"progress", "t2", client, `{}`, Event{Task: "t2", Type: EventProgress}},
		"other headers are ignored": {"step", "t2", map[string]any{headerClient: goldenClient, "x-death": []any{1}, "traceparent": 3}, `{}`, Event{Task: "t2", Type: EventStep}},
		"with epoch and home":       {"step", "t2", map[string]any{headerClient: goldenClient, headerEpoch: int32(7), headerHome: "i2-w1"}, `{}`, Event{Task: "t2", Type: EventStep, Epoch: 7, Home: "i2-w1"}},
	}
	for name, test := range tests {
		test.want.Client, test.want.Durable, test.want.Body = goldenMeta.Client, true, json.RawMessage(test.body)
		got, err := DecodeEvent(test.typ, test.correlation, test.headers, []byte(test.body))
		if err != nil {
			t.Errorf("%s: %v", name, err)
		} else if diff := cmp.Diff(test.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

func TestEventWithOnlySomeNumbersIsRefused(t *testing.T) {
	e := brokerEvent()
	for _, name := range numbers {
		h := e.Headers()
		delete(h, name)
		if _, err := DecodeEvent("step", "t", h, e.Body); err == nil || !strings.Contains(err.Error(), name+" is missing") {
			t.Errorf("without %s: got %v", name, err)
		}
		one := map[string]any{headerClient: goldenClient, name: e.Headers()[name]}
		if _, err := DecodeEvent("step", "t", one, e.Body); err == nil || !strings.Contains(err.Error(), "only some") {
			t.Errorf("with %s alone: got %v", name, err)
		}
	}
}

func TestDecodeEventRefuses(t *testing.T) {
	e := brokerEvent()
	for name, change := range map[string]struct {
		header string
		value  any
		want   string
	}{
		"client ID is a number":     {headerClient, int64(7), "client_id must be a string"},
		"client ID of version 4":    {headerClient, strings.Replace(goldenClient, "-7", "-4", 1), "client_id"},
		"run ID is bytes":           {headerRun, []byte(goldenRun), "run_id must be a string"},
		"run ID missing":            {headerRun, "", "run_id"},
		"run ID in capitals":        {headerRun, strings.ToUpper(string(goldenRun)), "run_id"},
		"seq is a float":            {headerSeq, 5.0, "seq must be an integer"},
		"seq is a string":           {headerSeq, "5", "seq must be an integer"},
		"seq is nil":                {headerSeq, nil, "seq must be an integer"},
		"seq is zero":               {headerSeq, int64(0), "seq 0"},
		"seq is negative":           {headerSeq, int64(-1), "seq -1"},
		"seq over 53 bits":          {headerSeq, int64(MaxNumber + 1), "seq 9007199254740992"},
		"seq over 63 bits":          {headerSeq, uint64(1 << 63), "53 bits"},
		"prev is seq":               {headerPrev, int64(5), "prev 5"},
		"prev is negative":          {headerPrev, int64(-1), "prev -1"},
		"attempt is negative":       {headerAttempt, int64(-1), "attempt -1"},
		"durable is a string":       {headerDurable, "true", "durable must be a boolean"},
		"last is an integer":        {headerLast, int64(0), "last must be a boolean"},
		"a step is the last":        {headerLast, true, "last is true"},
		"epoch is a float":          {headerEpoch, 1e12, "epoch must be an integer"},
		"epoch is negative":         {headerEpoch, int64(-1), "epoch: -1"},
		"hops is a string":          {headerHops, "1", "hops must be an integer"},
		"hops is negative":          {headerHops, int64(-1), "hops: -1"},
		"hops over 53 bits":         {headerHops, int64(MaxNumber + 1), "hops: 9007199254740992"},
		"home is no server ID":      {headerHome, "nowhere", "home"},
		"home is the parked server": {headerHome, "_parked", "home"},
	} {
		h := e.Headers()
		h[change.header] = change.value
		if got, err := DecodeEvent("step", "t", h, e.Body); err == nil || !strings.Contains(err.Error(), change.want) {
			t.Errorf("%s: got %+v, %v, want %q", name, got, err, change.want)
		}
	}
	for name, test := range map[string]struct{ typ, correlation, body, want string }{
		"no type":             {"", "t", `{}`, "type"},
		"unknown type":        {"stop", "t", `{}`, `"stop"`},
		"no task":             {"step", "", `{}`, "task_id"},
		"bad task":            {"step", "../t", `{"task_id":"t"}`, "task_id"},
		"a result not last":   {"result", "t", `{}`, "last is false"},
		"a gap of nothing":    {"gap", "t", `{}`, "from_seq 0"},
		"body is nothing":     {"step", "t", ``, "not JSON"},
		"body is a list":      {"step", "t", `[]`, "not a JSON object"},
		"body is null":        {"step", "t", `null`, "not a JSON object"},
		"body is two":         {"step", "t", `{}{}`, "not JSON"},
		"body is not UTF-8":   {"step", "t", "{\"a\":\"\xff\"}", "not UTF-8"},
		"body has a BOM":      {"step", "t", "\ufeff{}", "not JSON"},
		"task is a number":    {"step", "", `{"task_id":7}`, "task_id must be a string"},
		"body over the limit": {"step", "t", pad(`{"a":1`, MaxEvent+1), "262145 bytes"},
	} {
		if got, err := DecodeEvent(test.typ, test.correlation, e.Headers(), []byte(test.body)); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: got %+v, %v, want %q", name, got, err, test.want)
		}
	}
	if _, err := DecodeEvent("step", "t", nil, []byte(`{}`)); !errors.Is(err, socketmeta.ErrClientID) {
		t.Errorf("no client at all: got %v, want ErrClientID", err)
	}
	if _, err := DecodeEvent("step", "t", map[string]any{headerClient: goldenClient}, []byte(pad(`{"a":1`, MaxEvent+1))); !errors.Is(err, ErrTooLarge) {
		t.Errorf("plain body over the limit: got %v, want ErrTooLarge", err)
	}
	client := map[string]any{headerClient: goldenClient}
	if _, err := DecodeEvent("gap", "t", client, []byte(`{"from_seq":1}`)); err == nil || !strings.Contains(err.Error(), "must have numbers") {
		t.Errorf("a plain gap: got %v", err)
	}
	client[headerHops] = int64(-1)
	if _, err := DecodeEvent("step", "t", client, []byte(`{}`)); err == nil || !strings.Contains(err.Error(), "hops: -1") {
		t.Errorf("a plain event of -1 hops: got %v", err)
	}
	transientEnd := e.Headers()
	transientEnd[headerDurable], transientEnd[headerLast] = false, true
	if _, err := DecodeEvent("result", "t", transientEnd, e.Body); err == nil {
		t.Error("a last event that is not durable was taken")
	}
	if _, err := DecodeEvent("step", "t", e.Headers(), []byte(pad(`{"a":1`, MaxEvent))); err != nil {
		t.Errorf("body at the limit: %v", err)
	}
}

func FuzzDecodeEvent(f *testing.F) {
	e := brokerEvent()
	f.Add("step", "t", goldenClient, int64(1), string(goldenRun), int64(5), int64(4), true, false, []byte(e.Body), uint16(0xffff))
	f.Add("gap", "t", goldenClient, int64(1), string(goldenRun), int64(5), int64(1), true, true, []byte(goldenBody(EventGap)), uint16(0xffff))
	f.Add("", "", "", int64(0), "", int64(0), int64(0), true, true, []byte(`{"client_id":"`+goldenClient+`","task_id":"t"}`), uint16(0))
	f.Fuzz(func(t *testing.T, typ, correlation, client string, attempt int64, run string, seq, prev int64, durable, last bool, body []byte, has uint16) {
		all := map[string]any{
			headerClient: client, headerAttempt: attempt, headerRun: run, headerSeq: seq, headerPrev: prev,
			headerDurable: durable, headerLast: last, headerEpoch: seq, headerHome: "i1-w3", headerHops: prev,
		}
		headers := maps.Clone(all)
		for i, name := range []string{headerClient, headerAttempt, headerRun, headerSeq, headerPrev, headerDurable, headerLast, headerEpoch, headerHome, headerHops} {
			if has&(1<<i) == 0 {
				delete(headers, name)
			}
		}
		got, err := DecodeEvent(typ, correlation, headers, body)
		if err != nil {
			return
		}
		again, err := DecodeEvent(string(got.Type), string(got.Task), got.Headers(), got.Body)
		if err != nil {
			t.Fatalf("%+v was taken, and refused when it came again: %v", got, err)
		}
		if diff := cmp.Diff(got, again); diff != "" {
			t.Fatalf("the event changed on its way (-want +got):\n%s", diff)
		}
		if got.Seq == 0 {
			return
		}
		m, err := DecodeServer(EncodeServer(&got))
		if err != nil {
			t.Fatalf("%+v makes a frame that no client reads: %v", got, err)
		}
		if m.(*Event).Position() != got.Position() {
			t.Fatalf("the client sees %+v as %+v", got, m)
		}
	})
}

func BenchmarkDecodeEvent(b *testing.B) {
	e := brokerEvent()
	h := e.Headers()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := DecodeEvent("step", "t", h, e.Body); err != nil {
			b.Fatal(err)
		}
	}
}
