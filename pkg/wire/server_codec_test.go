package wire

import (
	"bytes"
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/wscluster/wscluster/pkg/socketmeta"
)

func TestDecodeServerRefuses(t *testing.T) {
	event := string(EncodeServer(goldenFromServer["event_step"]))
	meta := string(EncodeServer(goldenFromServer["socket_meta"]))
	gap := string(EncodeServer(goldenFromServer["event_gap"])) // of 2 to 5, after 1
	for name, test := range map[string]struct{ frame, message string }{
		"nothing":              {``, "not JSON"},
		"an array":             {`[]`, "must be an object"},
		"not UTF-8":            {"{\"type\":\"pong\",\"id\":\"\xff\"}", "not UTF-8"},
		"no client ID":         {strings.Replace(meta, "client_id", "x", 1), "client_id"},
		"bad client ID":        {strings.Replace(meta, "-7d4e-", "-4d4e-", 1), "client ID"},
		"no server ID":         {strings.Replace(meta, "server_id", "x", 1), "server_id"},
		"bad task in the meta": {strings.Replace(meta, `"resumed":false`, `"tasks":[{"task_id":"/"}]`, 1), "tasks[0].task_id"},
		"accepted what":        {`{"type":"accepted"}`, "task_id"},
		"error without code":   {`{"type":"error"}`, "no code"},
		"bye without code":     {`{"type":"bye"}`, "code 0"},
		"pong id is a number":  {`{"type":"pong","id":1}`, "id must be a string"},
		"event without body":   {strings.Replace(event, `"body"`, `"x"`, 1), "body must be an object"},
		"event body is a list": {event[:strings.Index(event, `"body"`)] + `"body":[]}`, "body must be an object"},
		"event without task":   {strings.Replace(event, `"task_id"`, `"x"`, 1), "task_id"},
		"event without run":    {strings.Replace(event, `"run_id"`, `"x"`, 1), "run_id"},
		"event without seq":    {strings.Replace(event, `"seq":5`, `"seq":0`, 1), "seq 0"},
		"event before itself":  {strings.Replace(event, `"prev":4`, `"prev":5`, 1), "prev 5"},
		"event of no type":     {strings.Replace(event, `"event":"step"`, `"event":"stop"`, 1), `"stop"`},
		"gap of nothing":       {strings.Replace(gap, `"from_seq":2`, `"x":2`, 1), "from_seq 0"},
		"gap of more":          {strings.Replace(gap, `"from_seq":2`, `"from_seq":1`, 1), "from_seq 1 must be over prev 1"},
		"gap beyond itself":    {strings.Replace(gap, `"from_seq":2`, `"from_seq":6`, 1), "at most seq 5"},
		"gap from a word":      {strings.Replace(gap, `"from_seq":2`, `"from_seq":"2"`, 1), "body of a gap: from_seq must be an integer"},
		"transient gap":        {strings.Replace(gap, `"durable":true`, `"durable":false`, 1), "a gap must be durable"},
		"client ID a number":   {strings.Replace(meta, `"`+goldenClient+`"`, `7`, 1), "client_id must be a string"},
		"step as the last":     {strings.Replace(event, `"last":false`, `"last":true`, 1), "last is true"},
	} {
		m, err := DecodeServer([]byte(test.frame))
		if err == nil || m != nil || !strings.Contains(err.Error(), test.message) {
			t.Errorf("%s: got %v, %v, want %q", name, m, err, test.message)
		}
		if err != nil && !beyond(err) {
			refusedBySchema(t, name, "server", typeOf([]byte(test.frame)), []byte(test.frame))
		}
	}
	if _, err := DecodeServer(bytes.Repeat([]byte(" "), MaxServerFrame+1)); !errors.Is(err, ErrTooLarge) {
		t.Errorf("got %v, want ErrTooLarge", err)
	}
}

func TestMessageOfANewerServerIsToldApart(t *testing.T) {
	for _, frame := range []string{`{"type":"moved","epoch":7}`, `{"type":"confirm","epoch":7}`, `{}`} {
		if _, err := DecodeServer([]byte(frame)); !errors.Is(err, ErrUnknownType) {
			t.Errorf("%s: got %v, want ErrUnknownType", frame, err)
		}
	}
	m, err := DecodeServer([]byte(`{"type":"pong","id":"p1","later":{"version":2}}`))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(ServerMessage(&Pong{ID: "p1"}), m); diff != "" {
		t.Error(diff)
	}
}

