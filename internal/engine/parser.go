package engine

import (
	"encoding/binary"
	"fmt"
	"unicode/utf8"

	"github.com/gobwas/ws"
)

// eventKind is what a parser found.
type eventKind uint8

const (
	evNone      eventKind = iota // the bytes are used up
	evMessage                    // op and payload: one whole text or binary message
	evPing                       // payload
	evPong                       // payload
	evClose                      // code (1005 if the frame is empty); nothing may follow
	evViolation                  // code to close with, err; nothing may follow
)

type event struct {
	kind    eventKind
	op      ws.OpCode
	payload []byte // valid until the next call of next
	code    ws.StatusCode
	err     error // wraps ErrProtocol or ErrTooLarge
}

// parser turns the bytes of a client, in pieces of any size, into events. It is pure: no socket,
// clock or lock. It judges each byte as early as it can and keeps no more than what arrived: a
// length that is only announced costs nothing. The events do not depend on how the bytes are cut
// into pieces. The zero value with its limits set is ready.
type parser struct {
	maxMessage   int // bytes of one message, and so of one frame
	maxFragments int // frames of one message

	head    [maxClientHeader]byte // of the frame being read
	headLen uint8
	inBody  bool // the header is complete, its body is not
	frame   header
	pos     int // bytes of the body so far
	control []byte

	op     ws.OpCode // of the message being read; OpContinuation: none
	frames int       // of that message so far
	msg    []byte
	utf    utf8Check

	whole uint64 // how often the bytes ended on a frame with no message open
	taken uint64 // frames read to their end
}

// next reads b up to the first event and returns it with the number of bytes it took. It unmasks
// in place: payload may be a part of b.
func (p *parser) next(b []byte) (ev event, n int) {
	for {
		if !p.inBody {
			used, bad := p.readHead(b[n:])
			n += used
			if bad.kind != evNone {
				return bad, n
			}
			if !p.inBody {
				return event{}, n
			}
		}
		size := int(p.frame.size) - p.pos
		part := b[n:min(n+size, len(b))]
		ws.Cipher(part, p.frame.mask, p.pos)
		n += len(part)
		p.pos += len(part)
		if ev := p.body(part); ev.kind != evNone {
			return ev, n
		}
		if p.inBody {
			return event{}, n
		}
	}
}

// held is the memory in bytes that an unfinished message takes.
func (p *parser) held() int { return cap(p.msg) }

// busy says whether a frame or a fragmented message is begun and not finished.
func (p *parser) busy() bool { return p.headLen > 0 || p.op != ws.OpContinuation }

// readHead gathers the header of the next frame; inBody says whether it is complete. bad is a
// violation or nothing.
func (p *parser) readHead(b []byte) (n int, bad event) {
	need := 2
	if p.headLen >= 2 {
		need = headerLen(p.head[:])
	}
	for {
		used := copy(p.head[p.headLen:need], b[n:])
		p.headLen += uint8(used)
		n += used
		if int(p.headLen) < need {
			return n, event{}
		}
		if need > 2 {
			break
		}
		if err := checkStart(p.head[0], p.head[1]); err != nil {
			return n, violation(ws.StatusProtocolError, err)
		}
		need = headerLen(p.head[:])
	}
	h, err := readHeader(p.head[:need])
	if err != nil {
		return n, violation(ws.StatusProtocolError, err)
	}
	p.frame, p.pos, p.inBody = h, 0, true
	if h.op.IsControl() {
		return n, event{}
	}
	return n, p.beginData(h)
}

// beginData judges the place of a data frame in its message, and its size before a byte of it
// is kept.
func (p *parser) beginData(h header) event {
	open := p.op != ws.OpContinuation
	switch {
	case open && h.op != ws.OpContinuation:
		return violation(ws.StatusProtocolError,
			fmt.Errorf("%w: a new message begins inside a fragmented one", ErrProtocol))
	case !open && h.op == ws.OpContinuation:
		return violation(ws.StatusProtocolError,
			fmt.Errorf("%w: a continuation frame with nothing to continue", ErrProtocol))
	case h.size > uint64(p.maxMessage-len(p.msg)):
		return violation(ws.StatusMessageTooBig,
			fmt.Errorf("%w of %d bytes", ErrTooLarge, p.maxMessage))
	case p.frames >= p.maxFragments:
		return violation(ws.StatusMessageTooBig,
			fmt.Errorf("%w of %d fragments", ErrTooLarge, p.maxFragments))
	}
	if !open {
		p.op = h.op
	}
	p.frames++
	return event{}
}

// body takes the next unmasked part of a frame's body.
func (p *parser) body(part []byte) event {
	last := p.pos == int(p.frame.size)
	if p.frame.op.IsControl() {
		if !last || len(p.control) > 0 {
			p.control = append(p.control, part...)
			part = p.control
		}
		if !last {
			return event{}
		}
		p.control = nil
		p.endFrame()
		return controlEvent(p.frame.op, part)
	}
	if p.op == ws.OpText && !p.utf.add(part) {
		return notUTF8
	}
	if !last || !p.frame.fin || len(p.msg) > 0 {
		p.keep(part)
		part = p.msg
	}
	if !last {
		return event{}
	}
	if !p.frame.fin {
		p.endFrame()
		return event{}
	}
	ev := event{kind: evMessage, op: p.op, payload: part}
	if p.op == ws.OpText && !p.utf.done() {
		return notUTF8
	}
	p.op, p.frames, p.msg = ws.OpContinuation, 0, nil
	p.endFrame()
	return ev
}

// keep adds to the unfinished message. Its memory at most doubles with what arrived and never
// exceeds maxMessage.
func (p *parser) keep(part []byte) {
	if need := len(p.msg) + len(part); need > cap(p.msg) {
		grown := make([]byte, len(p.msg), min(max(need, 2*cap(p.msg)), p.maxMessage))
		copy(grown, p.msg)
		p.msg = grown
	}
	p.msg = append(p.msg, part...)
}

func (p *parser) endFrame() {
	p.headLen, p.inBody = 0, false
	p.taken++
	if p.op == ws.OpContinuation {
		p.whole++
	}
}

func violation(code ws.StatusCode, err error) event {
	return event{kind: evViolation, code: code, err: err}
}

var notUTF8 = violation(ws.StatusInvalidFramePayloadData, fmt.Errorf("%w: a text is not UTF-8", ErrProtocol))

func controlEvent(op ws.OpCode, payload []byte) event {
	switch op {
	case ws.OpPing:
		return event{kind: evPing, op: op, payload: payload}
	case ws.OpPong:
		return event{kind: evPong, op: op, payload: payload}
	}
	if len(payload) == 0 {
		return event{kind: evClose, op: op, code: ws.StatusNoStatusRcvd}
	}
	if len(payload) == 1 {
		return violation(ws.StatusProtocolError, fmt.Errorf("%w: a close frame with one byte", ErrProtocol))
	}
	code := ws.StatusCode(binary.BigEndian.Uint16(payload))
	if !codeOnWire(code) {
		return violation(ws.StatusProtocolError, fmt.Errorf("%w: close code %d", ErrProtocol, code))
	}
	if !utf8.Valid(payload[2:]) {
		return notUTF8
	}
	return event{kind: evClose, op: op, code: code, payload: payload[2:]}
}
