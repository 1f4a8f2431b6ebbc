package engine

import (
	"encoding/binary"
	"fmt"

	"github.com/gobwas/ws"
)

const (
	finBit  = 0x80
	rsvBits = 0x70
	opBits  = 0x0f
	maskBit = 0x80

	maxControl      = 125       // bytes of a control frame's payload
	maxClientHeader = 2 + 8 + 4 // longest header of a masked frame
	maxWireLen      = 1<<63 - 1 // RFC 6455: the most significant bit is 0
)

// header is the head of one frame from a client.
type header struct {
	fin  bool
	op   ws.OpCode
	size uint64 // payload bytes announced
	mask [4]byte
}

// headerLen is the length in bytes of the header that begins with b, once b has two bytes.
func headerLen(b []byte) int {
	switch b[1] &^ maskBit {
	case 126:
		return 2 + 2 + 4
	case 127:
		return 2 + 8 + 4
	default:
		return 2 + 4
	}
}

// checkStart judges the first two bytes of a frame by themselves: what it returns nil for may
// still be wrong in its length or its place. The error wraps ErrProtocol.
func checkStart(b0, b1 byte) error {
	op := ws.OpCode(b0 & opBits)
	switch {
	case b0&rsvBits != 0:
		return fmt.Errorf("%w: reserved bits %03b are set and no extension was agreed", ErrProtocol, b0&rsvBits>>4)
	case op.IsReserved():
		return fmt.Errorf("%w: opcode %#x is reserved", ErrProtocol, op)
	case b1&maskBit == 0:
		return fmt.Errorf("%w: a client's frame must be masked", ErrProtocol)
	case op.IsControl() && b0&finBit == 0:
		return fmt.Errorf("%w: a control frame must not be fragmented", ErrProtocol)
	case op.IsControl() && b1&^maskBit > maxControl:
		return fmt.Errorf("%w: a control frame carries at most %d bytes", ErrProtocol, maxControl)
	}
	return nil
}

// readHeader decodes a whole header of headerLen bytes which passed checkStart.
// The error wraps ErrProtocol.
func readHeader(b []byte) (h header, err error) {
	h.fin = b[0]&finBit != 0
	h.op = ws.OpCode(b[0] & opBits)
	copy(h.mask[:], b[len(b)-4:])
	switch n := b[1] &^ maskBit; n {
	case 126:
		h.size = uint64(binary.BigEndian.Uint16(b[2:]))
		if h.size <= maxControl {
			err = fmt.Errorf("%w: length %d in 16 bits is not the shortest form", ErrProtocol, h.size)
		}
	case 127:
		h.size = binary.BigEndian.Uint64(b[2:])
		switch {
		case h.size > maxWireLen:
			err = fmt.Errorf("%w: the top bit of a 64-bit length is set", ErrProtocol)
		case h.size <= 0xffff:
			err = fmt.Errorf("%w: length %d in 64 bits is not the shortest form", ErrProtocol, h.size)
		}
	default:
		h.size = uint64(n)
	}
	return h, err
}
