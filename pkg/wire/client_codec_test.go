package wire

import (
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func TestDecodeClientRefuses(t *testing.T) {
	const task = `"task_id":"t1"`
	id65 := strings.Repeat("a", MaxID+1)
	token := strings.Repeat("a", MaxToken+1)
	tests := []struct {
		name, frame string
		code        Code
		id          string
		task        TaskID
		message     string
	}{
		{"nothing", ``, CodeBadFrame, "", "", "not JSON"},
		{"not JSON", `hello`, CodeBadFrame, "", "", "not JSON"},
		{"half a frame", `{"type":"ping","id":"r1"`, CodeBadFrame, "", "", "not JSON"},
		{"two frames", `{"type":"ping"}{"type":"ping"}`, CodeBadFrame, "", "", "not JSON"},
		{"an array", `[{"type":"ping"}]`, CodeBadFrame, "", "", "the message must be an object"},
		{"a string", `"ping"`, CodeBadFrame, "", "", "the message must be an object"},
		{"null", `null`, CodeBadFrame, "", "", "no type"},
		{"no type", `{"id":"r1"}`, CodeBadFrame, "r1", "", "no type"},
		{"type is a number", `{"id":"r1","type":1}`, CodeBadFrame, "r1", "", "type must be a string"},
		{"not UTF-8", "{\"type\":\"ping\",\"id\":\"\xff\"}", CodeBadFrame, "", "", "not UTF-8"},
		{"overlong UTF-8", "{\"type\":\"ping\",\"id\":\"\xc0\xaf\"}", CodeBadFrame, "", "", "not UTF-8"},
		{"deeply nested", strings.Repeat("[", 20000), CodeBadFrame, "", "", "not JSON"},
		{"deeply nested params", `{"type":"submit","params":` + strings.Repeat(`{"a":`, 11000) + `1` + strings.Repeat(`}`, 11000) + `}`, CodeFrameTooLarge, "", "", "65536"},
		{"one byte too long", pad(`{"type":"ping","id":"r1"`, MaxClientFrame+1), CodeFrameTooLarge, "", "", "65537 bytes"},

		{"unknown type", `{"type":"cancel_all","id":"r1",` + task + `}`, CodeUnknownType, "r1", "t1", `"cancel_all"`},
		{"type in capitals", `{"type":"PING","id":"r1"}`, CodeUnknownType, "r1", "", `"PING"`},
		{"a server's type", `{"type":"socket_meta"}`, CodeUnknownType, "", "", "socket_meta"},

		{"ping: id is a number", `{"type":"ping","id":5}`, CodeBadFrame, "", "", "ping: id must be a string"},
		{"ping: long id", `{"type":"ping","id":"` + id65 + `"}`, CodeBadFrame, "", "", "id has 65 bytes"},

		{"hello: auth is an object", `{"type":"hello","auth":{}}`, CodeBadFrame, "", "", "hello: auth must be a string"},
		{"hello: long auth", `{"type":"hello","auth":"` + token + `"}`, CodeBadFrame, "", "", "auth has 4097 bytes"},
		{"hello: long token", `{"type":"hello","token":"` + token + `"}`, CodeBadFrame, "", "", "token has 4097 bytes"},
		{"hello: tasks is an object", `{"type":"hello","tasks":{}}`, CodeBadFrame, "", "", "tasks must be an array"},
		{"hello: a task is null", `{"type":"hello","tasks":[null]}`, CodeBadFrame, "", "", "tasks[0].task_id"},
		{"hello: too many tasks", `{"type":"hello","tasks":[` + many(`{"task_id":"t"}`, MaxPositions+1) + `]}`, CodeBadFrame, "", "", "tasks has 201 positions"},

		{"subscribe: no channel", `{"type":"subscribe","id":"r1"}`, CodeBadFrame, "r1", "", "channel"},
		{"subscribe: a wildcard", `{"type":"subscribe","channel":"workflow.*"}`, CodeBadFrame, "", "", "outside [A-Za-z0-9_.-]"},
		{"subscribe: long grant", `{"type":"subscribe","channel":"news","grant":"` + token + `"}`, CodeBadFrame, "", "", "grant has 4097 bytes"},
		{"unsubscribe: channel is a number", `{"type":"unsubscribe","channel":1}`, CodeBadFrame, "", "", "channel must be a string"},
		{"presence: long id", `{"type":"presence","channel":"news","id":"` + id65 + `"}`, CodeBadFrame, "", "", "id has 65 bytes"},
		{"reply: no request", `{"type":"reply","id":"r1","body":1}`, CodeBadFrame, "r1", "", "request_id must have 1 to 128 bytes"},
		{"reply: long error", `{"type":"reply","request_id":"a","error":"` + strings.Repeat("e", MaxReason+1) + `"}`, CodeBadFrame, "", "", "error has 1025 bytes"},

		{"ack: task ID missing", `{"type":"ack","tasks":[{"next":1}]}`, CodeBadFrame, "", "", "tasks[0].task_id"},
		{"ack: next is a string", `{"type":"ack","tasks":[{` + task + `,"next":"1"}]}`, CodeBadFrame, "", "", "tasks.next must be an integer"},
		{"ack: next is a fraction", `{"type":"ack","tasks":[{` + task + `,"next":1.5}]}`, CodeBadFrame, "", "", "tasks.next must be an integer"},
		{"ack: next is negative", `{"type":"ack","tasks":[{` + task + `,"next":-1}]}`, CodeBadFrame, "", "", "next: -1 is out of range"},
		{"ack: next over 53 bits", `{"type":"ack","tasks":[{` + task + `,"next":9007199254740992}]}`, CodeBadFrame, "", "", "out of range"},
		{"ack: next over 64 bits", `{"type":"ack","tasks":[{` + task + `,"next":18446744073709551616}]}`, CodeBadFrame, "", "", "tasks.next must be an integer"},
		{"ack: attempt is negative", `{"type":"ack","tasks":[{` + task + `},{` + task + `,"attempt":-1}]}`, CodeBadFrame, "", "", "tasks[1].attempt: -1"},
		{"ack: run ID is no UUIDv7", `{"type":"ack","tasks":[{` + task + `,"run_id":"run-1"}]}`, CodeBadFrame, "", "", "tasks[0].run_id"},
		{"ack: run ID in capitals", `{"type":"ack","tasks":[{` + task + `,"run_id":"018F6D9A-30AA-7B11-9C22-ABCDEFABCDEF"}]}`, CodeBadFrame, "", "", "tasks[0].run_id"},
		{"ack: too many tasks", `{"type":"ack","tasks":[` + many(`{"task_id":"t"}`, MaxPositions+1) + `]}`, CodeBadFrame, "", "", "tasks has 201 positions"},

		{"confirm: no epoch", `{"type":"confirm"}`, CodeBadFrame, "", "", "confirm: epoch 0 is out of range"},
		{"confirm: epoch is a string", `{"type":"confirm","epoch":"1"}`, CodeBadFrame, "", "", "confirm: epoch must be an integer"},
		{"confirm: epoch is a fraction", `{"type":"confirm","epoch":1.5}`, CodeBadFrame, "", "", "epoch must be an integer"},
		{"confirm: epoch is negative", `{"type":"confirm","epoch":-1}`, CodeBadFrame, "", "", "epoch -1 is out of range"},
		{"confirm: epoch over 53 bits", `{"type":"confirm","epoch":9007199254740992}`, CodeBadFrame, "", "", "out of range"},

		{"cancel: no task ID", `{"type":"cancel","id":"r1","kind":"k"}`, CodeBadFrame, "r1", "", "cancel: task_id"},
		{"cancel: kind with a dot", `{"type":"cancel","id":"r1",` + task + `,"kind":"a.b"}`, CodeBadFrame, "r1", "t1", "cancel: kind"},
		{"cancel: kind is a list", `{"type":"cancel","id":"r1",` + task + `,"kind":["k"]}`, CodeBadFrame, "r1", "t1", "kind must be a string"},

		{"submit: no task ID", `{"type":"submit","id":"r1","kind":"k"}`, CodeBadFrame, "r1", "", "submit: task_id"},
		{"submit: task ID is a path", `{"type":"submit","id":"r1","task_id":"../t","kind":"k"}`, CodeBadFrame, "r1", "", "submit: task_id"},
		{"submit: task ID is a number", `{"type":"submit","id":"r1","task_id":1,"kind":"k"}`, CodeBadFrame, "r1", "", "task_id must be a string"},
		{"submit: long task ID", `{"type":"submit","id":"r1","task_id":"` + id65 + `","kind":"k"}`, CodeBadFrame, "r1", "", "1 to 64 bytes"},
		{"submit: no kind", `{"type":"submit","id":"r1",` + task + `}`, CodeBadFrame, "r1", "t1", "kind"},
		{"submit: kind with a dot", `{"type":"submit","id":"r1",` + task + `,"kind":"a.b"}`, CodeBadFrame, "r1", "t1", "kind"},
		{"submit: kind is a list", `{"type":"submit","id":"r1",` + task + `,"kind":["k"]}`, CodeBadFrame, "r1", "t1", "kind must be a string"},
		{"submit: long kind", `{"type":"submit","id":"r1",` + task + `,"kind":"` + id65 + `"}`, CodeBadFrame, "r1", "t1", "kind"},
		{"submit: params is a list", `{"type":"submit","id":"r1",` + task + `,"kind":"k","params":[1]}`, CodeBadFrame, "r1", "t1", "params must be an object"},
		{"submit: params is null", `{"type":"submit","id":"r1",` + task + `,"kind":"k","params":null}`, CodeBadFrame, "r1", "t1", "params must be an object"},
		{"submit: params is a string", `{"type":"submit","id":"r1",` + task + `,"kind":"k","params":"{}"}`, CodeBadFrame, "r1", "t1", "params must be an object"},
		{"submit: long id", `{"type":"submit","id":"` + id65 + `",` + task + `,"kind":"k"}`, CodeBadFrame, "", "t1", "id has 65 bytes"},
		{"submit: the last of two kinds counts", `{"type":"submit","id":"r1",` + task + `,"kind":"good","kind":"BAD"}`, CodeBadFrame, "r1", "t1", "kind"},
	}
	for _, test := range tests {
		m, got := DecodeClient([]byte(test.frame))
		if m != nil || got == nil {
			t.Errorf("%s: got %#v, want a refusal", test.name, m)
			continue
		}
		if got.Code != test.code || got.ID != test.id || got.Task != test.task || !strings.Contains(got.Message, test.message) {
			t.Errorf("%s: got %+v, want %+v", test.name, got, test)
		}
		if got.Retryable != got.Code.Retryable() {
			t.Errorf("%s: retryable is %t for %s", test.name, got.Retryable, got.Code)
		}
		if strings.Contains(got.Message, "Go ") || strings.Contains(got.Message, "wire.") {
			t.Errorf("%s: the message speaks of Go: %s", test.name, got.Message)
		}
		if got.Code != CodeFrameTooLarge {
			refusedBySchema(t, test.name, "client", typeOf([]byte(test.frame)), []byte(test.frame))
		}
	}
}

func TestDecodeClientTakesWhatIsAtTheLimits(t *testing.T) {
	id64 := strings.Repeat("a", MaxID)
	token := strings.Repeat("a", MaxToken)
	for name, frame := range map[string]string{
		"longest frame":       pad(`{"type":"ping","id":"r1"`, MaxClientFrame),
		"longest names":       `{"type":"submit","id":"` + id64 + `","task_id":"` + id64 + `","kind":"` + id64 + `"}`,
		"longest tokens":      `{"type":"hello","auth":"` + token + `","token":"` + token + `"}`,
		"most positions":      `{"type":"ack","tasks":[` + many(`{"task_id":"t"}`, MaxPositions) + `]}`,
		"highest numbers":     `{"type":"ack","tasks":[{"task_id":"t","attempt":9007199254740991,"next":9007199254740991}]}`,
		"lowest epoch":        `{"type":"confirm","epoch":1}`,
		"highest epoch":       `{"type":"confirm","epoch":9007199254740991}`,
		"ack of nothing":      `{"type":"ack"}`,
		"whitespace":          " \t\r\n{ \"type\" : \"ping\" } \n",
		"type at the end":     `{"id":"r1","type":"ping"}`,
		"unknown field":       `{"type":"ping","later":{"version":[2]}}`,
		"foreign field":       `{"type":"ping","task_id":7,"kind":{},"tasks":"x"}`,
		"id in a hello":       `{"type":"hello","id":7}`,
		"escaped surrogate":   `{"type":"ping","id":"\ud800"}`,
		"NUL in params":       `{"type":"submit","task_id":"t","kind":"k","params":{"a":"\u0000"}}`,
		"object with a space": `{"type":"submit","task_id":"t","kind":"k","params": {} }`,
	} {
		if _, refused := DecodeClient([]byte(frame)); refused != nil {
			t.Errorf("%s: %v", name, &refused.Error)
		}
	}
}

func TestDecodeClientKeepsParamsVerbatim(t *testing.T) {
	const params = `{ "a":1.0, "a":"\u00e9<", "big":12345678901234567890 }`
	m, refused := DecodeClient([]byte(`{"type":"submit","task_id":"t","kind":"k","params":` + params + `}`))
	if refused != nil {
		t.Fatal(&refused.Error)
	}
	if got := string(m.(*Submit).Params); got != params {
		t.Errorf("got %s, want %s", got, params)
	}
}

func TestDecodeClientKeepsNothingOfTheFrame(t *testing.T) {
	frame := []byte(`{"type":"submit","id":"r1","task_id":"t","kind":"k","params":{"a":"b"}}`)
	m, refused := DecodeClient(frame)
	if refused != nil {
		t.Fatal(&refused.Error)
	}
	clear(frame)
	want := &Submit{ID: "r1", Task: "t", Kind: "k", Params: json.RawMessage(`{"a":"b"}`)}
	if diff := cmp.Diff(ClientMessage(want), m); diff != "" {
		t.Errorf("the message changed with the frame (-want +got):\n%s", diff)
	}
}

func TestRefusalIsReadyToBeSent(t *testing.T) {
	_, refused := DecodeClient([]byte(`{"type":"submit","id":"<\"&>","task_id":"t1","kind":"<script>"}`))
	got, err := DecodeServer(EncodeServer(refused))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(ServerMessage(refused), got); diff != "" {
		t.Errorf("the refusal changed on its way (-want +got):\n%s", diff)
	}
}

func FuzzDecodeClient(f *testing.F) {
	for _, m := range goldenFromClient {
		f.Add(EncodeClient(m))
	}
	f.Add([]byte(`{"TYPE":"hello","tasks":[]}`))
	f.Add([]byte(`{"type":"submit","id":5,"task_id":"t"}`))
	f.Add([]byte(`{"type":"ack","tasks":[{"task_id":"t","next":1e3}]}`))
	f.Add([]byte(`{"type":"ack","tasks":[],"type":"ping","id":"1"}`))
	const at = `{"task_id":"t","attempt":1,"run_id":"","next":10}`
	for _, tasks := range []string{
		at + "," + at, at + ",", at + `]}{"a":[`, strings.Replace(at, "10", "010", 1), strings.Replace(at, "10", "-1", 1), strings.Replace(at, "10", "", 1),
		strings.Replace(at, "10", "9223372036854775808", 1), strings.Replace(at, `"t"`, `"\u0074"`, 1), strings.Replace(at, `"t"`, `"t\"`, 1), strings.Replace(at, "}", `,"task_id":"u"}`, 1),
	} {
		f.Add([]byte(`{"type":"ack","tasks":[` + tasks + `]}`))
	}
	f.Fuzz(func(t *testing.T, p []byte) {
		m, refused := DecodeClient(p)
		if (m == nil) == (refused == nil) {
			t.Fatalf("got %v and %v", m, refused)
		}
		if len(p) < MaxClientFrame { // behind a space an acknowledgement is read as all else is
			if spaced, too := DecodeClient(append([]byte(" "), p...)); !cmp.Equal(m, spaced) || (refused == nil) != (too == nil) {
				t.Fatalf("got %v, and behind a space %v", m, spaced)
			}
		}
		if refused != nil {
			if !refused.Code.Known() || refused.Message == "" || !utf8.ValidString(refused.Message) || len(refused.ID) > MaxID {
				t.Fatalf("refusal %+v", refused)
			}
			if _, err := DecodeServer(EncodeServer(refused)); err != nil {
				t.Fatalf("refusal %+v: %v", refused, err)
			}
			return
		}
		again, refused := DecodeClient(EncodeClient(m))
		if refused != nil {
			t.Fatalf("%#v was taken, and refused when encoded again: %v", m, &refused.Error)
		}
		if s, ok := m.(*Submit); ok { // white space in Params is not kept by Marshal
			s.Params, again.(*Submit).Params = nil, nil
		}
		if diff := cmp.Diff(m, again, cmpopts.EquateEmpty()); diff != "" {
			t.Fatalf("encoding changed it (-want +got):\n%s", diff)
		}
	})
}

func BenchmarkDecodeAck(b *testing.B) {
	frame := EncodeClient(goldenFromClient["ack"])
	b.ReportAllocs()
	for b.Loop() {
		if _, refused := DecodeClient(frame); refused != nil {
			b.Fatal(&refused.Error)
		}
	}
}

// pad closes the open object with a field that makes it n bytes long.
func pad(open string, n int) string {
	const field = `,"pad":"`
	return open + field + strings.Repeat("x", n-len(open)-len(field)-len(`"}`)) + `"}`
}

func many(element string, n int) string {
	return strings.TrimSuffix(strings.Repeat(element+",", n), ",")
}
