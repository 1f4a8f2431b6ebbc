// Package schema says which parameters a kind of task takes, by a JSON Schema (2020-12). Task runners
// announce theirs; workers and runners judge parameters by the same one, and so alike.
//
// A schema is its runner's, and trusted as its handlers are: it may make a check slow. What it cannot do
// is to reach anything outside of itself, or to be large.
package schema

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/santhosh-tekuri/jsonschema/v6"

	"github.com/wscluster/wscluster/pkg/wire"
)

// Schema is a compiled schema. It is safe for concurrent use.
type Schema struct {
	compiled *jsonschema.Schema
	defaults map[string]json.RawMessage // of the parameters that have one
}

// name stands for the schema in its own references. It is no address.
const name = "params://kind/schema"

// Compile reads a schema of at most wire.MaxSchema bytes. It is an object; without $schema its dialect is
// 2020-12, and patterns are Go's (RE2). The error is one line, and says why it is no schema, or which
// reference leads out of it: nothing else is ever loaded.
func Compile(text []byte) (*Schema, error) {
	switch {
	case len(text) > wire.MaxSchema:
		return nil, fmt.Errorf("%w: it has %d bytes and may have %d", wire.ErrTooLarge, len(text), wire.MaxSchema)
	case !utf8.Valid(text):
		return nil, errors.New("it is not UTF-8")
	}
	doc, err := jsonschema.UnmarshalJSON(bytes.NewReader(text))
	if err != nil {
		return nil, fmt.Errorf("it is no JSON object: %w", err)
	}
	object, ok := doc.(map[string]any)
	if !ok {
		return nil, errors.New("it is no JSON object")
	}
	if err := checkNumbers(doc, nil); err != nil {
		return nil, err
	}
	c := jsonschema.NewCompiler()
	c.UseLoader(jsonschema.SchemeURLLoader{}) // knows no scheme
	if err := c.AddResource(name, doc); err != nil {
		return nil, err
	}
	compiled, err := c.Compile(name)
	if err != nil {
		return nil, errors.New(oneLine(err))
	}
	s := &Schema{compiled: compiled, defaults: map[string]json.RawMessage{}}
	properties, _ := object["properties"].(map[string]any)
	for property, p := range properties {
		if p, ok := p.(map[string]any); ok && p["default"] != nil {
			if s.defaults[property], err = json.Marshal(p["default"]); err != nil {
				return nil, err
			}
		}
	}
	return s, nil
}

// Read judges params, a JSON object (nothing stands for an empty one), and returns its values: what is
// missing has the default of its property, before it is judged, and numbers are as they were written. The
// error is a *wire.Error with code bad_params that names at most three parameters and what is wrong with
// each, in a few hundred bytes; the values that it was given are not in it.
func (s *Schema) Read(params json.RawMessage) (map[string]any, error) {
	values := map[string]any{}
	if len(params) > 0 {
		if err := decode(params, &values); err != nil || values == nil {
			return nil, wire.Errorf(wire.CodeBadParams, "the parameters must be an object")
		}
	}
	if err := checkNumbers(values, nil); err != nil {
		return nil, wire.Errorf(wire.CodeBadParams, "%v", err)
	}
	for property, text := range s.defaults {
		if _, given := values[property]; given {
			continue
		}
		var value any
		if err := decode(text, &value); err != nil {
			return nil, err // it was read before
		}
		values[property] = value
	}
	if err := s.compiled.Validate(values); err != nil {
		return nil, wire.Errorf(wire.CodeBadParams, "%s", describe(err))
	}
	return values, nil
}

// decode decodes JSON and keeps numbers as they were written.
func decode(text []byte, into any) error {
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	return d.Decode(into)
}

// oneLine puts the library's report on a schema, a list below a heading, on one line.
func oneLine(err error) string {
	heading, list, ok := strings.Cut(err.Error(), "\n")
	if !ok {
		return clip(heading)
	}
	var all []string
	for line := range strings.Lines(list) {
		all = append(all, strings.TrimLeft(strings.TrimSpace(line), "- "))
	}
	return clip(strings.Join(all, "; "))
}
