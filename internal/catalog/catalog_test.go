package catalog

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/wscluster/wscluster/pkg/wire"
)

var start = time.Unix(1_700_000_000, 0)

const (
	wantsA = `{"required":["a"]}`
	wantsB = `{"required":["b"]}`
)

// says is an announcement of kinds, "name" or "name schema".
func says(runner string, kinds ...string) *wire.Kinds {
	m := &wire.Kinds{Runner: runner, Slots: 1}
	for _, k := range kinds {
		name, schema, _ := strings.Cut(k, " ")
		o := wire.KindOffer{Kind: name, TimeoutMS: 60_000}
		if schema != "" {
			o.Schema = json.RawMessage(schema)
		}
		m.Kinds = append(m.Kinds, o)
	}
	return m
}

func hear(t *testing.T, c *Catalog, m *wire.Kinds, now time.Time) {
	t.Helper()
	if err := c.Hear(m, now); err != nil {
		t.Fatal(err)
	}
}

// refuses sees what is said about parameters of kind k: "" if they are not refused.
func refuses(t *testing.T, c *Catalog, params string, now time.Time, want string) {
	t.Helper()
	got := ""
	if e := c.Judges("k", now).Refuse(json.RawMessage(params)); e != nil {
		got = e.Message
		if e.Code != wire.CodeBadParams {
			t.Errorf("code %s", e.Code)
		}
	}
	if got != want {
		t.Errorf("%s: got %q, want %q", params, got, want)
	}
}

func TestParametersPassIfAnyRunnersSchemaTakesThem(t *testing.T) {
	c := New()
	refuses(t, c, `{}`, start, "") // nobody has said anything
	hear(t, c, says("r1", "k "+wantsA, "other "+wantsB), start)
	refuses(t, c, `{"a":1}`, start, "")
	refuses(t, c, `{"b":1}`, start, "a is missing")
	hear(t, c, says("r2", "k "+wantsB), start) // a deploy has begun
	refuses(t, c, `{"a":1}`, start, "")
	refuses(t, c, `{"b":1}`, start, "")
	refuses(t, c, `{"c":1}`, start, "a is missing")
	hear(t, c, says("r1", "k "+wantsB), start) // and ended
	refuses(t, c, `{"a":1}`, start, "b is missing")
}

func TestARunnerThatTakesAnythingSilencesTheOthers(t *testing.T) {
	c := New()
	hear(t, c, says("r1", "k "+wantsA), start)
	hear(t, c, says("r2", "k"), start)
	refuses(t, c, `{}`, start, "")
	hear(t, c, says("r2"), start) // it stops
	refuses(t, c, `{}`, start, "a is missing")
	if err := c.Hear(says("r3", `k {"type":7}`), start); err == nil || !strings.Contains(err.Error(), "runner r3: kind k: ") {
		t.Errorf("got %v", err)
	}
	refuses(t, c, `{}`, start, "") // what r3 takes is not known
	hear(t, c, says("r3", `k {"type":7}`), start)
}

func TestARunnerIsForgottenAfterThreeMissedAnnouncements(t *testing.T) {
	c := New()
	hear(t, c, says("r1", "k "+wantsA), start)
	refuses(t, c, `{}`, start.Add(ForgetAfter-1), "a is missing")
	refuses(t, c, `{}`, start.Add(ForgetAfter), "")
	if got := c.List(start.Add(ForgetAfter)); len(got) != 0 {
		t.Errorf("still listed: %v", got)
	}
	hear(t, c, says("r2", "other"), start.Add(ForgetAfter))
	if len(c.runners) != 1 || len(c.texts) != 0 || c.bytes != 0 {
		t.Errorf("%d runners, %d schemas of %d bytes are kept", len(c.runners), len(c.texts), c.bytes)
	}
}

func TestTooManyRunnersMakeItBlindUntilTheyAreGone(t *testing.T) {
	c := New()
	for i := range MaxRunners {
		hear(t, c, says(fmt.Sprint("r", i), "k "+wantsA), start)
	}
	hear(t, c, says("r0", "k "+wantsA), start) // it has its place
	refuses(t, c, `{}`, start, "a is missing")
	if err := c.Hear(says("more", "k "+wantsB), start); !errors.Is(err, ErrFull) {
		t.Errorf("got %v, want ErrFull", err)
	}
	refuses(t, c, `{}`, start.Add(ForgetAfter-1), "")
	if len(c.runners) != MaxRunners || len(c.texts) != 1 || c.bytes != len(wantsA) {
		t.Errorf("%d runners, %d schemas of %d bytes", len(c.runners), len(c.texts), c.bytes)
	}
	hear(t, c, says("r0", "k "+wantsA), start.Add(ForgetAfter)) // the others are gone, one more as well
	refuses(t, c, `{}`, start.Add(ForgetAfter), "a is missing")
}

func TestTooManyBytesMakeItBlindUntilThereIsRoom(t *testing.T) {
	c := New()
	big := func(i int) string {
		text := fmt.Sprintf(`{"title":"%d`, i)
		return text + strings.Repeat("x", wire.MaxSchema-len(text)-2) + `"}`
	}
	n := 0
	for ; c.bytes+wire.MaxSchema <= MaxBytes; n++ {
		hear(t, c, says(fmt.Sprint("r", n), "k "+big(n)), start)
	}
	if n != MaxBytes/wire.MaxSchema {
		t.Fatalf("%d schemas fit", n)
	}
	hear(t, c, says("same", "k "+big(0)), start) // not a different one
	if err := c.Hear(says("more", "a "+wantsA, "k "+big(n)), start); !errors.Is(err, ErrFull) {
		t.Errorf("got %v, want ErrFull", err)
	}
	if c.runners["more"] != nil || c.bytes != n*wire.MaxSchema || len(c.texts) != n {
		t.Errorf("%d bytes of %d schemas, of %d runners", c.bytes, len(c.texts), len(c.runners))
	}
	refuses(t, c, `[]`, start, "")
	hear(t, c, says("r0"), start)
	hear(t, c, says("same"), start)
	hear(t, c, says("more", "k "+big(n)), start)
	refuses(t, c, `[]`, start.Add(ForgetAfter-1), "")
}

func TestTheListTellsWhatMostRunnersAnnounce(t *testing.T) {
	c := New()
	hear(t, c, says("r1", "k "+wantsA, "k "+wantsB, "plain"), start) // the second of a name does not count
	hear(t, c, says("r2", "k "+wantsB), start)
	m := says("r3", "k "+wantsB)
	m.Kinds[0].TimeoutMS = 90_000
	hear(t, c, m, start)
	want := []Kind{
		{Kind: "k", Runners: 3, Schemas: 2, Schema: json.RawMessage(wantsB), TimeoutMS: 90_000},
		{Kind: "plain", Runners: 1, TimeoutMS: 60_000},
	}
	if diff := cmp.Diff(want, c.List(start)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func BenchmarkJudge(b *testing.B) {
	c := New()
	for i := range 20 {
		if err := c.Hear(says(fmt.Sprint("r", i), `k {"type":"object","additionalProperties":false,"required":["repo"],"properties":{"repo":{"type":"string","maxLength":1024},"ref":{"type":"string","pattern":"^[A-Za-z0-9][A-Za-z0-9._/-]*$","default":"HEAD"}}}`), start); err != nil {
			b.Fatal(err)
		}
	}
	params := json.RawMessage(`{"repo":"/srv/git/app","ref":"main"}`)
	b.ReportAllocs()
	for b.Loop() {
		if e := c.Judges("k", start).Refuse(params); e != nil {
			b.Fatal(e)
		}
	}
}
