package wire

import "fmt"

// The AMQP headers of an event.
const (
	headerClient  = "client_id"
	headerAttempt = "attempt"
	headerRun     = "run_id"
	headerSeq     = "seq"
	headerPrev    = "prev"
	headerDurable = "durable"
	headerLast    = "last"
	headerEpoch   = "epoch"
	headerHome    = "home"
	headerHops    = "hops"
)

// numbers are the headers that come all together or not at all.
var numbers = [...]string{headerAttempt, headerRun, headerSeq, headerPrev, headerDurable, headerLast}

// Headers returns what travels beside e's body: string, int64 and bool values. An event without
// numbers (Seq 0) has none here either.
func (e *Event) Headers() map[string]any {
	h := make(map[string]any, len(numbers)+4) // at once: a map that grows is made twice
	h[headerClient] = e.Client.String()
	h[headerEpoch] = int64(e.Epoch)
	h[headerHome] = string(e.Home)
	if e.Hops != 0 {
		h[headerHops] = int64(e.Hops)
	}
	if e.Seq != 0 {
		h[headerAttempt] = int64(e.Attempt)
		h[headerRun] = string(e.Run)
		h[headerSeq] = e.Seq
		h[headerPrev] = e.Prev
		h[headerDurable] = e.Durable
		h[headerLast] = e.Last
	}
	return h
}

// headerReader reads typed headers, where AMQP libraries differ in the width of integers. A
// missing header is the zero value. The first wrong type stays in err.
type headerReader struct {
	headers map[string]any
	err     error
}

func (h *headerReader) text(name string) string {
	v, ok := h.headers[name]
	s, isText := v.(string)
	if ok && !isText {
		h.fail(name, "a string", v)
	}
	return s
}

func (h *headerReader) flag(name string) bool {
	v, ok := h.headers[name]
	b, isFlag := v.(bool)
	if ok && !isFlag {
		h.fail(name, "a boolean", v)
	}
	return b
}

func (h *headerReader) integer(name string) int64 {
	switch v := h.headers[name].(type) {
	case int64:
		return v
	case int32:
		return int64(v)
	case int16:
		return int64(v)
	case int8:
		return int64(v)
	case int:
		return int64(v)
	case uint8:
		return int64(v)
	case uint16:
		return int64(v)
	case uint32:
		return int64(v)
	case uint64:
		if v <= MaxNumber {
			return int64(v)
		}
		h.fail(name, "an integer of at most 53 bits", v)
	default:
		if _, ok := h.headers[name]; ok {
			h.fail(name, "an integer", v)
		}
	}
	return 0
}

func (h *headerReader) fail(name, want string, v any) {
	if h.err == nil {
		h.err = fmt.Errorf("event header %s must be %s, not %T", name, want, v)
	}
}
