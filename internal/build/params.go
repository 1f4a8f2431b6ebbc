package build

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/wscluster/wscluster/pkg/schema"
)

// repositoryFormat marks a parameter that names a repository on the runner's machine.
const repositoryFormat = "local-repository"

// params checks the parameters of one recipe.
type params struct {
	text       json.RawMessage // the schema, as it is announced
	schema     *schema.Schema
	properties map[string]property
	roots      []string // real paths
}

// property is what this package reads of a property's schema, beside the schema itself.
type property struct {
	Type      string    `json:"type"`
	Format    string    `json:"format"`
	Enum      []any     `json:"enum"`
	MaxLength *int      `json:"maxLength"`
	MaxItems  *int      `json:"maxItems"`
	Items     *property `json:"items"`
}

// newParams compiles a schema. The error says why it is none, or leaves too much open.
func newParams(object map[string]any, roots []string) (*params, error) {
	if object == nil {
		object = map[string]any{"type": "object", "additionalProperties": false}
	}
	text, err := json.Marshal(object) // YAML's types become JSON's
	if err != nil {
		return nil, err
	}
	var own struct {
		Type       string              `json:"type"`
		Additional *bool               `json:"additionalProperties"`
		Properties map[string]property `json:"properties"`
	}
	if err := decodeNumbers(text, &own); err != nil {
		return nil, err
	}
	if own.Type != "object" || own.Additional == nil || *own.Additional {
		return nil, errors.New("must have type object and additionalProperties false")
	}
	compiled, err := schema.Compile(text)
	if err != nil {
		return nil, err
	}
	return &params{text, compiled, own.Properties, roots}, nil
}

// usable says what is wrong with a as part of an argument vector.
func (p *params) usable(a arg) error {
	prop, ok := p.properties[a.param]
	if !ok {
		return fmt.Errorf("{%s} is not in the properties of params", a.param)
	}
	if prop.Type == "array" {
		switch {
		case a.text != "":
			return fmt.Errorf("{%s} is a list and must be the whole argument", a.param)
		case prop.MaxItems == nil || prop.Items == nil:
			return fmt.Errorf("{%s} is a list and must have maxItems and items", a.param)
		}
		prop = *prop.Items
	}
	switch prop.Type {
	case "string":
		if prop.MaxLength == nil && prop.Enum == nil {
			return fmt.Errorf("{%s} is a string and must have maxLength or enum", a.param)
		}
	case "integer", "boolean":
	default:
		return fmt.Errorf("{%s} must have the type string, integer or boolean, or array of these", a.param)
	}
	return nil
}

// read checks raw, a JSON object, and returns it with defaults filled in and repositories by
// their real paths. The error is a *wire.Error with code bad_params.
func (p *params) read(raw json.RawMessage) (map[string]any, error) {
	values, err := p.schema.Read(raw)
	if err != nil {
		return nil, err
	}
	for _, name := range slices.Sorted(maps.Keys(p.properties)) {
		value, given := values[name].(string)
		if p.properties[name].Format != repositoryFormat || !given {
			continue
		}
		real, err := within(p.roots, value)
		if err != nil {
			return nil, badParams("%s: %v", name, err)
		}
		values[name] = real
	}
	return values, nil
}

// within returns the real path of a directory, which must lie in one of roots. It does not tell
// what exists elsewhere.
func within(roots []string, path string) (string, error) {
	refused := fmt.Errorf("%q is no directory in the runner's repository roots", path)
	if !filepath.IsAbs(path) || strings.Contains(path, "\x00") {
		return "", refused
	}
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return "", refused
	}
	for _, root := range roots {
		if rel, err := filepath.Rel(root, real); err != nil || !filepath.IsLocal(rel) {
			continue
		}
		if info, err := os.Stat(real); err == nil && info.IsDir() {
			return real, nil
		}
	}
	return "", refused
}

// decodeNumbers decodes JSON and keeps numbers as they were written.
func decodeNumbers(text []byte, into any) error {
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	return d.Decode(into)
}
