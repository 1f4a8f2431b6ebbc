package wire

import (
	"slices"
	"testing"

	"github.com/wscluster/wscluster/pkg/socketmeta"
)

func TestTheReasonOfADeadTaskIsOneOfAList(t *testing.T) {
	for _, test := range []struct {
		headers map[string]any
		want    DeadReason
		code    Code
	}{
		{nil, DeadOther, CodeInternal},
		{map[string]any{"reason": "bad_body"}, DeadBadBody, CodeInternal},
		{map[string]any{"x-first-death-reason": "delivery_limit"}, DeadDeliveryLimit, CodeAttempts},
		{map[string]any{"reason": "bad_body", "x-first-death-reason": "rejected"}, DeadBadBody, CodeInternal},
		{map[string]any{"reason": int64(1), "x-first-death-reason": "rejected"}, DeadRejected, CodeInternal},
		{map[string]any{"reason": ""}, DeadOther, CodeInternal},
		{map[string]any{"reason": "by hand"}, DeadOther, CodeInternal},
		{map[string]any{"x-first-death-reason": "expired"}, DeadExpired, CodeInternal},
		{map[string]any{"x-first-death-reason": "maxlen"}, DeadMaxlen, CodeInternal},
	} {
		got := DeadReasonOf(test.headers)
		if got != test.want || got.Failure().Code != test.code {
			t.Errorf("%v: got %s, told as %v; want %s, %s", test.headers, got, got.Failure(), test.want, test.code)
		}
	}
	if f := DeadReason("of_a_newer_version").Failure(); *f != *DeadOther.Failure() {
		t.Errorf("a reason that is not known is told as %v", f)
	}
	var told []string
	for _, r := range DeadReasons {
		told = append(told, r.Failure().Message)
	}
	slices.Sort(told)
	if n := len(slices.Compact(told)); n != len(DeadReasons) {
		t.Errorf("%d texts for %d reasons", n, len(DeadReasons))
	}
}

func TestATaskSaysWhoseItIsInItsHeadersOrItsBody(t *testing.T) {
	client, other := socketmeta.NewClientID(), socketmeta.NewClientID()
	headers := map[string]any{"client_id": client.String(), "server_id": "i1-w1"}
	body := `{"client_id": "` + client.String() + `", "server_id": "i1-w1", "task_id": "t1", "kind": 7}`
	for name, test := range map[string]struct {
		correlation string
		headers     map[string]any
		body        string
		ok          bool
	}{
		"in the headers":                {"t1", headers, "\xff", true},
		"in the body":                   {"", nil, body, true},
		"in both, and the body lies":    {"t1", headers, `{"client_id": "` + other.String() + `", "server_id": "i2-w2", "task_id": "t2"}`, true},
		"some here and some there":      {"", headers, `{"task_id": "t1"}`, true},
		"a header of another type":      {"t1", map[string]any{"client_id": client.String(), "server_id": int64(1)}, `{"server_id":"i1-w1"}`, true},
		"nowhere":                       {"", nil, `{}`, false},
		"no client":                     {"t1", map[string]any{"server_id": "i1-w1"}, `{}`, false},
		"no server":                     {"t1", map[string]any{"client_id": client.String()}, `{}`, false},
		"no task":                       {"", headers, `{}`, false},
		"the parked one is no server":   {"t1", map[string]any{"client_id": client.String(), "server_id": "_parked"}, `{}`, false},
		"a path for a task":             {"../x", headers, `{"task_id": "t1"}`, false},
		"a client that is no UUIDv7":    {"t1", map[string]any{"client_id": "me", "server_id": "i1-w1"}, `{}`, false},
		"a body that is no JSON at all": {"", nil, "x", false},
	} {
		got, ok := DecodeTaskAddress(test.correlation, test.headers, []byte(test.body))
		if ok != test.ok {
			t.Errorf("%s: got %v, want %v", name, ok, test.ok)
		} else if ok && (got.Client != client || got.Server != "i1-w1" || got.Task != "t1") {
			t.Errorf("%s: got %+v", name, got)
		}
	}
}

func FuzzDecodeTaskAddress(f *testing.F) {
	client := socketmeta.NewClientID().String()
	f.Add("t1", client, "i1-w1", []byte(`{}`))
	f.Add("", "", "", must(EncodeTask(goldenTaskMessage)))
	f.Fuzz(func(t *testing.T, correlation, client, server string, body []byte) {
		task, ok := DecodeTaskAddress(correlation, map[string]any{"client_id": client, "server_id": server}, body)
		if !ok {
			return
		}
		task.Kind = "k" // an address is all that such a task lacks
		if err := task.check(); err != nil {
			t.Errorf("%q %q %q %q: %v", correlation, client, server, body, err)
		}
	})
}
