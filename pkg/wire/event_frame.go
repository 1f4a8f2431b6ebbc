package wire

import (
	"encoding/json"
	"fmt"
	"strconv"
)

// eventFrameRoom is more than an event frame has beside its body, in bytes.
const eventFrameRoom = 320

// AppendEventFrame appends e as a client sees it to dst; the body goes in as it is. Nothing is
// checked or escaped: e must come from DecodeEvent or hold nothing that its check would refuse.
// It does not allocate where dst has room for the body and 320 bytes.
func AppendEventFrame(dst []byte, e *Event) []byte {
	dst = append(dst, `{"type":"event","task_id":"`...)
	dst = append(dst, e.Task...)
	dst = append(dst, `","attempt":`...)
	dst = strconv.AppendInt(dst, int64(e.Attempt), 10)
	dst = append(dst, `,"run_id":"`...)
	dst = append(dst, e.Run...)
	dst = append(dst, `","seq":`...)
	dst = strconv.AppendInt(dst, e.Seq, 10)
	dst = append(dst, `,"prev":`...)
	dst = strconv.AppendInt(dst, e.Prev, 10)
	dst = append(dst, `,"event":"`...)
	dst = append(dst, e.Type...)
	dst = append(dst, `","durable":`...)
	dst = strconv.AppendBool(dst, e.Durable)
	dst = append(dst, `,"last":`...)
	dst = strconv.AppendBool(dst, e.Last)
	dst = append(dst, `,"body":`...)
	dst = append(dst, e.Body...)
	return append(dst, '}')
}

// decodeEventFrame reads what AppendEventFrame writes.
func decodeEventFrame(p []byte) (ServerMessage, error) {
	var f struct {
		Task    TaskID          `json:"task_id"`
		Attempt int             `json:"attempt"`
		Run     RunID           `json:"run_id"`
		Seq     int64           `json:"seq"`
		Prev    int64           `json:"prev"`
		Type    EventType       `json:"event"`
		Durable bool            `json:"durable"`
		Last    bool            `json:"last"`
		Body    json.RawMessage `json:"body"`
	}
	if err := json.Unmarshal(p, &f); err != nil {
		return nil, fmt.Errorf("event: %s", describe(err))
	}
	e := &Event{
		Task: f.Task, Attempt: f.Attempt, Run: f.Run, Seq: f.Seq, Prev: f.Prev,
		Type: f.Type, Durable: f.Durable, Last: f.Last, Body: f.Body,
	}
	if err := e.check(); err != nil {
		return nil, fmt.Errorf("event: %w", err)
	}
	return e, nil
}
