package wire

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestParseChannel(t *testing.T) {
	for name, ok := range map[string]bool{
		"workflows": true, "workflow.build-7f3a": true, "news.Team_1": true, "0": true, strings.Repeat("a", MaxChannel): true,
		"": false, ".a": false, "-a": false, "_a": false, "a b": false, "a#": false, "a*": false, "ä": false, "a/b": false, strings.Repeat("a", MaxChannel+1): false,
	} {
		c, err := ParseChannel(name)
		if (err == nil) != ok || ok && string(c) != name || !ok && !errors.Is(err, ErrID) {
			t.Errorf("%.20q: %q, %v", name, c, err)
		}
	}
}

func TestEveryTaskHasAChannel(t *testing.T) {
	for _, id := range []string{"a", "_a", strings.Repeat("Z", MaxID)} {
		if _, err := ParseChannel(string(WorkflowChannel(TaskID(id)))); err != nil {
			t.Error(err)
		}
	}
}

func TestAPostThatIsNotAsItMustBeIsRefused(t *testing.T) {
	for want, change := range map[string]func(*Post){
		"channel":                        func(p *Post) { p.Channel = "a b" },
		"name ":                          func(p *Post) { p.Name = "a\"b" },
		"publisher ":                     func(p *Post) { p.Publisher = strings.Repeat("a", MaxID+1) },
		"publisher, stream and seq come": func(p *Post) { p.Seq = 0 },
		"seq counts from 1":              func(p *Post) { p.Seq = -1 },
		"stream":                         func(p *Post) { p.Stream = "x" },
		"key ":                           func(p *Post) { p.Key = strings.Repeat("k", MaxChannel+1) },
		"body is not JSON":               func(p *Post) { p.Body = json.RawMessage(`{`) },
		"message is too large":           func(p *Post) { p.Body = json.RawMessage(`"` + strings.Repeat("a", MaxPost) + `"`) },
	} {
		p := goldenPost()
		change(p)
		if err := p.Check(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

func TestAPlainPostGetsTheTimeOfItsArrival(t *testing.T) {
	at := time.Date(2026, 11, 28, 10, 0, 0, 0, time.UTC)
	got, err := DecodePost("news", "", nil, []byte(`[1]`), at)
	if diff := cmp.Diff(&Post{Channel: "news", Time: Time{at}, Body: json.RawMessage(`[1]`)}, got); err != nil || diff != "" {
		t.Errorf("%v %s", err, diff)
	}
}

// FuzzDecodePost: what is read can be sent on as a frame, which says the same.
func FuzzDecodePost(f *testing.F) {
	p := goldenPost()
	f.Add(string(p.Channel), p.Name, p.Publisher, string(p.Stream), p.Seq, p.Key, "2026-03-14T09:26:53.589Z", []byte(p.Body))
	f.Add("news", "", "", "", int64(0), "\u2028\x00", "", []byte(`"\u2028"`))
	f.Fuzz(func(t *testing.T, channel, name, publisher, stream string, seq int64, key, at string, body []byte) {
		p, err := DecodePost(channel, name, map[string]any{"publisher": publisher, "stream": stream, "seq": seq, "key": key, "time": at}, body, goldenTime.Time)
		if err != nil {
			return
		}
		if p.Time.Year() > 9999 || p.Time.Year() < 0 {
			t.Fatalf("the year of %v does not fit into a frame", p.Time)
		}
		m, err := DecodeServer(AppendPostFrame(nil, p))
		if err != nil {
			t.Fatalf("%v of %+v", err, p)
		}
		got := m.(*Post)
		if p.Time = (Time{p.Time.UTC().Truncate(time.Millisecond)}); !got.Time.Equal(p.Time.Time) {
			t.Fatalf("time %v of %v", got.Time, p.Time)
		}
		got.Time, p.Time = Time{}, Time{}
		var before, after any
		if json.Unmarshal(p.Body, &before) != nil || json.Unmarshal(got.Body, &after) != nil || !cmp.Equal(before, after) {
			t.Fatalf("body %s of %s", got.Body, p.Body)
		}
		got.Body, p.Body = nil, nil
		if diff := cmp.Diff(p, got); diff != "" {
			t.Fatal(diff)
		}
	})
}
