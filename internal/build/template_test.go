package build

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"github.com/wscluster/wscluster/pkg/wire"
)

const argvRecipe = `
kind: argv
params:
  type: object
  additionalProperties: false
  properties:
    free: {type: string, maxLength: 100}
    bound: {type: string, maxLength: 100}
    set: {type: string, maxLength: 100}
    list: {type: array, maxItems: 9, items: {type: string, maxLength: 100}}
    number: {type: integer}
    flag: {type: boolean}
    checked: {type: string, maxLength: 100, pattern: '^[a-z]+$'}
steps:
  - name: argv
    argv: ["%s", argv, "{bound}", "--set={set}", "{number}", "{flag}", "{checked}", --, "{free}", "{list}"]
    capture: argv
`

// Strings that would do harm in a shell, as an option, or as a path, are one argument each, or
// refused; nothing else becomes of them.
func TestAParameterIsOneArgumentOrRefused(t *testing.T) {
	kinds := kindsOf(t, Options{}, argvRecipe)
	for _, tt := range []struct {
		name, param string
		value       any
		want        []string // nil means refused
	}{
		{"semicolon", "free", "; id", []string{"--", "; id"}},
		{"substitution", "free", "$(id)", []string{"--", "$(id)"}},
		{"backticks", "free", "`id`", []string{"--", "`id`"}},
		{"option behind --", "free", "-o/x", []string{"--", "-o/x"}},
		{"traversal", "free", "../../etc/passwd", []string{"--", "../../etc/passwd"}},
		{"newline", "free", "a\nb", []string{"--", "a\nb"}},
		{"quotes and blanks", "free", ` "a' b\ `, []string{"--", ` "a' b\ `}},
		{"glob and variable", "free", "* $HOME ~", []string{"--", "* $HOME ~"}},
		{"placeholder", "free", "{bound}", []string{"--", "{bound}"}},
		{"empty behind --", "free", "", []string{"--", ""}},
		{"NUL", "free", "a\x00b", nil},
		{"too long", "free", strings.Repeat("x", 101), nil},
		{"wrong type", "free", 1, nil},
		{"semicolon", "bound", "; id", []string{"; id", "--"}},
		{"option", "bound", "-o/x", nil},
		{"long option", "bound", "--output=/x", nil},
		{"empty", "bound", "", nil},
		{"NUL", "bound", "\x00", nil},
		{"option behind =", "set", "-o/x", []string{"--set=-o/x", "--"}},
		{"newline behind =", "set", "a\nb", []string{"--set=a\nb", "--"}},
		{"list", "list", []string{"; id", "-x", "a b"}, []string{"--", "; id", "-x", "a b"}},
		{"empty list", "list", []string{}, []string{"--"}},
		{"list with NUL", "list", []string{"a", "\x00"}, nil},
		{"long list", "list", strings.Split("0123456789", ""), nil},
		{"list in a list", "list", [][]string{{"a"}}, nil},
		{"number", "number", 12, []string{"12", "--"}},
		{"large number", "number", json.Number("12345678901234567890"), []string{"12345678901234567890", "--"}},
		{"negative number", "number", -1, nil},
		{"fraction", "number", 1.5, nil},
		{"flag", "flag", true, []string{"true", "--"}},
		{"pattern", "checked", "abc", []string{"abc", "--"}},
		{"pattern and newline", "checked", "abc\n", nil},
		{"unknown parameter", "other", "x", nil},
	} {
		t.Run(tt.param+"/"+tt.name, func(t *testing.T) {
			o := do(t, kinds, "argv", map[string]any{tt.param: tt.value})
			if tt.want == nil {
				if o.failure.Code != wire.CodeBadParams || len(o.log) > 0 {
					t.Errorf("got %v, log %q; want bad_params before anything is started", o.failure, o.log)
				}
				return
			}
			var got []string
			if o.result.Values == nil || json.Unmarshal([]byte(o.result.Values["argv"]), &got) != nil || !slices.Equal(got, tt.want) {
				t.Errorf("got %q (%v), want %q", got, o.failure, tt.want)
			}
		})
	}
}

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
