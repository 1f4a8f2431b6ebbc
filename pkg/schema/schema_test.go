package schema

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/wscluster/wscluster/pkg/wire"
)

const build = `{
	"type": "object", "additionalProperties": false, "required": ["repo", "ref"],
	"properties": {
		"repo": {"type": "string", "minLength": 1, "maxLength": 10},
		"ref": {"type": "string", "pattern": "^[a-z]+$", "default": "main"},
		"packages": {"type": "array", "minItems": 1, "maxItems": 2, "items": {"type": "string"}},
		"mode": {"enum": ["fast", "slow"]},
		"jobs": {"type": "integer", "minimum": 1, "maximum": 64},
		"env": {"type": "object", "propertyNames": {"pattern": "^[A-Z]$"}, "properties": {"A": {"type": "string"}}}
	}
}`

func compiled(t *testing.T, text string) *Schema {
	t.Helper()
	s, err := Compile([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestAFaultNamesTheParameterAndWhatIsWrongWithIt(t *testing.T) {
	s := compiled(t, build)
	for _, test := range []struct{ params, want string }{
		{`{"repo":"r"}`, ""},
		{`{"repo":"r","ref":"main","packages":["a"],"mode":"fast","jobs":2}`, ""},
		{``, "repo is missing"},
		{`{}`, "repo is missing"},
		{`[]`, "the parameters must be an object"},
		{`null`, "the parameters must be an object"},
		{`{"repo":7}`, "repo must be string, not number"},
		{`{"repo":"r","color":1}`, "color is not a parameter of this kind"},
		{`{"repo":"r","a":1,"b":2,"c":3}`, "a (and 2 more) is not a parameter of this kind"},
		{`{"repo":"r","ref":"1"}`, "ref does not match ^[a-z]+$"},
		{`{"repo":"12345678901"}`, "repo has 11 characters and may have 10"},
		{`{"repo":"r","packages":[]}`, "packages has 0 items and must have 1"},
		{`{"repo":"r","packages":["a","b","c"]}`, "packages has 3 items and may have 2"},
		{`{"repo":"r","packages":["a",7]}`, "packages[1] must be string, not number"},
		{`{"repo":"r","mode":"lazy"}`, "mode: value must be one of 'fast', 'slow'"},
		{`{"repo":"r","jobs":65}`, "jobs: maximum: got 65, want 64"},
		{`{"repo":"r","env":{"A":1}}`, "env.A must be string, not number"},
		{`{"repo":""}`, "repo has 0 characters and must have 1"},
		{`{"repo":"r","env":{"a b":"x"}}`, "a b is not a name that is allowed here"},
		{`{"repo":1,"ref":1,"mode":1,"jobs":"x","packages":1}`, "and 2 more"},
	} {
		_, err := s.Read(json.RawMessage(test.params))
		if test.want == "" {
			if err != nil {
				t.Errorf("%s: %v", test.params, err)
			}
			continue
		}
		refusal, ok := errors.AsType[*wire.Error](err)
		if whole := strings.HasPrefix(test.want, "and "); !ok || refusal.Code != wire.CodeBadParams || refusal.Retryable || refusal.Message != test.want && !(whole && strings.HasSuffix(refusal.Message, test.want)) {
			t.Errorf("%s: got %v, want bad_params with %q", test.params, err, test.want)
		}
	}
}

// A format binds only where the dialect says so: 2020-12 does not.
func TestAFormatIsJudgedWhereTheDialectDoes(t *testing.T) {
	const properties = `"properties":{"mail":{"format":"email"}}}`
	if _, err := compiled(t, `{`+properties).Read(json.RawMessage(`{"mail":"no address"}`)); err != nil {
		t.Errorf("2020-12: got %v", err)
	}
	_, err := compiled(t, `{"$schema":"http://json-schema.org/draft-07/schema#",`+properties).Read(json.RawMessage(`{"mail":"no address"}`))
	if err == nil || !strings.HasSuffix(err.Error(), "mail is no email") {
		t.Errorf("draft 7: got %v", err)
	}
}

// The library takes 100 ms for each of these, and a frame holds thousands.
func TestANumberBeyondReasonIsRefusedAtOnce(t *testing.T) {
	s := compiled(t, `{"additionalProperties":{"items":{"minimum":1,"multipleOf":3}}}`)
	for number, want := range map[string]string{
		"3": "", "3e400": "", "3E+400": "", "3.0": "",
		"3e401": "a[1] is a number with an exponent beyond 400", "3e-401": "a[1] is", "3E+999999": "a[1] is", "3e99999999999999999999": "a[1] is",
	} {
		began := time.Now()
		_, err := s.Read(json.RawMessage(`{"a":[3` + strings.Repeat(","+number, 5_000) + `]}`))
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", number, err, want)
		}
		if took := time.Since(began); took > 5*time.Second {
			t.Errorf("%s: 5,000 of them took %v", number, took)
		}
	}
	if _, err := Compile([]byte(`{"minimum":1e999999}`)); err == nil || !strings.Contains(err.Error(), "minimum is a number") {
		t.Errorf("in a schema: got %v", err)
	}
}

func TestWhatIsMissingHasItsDefaultBeforeItIsJudged(t *testing.T) {
	s := compiled(t, build)
	values, err := s.Read(json.RawMessage(`{"repo":"r","jobs":12}`))
	if err != nil || values["ref"] != "main" || values["jobs"] != json.Number("12") {
		t.Errorf("got %v, %v, want ref main and jobs 12", values, err)
	}
	values["ref"] = "other" // the caller's own
	if again, err := s.Read(json.RawMessage(`{"repo":"r"}`)); err != nil || again["ref"] != "main" {
		t.Errorf("got %v, %v, want ref main again", again, err)
	}
	list := compiled(t, `{"properties":{"l":{"default":["a"]}}}`)
	first, _ := list.Read(nil)
	first["l"].([]any)[0] = "changed"
	if second, _ := list.Read(nil); fmt.Sprint(second["l"]) != "[a]" {
		t.Errorf("a default was changed by who was given it: %v", second)
	}
}

func TestAFaultEchoesNoMegabytes(t *testing.T) {
	long := strings.Repeat("ü", 30_000)
	for name, text := range map[string]string{
		"pattern":      `{"additionalProperties":{"pattern":"^a$"}}`,
		"enum":         `{"additionalProperties":{"enum":["a"]}}`,
		"const":        `{"additionalProperties":{"const":"a"}}`,
		"additional":   `{"additionalProperties":false}`,
		"type":         `{"additionalProperties":{"type":"integer"}}`,
		"names":        `{"propertyNames":{"maxLength":3}}`,
		"long enum":    `{"additionalProperties":{"enum":["` + long[:40_000] + `"]}}`,
		"long pattern": `{"additionalProperties":{"pattern":"` + strings.Repeat("a", 1_000) + `"}}`,
		"dependent":    `{"dependentRequired":{"` + long[:40_000] + `":["b"]}}`,
	} {
		refused := false
		for _, params := range []map[string]string{{"p": long}, {long: "p"}, {long[:40_000]: long}} {
			p, err := json.Marshal(params)
			if err != nil {
				t.Fatal(err)
			}
			_, err = compiled(t, text).Read(p)
			refused = refused || err != nil
			if err != nil && (len(err.Error()) > 1_000 || strings.ContainsRune(err.Error(), '\n')) {
				t.Errorf("%s: %d bytes: %.300q", name, len(err.Error()), err)
			}
		}
		if !refused {
			t.Errorf("%s: nothing was refused", name)
		}
	}
}

func TestASchemaIsRefusedInOneLine(t *testing.T) {
	for text, want := range map[string]string{
		``:                                 "no JSON object",
		`true`:                             "no JSON object",
		`[]`:                               "no JSON object",
		`null`:                             "no JSON object",
		"{\"title\":\"\xff\"}":             "not UTF-8",
		`{"type":7}`:                       "type",
		`{"properties":{"a":{"type":7}}}`:  "type",
		`{"pattern":"("}`:                  "regex",
		`{"$ref":"https://example.org/s"}`: "https://example.org/s",
		`{"$ref":"file:///etc/passwd"}`:    "file:///etc/passwd",
		`{"$ref":"other.json"}`:            "other.json",
		`{"$ref":"#/$defs/none"}`:          "none",
		`{"$schema":"https://example.org/dialect"}`:               "https://example.org/dialect",
		`{"title":"` + strings.Repeat("x", wire.MaxSchema) + `"}`: "may have 65536",
	} {
		_, err := Compile([]byte(text))
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") || len(err.Error()) > 1_000 {
			t.Errorf("%.80s: got %v, want one line with %q", text, err, want)
		}
	}
	for _, text := range []string{`{}`, `{"$ref":"#/$defs/a","$defs":{"a":{"type":"object"}}}`, `{"$schema":"https://json-schema.org/draft/2020-12/schema"}`} {
		if _, err := Compile([]byte(text)); err != nil {
			t.Errorf("%s: %v", text, err)
		}
	}
}

func FuzzSchema(f *testing.F) {
	f.Add([]byte(build), []byte(`{"repo":"r","packages":["a",7]}`))
	f.Add([]byte(`{"$ref":"#/$defs/a","$defs":{"a":{"anyOf":[{"$ref":"#/$defs/a"},{"type":"object"}]}}}`), []byte(`{"a":{"a":{}}}`))
	f.Add([]byte(`{"properties":{"a":{"default":1e999},"b":{"$ref":"#"}}}`), []byte(`{"b":{"b":{}}}`))
	f.Fuzz(func(t *testing.T, text, params []byte) {
		if len(text) > 2_000 || len(params) > 2_000 { // what it may cost is its runner's affair
			return
		}
		s, err := Compile(text)
		if err != nil {
			if strings.Contains(err.Error(), "\n") {
				t.Errorf("more than one line: %q", err)
			}
			return
		}
		_, err = s.Read(params)
		if err == nil {
			return
		}
		if refusal, ok := errors.AsType[*wire.Error](err); !ok || refusal.Code != wire.CodeBadParams || len(refusal.Message) > 1_000 {
			t.Errorf("got %v", err)
		}
	})
}

func TestASchemaReadsNoFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "schema.json")
	if err := os.WriteFile(file, []byte(`{"type":"object"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Compile([]byte(`{"$ref":"file://` + file + `"}`)); err == nil {
		t.Error("no error")
	}
}
