package build

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/wscluster/wscluster/pkg/wire"
)

// hostileRecipe has a place of each sort for a parameter.
const hostileRecipe = `
kind: hostile
params:
  type: object
  additionalProperties: false
  properties:
    free: {type: string, maxLength: 120000}
    bound: {type: string, maxLength: 120000}
    set: {type: string, maxLength: 120000}
    short: {type: string, maxLength: 100}
    list: {type: array, maxItems: 9, items: {type: string, maxLength: 120000}}
    number: {type: integer}
    flag: {type: boolean}
    checked: {type: string, maxLength: 100, pattern: '^[a-z]+$'}
steps:
  - name: argv
    argv: ["%s", bytes, "{bound}", "--set={set}", "{number}", "{flag}", "{checked}", --, "{free}", "{list}"]
`

// attacks are strings that do harm where they are more than text: in a shell, as an option, a path or
// an address, in a template, on a terminal. Every shipped recipe refuses each of them in every parameter.
var attacks = []struct {
	name  string
	value string
	bound bool // may also stand where an option could
}{
	{"two commands", "; id", true},
	{"a pipe", "x | id", true},
	{"and, or", "x && id || id &", true},
	{"a substitution", "$(id)", true},
	{"backticks", "`id`", true},
	{"a redirection", "x > /etc/passwd < /dev/zero", true},
	{"a line behind it", "x\nid", true},
	{"a line before it", "\nid", true},
	{"a line end", "abc\n", true},
	{"Windows lines", "x\r\nid\r\n", true},
	{"quotes", `"'; id; '" \`, true},
	{"globs", "* ? [a-z]", true},
	{"variables", "$HOME ${IFS}id", true},
	{"home", "~root/.ssh", true},
	{"braces", "{a,b}{1..9}", true},
	{"a comment", "# x", true},
	{"a history", "!! !$", true},
	{"an assignment", "PATH=/tmp id", true},
	{"an option", "-o/x", false},
	{"a long option", "--upload-pack=id", false},
	{"the end of options", "--", false},
	{"standard input", "-", false},
	{"an option of another alphabet", "\u2010x \uff0do", true},
	{"a file of arguments", "@/etc/passwd", true},
	{"a way out", "../../etc/passwd", true},
	{"a way out for Windows", `..\..\etc\passwd`, true},
	{"an absolute path", "/etc/passwd", true},
	{"a path of slashes", "//host/share", true},
	{"a path of escapes", "%2e%2e%2fetc", true},
	{"a transport of Git's", "ext::sh -c id% >&2", true},
	{"a file's address", "file:///etc/passwd", true},
	{"an address with an option", "ssh://-oProxyCommand=id/x", true},
	{"an address inside", "http://169.254.169.254/latest/", true},
	{"an address of SSH", "git@host:path", true},
	{"a place of the template", "{bound}", true},
	{"the workspace", "{workspace}/x", true},
	{"other templates", "{{.Env}} ${{ env.X }} <%= id %> #{id}", true},
	{"formats", "%s%n%x %(refname)", true},
	{"an escape", "\x1b]0;title\x07\x1b[2J", true},
	{"other controls", "\x01\x08\x0b\x7f", true},
	{"controls of eight bits", "\u0085\u009b31m", true},
	{"text turned around", "\u202egpj.exe\u2066", true},
	{"nothing to be seen", "\u200b\ufeff\u00a0", true},
	{"a noncharacter", "\uffff\U0010ffff", true},
	{"only a blank", " ", true},
	{"nothing", "", false},
	{"100 KiB", strings.Repeat("y ", 50<<10), true},
}

// shown is an argument as ASCII that differs where a byte does.
func shown(arg string) string {
	if len(arg) > 1000 {
		return fmt.Sprintf("%d bytes, SHA-256 %x", len(arg), sha256.Sum256([]byte(arg)))
	}
	return strconv.QuoteToASCII(arg)
}

// hostileArgv runs the recipe with these parameters and returns the arguments that its program had.
func hostileArgv(t *testing.T, params any) ([]string, outcome) {
	t.Helper()
	o := do(t, kindsOf(t, Options{}, hostileRecipe), "hostile", params)
	if len(o.log) == 0 {
		return nil, o
	}
	return o.log[1:], o // behind the command line
}

// refused checks that nothing was started, and that the refusal names the parameter.
func (o outcome) refused(t *testing.T, param string) {
	t.Helper()
	if o.failure.Code != wire.CodeBadParams || !strings.Contains(o.failure.Message, param) || len(o.log)+len(o.events) > 0 {
		t.Errorf("got %v, log %.200q; want bad_params for %s, before anything is started", o.failure, o.log, param)
	}
}

// TestAParameterIsOneArgumentOrRefused: of any text, nothing becomes but one argument of just these bytes.
func TestAParameterIsOneArgumentOrRefused(t *testing.T) {
	for _, a := range attacks {
		t.Run(a.name, func(t *testing.T) {
			params, want := map[string]any{"set": a.value}, []string{shown("--set=" + a.value), shown("--"), shown(a.value)}
			if a.bound {
				params["bound"], want = a.value, slices.Insert(want, 0, shown(a.value))
			} else {
				_, o := hostileArgv(t, map[string]any{"bound": a.value})
				o.refused(t, "bound")
			}
			if len(a.value) < 10_000 { // a task has 128 KiB
				params["free"], params["list"], want = a.value, []any{a.value, a.value}, append(want, want[len(want)-1], want[len(want)-1])
			} else {
				params, want = map[string]any{"free": a.value}, []string{shown("--"), shown(a.value)}
			}
			if got, o := hostileArgv(t, params); !slices.Equal(got, want) {
				t.Errorf("got %.2000q (%v), want %.2000q", got, o.failure, want)
			}
		})
	}
}

// What no text can be, and what no argument can hold.
func TestAParameterThatIsNoArgument(t *testing.T) {
	for _, tt := range []struct {
		name, param string
		value       any
		want        []string // nil means refused
	}{
		{"NUL", "free", "a\x00b", nil},
		{"NUL alone", "bound", "\x00", nil},
		{"NUL behind =", "set", "a\x00", nil},
		{"NUL in a list", "list", []string{"a", "\x00"}, nil},
		{"too long", "short", strings.Repeat("x", 101), nil},
		{"half a character", "free", json.RawMessage(`"\ud800"`), []string{"--", "\ufffd"}},
		{"the later of two", "free", json.RawMessage(`"a","free":"b"`), []string{"--", "b"}},
		{"a number for a text", "free", 1, nil},
		{"an object for a text", "free", map[string]string{"$ref": "file:///etc/passwd"}, nil},
		{"a list for a text", "free", []string{"a", "b"}, nil},
		{"null for a text", "free", nil, nil},
		{"a text for a list", "list", "a", nil},
		{"a long list", "list", strings.Split("0123456789", ""), nil},
		{"a list in a list", "list", [][]string{{"a"}}, nil},
		{"an empty list", "list", []string{}, []string{"--"}},
		{"an option in a list behind --", "list", []string{"; id", "-x", "a b"}, []string{"--", "; id", "-x", "a b"}},
		{"a number", "number", 12, []string{"12", "--"}},
		{"a large number", "number", json.Number("12345678901234567890"), []string{"12345678901234567890", "--"}},
		{"a negative number", "number", -1, nil}, // it would be an option
		{"a fraction", "number", 1.5, nil},
		{"a number that is a text", "number", "12", nil},
		{"a flag", "flag", true, []string{"true", "--"}},
		{"a pattern", "checked", "abc", []string{"abc", "--"}},
		{"a pattern and a line end", "checked", "abc\n", nil},
		{"an unknown parameter", "other", "x", nil},
		{"a parameter of JavaScript's", "__proto__", map[string]any{"free": "x"}, nil},
		{"a parameter in capitals", "FREE", "x", nil},
	} {
		t.Run(tt.param+"/"+tt.name, func(t *testing.T) {
			got, o := hostileArgv(t, json.RawMessage(fmt.Sprintf(`{%q: %s}`, tt.param, asJSONOrRaw(tt.value))))
			if tt.want == nil {
				o.refused(t, tt.param)
				return
			}
			var want []string
			for _, a := range tt.want {
				want = append(want, shown(a))
			}
			if !slices.Equal(got, want) {
				t.Errorf("got %q (%v), want %q", got, o.failure, want)
			}
		})
	}
}

// asJSONOrRaw leaves alone what is no JSON value by itself.
func asJSONOrRaw(v any) string {
	if raw, ok := v.(json.RawMessage); ok {
		return string(raw)
	}
	return asJSON(v)
}

// A value of 1 MiB is more than a client's frame and a task in the broker may have. A recipe does not rely on it.
func TestAMebibyteIsRefusedBySchema(t *testing.T) {
	r, err := ParseRecipe([]byte(strings.ReplaceAll(hostileRecipe, "%s", "/p")))
	if err != nil {
		t.Fatal(err)
	}
	p, err := newParams(r.Params, nil)
	if err != nil {
		t.Fatal(err)
	}
	mebibyte := strings.Repeat("x", 1<<20)
	for name, value := range map[string]any{"free": mebibyte, "list": []string{mebibyte}, "number": mebibyte, mebibyte: "x"} {
		_, err := p.read(json.RawMessage(asJSON(map[string]any{name: value})))
		if e, ok := err.(*wire.Error); !ok || e.Code != wire.CodeBadParams || !strings.Contains(e.Message, name[:min(len(name), 20)]) {
			t.Errorf("%.20s: got %.200v", name, err)
		}
	}
	shipped, err := Shipped()
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range shipped {
		if p, err = newParams(r.Params, nil); err != nil {
			t.Fatal(err)
		}
		for name := range p.properties {
			params := map[string]any{"repo": "/x", "target": "x", name: mebibyte}
			if _, ok := p.properties["target"]; !ok {
				delete(params, "target")
			}
			if p.properties[name].Type == "array" {
				params[name] = []string{mebibyte}
			}
			if _, err := p.read(json.RawMessage(asJSON(params))); err == nil || !strings.Contains(err.Error(), name) {
				t.Errorf("%s: %s: got %.200v", r.Kind, name, err)
			}
		}
	}
}
