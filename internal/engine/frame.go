package engine

import (
	"bytes"
	"encoding/binary"
	"sync/atomic"

	"github.com/gobwas/ws"
)

// Frame is one message encoded once for the wire and shared by all its receivers. It never
// changes; it may be sent any number of times, from any goroutine.
type Frame struct {
	wire   []byte                 // header and payload, unmasked as a server sends it
	stream atomic.Pointer[[]byte] // the same as an event of a stream, once one has asked for it
}

// NewText encodes one whole text message. The payload, which must be UTF-8, is copied.
func NewText(payload []byte) *Frame { return newFrame(ws.OpText, payload) }

// TextBuffer is an empty buffer for the payload of one text message, with room for n bytes and for what goes before them.
// Append to it, and give it to TextOf: the message is then not copied.
func TextBuffer(n int) []byte { return make([]byte, maxServerHeader, maxServerHeader+n) }

// TextOf is NewText of what was appended to a TextBuffer, which belongs to the frame from now on.
func TextOf(b []byte) *Frame {
	var head [maxServerHeader]byte
	h := appendHeader(head[:0], ws.OpText, len(b)-maxServerHeader)
	at := maxServerHeader - len(h)
	copy(b[at:], h)
	return &Frame{wire: b[at:]}
}

// Len is what the frame takes of a WebSocket's queue and of the wire, in bytes: the payload and its
// header. An event stream's is a few bytes longer.
func (f *Frame) Len() int { return len(f.wire) }

// Payload is the message without its WebSocket header. It must not be changed.
func (f *Frame) Payload() []byte {
	switch head := f.wire[1]; head {
	case 126:
		return f.wire[4:]
	case 127:
		return f.wire[10:]
	}
	return f.wire[2:]
}

// event is the frame as an event of a stream: one line of data. It is made once, for all streams. A
// line break in the payload would end that line; in JSON it can only stand between tokens, where a
// space says the same.
func (f *Frame) event() []byte {
	if b := f.stream.Load(); b != nil {
		return *b
	}
	const before, after = "data: ", "\n\n"
	payload := f.Payload()
	b := make([]byte, 0, len(before)+len(payload)+len(after))
	b = append(append(b, before...), payload...)
	for _, line := range []byte("\r\n") {
		for i := bytes.IndexByte(b, line); i >= 0; i = bytes.IndexByte(b, line) {
			b[i] = ' '
		}
	}
	b = append(b, after...)
	if !f.stream.CompareAndSwap(nil, &b) {
		return *f.stream.Load()
	}
	return b
}

func newFrame(op ws.OpCode, payload []byte) *Frame {
	wire := make([]byte, 0, maxServerHeader+len(payload))
	return &Frame{wire: append(appendHeader(wire, op, len(payload)), payload...)}
}

// newClose encodes a close frame; the reason is cut to what a control frame can carry. A code
// that may not stand on the wire (1005, 1006 ...) gives the empty close frame.
func newClose(code ws.StatusCode, reason string) *Frame {
	if !codeOnWire(code) {
		return newFrame(ws.OpClose, nil)
	}
	body := binary.BigEndian.AppendUint16(make([]byte, 0, maxControl), uint16(code))
	return newFrame(ws.OpClose, append(body, cutUTF8(reason, maxControl-2)...))
}

// maxServerHeader is the longest header of an unmasked frame.
const maxServerHeader = 10

// appendHeader appends the header of a final, unmasked frame with a payload of n bytes.
func appendHeader(b []byte, op ws.OpCode, n int) []byte {
	b = append(b, finBit|byte(op))
	switch {
	case n <= maxControl:
		return append(b, byte(n))
	case n <= 0xffff:
		return binary.BigEndian.AppendUint16(append(b, 126), uint16(n))
	default:
		return binary.BigEndian.AppendUint64(append(b, 127), uint64(n))
	}
}
