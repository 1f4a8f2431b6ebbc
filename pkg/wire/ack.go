package wire

import (
	"bytes"
	"math"
	"strconv"
)

// decodeAck reads an acknowledgement as clients write it: fields in order, no white space, no escapes. There are more of
// these than of all else, and encoding/json takes nine times as long for one (BenchmarkDecodeAck). It returns nil if p is written in
// another way, is something else, or is refused.
func decodeAck(p []byte) *Ack {
	t := text{p, true}
	var m Ack
	t.skip(`{"type":"ack","tasks":[`)
	for {
		var at Position
		t.skip(`{"task_id":"`)
		at.Task = TaskID(t.until(`"`))
		t.skip(`,"attempt":`)
		at.Attempt = int(t.number())
		t.skip(`,"run_id":"`)
		at.Run = RunID(t.until(`"`))
		t.skip(`,"next":`)
		at.Next = t.number()
		t.skip(`}`)
		m.Tasks = append(m.Tasks, at)
		if !t.ok || !bytes.HasPrefix(t.rest, []byte(",")) {
			break
		}
		t.skip(`,`)
	}
	t.skip(`]}`)
	if !t.ok || len(t.rest) > 0 || m.check() != nil { // IDs that pass hold nothing that JSON escapes
		return nil
	}
	return &m
}

// text is read from the front, until something else is there than is wanted.
type text struct {
	rest []byte
	ok   bool
}

func (t *text) skip(want string) {
	t.ok = t.ok && len(t.rest) >= len(want) && string(t.rest[:len(want)]) == want
	if t.ok {
		t.rest = t.rest[len(want):]
	}
}

// until reads up to end, and end.
func (t *text) until(end string) string {
	before, after, found := bytes.Cut(t.rest, []byte(end))
	if t.ok = t.ok && found; !t.ok {
		return ""
	}
	t.rest = after
	return string(before)
}

// number reads digits, without more zeros in front than JSON has.
func (t *text) number() int64 {
	n := 0
	for n < len(t.rest) && '0' <= t.rest[n] && t.rest[n] <= '9' {
		n++
	}
	v, err := strconv.ParseInt(string(t.rest[:n]), 10, 64)
	if t.ok = t.ok && err == nil && v <= math.MaxInt && (n == 1 || t.rest[0] != '0'); !t.ok {
		return 0
	}
	t.rest = t.rest[n:]
	return v
}
