package wire

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/wscluster/wscluster/pkg/socketmeta"
)

func TestTaskRefusedBothWays(t *testing.T) {
	for name, change := range map[string]func(*Task){
		"no client":          func(t *Task) { t.Client = socketmeta.ClientID{} },
		"no server":          func(t *Task) { t.Server = "" },
		"bad server":         func(t *Task) { t.Server = "_parked" },
		"negative epoch":     func(t *Task) { t.Epoch = -1 },
		"no task ID":         func(t *Task) { t.Task = "" },
		"task ID is a path":  func(t *Task) { t.Task = "a/b" },
		"no kind":            func(t *Task) { t.Kind = "" },
		"bad kind":           func(t *Task) { t.Kind = "a.b" },
		"params is a list":   func(t *Task) { t.Params = json.RawMessage(`[]`) },
		"unknown priority":   func(t *Task) { t.Priority = "urgent" },
		"params over limit":  func(t *Task) { t.Params = json.RawMessage(pad(`{"a":1`, MaxTask)) },
		"before our time":    func(t *Task) { t.Submitted.Time = time.Date(0, 1, 1, 0, 0, 0, 0, time.UTC) },
		"subject over limit": func(t *Task) { t.Subject = strings.Repeat("s", MaxTask) },
	} {
		task := *goldenTaskMessage
		change(&task)
		if p, err := EncodeTask(&task); err == nil {
			t.Errorf("%s: encoded as %.200s", name, p)
		}
		p, err := json.Marshal(&task)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := DecodeTask(p); err == nil {
			t.Errorf("%s: decoded as %+v", name, got)
		} else if !errors.Is(err, ErrTooLarge) {
			refusedBySchema(t, name, "broker", "task", p)
		}
	}
}

func TestDecodeTaskRefusesWhatIsNoTask(t *testing.T) {
	for _, body := range []string{``, `null`, `[]`, `{}`, "{\"a\":\"\xff\"}", `{"client_id":7}`} {
		if got, err := DecodeTask([]byte(body)); err == nil {
			t.Errorf("%q: decoded as %+v", body, got)
		}
	}
	if _, err := DecodeTask([]byte(pad(`{"a":1`, MaxTask+1))); !errors.Is(err, ErrTooLarge) {
		t.Errorf("got %v, want ErrTooLarge", err)
	}
}

func TestTimeCrossesAsUTCWithMilliseconds(t *testing.T) {
	zone := time.FixedZone("UTC+2", 2*60*60)
	for in, want := range map[time.Time]string{
		time.Date(2026, 3, 14, 11, 26, 53, 589_999_999, zone): `"2026-03-14T09:26:53.589Z"`,
		time.Date(2026, 3, 14, 9, 26, 53, 0, time.UTC):        `"2026-03-14T09:26:53.000Z"`,
	} {
		if got, err := json.Marshal(Time{in}); err != nil || string(got) != want {
			t.Errorf("got %s, %v, want %s", got, err, want)
		}
	}
	var got Time
	if err := json.Unmarshal([]byte(`"2026-03-14T11:26:53.589+02:00"`), &got); err != nil || !got.Equal(goldenTime.Time) {
		t.Errorf("got %v, %v, want %v", got, err, goldenTime)
	}
}

func FuzzDecodeTask(f *testing.F) {
	p, err := EncodeTask(goldenTaskMessage)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(p)
	f.Add([]byte(`{"client_id":"` + goldenClient + `","server_id":"i1-w3","task_id":"t","kind":"k","submitted_at":"2026-03-14T09:26:53Z"}`))
	f.Add([]byte(`{"client_id":"` + goldenClient + `","server_id":"i1-w3","task_id":"t","kind":"k","submitted_at":"0000-01-01T00:00:00+23:00"}`))
	f.Fuzz(func(t *testing.T, p []byte) {
		task, err := DecodeTask(p)
		if err != nil {
			return
		}
		encoded, err := EncodeTask(task)
		if err != nil {
			if errors.Is(err, ErrTooLarge) {
				return // escapes may grow
			}
			t.Fatalf("%+v was taken, and refused when encoded: %v", task, err)
		}
		again, err := DecodeTask(encoded)
		if err != nil {
			t.Fatalf("%s was encoded, and refused: %v", encoded, err)
		}
		task.Params, again.Params = nil, nil // white space is not kept
		task.Submitted = Time{task.Submitted.UTC().Truncate(time.Millisecond)}
		if diff := cmp.Diff(task, again); diff != "" {
			t.Fatalf("encoding changed it (-want +got):\n%s", diff)
		}
	})
}