func TestLongestServerFramesFitTheLimit(t *testing.T) {
	name := strings.Repeat("t", MaxID)
	meta := &SocketMeta{Client: goldenMeta.Client, Server: "i1-w3", Token: strings.Repeat("x", MaxToken), Route: strings.Repeat("x", MaxToken)}
	for range MaxPositions {
		meta.Tasks = append(meta.Tasks, TaskStatus{TaskID(name), TaskFinished})
	}
	event := &Event{
		Task: TaskID(name), Attempt: MaxNumber, Run: goldenRun, Seq: MaxNumber, Prev: MaxNumber - 1,
		Type: EventProgress, Body: json.RawMessage(pad(`{"a":""`, MaxEvent)),
	}
	for _, m := range []ServerMessage{meta, event} {
		got, err := DecodeServer(EncodeServer(m))
		if err != nil {
			t.Errorf("%T: %v", m, err)
			continue
		}
		if !reflect.DeepEqual(got, m) { // cmp would take seconds for such a body
			t.Errorf("%T changed on its way", m)
		}
	}
	if room := len(EncodeServer(event)) - len(event.Body); room > eventFrameRoom {
		t.Errorf("an event frame has %d bytes beside its body, more than the %d that are promised", room, eventFrameRoom)
	}
}

func TestAppendEventFrameIsWhatJSONWouldWrite(t *testing.T) {
	for name, m := range goldenFromServer {
		e, ok := m.(*Event)
		if !ok {
			continue
		}
		want, err := marshal(struct {
			MsgType string          `json:"type"`
			Task    TaskID          `json:"task_id"`
			Attempt int             `json:"attempt"`
			Run     RunID           `json:"run_id"`
			Seq     int64           `json:"seq"`
			Prev    int64           `json:"prev"`
			Event   EventType       `json:"event"`
			Durable bool            `json:"durable"`
			Last    bool            `json:"last"`
			Body    json.RawMessage `json:"body"`
		}{typeEvent, e.Task, e.Attempt, e.Run, e.Seq, e.Prev, e.Type, e.Durable, e.Last, e.Body})
		if err != nil {
			t.Fatal(err)
		}
		if got := AppendEventFrame([]byte("before"), e); string(got) != "before"+string(want) {
			t.Errorf("%s:\ngot  %s\nwant %s", name, got, want)
		}
	}
}

func TestAppendEventFrameKeepsTheBodyVerbatim(t *testing.T) {
	const body = `{ "b":1.0, "a":[ "<&>" ] }`
	e := *goldenEvent(5, 4, EventStep)
	e.Body = json.RawMessage(body)
	if got := string(AppendEventFrame(nil, &e)); !strings.HasSuffix(got, `"body":`+body+`}`) {
		t.Errorf("got %s", got)
	}
}

func TestAppendEventFrameDoesNotAllocate(t *testing.T) {
	e := goldenEvent(5, 4, EventStep)
	dst := make([]byte, 0, eventFrameRoom+len(e.Body))
	if n := testing.AllocsPerRun(100, func() { AppendEventFrame(dst, e) }); n != 0 {
		t.Errorf("AppendEventFrame allocates %v times", n)
	}
}

func FuzzDecodeServer(f *testing.F) {
	for _, m := range goldenFromServer {
		f.Add(EncodeServer(m))
	}
	f.Fuzz(func(t *testing.T, p []byte) {
		m, err := DecodeServer(p)
		if err != nil {
			if m != nil {
				t.Fatalf("got %v and %v", m, err)
			}
			return
		}
		again, err := DecodeServer(EncodeServer(m))
		if err != nil {
			t.Fatalf("%#v was taken, and refused when encoded again: %v", m, err)
		}
		if diff := cmp.Diff(m, again, cmpopts.EquateEmpty()); diff != "" {
			t.Fatalf("encoding changed it (-want +got):\n%s", diff)
		}
	})
}

func BenchmarkAppendEventFrame(b *testing.B) {
	e := goldenEvent(5, 4, EventStep)
	dst := make([]byte, 0, eventFrameRoom+len(e.Body))
	b.ReportAllocs()
	for b.Loop() {
		AppendEventFrame(dst, e)
	}
}

func BenchmarkDecodeServerEvent(b *testing.B) {
	p := EncodeServer(goldenFromServer["event_step"])
	b.ReportAllocs()
	for b.Loop() {
		if _, err := DecodeServer(p); err != nil {
			b.Fatal(err)
		}
	}
}

func TestErrorsCarryTheirCode(t *testing.T) {
	for _, code := range []Code{CodeBadParams, CodeUnavailable} {
		var err error = Errorf(code, "try %q", "later")
		e, ok := errors.AsType[*Error](err)
		if !ok || e.Code != code || e.Retryable != code.Retryable() || err.Error() != string(code)+`: try "later"` {
			t.Errorf("got %+v", err)
		}
	}
	if Code("made_up").Known() || Code("made_up").Retryable() {
		t.Error("the list of codes is not closed")
	}
}

func TestSocketMetaNamesItsPlace(t *testing.T) {
	p := EncodeServer(goldenFromServer["socket_meta"])
	var got socketmeta.Meta
	if err := json.Unmarshal(p, &got); err != nil || got != goldenMeta {
		t.Errorf("got %v, %v, want %v", got, err, goldenMeta)
	}
}
