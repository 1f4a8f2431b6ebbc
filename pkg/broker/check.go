package broker

import "fmt"

// Check reports why Publish refuses m before sending it: ErrTooLarge if its body is over
// MaxMessage, or an error naming a header that is neither string, int64 nor bool.
func (m Message) Check() error {
	if len(m.Body) > MaxMessage {
		return fmt.Errorf("%w: message %q has %d bytes, at most %d fit", ErrTooLarge, m.ID, len(m.Body), MaxMessage)
	}
	for name, v := range m.Headers {
		switch v.(type) {
		case string, int64, bool:
		default:
			return fmt.Errorf("message %q: header %q is a %T: make it a string, int64 or bool", m.ID, name, v)
		}
	}
	return nil
}
