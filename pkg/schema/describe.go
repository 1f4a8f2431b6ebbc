package schema

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/santhosh-tekuri/jsonschema/v6/kind"
)

const (
	maxFaults = 3   // that one message tells
	maxText   = 200 // bytes of each of them, and of each name in it
)

// describe says for people what is wrong with parameters: the first few faults, each with its place.
func describe(err error) string {
	invalid, ok := errors.AsType[*jsonschema.ValidationError](err)
	if !ok {
		return clip(err.Error())
	}
	var faults []string
	more := 0
	var walk func(e *jsonschema.ValidationError)
	walk = func(e *jsonschema.ValidationError) {
		_, whole := e.ErrorKind.(*kind.PropertyNames) // its causes do not say which name
		for _, cause := range e.Causes {
			if !whole {
				walk(cause)
			}
		}
		switch {
		case len(e.Causes) > 0 && !whole:
		case len(faults) < maxFaults:
			faults = append(faults, clip(fault(e)))
		default:
			more++
		}
	}
	walk(invalid)
	if more > 0 {
		faults = append(faults, fmt.Sprintf("and %d more", more))
	}
	return strings.Join(faults, "; ")
}

// fault is one of them, without the value that is wrong: it may be long, and who sent it has it.
func fault(e *jsonschema.ValidationError) string {
	at := place(e.InstanceLocation)
	switch k := e.ErrorKind.(type) {
	case *kind.Required:
		return named(e.InstanceLocation, k.Missing) + " is missing"
	case *kind.AdditionalProperties:
		return named(e.InstanceLocation, k.Properties) + " is not a parameter of this kind"
	case *kind.Type:
		return fmt.Sprintf("%s must be %s, not %s", at, strings.Join(k.Want, " or "), k.Got)
	case *kind.Pattern:
		return fmt.Sprintf("%s does not match %s", at, k.Want)
	case *kind.MaxLength:
		return fmt.Sprintf("%s has %d characters and may have %d", at, k.Got, k.Want)
	case *kind.MinLength:
		return fmt.Sprintf("%s has %d characters and must have %d", at, k.Got, k.Want)
	case *kind.MaxItems:
		return fmt.Sprintf("%s has %d items and may have %d", at, k.Got, k.Want)
	case *kind.MinItems:
		return fmt.Sprintf("%s has %d items and must have %d", at, k.Got, k.Want)
	case *kind.Format:
		return fmt.Sprintf("%s is no %s", at, k.Want)
	case *kind.PropertyNames:
		return clip(k.Property) + " is not a name that is allowed here" // its place may be another's: the library uses it again
	}
	// The others tell what is wanted: "at '/x': value must be one of ...".
	_, text, _ := strings.Cut((&jsonschema.ValidationError{ErrorKind: e.ErrorKind}).Error(), ": ")
	return at + ": " + text
}

// place names a value: repo, packages[0], env.PATH.
func place(location []string) string {
	var b strings.Builder
	for i, token := range location {
		switch _, err := strconv.ParseUint(token, 10, 32); {
		case i > 0 && err == nil:
			b.WriteString("[" + token + "]")
		case i > 0:
			b.WriteString("." + clip(token))
		default:
			b.WriteString(clip(token))
		}
	}
	if b.Len() == 0 {
		return "the object"
	}
	return b.String()
}

// named names the first of some members of a value, of which there is one, and says how many others there
// are.
func named(location, members []string) string {
	first := place(append(slices.Clip(location), slices.Min(members)))
	if n := len(members) - 1; n > 0 {
		first += fmt.Sprintf(" (and %d more)", n)
	}
	return first
}

// clip makes text valid UTF-8 of about maxText bytes.
func clip(text string) string {
	if len(text) > maxText {
		text = text[:maxText] + " ..."
	}
	return strings.ToValidUTF8(text, "")
}
