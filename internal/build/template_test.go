package build

import (
	"slices"
	"strings"
	"testing"

	"github.com/wscluster/wscluster/pkg/wire"
)

func TestTemplate(t *testing.T) {
	for _, tt := range []struct{ argv, want string }{
		{"p {a}", ""},
		{"p --x={a}", ""},
		{"p refs/heads/{a}", ""},
		{"p {} {A} {a", ""}, // no parameters
		{"{a}", "the program cannot be a parameter"},
		{"p {a}x", "must be the whole argument or the end of it"},
		{"p {a}{b}", "must be the whole argument or the end of it"},
		{"p -x{a}", `there must be a "="`},
		{"p --{a}", `there must be a "="`},
		{"p a\x00", "NUL"},
	} {
		_, err := parseTemplate(strings.Fields(tt.argv))
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%q: got %v, want %q", tt.argv, err, tt.want)
		}
	}
}

// Whatever a stranger sends, the fixed arguments stay where they are, and nothing before the "--"
// becomes an option.
func FuzzExpand(f *testing.F) {
	args, err := parseTemplate([]string{"p", "{a}", "--x={a}", "{list}", "fixed", "--", "{a}", "{list}"})
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte(`{"a": "x", "list": ["-", ""]}`))
	f.Add([]byte(`{"a": "--", "list": [1, true]}`))
	f.Add([]byte(`{"a": {"b": null}}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		var values map[string]any
		if decodeNumbers(raw, &values) != nil {
			t.Skip("no JSON object: the schema refuses it before")
		}
		argv, err := expand(args, values)
		if err != nil {
			if e, ok := err.(*wire.Error); !ok || e.Code != wire.CodeBadParams {
				t.Fatalf("got %v", err)
			}
			return
		}
		end := slices.Index(argv, "--")
		fixed := slices.Index(argv, "fixed")
		if argv[0] != "p" || fixed < 0 || end < fixed {
			t.Fatalf("got %q", argv)
		}
		for _, a := range argv[1:end] {
			if a == "" || a[0] == '-' && !strings.HasPrefix(a, "--x=") || strings.Contains(a, "\x00") {
				t.Fatalf("option %q in %q", a, argv)
			}
		}
	})
}
