package wire

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"unicode/utf8"
)

// MaxNumber is the largest integer in any message: the largest that every JSON reader, JavaScript
// too, keeps exact (RFC 8259 section 6).
const MaxNumber = 1<<53 - 1

// marshal is json.Marshal without HTML escapes: what is sent is not put into a page as it is.
func marshal(v any) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

// putFirst puts the member name with the string value, neither in need of escapes, in front of
// the members of a marshalled object.
func putFirst(name, value string, object []byte) []byte {
	b := make([]byte, 0, len(name)+len(value)+len(`{"":"",`)+len(object))
	b = append(b, `{"`...)
	b = append(b, name...)
	b = append(b, `":"`...)
	b = append(b, value...)
	b = append(b, '"')
	if len(object) > len("{}") {
		b = append(b, ',')
	}
	return append(b, object[1:]...)
}

// checkObject says what is wrong with a body that must be one JSON object of at most limit bytes.
func checkObject(body []byte, limit int) error {
	switch {
	case len(body) > limit:
		return fmt.Errorf("%w: it has %d bytes and may have %d", ErrTooLarge, len(body), limit)
	case !utf8.Valid(body):
		return errors.New("it is not UTF-8")
	case !json.Valid(body):
		return errors.New("it is not JSON")
	case !isObject(body):
		return errors.New("it is not a JSON object")
	}
	return nil
}

// isObject reports whether valid JSON is an object.
func isObject(valid []byte) bool {
	return bytes.HasPrefix(bytes.TrimLeft(valid, " \t\r\n"), []byte("{"))
}

// describe puts a decoder's error into words for somebody who does not know Go.
func describe(err error) string {
	if e, ok := errors.AsType[*json.SyntaxError](err); ok {
		return fmt.Sprintf("not JSON: %v, at byte %d", e, e.Offset)
	}
	e, ok := errors.AsType[*json.UnmarshalTypeError](err)
	if !ok {
		return err.Error()
	}
	want := "an object"
	switch e.Type.Kind() {
	case reflect.String, reflect.Array: // the one array is a client ID
		want = "a string"
	case reflect.Bool:
		want = "true or false"
	case reflect.Slice:
		want = "an array"
	case reflect.Int, reflect.Int64, reflect.Uint32:
		want = "an integer"
	}
	if e.Field == "" {
		return "the message must be " + want
	}
	return e.Field + " must be " + want
}
