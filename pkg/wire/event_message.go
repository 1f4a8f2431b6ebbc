package wire

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/wscluster/wscluster/pkg/socketmeta"
)

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
	e.Hops = int(h.integer(headerHops))
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
	if e.Epoch < 0 || e.Epoch > MaxNumber {
		return Event{}, fmt.Errorf("event header epoch: %d is out of range", e.Epoch)
	}
	if e.Hops < 0 || e.Hops > MaxNumber {
		return Event{}, fmt.Errorf("event header hops: %d is out of range", e.Hops)
	}
	if e.Home != "" {
		if _, err := socketmeta.ParseServerID(string(e.Home)); err != nil {
			return Event{}, fmt.Errorf("event header home: %w", err)
		}
	}
	switch {
	case !plain:
		err = e.check()
	case e.Type == EventGap:
		err = errors.New("a gap must have numbers: it stands in for others")
	default:
		err = e.checkName()
	}
	if err != nil {
		return Event{}, fmt.Errorf("event: %w", err)
	}
	return e, nil
}
