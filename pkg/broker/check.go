package broker

import (
	"fmt"
	"maps"
	"slices"
)

// Check reports why Publish refuses m before sending it: ErrTooLarge if its body is over
// MaxMessage, or an error naming the header that is neither string, int64 nor bool.
func (m Message) Check() error {
	if len(m.Body) > MaxMessage {
		return fmt.Errorf("%w: message %q has %d bytes, at most %d fit", ErrTooLarge, m.ID, len(m.Body), MaxMessage)
	}
	for _, name := range slices.Sorted(maps.Keys(m.Headers)) {
		switch v := m.Headers[name].(type) {
		case string, int64, bool:
		default:
			return fmt.Errorf("message %q: header %q is a %T: make it a string, int64 or bool", m.ID, name, v)
		}
	}
	return nil
}
