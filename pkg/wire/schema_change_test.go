package wire

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// TestWhatFitsASchemaIsRead: a message that is changed in one place and fits its schema still is one that
// this package reads. So whoever keeps to the schemas is understood.
func TestWhatFitsASchemaIsRead(t *testing.T) {
	refused, taken := 0, 0
	for _, m := range everyMessage() {
		if m.decode == nil {
			continue
		}
		for _, at := range places(decodeAny(t, m.bytes), nil) {
			for _, v := range strange {
				if list, ok := v.([]any); ok && len(list) > 1 && !isList(decodeAny(t, m.bytes), at) {
					continue // one of one element says the same, sooner
				}
				p := must(json.Marshal(changed(decodeAny(t, m.bytes), at, v)))
				if fits(schema(t, m.schema), p) != nil {
					refused++
					continue
				}
				taken++
				if err := m.decode(p); err != nil && !beyond(err) {
					t.Errorf("%s: %.300s fits %s.json and is refused: %v", m.golden, p, m.schema, err)
				}
			}
		}
	}
	if refused < 1000 || taken < 100 {
		t.Errorf("%d were refused by their schemas and %d not: the test is too tame", refused, taken)
	}
}

// The same for messages that are changed in several places.
func TestWhatFitsASchemaIsReadHoweverItWasChanged(t *testing.T) {
	all := slices.DeleteFunc(everyMessage(), func(m described) bool { return m.decode == nil })
	rapid.Check(t, func(t *rapid.T) {
		m := rapid.SampledFrom(all).Draw(t, "message")
		v := decodeAny(t, m.bytes)
		for range rapid.IntRange(1, 4).Draw(t, "changes") {
			at := rapid.SampledFrom(places(v, nil)).Draw(t, "place")
			v = changed(v, at, rapid.SampledFrom(strange).Draw(t, "value"))
			if _, ok := v.(map[string]any); !ok {
				return
			}
		}
		p := must(json.Marshal(v))
		if fits(schema(t, m.schema), p) != nil {
			return
		}
		if err := m.decode(p); err != nil && !beyond(err) {
			t.Fatalf("%s: %.300s fits %s.json and is refused: %v", m.golden, p, m.schema, err)
		}
	})
}

// beyond reports whether an error is about two fields that do not go together, which no schema says.
func beyond(err error) bool {
	for _, text := range []string{
		"must be 0 or an earlier seq", "must be over prev", // of an event
		"and the record's is", // of a claim
	} {
		if strings.Contains(err.Error(), text) {
			return true
		}
	}
	return false
}

// isList reports whether there is a list at a path.
func isList(v any, at []string) bool {
	for _, name := range at {
		object, _ := v.(map[string]any)
		v = object[name]
	}
	_, ok := v.([]any)
	return ok
}

type absent struct{}

// strange are the values that each field of each message gets once.
var strange = []any{
	absent{}, nil, true, false, 0, 1, 2, 3, 7, -1, 1.5, 999, 1000, 4999, 5000, 604800, 604801, 1_000_000, 1_000_001, 1 << 31, 1 << 32,
	json.Number("9007199254740991"), json.Number("9007199254740992"), json.Number("18446744073709551616"), json.Number("-9007199254740992"), json.Number("1e400"),
	"", "a", "A", "-", ".", "a.b", "a/b", "../t", "a b", "a\nb", "\u00e9", "\x00", "go-build", "i1-w3", "i1_w3", "i1-w3-x", "_parked", "_", "_../x", "r.1",
	goldenClient, strings.ToUpper(goldenClient), strings.Replace(goldenClient, "-7", "-4", 1), strings.Replace(goldenClient, "-8", "-c", 1), "{" + goldenClient + "}", strings.ReplaceAll(goldenClient, "-", ""),
	"hello", "ping", "event", "step", "progress", "result", "error", "gap", "stop", "claim", "mark", "running", "expired",
	"2026-03-14T09:26:53.589Z", "2026-03-14T09:26:53Z", "2026-13-14T09:26:53.589Z", "2026-02-30T09:26:53.589Z", "0000-01-01T00:00:00.000Z", "now",
	strings.Repeat("a", MaxID), strings.Repeat("a", MaxID+1), strings.Repeat("a", MaxToken), strings.Repeat("a", MaxToken+1), "i-" + strings.Repeat("a", MaxID-2), "i-" + strings.Repeat("a", MaxID-1), "_" + strings.Repeat("a", 55), "_" + strings.Repeat("a", 56),
	[]any{}, []any{nil}, []any{"a"}, []any{goldenClient}, map[string]any{}, map[string]any{"a": 1},
	repeated(map[string]any{"task_id": "t", "attempt": 1, "run_id": "", "next": 1}, MaxPositions), repeated(map[string]any{"task_id": "t", "attempt": 1, "run_id": "", "next": 1}, MaxPositions+1),
	repeated(goldenClient, MaxClaims), repeated(goldenClient, MaxClaims+1),
	repeated(map[string]any{"client_id": goldenClient, "epoch": 1}, MaxClaims), repeated(map[string]any{"client_id": goldenClient, "epoch": 1}, MaxClaims+1),
}

func repeated(v any, n int) []any { return slices.Repeat([]any{v}, n) }

func decodeAny(t interface {
	Helper()
	Fatalf(string, ...any)
}, p []byte) any {
	t.Helper()
	var v any
	d := json.NewDecoder(bytes.NewReader(p))
	d.UseNumber()
	if err := d.Decode(&v); err != nil {
		t.Fatalf("%s: %v", p, err)
	}
	return v
}

// places lists the paths to all members and elements of v.
func places(v any, at []string) (all [][]string) {
	switch v := v.(type) {
	case map[string]any:
		for _, name := range slices.Sorted(maps.Keys(v)) {
			p := append(slices.Clone(at), name)
			all = append(append(all, p), places(v[name], p)...)
		}
	case []any:
		for i := range min(len(v), 2) {
			p := append(slices.Clone(at), fmt.Sprint(i))
			all = append(append(all, p), places(v[i], p)...)
		}
	}
	if len(at) == 0 {
		all = append(all, nil)
	}
	return all
}

// fresh copies v, so that a later change leaves strange as it is, and cannot put a list or an object into itself.
func fresh(v any) any {
	switch v := v.(type) {
	case map[string]any:
		c := map[string]any{}
		for name, e := range v {
			c[name] = fresh(e)
		}
		return c
	case []any:
		c := make([]any, len(v))
		for i, e := range v {
			c[i] = fresh(e)
		}
		return c
	}
	return v
}

// changed returns v with a copy of another value at a path.
func changed(v any, at []string, to any) any {
	if len(at) == 0 {
		return fresh(to)
	}
	switch v := v.(type) {
	case map[string]any:
		if _, gone := to.(absent); gone && len(at) == 1 {
			delete(v, at[0])
		} else {
			v[at[0]] = changed(v[at[0]], at[1:], to)
		}
	case []any:
		var i int
		fmt.Sscan(at[0], &i)
		v[i] = changed(v[i], at[1:], to)
	}
	return v
}
