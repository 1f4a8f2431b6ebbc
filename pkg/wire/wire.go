// Package wire owns every message that crosses a process: its shape, its limits and its codec.
//
// Four kinds of message live here: what clients send (ClientMessage), what servers send
// (ServerMessage), what travels through the broker (Task, Event, LedgerRecord), and what workers and runners say to each
// other (ControlMessage). All are JSON in snake_case, but for what holds the events of a batch together (batch.go); times
// are RFC 3339 UTC with milliseconds; durations end in _ms and sizes in _bytes; unknown fields are ignored, so that either
// side may be newer.
// docs/PROTOCOL.md tells the same to people; testdata/ holds one golden file per message, read by
// the Go and the TypeScript tests alike.
//
// Nothing here blocks, logs or keeps state. Every decoder is safe on strangers' bytes.
package wire

import (
	"errors"
	"time"
)

// Subprotocol is the WebSocket subprotocol of this version (RFC 6455 section 1.9).
const Subprotocol = "wscluster.v1.json"

// Limits of one message. What is over a limit is refused with a code, and nothing else is lost.
const (
	MaxClientFrame = 64 << 10  // bytes of a frame that a client sends
	MaxServerFrame = 260 << 10 // bytes of a frame that a server sends: an event, or a socket_meta with all its tasks
	MaxEvent       = 256 << 10 // bytes of an event's body
	MaxBatch       = 64        // events in one batch
	MaxBatchBytes  = 64 << 10  // bytes of a batch: what does not fit into one goes alone
	MaxTask        = 128 << 10 // bytes of a task's body in the broker
	MaxPositions   = 200       // positions in one hello or ack: the open tasks and as many ended ones
	MaxOpenTasks   = 100       // tasks of one session that have not ended
	MaxID          = 64        // bytes of a task ID, of a kind's name and of a request ID
	MaxToken       = 4 << 10   // bytes of any token in a hello
	MaxClaims      = 1000      // clients that one control message names
	MaxRuns        = 100       // runs in one RunsFound
	MaxLogChunk    = 128 << 10 // bytes that a ReadLog asks for
	MaxControl     = 256 << 10 // bytes of a control message
	MaxSchema      = 64 << 10  // bytes of the JSON Schema of one kind's parameters
	MaxChannel     = 128       // bytes of a channel's name, and of a post's key
	MaxPost        = 64 << 10  // bytes of the body of a post, and of what a client is asked

	MaxSubscriptions = 100     // channels that one connection is subscribed to
	MaxKept          = 100     // posts of one channel in a snapshot
	MaxAskedChannels = 100     // channels that one FindChannels asks for
	MaxAskID         = 128     // bytes of the ID of a Request
	MaxKey           = 255     // bytes of an idempotency key
	MaxReason        = 1 << 10 // bytes of a text for people that a client gives
)

// ErrTooLarge is wrapped by every refusal of a message for its size.
var ErrTooLarge = errors.New("message is too large")

// Time is a moment as it crosses the wire: RFC 3339, UTC, milliseconds.
type Time struct{ time.Time }

const timeLayout = "2006-01-02T15:04:05.000Z"

// MarshalJSON writes t as a string in UTC with exactly three decimals.
func (t Time) MarshalJSON() ([]byte, error) {
	return t.UTC().AppendFormat(make([]byte, 0, len(timeLayout)+2), `"`+timeLayout+`"`), nil
}
