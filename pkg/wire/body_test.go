package wire

import (
	"errors"
	"strings"
	"testing"
)

func TestBodyPutsTheClientFirst(t *testing.T) {
	const client = `{"client_id":"` + goldenClient + `"`
	for _, test := range []struct {
		v    any
		want string
	}{
		{struct{}{}, client + `}`},
		{&Log{FirstLine: 1, Lines: []string{"<a> & \"client_id\""}}, client + `,"first_line":1,"lines":["<a> & \"client_id\""]}`},
		{map[string]any{"value": map[string]any{"client_id": "theirs"}}, client + `,"value":{"client_id":"theirs"}}`},
	} {
		if got, err := Body(goldenMeta.Client, test.v); err != nil || string(got) != test.want {
			t.Errorf("got %s, %v, want %s", got, err, test.want)
		}
	}
}

func TestBodyRefuses(t *testing.T) {
	for name, v := range map[string]any{
		"a list":              []int{1},
		"nil":                 nil,
		"a channel":           make(chan int),
		"a client ID of ours": map[string]any{"client_id": "theirs"},
	} {
		if got, err := Body(goldenMeta.Client, v); err == nil {
			t.Errorf("%s: got %s", name, got)
		}
	}
	large := map[string]string{"a": strings.Repeat("x", MaxEvent)}
	if _, err := Body(goldenMeta.Client, large); !errors.Is(err, ErrTooLarge) {
		t.Errorf("got %v, want ErrTooLarge", err)
	}
}
