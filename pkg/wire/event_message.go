package wire

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/wscluster/wscluster/pkg/socketmeta"
)

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
)

// numbers are the headers that come all together or not at all.
var numbers = [...]string{headerAttempt, headerRun, headerSeq, headerPrev, headerDurable, headerLast}

// Headers returns what travels beside e's body: string, int64 and bool values. An event without
// numbers (Seq 0) has none here either.
func (e *Event) Headers() map[string]any {
	h := map[string]any{
		headerClient: e.Client.String(),
		headerEpoch:  int64(e.Epoch),
		headerHome:   string(e.Home),
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

// DecodeEvent reads an event as it crosses the broker: the message's type, correlation ID,
// headers and body. Body is kept, not copied. After an error the message belongs in the dead
// queue, with reason bad_body.
//
// A publisher that is not ours may leave out all of the numbers. Such a plain event comes out
// with Attempt 0, no Run and Seq 0, durable, and Last if it is a result or an error; whoever
// sends it on numbers it first. It may name its client and task in its body (client_id, task_id)
// instead of the header and the correlation ID, and its type there too; without any it is a result.
// An event with only some of the numbers is refused.
func DecodeEvent(typ, correlation string, headers map[string]any, body []byte) (Event, error) {
	if err := checkObject(body, MaxEvent); err != nil {
		return Event{}, fmt.Errorf("event body: %w", err)
	}
	e := Event{Task: TaskID(correlation), Type: EventType(typ), Body: body}
	h := headerReader{headers: headers}
	client := h.text(headerClient)
	e.Epoch = socketmeta.Epoch(h.integer(headerEpoch))
	e.Home = socketmeta.ServerID(h.text(headerHome))
	e.Attempt = int(h.integer(headerAttempt))
	e.Run = RunID(h.text(headerRun))
	e.Seq = h.integer(headerSeq)
	e.Prev = h.integer(headerPrev)
	e.Durable = h.flag(headerDurable)
	e.Last = h.flag(headerLast)
	if h.err != nil {
		return Event{}, h.err
	}

	present, missing := 0, ""
	for _, name := range numbers {
		if _, ok := headers[name]; ok {
			present++
		} else {
			missing = name
		}
	}
	plain := present == 0
	if !plain && missing != "" {
		return Event{}, fmt.Errorf("event has only some of its numbers: header %s is missing", missing)
	}
	if client == "" || correlation == "" || plain && typ == "" {
		var b struct {
			Client string    `json:"client_id"`
			Task   TaskID    `json:"task_id"`
			Type   EventType `json:"type"`
		}
		if err := json.Unmarshal(body, &b); err != nil {
			return Event{}, fmt.Errorf("event body: %s", describe(err))
		}
		if client == "" {
			client = b.Client
		}
		if e.Task == "" {
			e.Task = b.Task
		}
		if e.Type == "" && plain {
			e.Type = b.Type
		}
	}
	if plain {
		if e.Type == "" {
			e.Type = EventResult
		}
		e.Durable, e.Last = true, e.Type.final()
	}

	var err error
	if e.Client, err = socketmeta.ParseClientID(client); err != nil {
		return Event{}, fmt.Errorf("event client_id, in the header or the body: %w", err)
	}
	if e.Home != "" {
		if _, err := socketmeta.ParseServerID(string(e.Home)); err != nil {
			return Event{}, fmt.Errorf("event header home: %w", err)
		}
	}
	if plain {
		err = e.checkName()
	} else {
		err = e.check()
	}
	if err != nil {
		return Event{}, fmt.Errorf("event: %w", err)
	}
	return e, nil
}

// final reports whether an event of type t ends its task.
func (t EventType) final() bool { return t == EventResult || t == EventError }

// checkName says what is wrong with an event's task or type.
func (e *Event) checkName() error {
	if _, err := ParseTaskID(string(e.Task)); err != nil {
		return fmt.Errorf("task_id: %w", err)
	}
	if !e.Type.Known() {
		return fmt.Errorf("type %.64q is not one of started, step, progress, log, artifact, result, error", e.Type)
	}
	return nil
}

// check says what is wrong with a numbered event. Run is empty only in attempt 0: a plain event
// that a worker numbered.
func (e *Event) check() error {
	if err := e.checkName(); err != nil {
		return err
	}
	if e.Run != "" || e.Attempt != 0 {
		if _, err := ParseRunID(string(e.Run)); err != nil {
			return fmt.Errorf("run_id: %w", err)
		}
	}
	switch {
	case e.Attempt < 0 || e.Attempt > MaxNumber:
		return fmt.Errorf("attempt %d is out of range", e.Attempt)
	case e.Seq < 1 || e.Seq > MaxNumber:
		return fmt.Errorf("seq %d is out of range: the first event of a run is 1", e.Seq)
	case e.Prev < 0 || e.Prev >= e.Seq:
		return fmt.Errorf("prev %d must be 0 or an earlier seq than %d", e.Prev, e.Seq)
	case e.Last != e.Type.final():
		return fmt.Errorf("last is %t in an event of type %s", e.Last, e.Type)
	case e.Last && !e.Durable:
		return errors.New("the last event must be durable")
	case !isObject(e.Body):
		return errors.New("body must be an object")
	case len(e.Body) > MaxEvent:
		return fmt.Errorf("body: %w: it has %d bytes and may have %d", ErrTooLarge, len(e.Body), MaxEvent)
	}
	return nil
}

// Body returns the body of an event: v's JSON object with client_id put first, so that a reader
// without our headers knows whom it is for. It wraps ErrTooLarge over MaxEvent, and fails if v is
// no object or has a client_id of its own.
func Body(client socketmeta.ClientID, v any) (json.RawMessage, error) {
	object, err := marshal(v)
	if err != nil {
		return nil, fmt.Errorf("event body: %w", err)
	}
	if !isObject(object) {
		return nil, fmt.Errorf("event body: %T is not an object in JSON", v)
	}
	if bytes.Contains(object, []byte(`"`+headerClient+`"`)) {
		var top map[string]json.RawMessage
		if err := json.Unmarshal(object, &top); err != nil {
			return nil, fmt.Errorf("event body: %w", err)
		}
		if _, ok := top[headerClient]; ok {
			return nil, fmt.Errorf("event body: %T has a client_id of its own", v)
		}
	}
	body := putFirst(headerClient, client.String(), object)
	if len(body) > MaxEvent {
		return nil, fmt.Errorf("event body: %w: it has %d bytes and may have %d", ErrTooLarge, len(body), MaxEvent)
	}
	return body, nil
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
